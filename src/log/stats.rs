//! Figures of a log database.

use super::index;
use crate::db::Database;
use crate::error::Result;

/// Figures of a log database.
#[derive(Clone, Debug)]
pub struct LogStats {
    /// Rows in the database.
    pub row_count: u64,
    /// The least and greatest id.
    pub ids: Option<(i64, i64)>,
    /// The least and greatest timestamp.
    pub timestamps: Option<(i64, i64)>,
    /// Runs by status, as it is stored.
    pub runs: Vec<(String, u64)>,
    /// Size of the database file as SQLite counts it, in bytes.
    pub database_bytes: u64,
    /// Size of the write-ahead log on disk, in bytes.
    pub wal_bytes: u64,
    /// Bytes inside the file that new rows will use first.
    pub free_bytes: u64,
}

/// Reads the figures; counts the rows.
pub fn stats(database: &Database) -> Result<LogStats> {
    let mut wal = database.path().as_os_str().to_owned();
    wal.push("-wal");
    let wal_bytes = std::fs::metadata(wal).map_or(0, |metadata| metadata.len());
    database.read("read figures", |connection| {
        let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, u64>(0));
        let id = |function: &str| {
            connection.query_row(&format!("SELECT {function}(id) FROM logs"), [], |row| row.get::<_, Option<i64>>(0))
        };
        let page_size = number("PRAGMA page_size")?;
        let mut runs =
            connection.prepare("SELECT status, count(*) FROM workflow_runs GROUP BY status ORDER BY status")?;
        let (row_count, timestamps) = index::census(connection)?;
        Ok(LogStats {
            row_count,
            ids: id("min")?.zip(id("max")?),
            timestamps,
            runs: runs.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<rusqlite::Result<_>>()?,
            database_bytes: number("PRAGMA page_count")? * page_size,
            wal_bytes,
            free_bytes: number("PRAGMA freelist_count")? * page_size,
        })
    })
}
