//! Whether the rows of sealed segments are still what was sealed.

use rusqlite::Connection;

use super::restored;
use super::segment::{Checksum, IndexedRow};
use crate::error::Result;
use crate::log::entry::{COLUMNS, LogEntry};

/// A sealed segment, as it was sealed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub(crate) first_id: i64,
    pub(crate) last_id: i64,
    pub(crate) row_count: u64,
    checksum: i64,
}

/// What was found of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) row_count: u64,
    checksum: i64,
}

/// The segments whose rows must be what was sealed; those that hold restored rows, which the index may never have seen,
/// are not among them.
pub(crate) fn segments(connection: &Connection) -> Result<Vec<Segment>> {
    let mut statement = connection
        .prepare_cached("SELECT first_id, last_id, row_count, checksum FROM log_segments ORDER BY first_id")?;
    let mut rows = statement.query([])?;
    let mut segments = Vec::new();
    while let Some(row) = rows.next()? {
        let segment =
            Segment { first_id: row.get(0)?, last_id: row.get(1)?, row_count: row.get(2)?, checksum: row.get(3)? };
        if restored::spans(connection, segment.first_id, segment.last_id)?.is_empty() {
            segments.push(segment);
        }
    }
    Ok(segments)
}

impl Segment {
    /// What the log holds of the segment, in the caller's transaction.
    pub(crate) fn live(&self, connection: &Connection) -> Result<Found> {
        let mut statement =
            connection.prepare_cached(&format!("SELECT {COLUMNS} FROM logs WHERE id BETWEEN ?1 AND ?2 ORDER BY id"))?;
        let mut rows = statement.query([self.first_id, self.last_id])?;
        let (mut checksum, mut row_count) = (Checksum::default(), 0);
        while let Some(row) = rows.next()? {
            checksum.add(&IndexedRow::read(row)?);
            row_count += 1;
        }
        Ok(Found { row_count, checksum: checksum.finish() })
    }

    /// What these rows, wherever they are, are of the segment.
    pub(crate) fn of(rows: &[LogEntry]) -> Found {
        let mut checksum = Checksum::default();
        rows.iter().for_each(|row| checksum.add(&row.indexed()));
        Found { row_count: rows.len() as u64, checksum: checksum.finish() }
    }

    /// Whether this is what was sealed.
    pub(crate) fn is(&self, found: Found) -> bool {
        (self.row_count, self.checksum) == (found.row_count, found.checksum)
    }
}
