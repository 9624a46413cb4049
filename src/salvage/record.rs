//! Records as SQLite stores them: <https://sqlite.org/fileformat2.html#record_format>.

use rusqlite::types::Value;

use crate::db::format::{integer, value_bytes, varint};

/// How texts are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Encoding {
    #[default]
    Utf8,
    Utf16LittleEndian,
    Utf16BigEndian,
}

impl Encoding {
    /// That of the number in the header of a database.
    pub(super) fn of(number: u32) -> Self {
        match number {
            2 => Self::Utf16LittleEndian,
            3 => Self::Utf16BigEndian,
            _ => Self::Utf8,
        }
    }

    /// The text of these bytes; None if they are none.
    fn text(self, bytes: &[u8]) -> Option<String> {
        let unit: fn([u8; 2]) -> u16 = match self {
            Self::Utf8 => return std::str::from_utf8(bytes).ok().map(str::to_owned),
            Self::Utf16LittleEndian => u16::from_le_bytes,
            Self::Utf16BigEndian => u16::from_be_bytes,
        };
        let (pairs, rest) = bytes.as_chunks::<2>();
        let units = pairs.iter().copied().map(unit);
        if rest.is_empty() { char::decode_utf16(units).collect::<Result<_, _>>().ok() } else { None }
    }
}

/// Columns that a record has at the most, in the tables of a log.
const MOST_COLUMNS: usize = 64;

/// The values of a record; None if it is none, or has text that is not of the encoding.
pub(super) fn decode(record: &[u8], encoding: Encoding) -> Option<Vec<Value>> {
    let (header_bytes, mut at) = varint(record)?;
    let header_bytes = usize::try_from(header_bytes).ok().filter(|bytes| (at..=record.len()).contains(bytes))?;
    let mut body = header_bytes;
    let mut values = Vec::new();
    while at < header_bytes {
        let (kind, length) = varint(&record[at..header_bytes])?;
        at += length;
        let (value, length) = value(kind, record.get(body..)?, encoding)?;
        body += length;
        values.push(value);
        if values.len() > MOST_COLUMNS {
            return None;
        }
    }
    (body == record.len()).then_some(values)
}

fn value(kind: u64, bytes: &[u8], encoding: Encoding) -> Option<(Value, usize)> {
    let length = usize::try_from(value_bytes(kind)?).ok()?;
    let bytes = bytes.get(..length)?;
    let value = match kind {
        0 => Value::Null,
        1..=6 => Value::Integer(integer(bytes)?),
        7 => Value::Real(f64::from_be_bytes(*bytes.first_chunk()?)),
        8 => Value::Integer(0),
        9 => Value::Integer(1),
        _ if kind.is_multiple_of(2) => Value::Blob(bytes.to_vec()),
        _ => Value::Text(encoding.text(bytes)?),
    };
    Some((value, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_or_refused() {
        let record = [5, 1, 19, 0, 8, 0xfe, b'a', b'b', b'c'];
        let values = vec![Value::Integer(-2), Value::Text("abc".into()), Value::Null, Value::Integer(0)];
        assert_eq!(decode(&record, Encoding::Utf8), Some(values));
        for length in 0..record.len() {
            assert_eq!(decode(&record[..length], Encoding::Utf8), None);
        }
        assert_eq!(decode(&[5, 1, 19, 0, 8, 0xfe, 0xff, b'b', b'c'], Encoding::Utf8), None, "not UTF-8");
        assert_eq!(decode(&[2, 10], Encoding::Utf8), None, "no such kind");
    }

    #[test]
    fn texts_are_read_in_each_encoding() {
        for encoding in [Encoding::Utf16LittleEndian, Encoding::Utf16BigEndian] {
            let bytes = |text: &str| -> Vec<u8> {
                let pair = if encoding == Encoding::Utf16BigEndian { u16::to_be_bytes } else { u16::to_le_bytes };
                text.encode_utf16().flat_map(pair).collect()
            };
            assert_eq!(encoding.text(&bytes("a\u{4e2d}\u{1f600}")).as_deref(), Some("a\u{4e2d}\u{1f600}"));
            assert_eq!(encoding.text(&bytes("ab")[..3]), None, "half a unit");
            assert_eq!(encoding.text(&bytes("\u{1f600}")[..2]), None, "half a pair");
        }
        assert_eq!([1, 2, 3, 0].map(Encoding::of)[1..3], [Encoding::Utf16LittleEndian, Encoding::Utf16BigEndian]);
    }
}
