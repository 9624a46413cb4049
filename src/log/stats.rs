//! Figures of a log database.

use std::collections::BTreeMap;

use rusqlite::Connection;

use crate::base::error::Result;
use crate::base::ids::IdSpan;
use crate::base::status::{IS_ACTIVE, IS_ENDED};
use crate::base::time::TimeSpan;
use crate::db::stored_name;
use crate::index::lookup::tail::Estimate;
use crate::log::core::Core;

/// Figures of a log database.
#[derive(Clone, Debug)]
pub struct LogStats {
    /// Rows in the database.
    pub row_count: u64,
    /// The least and greatest id.
    pub ids: Option<IdSpan>,
    /// The least and greatest timestamp.
    pub timestamps: Option<TimeSpan>,
    /// Runs by status, as it is stored.
    pub runs: Vec<(String, u64)>,
    /// Size of the database file as SQLite counts it, in bytes.
    pub database_bytes: u64,
    /// Size of the write-ahead log on disk, in bytes.
    pub wal_bytes: u64,
    /// Bytes inside the file that new rows will use first.
    pub free_bytes: u64,
}

/// Rows that are looked at, at the most, where the index is not sure of them.
const MOST_DOUBTFUL: u64 = 8_192;

/// Reads the figures; `exact`: looks at each row. Otherwise the rows are those that the index knows, of which more than
/// [`MOST_DOUBTFUL`] may have been deleted since by other programs, or be on their way to the archive.
pub fn stats(core: &Core, exact: bool) -> Result<LogStats> {
    let database = core.database();
    let mut wal = database.path().as_os_str().to_owned();
    wal.push("-wal");
    let wal_bytes = std::fs::metadata(wal).map_or(0, |metadata| metadata.len());
    core.read("read figures", |snapshot| {
        let connection = snapshot.connection();
        let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, u64>(0));
        let id = |function: &str| {
            connection.query_row(&format!("SELECT {function}(id) FROM logs"), [], |row| row.get::<_, Option<i64>>(0))
        };
        let page_size = number("PRAGMA page_size")?;
        let mut runs = connection.prepare_cached(&format!(
            "SELECT status, count(*) FROM workflow_runs WHERE {} AND status >= '' GROUP BY status
             UNION ALL SELECT status, count(*) FROM workflow_runs WHERE {} GROUP BY status",
            *IS_ACTIVE, *IS_ENDED
        ))?;
        let (row_count, timestamps) = if exact {
            census(connection)?
        } else {
            let Estimate { row_count, times } = snapshot.estimate(MOST_DOUBTFUL)?;
            (row_count, times)
        };
        let mut counted = BTreeMap::<String, u64>::new();
        let mut rows = runs.query([])?;
        while let Some(row) = rows.next()? {
            *counted.entry(stored_name(row, 0)?).or_default() += row.get::<_, u64>(1)?;
        }
        Ok(LogStats {
            row_count,
            ids: id("min")?.zip(id("max")?).and_then(|(first, last)| IdSpan::new(first, last)),
            timestamps,
            runs: counted.into_iter().collect(),
            database_bytes: number("PRAGMA page_count")? * page_size,
            wal_bytes,
            free_bytes: number("PRAGMA freelist_count")? * page_size,
        })
    })
}

/// How many rows there are, and their least and greatest timestamp. Looks at every row.
fn census(connection: &Connection) -> Result<(u64, Option<TimeSpan>)> {
    let (count, least, greatest): (u64, Option<i64>, Option<i64>) = connection.query_row(
        "SELECT count(*), CAST(min(timestamp) AS INTEGER), CAST(max(timestamp) AS INTEGER) FROM logs",
        [],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )?;
    Ok((count, least.zip(greatest).map(|(first, last)| TimeSpan { first, last })))
}
