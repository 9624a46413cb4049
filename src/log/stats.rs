//! Figures of a log database.

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
        let bounds = |column: &str| {
            // Two statements, because SQLite answers each from one end of an index, and both at once by reading it all.
            let bound = |function: &str| {
                connection.query_row(&format!("SELECT CAST({function}({column}) AS INTEGER) FROM logs"), [], |row| {
                    row.get::<_, Option<i64>>(0)
                })
            };
            Ok::<_, rusqlite::Error>(bound("min")?.zip(bound("max")?))
        };
        let page_size = number("PRAGMA page_size")?;
        let mut runs =
            connection.prepare("SELECT status, count(*) FROM workflow_runs GROUP BY status ORDER BY status")?;
        Ok(LogStats {
            row_count: number("SELECT count(*) FROM logs")?,
            ids: bounds("id")?,
            timestamps: bounds("timestamp")?,
            runs: runs.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<rusqlite::Result<_>>()?,
            database_bytes: number("PRAGMA page_count")? * page_size,
            wal_bytes,
            free_bytes: number("PRAGMA freelist_count")? * page_size,
        })
    })
}
