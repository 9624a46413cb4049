//! The zones of a segment: when its rows were, finer than the segment as a whole, so that a query by time does not look
//! at all of the segments at both its ends.

use rusqlite::{Connection, OptionalExtension};

use crate::base::error::Result;
use crate::index::build::postings::damaged;

/// Zones of a full segment.
const ZONES: u64 = 16;

/// Bytes of a zone: the offset of its last row, and its least and greatest timestamp.
const ZONE_BYTES: usize = 4 + 8 + 8;

struct Zone {
    last: u32,
    timestamps: (i64, i64),
}

/// The zones of a segment that is being gathered.
#[derive(Default)]
pub(crate) struct Zones {
    zones: Vec<Zone>,
    /// Rows of the last one.
    newest_rows: u64,
}

impl Zones {
    /// Takes in a row of a segment of `segment_rows`; its offset is above all others.
    pub(crate) fn add(&mut self, segment_rows: u64, offset: u32, timestamps: (i64, i64)) {
        match self.zones.last_mut() {
            Some(zone) if self.newest_rows < segment_rows.div_ceil(ZONES) => {
                zone.last = offset;
                zone.timestamps = (zone.timestamps.0.min(timestamps.0), zone.timestamps.1.max(timestamps.1));
                self.newest_rows += 1;
            }
            _ => {
                self.zones.push(Zone { last: offset, timestamps });
                self.newest_rows = 1;
            }
        }
    }

    /// Writes them in the caller's transaction.
    pub(crate) fn write(&self, connection: &Connection, first_id: i64) -> Result<()> {
        let mut bytes = Vec::with_capacity(self.zones.len() * ZONE_BYTES);
        for zone in &self.zones {
            bytes.extend_from_slice(&zone.last.to_le_bytes());
            bytes.extend_from_slice(&zone.timestamps.0.to_le_bytes());
            bytes.extend_from_slice(&zone.timestamps.1.to_le_bytes());
        }
        connection.prepare_cached("INSERT INTO log_zones VALUES (?1, ?2)")?.execute((first_id, bytes))?;
        Ok(())
    }
}

/// The spans of ids in a segment whose zones allow a timestamp from `since` to `until`, ascending.
pub(crate) fn spans(
    connection: &Connection,
    (first_id, last_id): (i64, i64),
    (since, until): (i64, i64),
) -> Result<Vec<(i64, i64)>> {
    let mut statement = connection.prepare_cached("SELECT zones FROM log_zones WHERE segment = ?1")?;
    let bytes: Option<Vec<u8>> = statement.query_row([first_id], |row| row.get(0)).optional()?;
    let Some(bytes) = bytes else { return Ok(vec![(first_id, last_id)]) };
    let (zones, []) = bytes.as_chunks::<ZONE_BYTES>() else { return Err(damaged("a zone is cut off")) };
    let mut spans: Vec<(i64, i64)> = Vec::new();
    let mut first = first_id;
    for zone in zones {
        let [last, min, max] = fields(zone);
        let last = first_id.saturating_add(last);
        if max >= since && min <= until {
            match spans.last_mut() {
                Some((_, end)) if end.checked_add(1) == Some(first) => *end = last,
                _ => spans.push((first, last)),
            }
        }
        first = last.saturating_add(1);
    }
    Ok(spans)
}

fn fields(zone: &[u8; ZONE_BYTES]) -> [i64; 3] {
    let [a, b, c, d, rest @ ..] = *zone;
    let (halves, _) = rest.as_chunks::<8>();
    [i64::from(u32::from_le_bytes([a, b, c, d])), i64::from_le_bytes(halves[0]), i64::from_le_bytes(halves[1])]
}
