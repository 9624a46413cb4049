//! A row of the log, as it is given and as it is read.

use rusqlite::Row;
use rusqlite::types::{Type, ValueRef};

use super::index::IndexedRow;
use crate::error::{Error, Result};
use crate::time::{check_timestamp, now};

/// The longest text accepted in a row unless the store was opened with another limit, in bytes of UTF-8.
pub const DEFAULT_MAX_TEXT_BYTES: usize = 64 << 20;

/// The columns that [`LogEntry::from_row`] reads, in its order.
pub(crate) const COLUMNS: &str = "id, source, type, ref_id, payload, timestamp";

/// A row of the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LogEntry {
    /// Strictly increasing, never reused.
    pub id: i64,
    /// Who wrote it.
    pub source: String,
    /// What happened; `type` in SQL, JSON and Python.
    pub kind: String,
    /// What it is about; for the rows of a workflow run, its id.
    pub ref_id: Option<String>,
    /// Free text, by custom JSON.
    pub payload: Option<String>,
    /// Milliseconds since the Unix epoch, UTC.
    pub timestamp: i64,
}

/// A row to append.
#[derive(Clone, Copy, Debug)]
pub struct NewLogEntry<'a> {
    /// See [`LogEntry::source`].
    pub source: &'a str,
    /// See [`LogEntry::kind`].
    pub kind: &'a str,
    /// See [`LogEntry::ref_id`].
    pub ref_id: Option<&'a str>,
    /// See [`LogEntry::payload`].
    pub payload: Option<&'a str>,
    /// Milliseconds since the Unix epoch; None: when it is checked.
    pub timestamp: Option<i64>,
}

impl NewLogEntry<'_> {
    /// The row with its timestamp, if everything about it can be stored.
    pub fn checked(self, max_text_bytes: usize) -> Result<Self> {
        let texts = [
            ("source", Some(self.source)),
            ("type", Some(self.kind)),
            ("ref_id", self.ref_id),
            ("payload", self.payload),
        ];
        for (name, text) in texts {
            let length = text.map_or(0, str::len);
            if length > max_text_bytes {
                return Err(Error::Value(format!(
                    "{name} has {length} bytes, more than the limit of {max_text_bytes} (max_payload_bytes)"
                )));
            }
        }
        let timestamp = match self.timestamp {
            Some(timestamp) => check_timestamp(timestamp)?,
            None => now()?,
        };
        Ok(Self { timestamp: Some(timestamp), ..self })
    }

    /// Its texts together, in bytes.
    pub(crate) fn text_bytes(&self) -> usize {
        [Some(self.source), Some(self.kind), self.ref_id, self.payload].into_iter().flatten().map(str::len).sum()
    }

    /// The row as the index sees it.
    pub(super) fn indexed(&self, id: i64) -> IndexedRow<'_> {
        let timestamp = self.timestamp.unwrap_or_default();
        IndexedRow {
            id,
            source: Some(self.source),
            kind: Some(self.kind),
            ref_id: self.ref_id,
            payload: self.payload,
            timestamps: (timestamp, timestamp),
        }
    }

    /// The row as it is read back.
    pub fn stored(&self, id: i64) -> LogEntry {
        LogEntry {
            id,
            source: self.source.to_owned(),
            kind: self.kind.to_owned(),
            ref_id: self.ref_id.map(str::to_owned),
            payload: self.payload.map(str::to_owned),
            timestamp: self.timestamp.unwrap_or_default(),
        }
    }
}

/// A row to append that outlives the call which gives it.
#[derive(Clone, Debug)]
pub struct OwnedEntry {
    source: String,
    kind: String,
    ref_id: Option<String>,
    payload: Option<String>,
    timestamp: Option<i64>,
}

impl From<&NewLogEntry<'_>> for OwnedEntry {
    fn from(entry: &NewLogEntry<'_>) -> Self {
        Self {
            source: entry.source.to_owned(),
            kind: entry.kind.to_owned(),
            ref_id: entry.ref_id.map(str::to_owned),
            payload: entry.payload.map(str::to_owned),
            timestamp: entry.timestamp,
        }
    }
}

impl OwnedEntry {
    /// The same row, borrowed.
    pub fn borrow(&self) -> NewLogEntry<'_> {
        NewLogEntry {
            source: &self.source,
            kind: &self.kind,
            ref_id: self.ref_id.as_deref(),
            payload: self.payload.as_deref(),
            timestamp: self.timestamp,
        }
    }

    /// The row as it is read back.
    pub fn into_stored(self, id: i64) -> LogEntry {
        LogEntry {
            id,
            source: self.source,
            kind: self.kind,
            ref_id: self.ref_id,
            payload: self.payload,
            timestamp: self.timestamp.unwrap_or_default(),
        }
    }
}

impl LogEntry {
    /// The row that a statement over [`COLUMNS`] returned. What another program stored may not be a row of ours: a
    /// value of another type is an error that names the row.
    pub(crate) fn from_row(row: &Row<'_>) -> Result<Self> {
        let id = row.get(0)?;
        let strange = |column: &str, what: &str| {
            let reason = format!("row {id} of logs: {column} is {what}");
            Error::from(rusqlite::Error::FromSqlConversionFailure(0, Type::Text, reason.into()))
        };
        let optional = |index: usize, name: &str| -> Result<Option<String>> {
            match row.get_ref(index)? {
                ValueRef::Null => Ok(None),
                ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
                    Ok(text) => Ok(Some(text.to_owned())),
                    Err(_) => Err(strange(name, "not UTF-8")),
                },
                other => Err(strange(name, &format!("{}, not text", other.data_type()))),
            }
        };
        let required = |index: usize, name: &str| optional(index, name)?.ok_or_else(|| strange(name, "NULL"));
        Ok(Self {
            id,
            source: required(1, "source")?,
            kind: required(2, "type")?,
            ref_id: optional(3, "ref_id")?,
            payload: optional(4, "payload")?,
            timestamp: match row.get_ref(5)? {
                ValueRef::Integer(timestamp) => timestamp,
                // JavaScript stores a clock with fractions as it is. Such a row is readable, and never archived.
                ValueRef::Real(timestamp) => timestamp as i64,
                other => return Err(strange("timestamp", &format!("{}, not an integer", other.data_type()))),
            },
        })
    }
}
