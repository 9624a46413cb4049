//! The rows of the log, and the segments that vouch for them, among what was read.

use std::collections::{BTreeMap, HashMap};

use roaring::RoaringBitmap;
use rusqlite::Connection;
use rusqlite::types::Value;

use crate::base::error::Result;
use crate::base::ids::IdSpan;
use crate::index::verify::Segment;
use crate::salvage::tree::Entry;

/// Ids that a segment spans at the most in which ids are missing: distances have 32 bits.
const MOST_SPAN: u64 = 1 << 32;

/// Whether the values are those of a row.
pub(super) fn is_row(entry: &Entry) -> bool {
    let is_text = |value: &Value| matches!(value, Value::Null | Value::Text(_));
    matches!(
        &entry.values[..],
        [Value::Null, Value::Text(_), Value::Text(_), ref_id, payload, Value::Integer(_) | Value::Real(_)]
            if is_text(ref_id) && is_text(payload)
    )
}

/// Inserts an entry of `logs`, unless its id is there; says whether it was a row.
pub(super) fn insert(connection: &Connection, entry: &Entry) -> Result<bool> {
    let [_, source, kind, ref_id, payload, timestamp] = &entry.values[..] else { return Ok(false) };
    if !is_row(entry) {
        return Ok(false);
    }
    let mut statement = connection.prepare_cached("INSERT OR IGNORE INTO logs VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
    statement.execute((entry.rowid, source, kind, ref_id, payload, timestamp))?;
    Ok(true)
}

/// The segments that were found, by first id; of one there may be an older state in a page that is not in use.
#[derive(Default)]
pub(super) struct Segments {
    found: BTreeMap<i64, Vec<(IdSpan, u64, i64)>>,
    gaps: HashMap<i64, RoaringBitmap>,
    /// Whether the trees that hold them led everywhere.
    pub(super) is_whole: bool,
}

impl Segments {
    /// Takes in an entry of `log_segments`, or what looks like one.
    pub(super) fn take(&mut self, entry: &Entry) -> bool {
        let [
            Value::Null,
            Value::Integer(last),
            Value::Integer(row_count),
            Value::Integer(_),
            Value::Integer(_),
            Value::Integer(checksum),
        ] = &entry.values[..]
        else {
            return false;
        };
        let (Some(span), Ok(row_count)) = (IdSpan::new(entry.rowid, *last), u64::try_from(*row_count)) else {
            return false;
        };
        if span.len() > MOST_SPAN || row_count > span.len() {
            return false;
        }
        let found = self.found.entry(span.first).or_default();
        if !found.contains(&(span, row_count, *checksum)) {
            found.push((span, row_count, *checksum));
        }
        true
    }

    /// Takes in an entry of `log_gaps`.
    pub(super) fn take_gaps(&mut self, entry: &Entry) -> bool {
        let [Value::Null, Value::Blob(bytes)] = &entry.values[..] else { return false };
        let Ok(offsets) = RoaringBitmap::deserialize_from(&bytes[..]) else { return false };
        self.gaps.insert(entry.rowid, offsets);
        true
    }

    /// Each that was found, in order.
    pub(super) fn list(&self) -> Vec<Segment> {
        let of = |&(ids, row_count, checksum): &(IdSpan, u64, i64)| {
            Segment::found(ids, row_count, checksum, self.gaps.get(&ids.first).cloned())
        };
        self.found.values().flatten().map(of).collect()
    }
}
