//! Inserting rows, in the caller's transaction.

use std::sync::LazyLock;

use rusqlite::{Connection, Statement};

use crate::base::error::Result;
use crate::db::stored;
use crate::row::{LogEntry, NewLogEntry};

/// Rows that a statement inserts: the cost of a statement, and of SQLite's table of sequences, is shared by them.
const MANY: usize = 16;
const SOME: usize = 4;
const COLUMNS: usize = 5;

static INSERT_MANY: LazyLock<String> = LazyLock::new(|| insert_sql(MANY));
static INSERT_SOME: LazyLock<String> = LazyLock::new(|| insert_sql(SOME));
static INSERT_ONE: LazyLock<String> = LazyLock::new(|| insert_sql(1));

/// Inserts checked rows in the caller's transaction and tells `inserted` the id of each; returns the last id. Where triggers
/// of other programs run, each row has a statement of its own, since they may insert others in between.
pub(crate) fn insert(
    connection: &Connection,
    entries: &[NewLogEntry<'_>],
    has_triggers: bool,
    mut inserted: impl FnMut(i64, &NewLogEntry<'_>) -> Result<()>,
) -> Result<i64> {
    let (many, rest) = if has_triggers { (&[][..], entries) } else { entries.as_chunks() };
    let (some, rest) = if has_triggers { (&[][..], rest) } else { rest.as_chunks() };
    let (ones, _) = rest.as_chunks();
    let mut last = 0;
    insert_groups::<MANY>(connection, &INSERT_MANY, many, &mut last, &mut inserted)?;
    insert_groups::<SOME>(connection, &INSERT_SOME, some, &mut last, &mut inserted)?;
    insert_groups::<1>(connection, &INSERT_ONE, ones, &mut last, &mut inserted)?;
    Ok(last)
}

fn insert_groups<const ROWS: usize>(
    connection: &Connection,
    sql: &str,
    groups: &[[NewLogEntry<'_>; ROWS]],
    last: &mut i64,
    inserted: &mut impl FnMut(i64, &NewLogEntry<'_>) -> Result<()>,
) -> Result<()> {
    if groups.is_empty() {
        return Ok(());
    }
    let mut statement = connection.prepare_cached(sql)?;
    for group in groups {
        *last = execute(&mut statement, connection, group)?;
        (first_of(*last, ROWS)..).zip(group).try_for_each(|(id, entry)| inserted(id, entry))?;
    }
    Ok(())
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
    stored(statement.raw_execute()?, entries.len())?;
    Ok(connection.last_insert_rowid())
}

/// The id of the first of `count` rows whose last has the id `last`: one writer at a time gives out ids one by one, so
/// those of a transaction are consecutive.
pub(crate) fn first_of(last: i64, count: usize) -> i64 {
    last - i64::try_from(count).unwrap_or(i64::MAX) + 1
}

/// Inserts rows under the ids that they had, in the caller's transaction; returns the ids of those that were not there.
pub(crate) fn restore(connection: &Connection, entries: &[LogEntry]) -> Result<Vec<i64>> {
    let mut statement = connection.prepare_cached("INSERT OR IGNORE INTO logs VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
    let mut put = Vec::new();
    for entry in entries {
        let row = (entry.id, entry.source(), entry.kind(), entry.ref_id(), entry.payload(), entry.timestamp);
        if statement.execute(row)? > 0 {
            put.push(entry.id);
        }
    }
    Ok(put)
}
