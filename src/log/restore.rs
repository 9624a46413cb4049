//! Putting archived rows back.

use rusqlite::Connection;

use super::entry::LogEntry;
use crate::error::Result;

/// Inserts rows under the ids that they had, in the caller's transaction; returns the ids of those that were not there.
pub(super) fn restore(connection: &Connection, entries: &[LogEntry]) -> Result<Vec<i64>> {
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
