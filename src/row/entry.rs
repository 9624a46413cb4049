//! A row of the log, as it is given and as it is read.

use std::fmt;

use rusqlite::Row;
use rusqlite::types::ValueRef;

use crate::base::error::{Error, Result};
use crate::base::time::{TimeSpan, check_timestamp, now};
use crate::db::format::{integer, value_bytes, varint};
use crate::row::IndexedRow;
use crate::row::texts::{Gathering, RawTexts, Texts};

/// The longest text accepted in a row unless the store was opened with another limit, in bytes of UTF-8.
pub const DEFAULT_MAX_TEXT_BYTES: usize = 64 << 20;

/// The longest source, type and reference accepted, in bytes of UTF-8.
const MAX_NAME_BYTES: usize = 64 << 10;

/// The columns that [`LogEntry::from_row`] reads, in its order.
pub(crate) const COLUMNS: &str = "id, source, type, ref_id, payload, timestamp";

/// A row of the log. [`NewLogEntry::stored`] makes one.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct LogEntry {
    /// Strictly increasing, never reused.
    pub id: i64,
    /// Milliseconds since the Unix epoch, UTC.
    pub timestamp: i64,
    texts: Texts,
}

impl LogEntry {
    /// Who wrote it.
    pub fn source(&self) -> &str {
        self.texts.source()
    }

    /// What happened; `type` in SQL, JSON and Python.
    pub fn kind(&self) -> &str {
        self.texts.kind()
    }

    /// What it is about; for the rows of a workflow run, its id.
    pub fn ref_id(&self) -> Option<&str> {
        self.texts.ref_id()
    }

    /// Free text, by custom JSON.
    pub fn payload(&self) -> Option<&str> {
        self.texts.payload()
    }

    /// The row as the index sees it.
    pub(crate) fn indexed(&self) -> IndexedRow<'_> {
        IndexedRow {
            id: self.id,
            source: Some(self.source()),
            kind: Some(self.kind()),
            ref_id: self.ref_id(),
            payload: self.payload(),
            timestamps: TimeSpan::of(self.timestamp),
        }
    }

    /// The row that a statement over [`COLUMNS`] returned. What another program stored may not be a row of ours: a
    /// value of another type is an error that names the row.
    pub(crate) fn from_row(row: &Row<'_>) -> Result<Self> {
        Self::from_raw(RawRow::of(row)?)
    }

    /// The row in memory of its own; an error that names it if a text is not UTF-8.
    pub(crate) fn from_raw(row: RawRow<'_>) -> Result<Self> {
        let mut found = None;
        let mut entries = Entries::new(|entry| found = Some(entry));
        entries.push(row)?;
        entries.finish()?;
        found.ok_or_else(|| rusqlite::Error::QueryReturnedNoRows.into())
    }
}

/// A row as SQLite holds it; its texts may not be UTF-8.
#[derive(Clone, Copy, Debug)]
pub struct RawRow<'a> {
    /// See [`LogEntry::id`].
    pub id: i64,
    /// See [`LogEntry::timestamp`].
    pub timestamp: i64,
    /// Source, type, `ref_id` and payload.
    pub texts: RawTexts<'a>,
}

impl<'a> RawRow<'a> {
    /// The row that a statement over [`COLUMNS`] returned; see [`LogEntry::from_row`].
    pub(crate) fn of(row: &'a Row<'_>) -> Result<Self> {
        let id = row.get(0)?;
        let required = |index| match row.get_ref(index)? {
            ValueRef::Text(text) => Ok(text),
            other => Err(strange(id, index, other)),
        };
        let optional = |index| match row.get_ref(index)? {
            ValueRef::Null => Ok(None),
            ValueRef::Text(text) => Ok(Some(text)),
            other => Err(strange(id, index, other)),
        };
        let timestamp = match row.get_ref(5)? {
            ValueRef::Integer(timestamp) => timestamp,
            // JavaScript stores a clock with fractions as it is. Such a row is readable, and never archived.
            ValueRef::Real(timestamp) => timestamp as i64,
            other => return Err(strange(id, 5, other)),
        };
        Ok(Self { id, timestamp, texts: (required(1)?, required(2)?, optional(3)?, optional(4)?) })
    }

    /// The row of a record of the table, as SQLite stores it; None if it holds anything but the values of a row of ours.
    pub(crate) fn of_record(id: i64, record: &'a [u8]) -> Option<Self> {
        let (header_bytes, start) = varint(record)?;
        let header_bytes = usize::try_from(header_bytes).ok().filter(|bytes| *bytes >= start)?;
        let (mut kinds, mut values) =
            record.split_at_checked(header_bytes).map(|(header, rest)| (&header[start..], rest))?;
        let mut next = || {
            let (kind, length) = varint(kinds)?;
            kinds = &kinds[length..];
            let bytes = value_bytes(kind)?;
            let (value, rest) = values.split_at_checked(usize::try_from(bytes).ok()?)?;
            values = rest;
            Some((kind, value))
        };
        let is_text = |kind: u64| kind >= 13 && kind % 2 == 1;
        // The id is in the cell, and NULL in the record.
        let (0, _) = next()? else { return None };
        let mut text = || {
            next().map(|(kind, value)| if is_text(kind) { Some(Some(value)) } else { (kind == 0).then_some(None) })?
        };
        let texts = (text()??, text()??, text()?, text()?);
        let timestamp = match next()? {
            (8, _) => 0,
            (9, _) => 1,
            (1..=6, bytes) => integer(bytes)?,
            // NULL, a number with a fraction, or no number.
            _ => return None,
        };
        (kinds.is_empty() && values.is_empty()).then_some(Self { id, timestamp, texts })
    }

    /// The same row, if its texts are UTF-8.
    pub(crate) fn checked(self) -> Result<Self> {
        let (source, kind, ref_id, payload) = self.texts;
        let texts = [source, kind, ref_id.unwrap_or_default(), payload.unwrap_or_default()];
        match texts.iter().position(|text| std::str::from_utf8(text).is_err()) {
            Some(text) => Err(not_utf8(self.id, text)),
            None => Ok(self),
        }
    }
}

impl<'a> From<&'a LogEntry> for RawRow<'a> {
    fn from(row: &'a LogEntry) -> Self {
        let texts = (
            row.source().as_bytes(),
            row.kind().as_bytes(),
            row.ref_id().map(str::as_bytes),
            row.payload().map(str::as_bytes),
        );
        Self { id: row.id, timestamp: row.timestamp, texts }
    }
}

/// Passes rows on as they are read, a few later, since a few share a block of memory.
pub(crate) struct Entries<V> {
    /// Each with its id and its timestamp.
    rows: Gathering<(i64, i64)>,
    visit: V,
}

impl<V: FnMut(LogEntry)> Entries<V> {
    pub(crate) fn new(visit: V) -> Self {
        Self { rows: Gathering::default(), visit }
    }

    /// Takes in a row.
    pub(crate) fn push(&mut self, row: RawRow<'_>) -> Result<()> {
        if self.rows.is_full(row.texts) {
            self.finish()?;
        }
        self.rows.push((row.id, row.timestamp), row.texts);
        Ok(())
    }

    /// Passes on what is left.
    pub(crate) fn finish(&mut self) -> Result<()> {
        let visit = &mut self.visit;
        let passed = self.rows.finish(|(id, timestamp), texts| visit(LogEntry { id, timestamp, texts }));
        passed.map_err(|((id, _), column)| not_utf8(id, column))
    }
}

impl fmt::Debug for LogEntry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("LogEntry")
            .field("id", &self.id)
            .field("source", &self.source())
            .field("kind", &self.kind())
            .field("ref_id", &self.ref_id())
            .field("payload", &self.payload())
            .field("timestamp", &self.timestamp)
            .finish()
    }
}

const NAMES: [&str; 6] = ["id", "source", "type", "ref_id", "payload", "timestamp"];

/// A value that is none of a row of ours.
fn strange(id: i64, column: usize, value: ValueRef<'_>) -> Error {
    let wanted = if NAMES[column] == "timestamp" { "an integer" } else { "text" };
    unreadable(
        id,
        column,
        &match value {
            ValueRef::Null => "NULL".to_owned(),
            other => format!("{}, not {wanted}", other.data_type()),
        },
    )
}

/// The error of a row whose text of this number, from 0 for the source, is not UTF-8.
pub(crate) fn not_utf8(id: i64, text: usize) -> Error {
    unreadable(id, 1 + text, "not UTF-8")
}

fn unreadable(id: i64, column: usize, what: &str) -> Error {
    Error::Damaged { what: format!("row {id} of logs"), reason: format!("{} is {what}", NAMES[column]), way_out: None }
}

/// A row to append.
#[derive(Clone, Copy, Debug)]
pub struct NewLogEntry<'a> {
    /// See [`LogEntry::source()`].
    pub source: &'a str,
    /// See [`LogEntry::kind()`].
    pub kind: &'a str,
    /// See [`LogEntry::ref_id()`].
    pub ref_id: Option<&'a str>,
    /// See [`LogEntry::payload()`].
    pub payload: Option<&'a str>,
    /// Milliseconds since the Unix epoch; None: when it is checked.
    pub timestamp: Option<i64>,
}

impl<'a> From<&'a LogEntry> for NewLogEntry<'a> {
    fn from(row: &'a LogEntry) -> Self {
        Self {
            source: row.source(),
            kind: row.kind(),
            ref_id: row.ref_id(),
            payload: row.payload(),
            timestamp: Some(row.timestamp),
        }
    }
}

/// A text that is a name, called `name`, has a length that can be stored.
pub fn check_name(name: &str, text: &str) -> Result<()> {
    match text.len() {
        length if length > MAX_NAME_BYTES => {
            Err(Error::Value(format!("{name} has {length} bytes, more than the limit of {MAX_NAME_BYTES}")))
        }
        _ => Ok(()),
    }
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
            let text = text.unwrap_or_default();
            if name != "payload" {
                check_name(name, text)?;
            }
            let length = text.len();
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
    pub(crate) fn indexed(&self, id: i64) -> IndexedRow<'_> {
        let timestamp = self.timestamp.unwrap_or_default();
        IndexedRow {
            id,
            source: Some(self.source),
            kind: Some(self.kind),
            ref_id: self.ref_id,
            payload: self.payload,
            timestamps: TimeSpan::of(timestamp),
        }
    }

    /// The row as it is read back.
    pub fn stored(&self, id: i64) -> LogEntry {
        LogEntry { id, timestamp: self.timestamp.unwrap_or_default(), texts: self.texts() }
    }

    fn texts(&self) -> Texts {
        Texts::new(self.source, self.kind, self.ref_id, self.payload)
    }
}

/// A row to append that outlives the call which gives it.
#[derive(Clone, Debug)]
pub struct OwnedEntry {
    texts: Texts,
    timestamp: Option<i64>,
}

impl From<&NewLogEntry<'_>> for OwnedEntry {
    fn from(entry: &NewLogEntry<'_>) -> Self {
        Self { texts: entry.texts(), timestamp: entry.timestamp }
    }
}

impl OwnedEntry {
    /// The same row, borrowed.
    pub fn borrow(&self) -> NewLogEntry<'_> {
        NewLogEntry {
            source: self.texts.source(),
            kind: self.texts.kind(),
            ref_id: self.texts.ref_id(),
            payload: self.texts.payload(),
            timestamp: self.timestamp,
        }
    }

    /// The row as it is read back.
    pub fn into_stored(self, id: i64) -> LogEntry {
        LogEntry { id, timestamp: self.timestamp.unwrap_or_default(), texts: self.texts }
    }
}
