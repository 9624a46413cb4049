//! Ids that both the log and a file have. Most are of rows that were put back, or that an interrupted job left in both
//! places; the others are conflicts: a database that was older than its archive gave ids out again.
//!
//! Invariant: no row is hidden by another one under its id. A read that meets both raises.

use roaring::RoaringTreemap;
use rusqlite::Connection;

use crate::archive::manifest::catalog::{Archive, OpenDay};
use crate::archive::manifest::values::set_of;
use crate::base::error::{Error, Result};
use crate::base::ids::IdSpan;
use crate::log::{by_ids, each_id};
use crate::row::LogEntry;

/// Ids that one statement looks up.
const CHUNK_IDS: usize = 4_096;

/// Those of the ids that the log has, in the caller's transaction.
pub(in crate::archive) fn live_among(connection: &Connection, ids: &RoaringTreemap) -> Result<RoaringTreemap> {
    let mut statement = connection.prepare_cached("SELECT min(id), max(id) FROM logs WHERE id > 0")?;
    let bounds: (Option<i64>, Option<i64>) = statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let mut live = RoaringTreemap::new();
    let (Some(first), Some(last)) = bounds else { return Ok(live) };
    // Archived rows are old: few of them are among the ids that the log has.
    let mut within = ids.clone();
    within.remove_range(..first.cast_unsigned());
    within.remove_range(last.cast_unsigned().saturating_add(1)..);
    let mut rest = within.iter().map(u64::cast_signed).peekable();
    while rest.peek().is_some() {
        let chunk: Vec<i64> = rest.by_ref().take(CHUNK_IDS).collect();
        each_id(connection, &chunk, |id| {
            live.insert(id.cast_unsigned());
        })?;
    }
    Ok(live)
}

impl Archive {
    /// The ids under which the log has another row than the file; `shared` are those that both have.
    pub(in crate::archive) fn conflicts(&self, open: OpenDay, shared: &RoaringTreemap) -> Result<RoaringTreemap> {
        let mut reader = open.reader;
        let mut conflicts = RoaringTreemap::new();
        for index in 0..reader.blocks().len() {
            let first = reader.blocks()[index].first_id.cast_unsigned();
            let end = reader.blocks().get(index + 1).map_or(u64::MAX, |next| next.first_id.cast_unsigned());
            if shared.range_cardinality(first..end) == 0 {
                continue;
            }
            let mut archived: Vec<LogEntry> = Vec::new();
            reader.each_row(index, |id| shared.contains(id.cast_unsigned()), |row, _| archived.push(row))?;
            let ids: Vec<i64> = archived.iter().map(|row| row.id).collect();
            let live = self.log.database().read("compare rows", |connection| by_ids(connection, &ids))?;
            let mut archived = archived.iter();
            for row in live {
                if archived.find(|archived| archived.id == row.id) != Some(&row) {
                    conflicts.insert(row.id.cast_unsigned());
                }
            }
        }
        Ok(conflicts)
    }

    /// The error that rows of the log have the ids of others in this file.
    pub(in crate::archive) fn conflict(&self, open: OpenDay, id: i64) -> Error {
        let path = open.reader.path().to_owned();
        let shared = self.log.database().read("compare rows", |connection| live_among(connection, &open.summary.ids));
        let conflicts = shared.and_then(|shared| self.conflicts(open, &shared)).unwrap_or_default();
        let conflicts = if conflicts.is_empty() { set_of(&[id]) } else { conflicts };
        Error::IdConflict { path, reason: described(&conflicts) }
    }
}

/// What a conflict is, and the way out.
pub(in crate::archive) fn described(ids: &RoaringTreemap) -> String {
    let are = if ids.len() == 1 { "is another one" } else { "are others" };
    format!(
        "{} of the database {are} than in this file: the database was older than its archive, or was replaced; reindex() gives those of the database new ids",
        named(ids)
    )
}

/// Which rows these are, in words.
pub(in crate::archive) fn named(ids: &RoaringTreemap) -> String {
    match (ids.len(), span_of(ids)) {
        (1, Some(span)) => format!("row {}", span.first),
        (count, Some(IdSpan { first, last })) => format!("{count} rows with ids from {first} to {last}"),
        (_, None) => "no row".to_owned(),
    }
}

/// The least span that holds the ids.
pub(in crate::archive) fn span_of(ids: &RoaringTreemap) -> Option<IdSpan> {
    IdSpan::new(ids.min()?.cast_signed(), ids.max()?.cast_signed())
}
