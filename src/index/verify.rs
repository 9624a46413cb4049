//! Whether the rows of sealed segments are still what was sealed.

use roaring::{RoaringBitmap, RoaringTreemap};
use rusqlite::Connection;

use crate::base::error::Result;
use crate::base::ids::IdSpan;
use crate::index::build::postings::decode;
use crate::index::build::segment::Checksum;
use crate::index::lookup::restored;
use crate::row::COLUMNS;
use crate::row::IndexedRow;
use crate::row::LogEntry;

/// A sealed segment, as it was sealed.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) first_id: i64,
    pub(crate) last_id: i64,
    pub(crate) row_count: u64,
    checksum: i64,
    /// The distances of its ids from the first; None: all ids up to the last.
    offsets: Option<RoaringBitmap>,
}

/// What was found of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) row_count: u64,
    checksum: i64,
}

/// The segments whose rows must be what was sealed; those that hold restored rows, which the index may never have seen,
/// are not among them.
pub(crate) fn segments(connection: &Connection) -> Result<Vec<Segment>> {
    let mut statement = connection.prepare_cached(
        "SELECT first_id, last_id, row_count, checksum, ids FROM log_segments LEFT JOIN log_gaps ON segment = first_id
         ORDER BY first_id",
    )?;
    let mut rows = statement.query([])?;
    let mut segments = Vec::new();
    while let Some(row) = rows.next()? {
        let offsets = row.get_ref(4)?.as_blob_or_null().map_err(rusqlite::Error::from)?;
        let segment = Segment {
            first_id: row.get(0)?,
            last_id: row.get(1)?,
            row_count: row.get(2)?,
            checksum: row.get(3)?,
            offsets: offsets.map(decode).transpose()?,
        };
        if restored::spans(connection, IdSpan { first: segment.first_id, last: segment.last_id })?.is_empty() {
            segments.push(segment);
        }
    }
    Ok(segments)
}

impl Segment {
    /// What the log holds of the segment, in the caller's transaction.
    pub(crate) fn live(&self, connection: &Connection) -> Result<Content> {
        let mut statement =
            connection.prepare_cached(&format!("SELECT {COLUMNS} FROM logs WHERE id BETWEEN ?1 AND ?2 ORDER BY id"))?;
        let mut rows = statement.query([self.first_id, self.last_id])?;
        let (mut checksum, mut row_count) = (Checksum::default(), 0);
        while let Some(row) = rows.next()? {
            checksum.add(&IndexedRow::read(row)?);
            row_count += 1;
        }
        Ok(Content { row_count, checksum: checksum.finish() })
    }

    /// What these rows, wherever they are, are of the segment.
    pub(crate) fn of(rows: &[LogEntry]) -> Content {
        let mut checksum = Checksum::default();
        rows.iter().for_each(|row| checksum.add(&row.indexed()));
        Content { row_count: rows.len() as u64, checksum: checksum.finish() }
    }

    /// Whether the row with this id was among those that were sealed.
    pub(crate) fn had(&self, id: i64) -> bool {
        let offset = id.checked_sub(self.first_id).and_then(|offset| u32::try_from(offset).ok());
        match &self.offsets {
            Some(offsets) => offset.is_some_and(|offset| offsets.contains(offset)),
            None => (self.first_id..=self.last_id).contains(&id),
        }
    }

    /// Whether all of its rows are among these.
    pub(crate) fn is_within(&self, ids: &RoaringTreemap) -> bool {
        let (first, last) = (self.first_id, self.last_id);
        match &self.offsets {
            _ if first < 0 => false,
            Some(offsets) => offsets.iter().all(|offset| ids.contains((first + i64::from(offset)).cast_unsigned())),
            None => ids.range_cardinality(first.cast_unsigned()..=last.cast_unsigned()) == self.row_count,
        }
    }

    /// Whether this is what was sealed.
    pub(crate) fn is(&self, found: Content) -> bool {
        (self.row_count, self.checksum) == (found.row_count, found.checksum)
    }
}
