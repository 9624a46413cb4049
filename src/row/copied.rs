//! Rows as PostgreSQL sends them: `COPY (SELECT id, source, type, ref_id, payload, timestamp …) TO STDOUT (FORMAT binary)`.

use std::borrow::Cow;

use crate::base::error::{Error, Result};
use crate::row::unmarked;

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

/// The rows in some messages of the server, which hold whole rows.
pub struct CopiedRows<'a> {
    rest: &'a [u8],
}

impl<'a> CopiedRows<'a> {
    /// `data` are the messages, one after another; the first one of all begins with a header.
    pub fn new(data: &'a [u8]) -> Result<Self> {
        let mut rows = Self { rest: data };
        if let Some(rest) = data.strip_prefix(SIGNATURE) {
            rows.rest = rest;
            rows.integer()?; // flags
            let length = rows.integer()?;
            rows.bytes(length)?;
        }
        Ok(rows)
    }

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

    fn number(&mut self) -> Result<i64> {
        match self.integer()? {
            8 => self.take().map(i64::from_be_bytes),
            length => Err(Error::Value(format!("the server sent an integer of {length} bytes"))),
        }
    }

    fn optional(&mut self) -> Result<Option<Cow<'a, str>>> {
        let length = self.integer()?;
        if length == NULL {
            return Ok(None);
        }
        let text = std::str::from_utf8(self.bytes(length)?);
        text.map(|text| Some(unmarked(text))).map_err(|error| Error::Value(format!("the server sent a text: {error}")))
    }

    fn required(&mut self) -> Result<Cow<'a, str>> {
        self.optional()?.ok_or_else(|| Error::Value("the server sent a row without a source or a type".into()))
    }

    fn row(&mut self) -> Result<Option<CopiedRow<'a>>> {
        match i16::from_be_bytes(self.take()?) {
            FIELDS => Ok(Some(CopiedRow {
                id: self.number()?,
                source: self.required()?,
                kind: self.required()?,
                ref_id: self.optional()?,
                payload: self.optional()?,
                timestamp: self.number()?,
            })),
            END if self.rest.is_empty() => Ok(None),
            count => Err(Error::Value(format!("the server sent a row of {count} fields"))),
        }
    }
}

impl<'a> Iterator for CopiedRows<'a> {
    type Item = Result<CopiedRow<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let row = self.row();
        if row.is_err() {
            self.rest = &[];
        }
        row.transpose()
    }
}

fn cut_off() -> Error {
    Error::Value("the server sent a part of a row".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

    fn text(message: &mut Vec<u8>, text: Option<&str>) {
        match text {
            None => message.extend((-1_i32).to_be_bytes()),
            Some(text) => {
                message.extend(i32::try_from(text.len()).unwrap().to_be_bytes());
                message.extend(text.as_bytes());
            }
        }
    }

    fn message(row: &CopiedRow<'_>) -> Vec<u8> {
        let mut message = 6_i16.to_be_bytes().to_vec();
        let number = |message: &mut Vec<u8>, number: i64| {
            message.extend(8_i32.to_be_bytes());
            message.extend(number.to_be_bytes());
        };
        let marked = |text: &str| text.replace('\u{10ffff}', "\u{10ffff}1").replace('\0', "\u{10ffff}0");
        number(&mut message, row.id);
        text(&mut message, Some(&marked(&row.source)));
        text(&mut message, Some(&marked(&row.kind)));
        text(&mut message, row.ref_id.as_deref().map(marked).as_deref());
        text(&mut message, row.payload.as_deref().map(marked).as_deref());
        number(&mut message, row.timestamp);
        message
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
            let found: Vec<_> = CopiedRows::new(&data).unwrap().map(std::result::Result::unwrap).collect();
            prop_assert_eq!(found, rows);
        }

        #[test]
        fn a_part_of_a_row_is_an_error(rows in rows().prop_filter("some", |rows| !rows.is_empty()), at: prop::sample::Index) {
            let last = message(rows.last().unwrap());
            let cut = &last[..1 + at.index(last.len() - 1)];
            prop_assert!(CopiedRows::new(cut).unwrap().any(|row| row.is_err()));
        }
    }

    #[test]
    fn what_no_server_sends_is_an_error() {
        let row = CopiedRow { id: 1, source: "s".into(), kind: "t".into(), ref_id: None, payload: None, timestamp: 5 };
        let good = message(&row);
        for (at, byte) in [(0, 1), (1, 7), (5, 4), (17, 0xff), (18, 0x80)] {
            let mut bad = good.clone();
            bad[at] = byte;
            assert!(CopiedRows::new(&bad).unwrap().any(|row| row.is_err()), "{at}");
        }
        assert!(CopiedRows::new(&HEADER[..15]).is_err());
    }
}
