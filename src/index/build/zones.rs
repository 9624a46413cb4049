//! The zones of a segment: when its rows were, finer than the segment as a whole, so that a query by time does not look
//! at all of the segments at both its ends.

use rusqlite::{Connection, OptionalExtension};

use crate::base::error::Result;
use crate::base::ids::IdSpan;
use crate::base::time::TimeSpan;
use crate::index::build::bytes::damaged;

/// Zones of a full segment: a read by time looks at the rows of those at both its ends.
const ZONES: u64 = 64;

/// Bytes of a zone: the offset of its last row, and its least and greatest timestamp.
const ZONE_BYTES: usize = 4 + 8 + 8;

struct Zone {
    last: u32,
    timestamps: TimeSpan,
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
    pub(crate) fn add(&mut self, segment_rows: u64, offset: u32, timestamps: TimeSpan) {
        match self.zones.last_mut() {
            Some(zone) if self.newest_rows < segment_rows.div_ceil(ZONES) => {
                zone.last = offset;
                zone.timestamps = zone.timestamps.union(timestamps);
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
            bytes.extend_from_slice(&zone.timestamps.first.to_le_bytes());
            bytes.extend_from_slice(&zone.timestamps.last.to_le_bytes());
        }
        connection.prepare_cached("INSERT OR REPLACE INTO log_zones VALUES (?1, ?2)")?.execute((first_id, bytes))?;
        Ok(())
    }
}

/// Parts of a segment by what its zones say of bounds of time.
#[derive(Default)]
pub(crate) struct Split {
    /// All of their rows are within the bounds.
    pub(crate) within: Vec<IdSpan>,
    /// Some of their rows may be.
    pub(crate) cut: Vec<IdSpan>,
}

/// The parts of the segment `segment` that may have rows at `times`, each kind ascending.
pub(crate) fn split(connection: &Connection, segment: IdSpan, times: TimeSpan) -> Result<Split> {
    let mut split = Split::default();
    each(connection, segment, |span, zone_times| match zone_times {
        Some(zone_times) if times.covers(zone_times) => extend(&mut split.within, span),
        Some(zone_times) if !zone_times.overlaps(times) => {}
        _ => extend(&mut split.cut, span),
    })?;
    Ok(split)
}

/// The spans of ids in the segment `within` whose zones allow one of `times`, ascending.
pub(crate) fn spans(connection: &Connection, within: IdSpan, times: TimeSpan) -> Result<Vec<IdSpan>> {
    let mut spans = Vec::new();
    each(connection, within, |span, zone_times| {
        if zone_times.is_none_or(|zone_times| zone_times.overlaps(times)) {
            extend(&mut spans, span);
        }
    })?;
    Ok(spans)
}

/// Adds a span to others, or to the last of them if it adjoins that.
fn extend(spans: &mut Vec<IdSpan>, span: IdSpan) {
    match spans.last_mut() {
        Some(open) if open.adjoins(span) => open.last = span.last,
        _ => spans.push(span),
    }
}

/// Calls `visit` with each zone of a segment, and when its rows were; with the segment, if that is not known.
fn each(connection: &Connection, segment: IdSpan, mut visit: impl FnMut(IdSpan, Option<TimeSpan>)) -> Result<()> {
    let mut statement = connection.prepare_cached("SELECT zones FROM log_zones WHERE segment = ?1")?;
    let bytes: Option<Vec<u8>> = statement.query_row([segment.first], |row| row.get(0)).optional()?;
    let Some(bytes) = bytes else {
        visit(segment, None);
        return Ok(());
    };
    let (zones, []) = bytes.as_chunks::<ZONE_BYTES>() else { return Err(damaged("a zone is cut off")) };
    let mut first = segment.first;
    for zone in zones {
        let (offset, times) = fields(zone);
        let last = segment.first.saturating_add(offset);
        visit(IdSpan { first, last }, Some(times));
        first = last.saturating_add(1);
    }
    Ok(())
}

/// Whether the zones in `bytes` say of these rows of the segment that begins with `first_id` when they were.
pub(crate) fn are(bytes: &[u8], first_id: i64, rows: &[(i64, TimeSpan)]) -> bool {
    let (zones, []) = bytes.as_chunks::<ZONE_BYTES>() else { return false };
    let mut left = rows;
    for zone in zones {
        let (offset, times) = fields(zone);
        let count = left.partition_point(|(id, _)| *id <= first_id.saturating_add(offset));
        let (rows, rest) = left.split_at(count);
        let found = rows.iter().map(|(_, times)| *times).reduce(TimeSpan::union);
        if found != Some(times) || rows.last().is_none_or(|(id, _)| *id != first_id.saturating_add(offset)) {
            return false;
        }
        left = rest;
    }
    left.is_empty()
}

/// The offset of the last row of a zone, and its times.
fn fields(zone: &[u8; ZONE_BYTES]) -> (i64, TimeSpan) {
    let [a, b, c, d, rest @ ..] = *zone;
    let (times, _) = rest.as_chunks::<8>();
    let times = TimeSpan { first: i64::from_le_bytes(times[0]), last: i64::from_le_bytes(times[1]) };
    (i64::from(u32::from_le_bytes([a, b, c, d])), times)
}
