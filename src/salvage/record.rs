//! Records as SQLite stores them: <https://sqlite.org/fileformat2.html#record_format>.

use rusqlite::types::Value;

/// Columns that a record has at the most, in the tables of a log.
const MOST_COLUMNS: usize = 64;

/// A number of up to nine bytes, and how many there are.
pub(super) fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(9).enumerate() {
        if index == 8 {
            return Some((value << 8 | u64::from(*byte), 9));
        }
        value = value << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((value, index + 1));
        }
    }
    None
}

/// The values of a record; None if it is none, or has text that is not UTF-8.
pub(super) fn decode(record: &[u8]) -> Option<Vec<Value>> {
    let (header_bytes, mut at) = varint(record)?;
    let header_bytes = usize::try_from(header_bytes).ok().filter(|bytes| (at..=record.len()).contains(bytes))?;
    let mut body = header_bytes;
    let mut values = Vec::new();
    while at < header_bytes {
        let (kind, length) = varint(&record[at..header_bytes])?;
        at += length;
        let (value, length) = value(kind, record.get(body..)?)?;
        body += length;
        values.push(value);
        if values.len() > MOST_COLUMNS {
            return None;
        }
    }
    (body == record.len()).then_some(values)
}

fn value(kind: u64, bytes: &[u8]) -> Option<(Value, usize)> {
    let integer = |length: usize| {
        let bytes = bytes.get(..length)?;
        let sign = if bytes.first()? & 0x80 == 0 { 0 } else { -1_i64 };
        Some((Value::Integer(bytes.iter().fold(sign, |value, byte| value << 8 | i64::from(*byte))), length))
    };
    match kind {
        0 => Some((Value::Null, 0)),
        1..=4 => integer(usize::try_from(kind).ok()?),
        5 => integer(6),
        6 => integer(8),
        7 => Some((Value::Real(f64::from_be_bytes(*bytes.first_chunk()?)), 8)),
        8 => Some((Value::Integer(0), 0)),
        9 => Some((Value::Integer(1), 0)),
        10 | 11 => None,
        _ => {
            let length = usize::try_from((kind - 12) / 2).ok()?;
            let bytes = bytes.get(..length)?;
            if kind.is_multiple_of(2) {
                return Some((Value::Blob(bytes.to_vec()), length));
            }
            Some((Value::Text(std::str::from_utf8(bytes).ok()?.to_owned()), length))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_one_to_nine_bytes() {
        assert_eq!(varint(&[0x7f]), Some((127, 1)));
        assert_eq!(varint(&[0x81, 0x00, 0xff]), Some((128, 2)));
        assert_eq!(varint(&[0xff; 9]), Some((u64::MAX, 9)));
        assert_eq!(varint(&[0x81]), None);
        assert_eq!(varint(&[]), None);
    }

    #[test]
    fn records_are_read_or_refused() {
        let record = [5, 1, 19, 0, 8, 0xfe, b'a', b'b', b'c'];
        let values = vec![Value::Integer(-2), Value::Text("abc".into()), Value::Null, Value::Integer(0)];
        assert_eq!(decode(&record), Some(values));
        for length in 0..record.len() {
            assert_eq!(decode(&record[..length]), None);
        }
        assert_eq!(decode(&[5, 1, 19, 0, 8, 0xfe, 0xff, b'b', b'c']), None, "not UTF-8");
        assert_eq!(decode(&[2, 10]), None, "no such kind");
    }
}
