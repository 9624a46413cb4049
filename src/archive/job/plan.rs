//! Which rows an archive job may take.

use std::collections::{BTreeMap, HashMap};

use roaring::RoaringTreemap;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};

use crate::base::error::Result;
use crate::base::ids::IdSpan;
use crate::base::status::IS_ACTIVE;
use crate::base::time::{MAX_TIMESTAMP, UtcDay};
use crate::db::Database;
use crate::index::bounds::sealed_end;
use crate::index::doubt;
use crate::index::lookup::restored::{Stretch, stretches};
use crate::row::index_key;

/// Rows that one short transaction looks at.
const PAGE_ROWS: i64 = 20_000;

/// The rows that an archive job may take.
#[derive(Default)]
pub(crate) struct Archivable {
    /// The ids among which they are, by the day of their timestamp; [`Picker`] decides row by row.
    pub(crate) days: BTreeMap<UtcDay, RoaringTreemap>,
    /// Rows that have no day, as far as they are not among these ids.
    pub(crate) unarchivable: u64,
}

/// The runs that are active. One whose id is no text, as only another program can have stored it, has no rows.
pub(crate) fn active_runs(connection: &Connection) -> Result<Vec<String>> {
    let mut statement = connection
        .prepare_cached(&format!("SELECT run_id FROM workflow_runs WHERE {} AND status >= ''", *IS_ACTIVE))?;
    let mut rows = statement.query([])?;
    let mut runs = Vec::new();
    while let Some(row) = rows.next()? {
        runs.extend(row.get_ref(0)?.as_str().ok().map(str::to_owned));
    }
    Ok(runs)
}

/// Where the rows with timestamps up to `last_timestamp` are, by day, found in short transactions. The rows of a segment
/// that lies in one day are not looked at.
pub(crate) fn archivable(database: &Database, last_timestamp: i64) -> Result<Archivable> {
    let mut found = Archivable::default();
    let spans = database.read("plan the archive job", |connection| spans(connection, last_timestamp, &mut found))?;
    for IdSpan { first, last } in spans {
        let mut after = first.saturating_sub(1);
        while let Some(seen) = database.read("plan the archive job", |connection| {
            read_page(connection, (after, last), last_timestamp, &mut found)
        })? {
            after = seen;
        }
    }
    Ok(found)
}

/// Takes in the segments that lie in one day; returns the spans of ids of the others in which there may be rows to take
/// or to count, of what the segments do not describe, and of the tail.
fn spans(connection: &Connection, last_timestamp: i64, found: &mut Archivable) -> Result<Vec<IdSpan>> {
    let sealed_end = sealed_end(connection)?;
    let sealed = IdSpan { first: i64::MIN, last: sealed_end };
    // Rows there may be of another day than their segment, or of no segment.
    let undescribed = doubt::undescribed(connection, sealed)?;
    let mut statement = connection.prepare_cached(
        "SELECT first_id, last_id, min_timestamp, max_timestamp FROM log_segments
         WHERE min_timestamp <= ?1 OR max_timestamp > ?2 ORDER BY first_id",
    )?;
    // Two queries: for a least and a greatest in one, SQLite reads all rows.
    let mut present = connection.prepare_cached(
        "SELECT (SELECT min(id) FROM logs WHERE id BETWEEN ?1 AND ?2),
                (SELECT max(id) FROM logs WHERE id BETWEEN ?1 AND ?2)",
    )?;
    let mut spans = undescribed.clone();
    let mut rows = statement.query([last_timestamp, MAX_TIMESTAMP])?;
    while let Some(row) = rows.next()? {
        let bounds: (Option<i64>, Option<i64>) =
            present.query_row([row.get::<_, i64>(0)?, row.get(1)?], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let Some(present) = bounds.0.zip(bounds.1).and_then(|(first, last)| IdSpan::new(first, last)) else { continue };
        let (earliest, latest): (i64, i64) = (row.get(2)?, row.get(3)?);
        match (UtcDay::of(earliest), UtcDay::of(latest)) {
            (Ok(day), Ok(same)) if day == same && latest <= last_timestamp && present.first > 0 => {
                let ids = found.days.entry(day).or_default();
                for stretch in stretches(present, &undescribed) {
                    if let Stretch::Indexed(span) = stretch {
                        ids.insert_range(span.first.cast_unsigned()..=span.last.cast_unsigned());
                    }
                }
            }
            _ => spans.push(present),
        }
    }
    spans.extend(sealed_end.checked_add(1).and_then(|first| IdSpan::new(first, i64::MAX)));
    Ok(IdSpan::joined(spans))
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
        "SELECT id, timestamp FROM logs WHERE id > ?1 AND id <= ?2 ORDER BY id LIMIT {PAGE_ROWS}"
    ))?;
    let mut rows = statement.query([after, last])?;
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
            (Ok(id @ 1..), Some(day)) => {
                found.days.entry(day).or_default().insert(id);
            }
            _ => found.unarchivable += 1,
        }
    }
    Ok(seen)
}

/// Decides row by row what an archive job takes.
pub(crate) struct Picker<'a> {
    day: UtcDay,
    /// Ids that files of other days hold: no row has two days.
    foreign: &'a RoaringTreemap,
    /// Of these, the ids of rows that were met.
    pub(crate) conflicts: RoaringTreemap,
    /// Rows passed over because their run is still active.
    pub(crate) pinned: u64,
    /// Rows passed over because they are none that a line can hold: their timestamp is no integer, a value no text, or they
    /// are too long.
    pub(crate) unarchivable: u64,
    /// What the transaction under way says of references, by key.
    is_pinned: HashMap<Box<str>, bool>,
}

impl<'a> Picker<'a> {
    /// Of rows of this day.
    pub(crate) fn new(day: UtcDay, foreign: &'a RoaringTreemap) -> Self {
        Self { day, foreign, conflicts: RoaringTreemap::new(), pinned: 0, unarchivable: 0, is_pinned: HashMap::new() }
    }

    /// Another transaction begins.
    pub(crate) fn begin(&mut self) {
        self.is_pinned.clear();
    }

    /// Whether a row of `logs`, all of whose columns were read, is to be taken.
    pub(crate) fn takes(&mut self, connection: &Connection, row: &Row<'_>) -> Result<bool> {
        match row.get_ref(5)? {
            ValueRef::Integer(timestamp) if UtcDay::of(timestamp).is_ok_and(|day| day == self.day) => {}
            ValueRef::Integer(_) => return Ok(false),
            _ => {
                self.unarchivable += 1;
                return Ok(false);
            }
        }
        let id = row.get::<_, i64>(0)?.cast_unsigned();
        if self.foreign.contains(id) {
            self.conflicts.insert(id);
            return Ok(false);
        }
        let ValueRef::Text(ref_id) = row.get_ref(3)? else { return Ok(true) };
        let Ok(ref_id) = std::str::from_utf8(ref_id) else { return Ok(true) };
        let ref_key = index_key(ref_id);
        let is_pinned = match self.is_pinned.get(&*ref_key) {
            Some(is_pinned) => *is_pinned,
            None => {
                let sql = format!("SELECT EXISTS (SELECT 1 FROM workflow_runs WHERE run_id = ?1 AND {})", *IS_ACTIVE);
                let is_pinned = connection.prepare_cached(&sql)?.query_row([ref_id], |row| row.get(0))?;
                self.is_pinned.insert((*ref_key).into(), is_pinned);
                is_pinned
            }
        };
        self.pinned += u64::from(is_pinned);
        Ok(!is_pinned)
    }
}

/// Deletes the rows of a span in the caller's transaction, except those whose run is active.
pub(crate) fn delete_unpinned(connection: &Connection, span: IdSpan) -> Result<()> {
    let mut statement = connection.prepare_cached(&format!(
        "DELETE FROM logs WHERE id BETWEEN ?1 AND ?2
         AND NOT EXISTS (SELECT 1 FROM workflow_runs WHERE run_id = logs.ref_id AND {})",
        *IS_ACTIVE
    ))?;
    statement.execute(<(i64, i64)>::from(span))?;
    Ok(())
}
