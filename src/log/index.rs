//! How rows are found: the one module that knows which indexes the log has.
//!
//! Invariant: an index only proposes rows; every proposed row is checked against the whole filter. So no caller can tell
//! which index there is, except by the clock.

use std::collections::BTreeMap;

use roaring::RoaringTreemap;
use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::filter::Filter;
use crate::db::Database;
use crate::error::Result;
use crate::time::{MAX_TIMESTAMP, MIN_TIMESTAMP, UtcDay};

/// The predecessor's indexes.
pub(crate) const SCHEMA: &str = "
CREATE INDEX IF NOT EXISTS idx_logs_source_type ON logs(source, type);
CREATE INDEX IF NOT EXISTS idx_logs_timestamp ON logs(timestamp);
CREATE INDEX IF NOT EXISTS idx_logs_ref_id ON logs(ref_id);
";

/// Rows that one short transaction looks at while it plans an archive run.
const PLAN_PAGE: usize = 20_000;

/// The column that the planner should search by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Lead {
    RefId,
    Kind,
    Timestamp,
}

/// Left to itself SQLite takes the (source, type) index for a run's messages, although a reference is far rarer: 186 ms
/// for 5,000 messages among a million rows.
pub(super) fn lead(filter: &Filter) -> Lead {
    if filter.ref_id.is_some() {
        Lead::RefId
    } else if filter.source.is_some() {
        Lead::Kind
    } else {
        Lead::Timestamp
    }
}

/// The ids of the rows that an archive run may take.
#[derive(Default)]
pub(crate) struct Archivable {
    /// By the day of their timestamp.
    pub(crate) days: BTreeMap<UtcDay, RoaringTreemap>,
    /// Rows as old, whose run is still active.
    pub(crate) pinned: u64,
    /// Rows whose timestamp is no integer in the years 1970 to 9999, or whose id is not positive.
    pub(crate) unarchivable: u64,
}

/// Whether the row's run still works, or is in a state that nobody knows: then its rows stay.
const IS_PINNED: &str = "EXISTS (SELECT 1 FROM workflow_runs WHERE run_id = logs.ref_id
    AND status NOT IN ('completed', 'failed', 'crashed', 'interrupted', 'dropped', 'killed'))";

/// The rows with timestamps up to `last_timestamp`, by day, found in short transactions in memory that grows by some
/// bits a row.
pub(crate) fn archivable(database: &Database, last_timestamp: i64) -> Result<Archivable> {
    let mut found = Archivable { unarchivable: out_of_range(database)?, ..Archivable::default() };
    // Every row has an id above this; a row at the cursor's timestamp has one above the cursor's.
    let mut cursor = (MIN_TIMESTAMP, i64::MIN);
    loop {
        let page = database
            .read("plan the archive run", |connection| plan_page(connection, cursor, last_timestamp, &mut found))?;
        match page {
            Some(last) => cursor = last,
            None => return Ok(found),
        }
    }
}

/// Takes in the rows after `cursor`; returns the last one's place, or None if there was none.
fn plan_page(
    connection: &Connection,
    cursor: (i64, i64),
    last_timestamp: i64,
    found: &mut Archivable,
) -> Result<Option<(i64, i64)>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT id, timestamp, {IS_PINNED} FROM logs
         WHERE (timestamp, id) > (?1, ?2) AND timestamp <= ?3 ORDER BY timestamp, id LIMIT {PLAN_PAGE}"
    ))?;
    let mut rows = statement.query([cursor.0, cursor.1, last_timestamp])?;
    let mut last = None;
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        let (timestamp, place) = match row.get_ref(1)? {
            ValueRef::Integer(timestamp) => (Some(timestamp), (timestamp, id)),
            // It sorts between its neighbours: going on at the integer above it may skip another such row, never one
            // that can be archived.
            ValueRef::Real(timestamp) => (None, (timestamp.ceil() as i64, i64::MIN)),
            _ => (None, (last_timestamp, i64::MAX)),
        };
        last = Some(place);
        match (u64::try_from(id), timestamp.map(UtcDay::of)) {
            (Ok(1..), Some(Ok(_))) if row.get(2)? => found.pinned += 1,
            (Ok(id @ 1..), Some(Ok(day))) => {
                found.days.entry(day).or_default().insert(id);
            }
            _ => found.unarchivable += 1,
        }
    }
    Ok(last)
}

fn out_of_range(database: &Database) -> Result<u64> {
    database.read("plan the archive run", |connection| {
        let mut statement = connection.prepare_cached(
            "SELECT (SELECT count(*) FROM logs WHERE timestamp < ?1) + (SELECT count(*) FROM logs WHERE timestamp > ?2)",
        )?;
        Ok(statement.query_row([MIN_TIMESTAMP, MAX_TIMESTAMP], |row| row.get(0))?)
    })
}

/// Deletes the rows from `first` to `last` in the caller's transaction, except those whose run is active.
pub(crate) fn delete_unpinned(connection: &Connection, first: i64, last: i64) -> Result<()> {
    let mut statement =
        connection.prepare_cached(&format!("DELETE FROM logs WHERE id BETWEEN ?1 AND ?2 AND NOT {IS_PINNED}"))?;
    statement.execute([first, last])?;
    Ok(())
}
