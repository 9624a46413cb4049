//! Appending rows.

use rusqlite::{Connection, Statement};

use super::commit::{commit, first_of};
use super::entry::{LogEntry, NewLogEntry};
use super::store::Log;
use crate::durable::Durability;
use crate::error::Result;

/// Rows that one statement inserts: the cost of a statement, and of SQLite's table of sequences, is shared by them.
const ROWS_PER_STATEMENT: usize = 16;
const COLUMNS: usize = 5;

/// Appends one checked row and returns it as it is stored.
pub fn append(log: &Log, entry: &NewLogEntry<'_>, durability: Option<Durability>) -> Result<LogEntry> {
    Ok(entry.stored(commit(log, std::slice::from_ref(entry), durability_of(log, durability))?))
}

/// Appends checked rows in one transaction; returns the first id.
pub fn append_many(log: &Log, entries: &[NewLogEntry<'_>], durability: Option<Durability>) -> Result<i64> {
    if entries.is_empty() {
        return Ok(0);
    }
    commit(log, entries, durability_of(log, durability))
}

fn durability_of(log: &Log, durability: Option<Durability>) -> Durability {
    durability.unwrap_or(log.database().config().durability)
}

/// Inserts checked rows in the caller's transaction and tells `inserted` the id of each; returns the last id.
pub(super) fn insert(
    connection: &Connection,
    entries: &[NewLogEntry<'_>],
    mut inserted: impl FnMut(i64, &NewLogEntry<'_>) -> Result<()>,
) -> Result<i64> {
    let mut last = 0;
    let (groups, rest) = entries.as_chunks::<ROWS_PER_STATEMENT>();
    let mut tell = |last: i64, group: &[NewLogEntry<'_>]| {
        (first_of(last, group.len())..).zip(group).try_for_each(|(id, entry)| inserted(id, entry))
    };
    if !groups.is_empty() {
        let mut statement = connection.prepare_cached(&insert_sql(ROWS_PER_STATEMENT))?;
        for group in groups {
            last = execute(&mut statement, connection, group)?;
            tell(last, group)?;
        }
    }
    if !rest.is_empty() {
        let mut statement = connection.prepare_cached(&insert_sql(1))?;
        for entry in rest {
            let group = std::slice::from_ref(entry);
            last = execute(&mut statement, connection, group)?;
            tell(last, group)?;
        }
    }
    Ok(last)
}

fn insert_sql(rows: usize) -> String {
    format!(
        "INSERT INTO logs (source, type, ref_id, payload, timestamp) VALUES {}",
        ["(?, ?, ?, ?, ?)"].repeat(rows).join(", ")
    )
}

fn execute(statement: &mut Statement<'_>, connection: &Connection, entries: &[NewLogEntry<'_>]) -> Result<i64> {
    for (index, entry) in entries.iter().enumerate() {
        let first = index * COLUMNS + 1;
        statement.raw_bind_parameter(first, entry.source)?;
        statement.raw_bind_parameter(first + 1, entry.kind)?;
        statement.raw_bind_parameter(first + 2, entry.ref_id)?;
        statement.raw_bind_parameter(first + 3, entry.payload)?;
        statement.raw_bind_parameter(first + 4, entry.timestamp)?;
    }
    statement.raw_execute()?;
    Ok(connection.last_insert_rowid())
}
