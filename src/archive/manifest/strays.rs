//! What of the list of days can belong to no day, and a day to come whose rows have left the log already: damage that no
//! file shows.

use rusqlite::Connection;

use crate::archive::manifest::damage::damaged;
use crate::archive::manifest::days::{State, is_listed, load, pending};
use crate::archive::manifest::missing;
use crate::base::error::Result;

/// What is wrong with the list of days itself, in the caller's transaction.
pub(crate) fn faults(connection: &Connection) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    let mut statement = connection.prepare_cached(
        "SELECT day FROM archive_days WHERE state NOT IN (0, 1)
         UNION SELECT day FROM archive_contents WHERE (day, state) NOT IN (SELECT day, state FROM archive_days)",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let day = row.get_ref(0)?.as_bytes_or_null().map_err(rusqlite::Error::from)?.unwrap_or_default();
        faults.push(damaged(&format!("a row of the day {}", String::from_utf8_lossy(day))).to_string());
    }
    let mut is_live = connection.prepare_cached("SELECT 1 FROM logs WHERE id = ?1")?;
    for day in pending(connection)? {
        // Rows leave the log when their file is listed as the current one, and not before.
        if is_listed(connection, day)? {
            continue;
        }
        let ids = load(connection, day, State::Pending)?.map(|summary| summary.ids).unwrap_or_default();
        for id in &ids {
            if !is_live.exists([id.cast_signed()])? {
                faults.push(damaged(&format!("the day {day} is listed as one to come, and holds rows")).to_string());
                break;
            }
        }
    }
    faults.extend(missing::faults(connection)?.into_iter().map(|(_, fault)| fault));
    Ok(faults)
}

/// Forgets what can belong to no day, in the caller's transaction.
pub(crate) fn forget(connection: &Connection) -> Result<()> {
    connection.execute_batch(
        "DELETE FROM archive_days WHERE state NOT IN (0, 1);
         DELETE FROM archive_contents WHERE (day, state) NOT IN (SELECT day, state FROM archive_days)",
    )?;
    missing::forget_damaged(connection)
}
