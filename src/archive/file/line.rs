//! One row as one line: the bytes that `JSON.stringify` gives, in the predecessor's order of keys.

use std::borrow::Cow;

use rusqlite::Row;
use rusqlite::types::ValueRef;
use serde::Deserialize;

use crate::base::error::Result;
use crate::row::{LogEntry, NewLogEntry, RawRow};

/// The longest line, in bytes: more than a row of SQLite's greatest size takes, unless most of it are characters that
/// JSON escapes. A row with a longer one stays in the database.
pub(crate) const MOST_LINE_BYTES: usize = 1 << 30;

/// A row, borrowed from wherever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowRef<'a> {
    /// See [`LogEntry::id`].
    pub id: i64,
    /// See [`LogEntry::source`].
    pub source: &'a str,
    /// See [`LogEntry::kind`].
    pub kind: &'a str,
    /// See [`LogEntry::ref_id`].
    pub ref_id: Option<&'a str>,
    /// See [`LogEntry::payload`].
    pub payload: Option<&'a str>,
    /// See [`LogEntry::timestamp`].
    pub timestamp: i64,
}

impl<'a> RowRef<'a> {
    /// The row that a statement over `id, source, type, ref_id, payload, timestamp` returned, in SQLite's own memory.
    pub(crate) fn read(row: &'a Row<'_>) -> Result<Self> {
        let text = |column| match row.get_ref(column) {
            Ok(ValueRef::Text(bytes)) => std::str::from_utf8(bytes).ok().map(Some),
            Ok(ValueRef::Null) => Some(None),
            _ => None,
        };
        let id = row.get(0)?;
        if let (Some(Some(source)), Some(Some(kind)), Some(ref_id), Some(payload), ValueRef::Integer(timestamp)) =
            (text(1), text(2), text(3), text(4), row.get_ref(5)?)
        {
            return Ok(Self { id, source, kind, ref_id, payload, timestamp });
        }
        // Says what is wrong with it.
        LogEntry::from_row(row)?;
        Err(rusqlite::Error::InvalidColumnType(5, "timestamp".into(), rusqlite::types::Type::Real).into())
    }

    /// The row, in memory of its own.
    pub(crate) fn to_entry(self) -> LogEntry {
        let entry = NewLogEntry {
            source: self.source,
            kind: self.kind,
            ref_id: self.ref_id,
            payload: self.payload,
            timestamp: Some(self.timestamp),
        };
        entry.stored(self.id)
    }
}

impl<'a> From<&'a LogEntry> for RowRef<'a> {
    fn from(entry: &'a LogEntry) -> Self {
        Self {
            id: entry.id,
            source: entry.source(),
            kind: entry.kind(),
            ref_id: entry.ref_id(),
            payload: entry.payload(),
            timestamp: entry.timestamp,
        }
    }
}

impl<'a> From<RowRef<'a>> for RawRow<'a> {
    fn from(row: RowRef<'a>) -> Self {
        let texts =
            (row.source.as_bytes(), row.kind.as_bytes(), row.ref_id.map(str::as_bytes), row.payload.map(str::as_bytes));
        Self { id: row.id, timestamp: row.timestamp, texts }
    }
}

/// Appends the line of `row`, with its newline, to `buffer`.
pub fn write_line(buffer: &mut Vec<u8>, row: &RowRef<'_>) {
    buffer.extend_from_slice(ID.as_bytes());
    write_integer(buffer, row.id);
    buffer.extend_from_slice(SOURCE.as_bytes());
    write_text(buffer, Some(row.source));
    buffer.extend_from_slice(KIND.as_bytes());
    write_text(buffer, Some(row.kind));
    buffer.extend_from_slice(REF_ID.as_bytes());
    write_text(buffer, row.ref_id);
    buffer.extend_from_slice(PAYLOAD.as_bytes());
    write_text(buffer, row.payload);
    buffer.extend_from_slice(TIMESTAMP.as_bytes());
    write_integer(buffer, row.timestamp);
    buffer.extend_from_slice(b"}\n");
}

/// Whether the line of the row can be in a file.
pub(crate) fn fits(row: &RowRef<'_>) -> bool {
    let texts = [Some(row.source), Some(row.kind), row.ref_id, row.payload].into_iter().flatten();
    // Most are far from it.
    if texts.clone().map(str::len).sum::<usize>() < MOST_LINE_BYTES / 8 {
        return true;
    }
    let escaped = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 8 | 12 => 2,
        0..b' ' => 6,
        _ => 1,
    };
    let length: usize = texts.map(|text| text.bytes().map(escaped).sum::<usize>()).sum();
    length < MOST_LINE_BYTES - MOST_FRAMING_BYTES
}

/// Bytes of a text that are looked at one by one.
const NEAR_BYTES: usize = 12;

/// What a line holds besides its texts: keys, quotes, and two numbers.
const MOST_FRAMING_BYTES: usize = 128;

const ID: &str = "{\"id\":";
const SOURCE: &str = ",\"source\":";
const KIND: &str = ",\"type\":";
const REF_ID: &str = ",\"refId\":";
const PAYLOAD: &str = ",\"payload\":";
const TIMESTAMP: &str = ",\"timestamp\":";

fn write_integer(buffer: &mut Vec<u8>, integer: i64) {
    use std::io::Write;
    // Writing to a vector cannot fail.
    let _ = write!(buffer, "{integer}");
}

fn write_text(buffer: &mut Vec<u8>, text: Option<&str>) {
    // Neither can serializing text into one.
    let _ = serde_json::to_writer(buffer, &text);
}

/// The id in a line of a file whose checksum is right; None if the line does not begin as ours do.
pub(crate) fn line_id(line: &[u8]) -> Option<i64> {
    let digits = line.strip_prefix(ID.as_bytes())?;
    let length = digits.iter().position(|byte| *byte == b',')?;
    std::str::from_utf8(&digits[..length]).ok()?.parse().ok()
}

/// What the beginning of a line says of its row, as far as it was written as ours are: for lines that are cut off, or
/// that hold what no row can have.
pub(crate) struct LineHead<'a> {
    pub(crate) id: i64,
    pub(crate) source: Cow<'a, str>,
    pub(crate) kind: Cow<'a, str>,
    pub(crate) ref_id: Option<Cow<'a, str>>,
}

impl<'a> LineHead<'a> {
    /// None if the line does not tell all of these.
    pub(crate) fn of(line: &'a [u8]) -> Option<Self> {
        let rest = line.utf8_chunks().next()?.valid();
        let mut line = Canonical { rest };
        line.skip(ID)?;
        let id = line.integer()?;
        line.skip(SOURCE)?;
        let source = line.text()??;
        line.skip(KIND)?;
        let kind = line.text()??;
        line.skip(REF_ID)?;
        Some(Self { id, source, kind, ref_id: line.text()? })
    }
}

/// The row in a line without its newline; an error says what is wrong with it.
pub fn parse_line(line: &[u8]) -> std::result::Result<LogEntry, String> {
    Ok(Line::parse(line)?.row().to_entry())
}

/// What a line says: texts without escapes are those in the line itself.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Line<'a> {
    id: i64,
    #[serde(borrow)]
    source: Cow<'a, str>,
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, rename = "refId", deserialize_with = "required")]
    ref_id: Option<Cow<'a, str>>,
    #[serde(borrow, deserialize_with = "required")]
    payload: Option<Cow<'a, str>>,
    timestamp: i64,
}

impl<'a> Line<'a> {
    /// A line without its newline; an error says what is wrong with it.
    pub(crate) fn parse(line: &'a [u8]) -> std::result::Result<Self, String> {
        match Canonical::of(line).and_then(|mut line| line.row()) {
            Some(row) => Ok(row),
            None => serde_json::from_slice(line).map_err(|error| error.to_string()),
        }
    }

    pub(crate) fn row(&self) -> RowRef<'_> {
        RowRef {
            id: self.id,
            source: &self.source,
            kind: &self.kind,
            ref_id: self.ref_id.as_deref(),
            payload: self.payload.as_deref(),
            timestamp: self.timestamp,
        }
    }
}

/// A key that must be there, although its value may be null.
fn required<'de: 'a, 'a, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Option<Cow<'a, str>>, D::Error> {
    Option::<Cow<'a, str>>::deserialize(deserializer)
}

/// A line in exactly the form that [`write_line`] gives, read without a general parser. None at the first deviation,
/// which the general parser then judges.
struct Canonical<'a> {
    rest: &'a str,
}

impl<'a> Canonical<'a> {
    fn of(line: &'a [u8]) -> Option<Self> {
        // Inside of JSON's strings, and between our keys, there is none.
        let has_control = line.iter().fold(false, |found, byte| found | (*byte < b' '));
        if has_control { None } else { Some(Self { rest: std::str::from_utf8(line).ok()? }) }
    }

    fn row(&mut self) -> Option<Line<'a>> {
        self.skip(ID)?;
        let id = self.integer()?;
        self.skip(SOURCE)?;
        let source = self.text()??;
        self.skip(KIND)?;
        let kind = self.text()??;
        self.skip(REF_ID)?;
        let ref_id = self.text()?;
        self.skip(PAYLOAD)?;
        let payload = self.text()?;
        self.skip(TIMESTAMP)?;
        let timestamp = self.integer()?;
        (self.rest == "}").then_some(Line { id, source, kind, ref_id, payload, timestamp })
    }

    fn skip(&mut self, key: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(key)?;
        Some(())
    }

    fn integer(&mut self) -> Option<i64> {
        let digits = self.rest.strip_prefix('-').unwrap_or(self.rest);
        let mut magnitude = 0_i64;
        let mut count = 0;
        for byte in digits.bytes().take_while(u8::is_ascii_digit) {
            magnitude = magnitude.checked_mul(10)?.checked_add(i64::from(byte - b'0'))?;
            count += 1;
        }
        let is_negative = digits.len() < self.rest.len();
        // JSON has no leading zeros, and no sign alone; the least integer is left to the general parser, as is -0.
        if count == 0 || digits.starts_with('0') && (count > 1 || is_negative) {
            return None;
        }
        self.rest = &digits[count..];
        Some(if is_negative { -magnitude } else { magnitude })
    }

    /// A string or null.
    fn text(&mut self) -> Option<Option<Cow<'a, str>>> {
        if let Some(rest) = self.rest.strip_prefix("null") {
            self.rest = rest;
            return Some(None);
        }
        self.rest = self.rest.strip_prefix('"')?;
        let (plain, end) = self.until_quote_or_escape()?;
        if end == b'"' {
            return Some(Some(Cow::Borrowed(plain)));
        }
        // Most rows are as long as the lines that they are written in.
        let mut text = String::with_capacity(plain.len() + self.rest.len());
        text.push_str(plain);
        loop {
            text.push(self.escaped()?);
            let (plain, end) = self.until_quote_or_escape()?;
            text.push_str(plain);
            if end == b'"' {
                return Some(Some(Cow::Owned(text)));
            }
        }
    }

    /// The text before the next quotation mark or backslash, and which of them it is; goes on after it.
    fn until_quote_or_escape(&mut self) -> Option<(&'a str, u8)> {
        let bytes = self.rest.as_bytes();
        // Payloads are full of escapes: most texts between two of them are shorter than a search takes to begin.
        let near = bytes.iter().take(NEAR_BYTES).position(|byte| matches!(byte, b'"' | b'\\'));
        let end = match near {
            Some(end) => end,
            None => NEAR_BYTES + memchr::memchr2(b'"', b'\\', bytes.get(NEAR_BYTES..)?)?,
        };
        let (plain, rest) = self.rest.split_at(end);
        self.rest = &rest[1..];
        Some((plain, rest.as_bytes()[0]))
    }

    /// The character that is escaped here, after the backslash; None also where it takes two escapes.
    fn escaped(&mut self) -> Option<char> {
        let kind = *self.rest.as_bytes().first()?;
        let (character, length) = match kind {
            b'"' | b'\\' | b'/' => (char::from(kind), 1),
            b'n' => ('\n', 1),
            b't' => ('\t', 1),
            b'r' => ('\r', 1),
            b'b' => ('\u{8}', 1),
            b'f' => ('\u{c}', 1),
            b'u' => {
                let digits =
                    self.rest.get(1..5).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
                (char::from_u32(u32::from_str_radix(digits, 16).ok()?)?, 5)
            }
            _ => return None,
        };
        self.rest = &self.rest[length..];
        Some(character)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(payload: Option<&str>) -> LogEntry {
        NewLogEntry { source: "s", kind: "t", ref_id: None, payload, timestamp: Some(5) }.stored(1)
    }

    fn line(entry: &LogEntry) -> String {
        let mut buffer = Vec::new();
        write_line(&mut buffer, &entry.into());
        String::from_utf8(buffer).unwrap()
    }

    #[test]
    fn escapes_as_javascript_does() {
        let awkward = "\u{8}\t\n\u{c}\r\u{1}\u{1f}\u{7f}\u{2028}\"\\/é🧠\0";
        let escaped = "\\b\\t\\n\\f\\r\\u0001\\u001f\u{7f}\u{2028}\\\"\\\\/é🧠\\u0000";
        let expected = format!(
            "{{\"id\":1,\"source\":\"s\",\"type\":\"t\",\"refId\":null,\"payload\":\"{escaped}\",\"timestamp\":5}}\n"
        );
        assert_eq!(line(&entry(Some(awkward))), expected);
    }

    #[test]
    fn refuses_what_is_no_row() {
        for text in [
            "",
            "{}",
            "null",
            "{\"id\":1}",
            "{\"id\":1,\"source\":\"s\",\"type\":\"t\",\"refId\":null,\"payload\":null,\"timestamp\":5,\"x\":1}",
            "{\"id\":1,\"source\":\"s\",\"type\":\"t\",\"payload\":null,\"timestamp\":5}",
            "{\"id\":1.5,\"source\":\"s\",\"type\":\"t\",\"refId\":null,\"payload\":null,\"timestamp\":5}",
        ] {
            assert!(parse_line(text.as_bytes()).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn lines_are_read_back(id in any::<i64>(), source in ".*", ref_id in proptest::option::of(".*"), payload in proptest::option::of(".*"), timestamp in any::<i64>()) {
            let (ref_id, payload, timestamp) = (ref_id.as_deref(), payload.as_deref(), Some(timestamp));
            let entry = NewLogEntry { source: &source, kind: &source, ref_id, payload, timestamp }.stored(id);
            let text = line(&entry);
            prop_assert_eq!(text.matches('\n').count(), 1);
            let bytes = text.trim_end_matches('\n').as_bytes();
            prop_assert_eq!(line_id(bytes), Some(id));
            let canonical = Canonical::of(bytes).unwrap().row().unwrap();
            prop_assert_eq!(canonical.row(), RowRef::from(&entry));
            prop_assert_eq!(serde_json::from_slice::<Line<'_>>(bytes).unwrap(), canonical);
        }

        #[test]
        fn both_parsers_agree_on_escapes(pieces in prop::collection::vec("[a-zé🧠]{0,3}|\\\\[\"\\\\/bfnrtuxé]|\\\\u[0-9a-fA-FdD]{4}|\\\\u[+ -]00e", 0..6)) {
            let payload = pieces.concat();
            let text = format!(
                "{{\"id\":1,\"source\":\"s\",\"type\":\"t\",\"refId\":null,\"payload\":\"{payload}\",\"timestamp\":5}}"
            );
            let general = serde_json::from_str::<Line<'_>>(&text).ok();
            match Canonical::of(text.as_bytes()).and_then(|mut line| line.row()) {
                Some(row) => prop_assert_eq!(Some(row), general),
                // Characters of two escapes are left to the general parser.
                None => prop_assert!(general.is_none() || payload.to_lowercase().contains("\\ud")),
            }
        }

        #[test]
        fn both_parsers_agree_on_damage(payload in ".*", at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let entry = NewLogEntry { source: "s", kind: "t", ref_id: None, payload: Some(&payload), timestamp: Some(5) }.stored(17);
            let mut bytes = line(&entry).trim_end_matches('\n').as_bytes().to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Some(row) = Canonical::of(&bytes).and_then(|mut line| line.row()) {
                prop_assert_eq!(serde_json::from_slice::<Line<'_>>(&bytes).unwrap(), row);
            }
        }
    }
}
