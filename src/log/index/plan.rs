//! Which rows an archive run may take.

use std::collections::BTreeMap;

use roaring::RoaringTreemap;
use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::sealed_end;
use crate::db::Database;
use crate::error::Result;
use crate::time::{MAX_TIMESTAMP, UtcDay};

/// Rows that one short transaction looks at.
const PAGE_ROWS: i64 = 20_000;

/// The rows that an archive run may take.
#[derive(Default)]
pub(crate) struct Archivable {
    /// Their ids, by the day of their timestamp.
    pub(crate) days: BTreeMap<UtcDay, RoaringTreemap>,
    /// Rows as old, whose run is still active.
    pub(crate) pinned: u64,
    /// Rows whose timestamp is no integer in the years 1970 to 9999, or whose id is not positive.
    pub(crate) unarchivable: u64,
}

/// Whether a run still works, in SQL over `workflow_runs`. Written as what is not active, so that a run in a state that
/// nobody knows counts as active: it is reported, and its rows stay.
pub(crate) const IS_ACTIVE: &str =
    "status NOT IN ('completed', 'failed', 'crashed', 'interrupted', 'dropped', 'killed')";

/// Whether the row's run is active, in SQL over `logs`.
fn is_pinned() -> String {
    format!("EXISTS (SELECT 1 FROM workflow_runs WHERE run_id = logs.ref_id AND {IS_ACTIVE})")
}

/// The rows with timestamps up to `last_timestamp`, by day, found in short transactions in memory that grows by some
/// bits a row.
pub(crate) fn archivable(database: &Database, last_timestamp: i64) -> Result<Archivable> {
    let mut found = Archivable::default();
    let spans = database.read("plan the archive run", |connection| spans(connection, last_timestamp))?;
    for (first, last) in spans {
        let mut after = first.saturating_sub(1);
        while let Some(seen) = database.read("plan the archive run", |connection| {
            read_page(connection, (after, last), last_timestamp, &mut found)
        })? {
            after = seen;
        }
    }
    Ok(found)
}

/// The spans of ids in which there may be rows to take or to count: segments by their zone, and the tail.
fn spans(connection: &Connection, last_timestamp: i64) -> Result<Vec<(i64, i64)>> {
    let mut statement = connection.prepare_cached(
        "SELECT first_id, last_id FROM log_segments WHERE min_timestamp <= ?1 OR max_timestamp > ?2 ORDER BY first_id",
    )?;
    let mut spans: Vec<(i64, i64)> = Vec::new();
    let mut rows = statement.query([last_timestamp, MAX_TIMESTAMP])?;
    while let Some(row) = rows.next()? {
        let (first, last) = (row.get(0)?, row.get(1)?);
        match spans.last_mut() {
            Some((_, end)) if first - *end == 1 => *end = last,
            _ => spans.push((first, last)),
        }
    }
    spans.extend(sealed_end(connection)?.checked_add(1).map(|first| (first, i64::MAX)));
    Ok(spans)
}

/// Takes in the rows of a span of ids, without its first one, up to a page; returns the last id, or None if there was
/// none.
fn read_page(
    connection: &Connection,
    (after, last): (i64, i64),
    last_timestamp: i64,
    found: &mut Archivable,
) -> Result<Option<i64>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT id, timestamp, CASE WHEN timestamp <= ?3 THEN {} END FROM logs
         WHERE id > ?1 AND id <= ?2 ORDER BY id LIMIT {PAGE_ROWS}",
        is_pinned()
    ))?;
    let mut rows = statement.query([after, last, last_timestamp])?;
    let mut seen = None;
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        seen = Some(id);
        let day = match row.get_ref(1)? {
            ValueRef::Integer(timestamp) if (last_timestamp + 1..=MAX_TIMESTAMP).contains(&timestamp) => continue,
            ValueRef::Integer(timestamp) => UtcDay::of(timestamp).ok(),
            _ => None,
        };
        match (u64::try_from(id), day) {
            (Ok(1..), Some(_)) if row.get(2)? => found.pinned += 1,
            (Ok(id @ 1..), Some(day)) => {
                found.days.entry(day).or_default().insert(id);
            }
            _ => found.unarchivable += 1,
        }
    }
    Ok(seen)
}

/// Deletes the rows from `first` to `last` in the caller's transaction, except those whose run is active.
pub(crate) fn delete_unpinned(connection: &Connection, first: i64, last: i64) -> Result<()> {
    let mut statement =
        connection.prepare_cached(&format!("DELETE FROM logs WHERE id BETWEEN ?1 AND ?2 AND NOT {}", is_pinned()))?;
    statement.execute([first, last])?;
    Ok(())
}
