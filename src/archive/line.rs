//! One row as one line: the bytes that `JSON.stringify` gives, in the predecessor's order of keys.

use std::borrow::Cow;

use serde::Deserialize;

use crate::log::{LogEntry, NewLogEntry};

/// Appends the line of `entry`, with its newline, to `buffer`.
pub fn write_line(buffer: &mut Vec<u8>, entry: &LogEntry) {
    buffer.extend_from_slice(b"{\"id\":");
    write_integer(buffer, entry.id);
    buffer.extend_from_slice(b",\"source\":");
    write_text(buffer, Some(entry.source()));
    buffer.extend_from_slice(b",\"type\":");
    write_text(buffer, Some(entry.kind()));
    buffer.extend_from_slice(b",\"refId\":");
    write_text(buffer, entry.ref_id());
    buffer.extend_from_slice(b",\"payload\":");
    write_text(buffer, entry.payload());
    buffer.extend_from_slice(b",\"timestamp\":");
    write_integer(buffer, entry.timestamp);
    buffer.extend_from_slice(b"}\n");
}

fn write_integer(buffer: &mut Vec<u8>, integer: i64) {
    use std::io::Write;
    // Writing to a vector cannot fail.
    let _ = write!(buffer, "{integer}");
}

fn write_text(buffer: &mut Vec<u8>, text: Option<&str>) {
    // Neither can serializing text into one.
    let _ = serde_json::to_writer(buffer, &text);
}

/// The row in a line without its newline; an error says what is wrong with it.
pub fn parse_line(line: &[u8]) -> Result<LogEntry, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Line<'a> {
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

    /// A key that must be there, although its value may be null.
    fn required<'de: 'a, 'a, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Cow<'a, str>>, D::Error> {
        Option::<Cow<'a, str>>::deserialize(deserializer)
    }

    let line: Line<'_> = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let entry = NewLogEntry {
        source: &line.source,
        kind: &line.kind,
        ref_id: line.ref_id.as_deref(),
        payload: line.payload.as_deref(),
        timestamp: Some(line.timestamp),
    };
    Ok(entry.stored(line.id))
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
        write_line(&mut buffer, entry);
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
            prop_assert_eq!(parse_line(text.trim_end_matches('\n').as_bytes()), Ok(entry));
        }
    }
}
