//! Rows as PostgreSQL sends them: `COPY (SELECT id, source, type, ref_id, payload, timestamp …) TO STDOUT (FORMAT binary)`,
//! and `SELECT record_send(ROW(id, source, type, ref_id, payload, timestamp))`, in which each field has its type before it.

use std::borrow::Cow;

use crate::base::error::{Error, Result};
use crate::row::RawRow;
use crate::row::marked::unmarked;

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
/// What a row begins with: how many fields it has.
const FIELDS: i16 = 6;
/// What stands there at the end instead.
const END: i16 = -1;
const NULL: i32 = -1;

/// A row in memory that the server filled.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of LogEntry")]
pub struct CopiedRow<'a> {
    pub id: i64,
    pub source: Cow<'a, str>,
    pub kind: Cow<'a, str>,
    pub ref_id: Option<Cow<'a, str>>,
    pub payload: Option<Cow<'a, str>>,
    pub timestamp: i64,
}

impl<'a> CopiedRow<'a> {
    /// The row whose texts are as the server stores them.
    pub fn of(row: RawRow<'a>) -> Result<Self> {
        let text = |text| match std::str::from_utf8(text) {
            Ok(text) => Ok(unmarked(text)),
            Err(error) => Err(Error::Value(format!("the server sent a text: {error}"))),
        };
        let (source, kind, ref_id, payload) = row.texts;
        Ok(Self {
            id: row.id,
            source: text(source)?,
            kind: text(kind)?,
            ref_id: ref_id.map(text).transpose()?,
            payload: payload.map(text).transpose()?,
            timestamp: row.timestamp,
        })
    }
}

/// The row that `record_send` made, with its texts as the server stores them.
pub fn of_record(record: &[u8]) -> Result<RawRow<'_>> {
    let mut fields = Fields { rest: record, have_types: true };
    let count = fields.integer()?;
    if count != i32::from(FIELDS) {
        return Err(strange_count(count));
    }
    let row = fields.row()?;
    if fields.rest.is_empty() { Ok(row) } else { Err(Error::Value("the server sent more than a row".into())) }
}

/// The rows in some messages of a COPY, which hold whole rows, with their texts as the server stores them.
pub struct CopiedRows<'a>(Fields<'a>);

impl<'a> CopiedRows<'a> {
    /// `data` are the messages, one after another; the first one of all begins with a header.
    pub fn new(data: &'a [u8]) -> Result<Self> {
        let mut fields = Fields { rest: data, have_types: false };
        if let Some(rest) = data.strip_prefix(SIGNATURE) {
            fields.rest = rest;
            fields.integer()?; // flags
            let length = fields.integer()?;
            fields.bytes(length)?;
        }
        Ok(Self(fields))
    }

    fn row(&mut self) -> Result<Option<RawRow<'a>>> {
        let fields = &mut self.0;
        match i16::from_be_bytes(fields.take()?) {
            FIELDS => fields.row().map(Some),
            END if fields.rest.is_empty() => Ok(None),
            count => Err(strange_count(count.into())),
        }
    }
}

impl<'a> Iterator for CopiedRows<'a> {
    type Item = Result<RawRow<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.rest.is_empty() {
            return None;
        }
        let row = self.row();
        if row.is_err() {
            self.0.rest = &[];
        }
        row.transpose()
    }
}

/// Fields one after another, each with its length before it.
struct Fields<'a> {
    rest: &'a [u8],
    /// Each has the number of its type before its length.
    have_types: bool,
}

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or_else(cut_off)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn integer(&mut self) -> Result<i32> {
        self.take().map(i32::from_be_bytes)
    }

    fn bytes(&mut self, length: i32) -> Result<&'a [u8]> {
        let length = usize::try_from(length).map_err(|_| cut_off())?;
        let (taken, rest) = self.rest.split_at_checked(length).ok_or_else(cut_off)?;
        self.rest = rest;
        Ok(taken)
    }

    fn optional(&mut self) -> Result<Option<&'a [u8]>> {
        if self.have_types {
            self.integer()?;
        }
        match self.integer()? {
            NULL => Ok(None),
            length => self.bytes(length).map(Some),
        }
    }

    fn required(&mut self) -> Result<&'a [u8]> {
        self.optional()?.ok_or_else(|| Error::Value("the server sent a row without one of its fields".into()))
    }

    fn number(&mut self) -> Result<i64> {
        let bytes = self.required()?;
        let whole = bytes.try_into().map_err(|_| {
            let length = bytes.len();
            Error::Value(format!("the server sent an integer of {length} bytes"))
        })?;
        Ok(i64::from_be_bytes(whole))
    }

    #[inline]
    fn row(&mut self) -> Result<RawRow<'a>> {
        let id = self.number()?;
        let texts = (self.required()?, self.required()?, self.optional()?, self.optional()?);
        Ok(RawRow { id, timestamp: self.number()?, texts })
    }
}

fn strange_count(count: i32) -> Error {
    Error::Value(format!("the server sent a row of {count} fields"))
}

fn cut_off() -> Error {
    Error::Value("the server sent a part of a row".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

    const INT8: i32 = 20;
    const TEXT: i32 = 25;

    /// What the server sends of each field, and the number of its type.
    fn fields(row: &CopiedRow<'_>) -> [(i32, Vec<u8>); 6] {
        let number = |number: i64| {
            let mut field = 8_i32.to_be_bytes().to_vec();
            field.extend(number.to_be_bytes());
            (INT8, field)
        };
        let text = |text: Option<&str>| {
            let Some(text) = text else { return (TEXT, NULL.to_be_bytes().to_vec()) };
            let marked = text.replace('\u{10ffff}', "\u{10ffff}1").replace('\0', "\u{10ffff}0");
            let mut field = i32::try_from(marked.len()).unwrap().to_be_bytes().to_vec();
            field.extend(marked.as_bytes());
            (TEXT, field)
        };
        [
            number(row.id),
            text(Some(&row.source)),
            text(Some(&row.kind)),
            text(row.ref_id.as_deref()),
            text(row.payload.as_deref()),
            number(row.timestamp),
        ]
    }

    fn message(row: &CopiedRow<'_>) -> Vec<u8> {
        let mut message = 6_i16.to_be_bytes().to_vec();
        fields(row).into_iter().for_each(|(_, field)| message.extend(field));
        message
    }

    fn record(row: &CopiedRow<'_>) -> Vec<u8> {
        let mut record = 6_i32.to_be_bytes().to_vec();
        for (kind, field) in fields(row) {
            record.extend(kind.to_be_bytes());
            record.extend(field);
        }
        record
    }

    fn rows() -> impl Strategy<Value = Vec<CopiedRow<'static>>> {
        let row = (
            any::<i64>(),
            "\\PC{0,3}",
            "[a\0\u{10ffff}é]{0,5}",
            any::<Option<String>>(),
            any::<Option<String>>(),
            any::<i64>(),
        );
        let row = row.prop_map(|(id, source, kind, ref_id, payload, timestamp)| CopiedRow {
            id,
            source: source.into(),
            kind: kind.into(),
            ref_id: ref_id.map(Cow::from),
            payload: payload.map(Cow::from),
            timestamp,
        });
        proptest::collection::vec(row, 0..4)
    }

    proptest! {
        #[test]
        fn rows_are_read_as_they_were(rows in rows(), has_header: bool, has_end: bool) {
            let mut data = if has_header { HEADER.to_vec() } else { Vec::new() };
            data.extend(rows.iter().flat_map(message));
            if has_end {
                data.extend(END.to_be_bytes());
            }
            let found: Vec<_> = CopiedRows::new(&data).unwrap().map(|row| CopiedRow::of(row.unwrap()).unwrap()).collect();
            prop_assert_eq!(&found, &rows);
            for row in rows {
                let record = record(&row);
                prop_assert_eq!(CopiedRow::of(of_record(&record).unwrap()).unwrap(), row);
            }
        }

        #[test]
        fn a_part_of_a_row_is_an_error(rows in rows().prop_filter("some", |rows| !rows.is_empty()), at: prop::sample::Index) {
            let last = message(rows.last().unwrap());
            let cut = &last[..1 + at.index(last.len() - 1)];
            prop_assert!(CopiedRows::new(cut).unwrap().any(|row| row.is_err()));
            let last = record(rows.last().unwrap());
            prop_assert!(of_record(&last[..at.index(last.len())]).is_err());
        }
    }

    #[test]
    fn what_no_server_sends_is_an_error() {
        let row = CopiedRow { id: 1, source: "s".into(), kind: "t".into(), ref_id: None, payload: None, timestamp: 5 };
        let good = message(&row);
        for (at, byte) in [(0, 1), (1, 7), (5, 4), (17, 0xff), (18, 0x80)] {
            let mut bad = good.clone();
            bad[at] = byte;
            assert!(CopiedRows::new(&bad).unwrap().any(|row| row.and_then(CopiedRow::of).is_err()), "{at}");
        }
        assert!(CopiedRows::new(&HEADER[..15]).is_err());
        let good = record(&row);
        for (at, byte) in [(3, 7), (11, 4), (27, 0xff), (28, 0x80)] {
            let mut bad = good.clone();
            bad[at] = byte;
            assert!(of_record(&bad).and_then(CopiedRow::of).is_err(), "{at}");
        }
        assert!(of_record(&[good.as_slice(), b"\0"].concat()).is_err());
    }
}
