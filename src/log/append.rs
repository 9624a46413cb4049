//! Appending rows.

use rusqlite::{Connection, ToSql};

use super::entry::{LogEntry, NewLogEntry};
use crate::db::Database;
use crate::durable::Durability;
use crate::error::Result;

/// Appends one checked row and returns it as it is stored.
pub fn append(database: &Database, entry: &NewLogEntry<'_>, durability: Option<Durability>) -> Result<LogEntry> {
    database.write("append", durability, |connection| insert(connection, entry)).map(|id| entry.stored(id))
}

/// Appends checked rows in one transaction; returns the first id and how many there are.
pub fn append_many<'a>(
    database: &Database,
    entries: impl ExactSizeIterator<Item = NewLogEntry<'a>>,
    durability: Option<Durability>,
) -> Result<(i64, usize)> {
    let count = entries.len();
    if count == 0 {
        return Ok((0, 0));
    }
    let last = database.write("append", durability, |connection| {
        let mut last = 0;
        for entry in entries {
            last = insert(connection, &entry)?;
        }
        Ok(last)
    })?;
    // One writer at a time gives out ids one by one, so those of a transaction are consecutive.
    Ok((last - i64::try_from(count).unwrap_or(i64::MAX) + 1, count))
}

/// Inserts one checked row in the caller's transaction; returns its id.
pub(crate) fn insert(connection: &Connection, entry: &NewLogEntry<'_>) -> Result<i64> {
    let mut statement = connection
        .prepare_cached("INSERT INTO logs (source, type, ref_id, payload, timestamp) VALUES (?1, ?2, ?3, ?4, ?5)")?;
    let values: [&dyn ToSql; 5] = [&entry.source, &entry.kind, &entry.ref_id, &entry.payload, &entry.timestamp];
    Ok(statement.insert(values)?)
}
