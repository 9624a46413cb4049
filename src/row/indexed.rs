//! A row as the index sees it: whatever another program stored, never an error.

use rusqlite::Row;
use rusqlite::types::ValueRef;

use crate::base::error::Result;
use crate::base::time::TimeSpan;

/// A row as the index sees it. What is not text counts as NULL: no filter finds it.
pub(crate) struct IndexedRow<'a> {
    pub(crate) id: i64,
    pub(crate) source: Option<&'a str>,
    pub(crate) kind: Option<&'a str>,
    pub(crate) ref_id: Option<&'a str>,
    pub(crate) payload: Option<&'a str>,
    /// Between these two; they differ only for what is no integer.
    pub(crate) timestamps: TimeSpan,
}

impl<'a> IndexedRow<'a> {
    /// Whether it has all texts, and a time: then there is nothing in it that cannot be read.
    pub(crate) fn is_complete(&self) -> bool {
        let texts = [self.source, self.kind, self.ref_id, self.payload];
        texts.iter().all(Option::is_some) && self.timestamps.first == self.timestamps.last
    }

    /// From a statement over the columns of [`crate::row::LogEntry`]. Never an error, whatever another program stored.
    pub(crate) fn read(row: &'a Row<'_>) -> Result<Self> {
        let text = |column: usize| -> Result<Option<&'a str>> {
            Ok(match row.get_ref(column)? {
                ValueRef::Text(bytes) => std::str::from_utf8(bytes).ok(),
                _ => None,
            })
        };
        let timestamps = match row.get_ref(5)? {
            ValueRef::Integer(timestamp) => TimeSpan::of(timestamp),
            ValueRef::Real(timestamp) => TimeSpan { first: timestamp.floor() as i64, last: timestamp.ceil() as i64 },
            _ => TimeSpan { first: i64::MIN, last: i64::MAX },
        };
        Ok(Self { id: row.get(0)?, source: text(1)?, kind: text(2)?, ref_id: text(3)?, payload: text(4)?, timestamps })
    }
}
