//! Rows that a day's file held, and does not hold any more: what `reindex` accepted, and `verify` goes on to report until
//! the rows are there again.

use roaring::RoaringTreemap;
use rusqlite::Connection;

use crate::archive::manifest::values::{from_bytes, to_bytes};
use crate::base::error::Result;
use crate::base::time::UtcDay;

/// The ids that are missing in the day's file.
pub(in crate::archive) fn load(connection: &Connection, day: UtcDay) -> Result<RoaringTreemap> {
    let mut statement = connection.prepare_cached("SELECT ids FROM archive_missing WHERE day = ?1")?;
    let mut rows = statement.query([day.to_string()])?;
    rows.next()?.map_or(Ok(RoaringTreemap::new()), |row| from_bytes(row, 0))
}

/// Replaces them, in the caller's transaction.
pub(in crate::archive) fn save(connection: &Connection, day: UtcDay, ids: &RoaringTreemap) -> Result<()> {
    if ids.is_empty() {
        connection.prepare_cached("DELETE FROM archive_missing WHERE day = ?1")?.execute([day.to_string()])?;
    } else {
        let mut statement = connection.prepare_cached("INSERT OR REPLACE INTO archive_missing VALUES (?1, ?2)")?;
        statement.execute((day.to_string(), to_bytes(ids)))?;
    }
    Ok(())
}
