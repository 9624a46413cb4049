//! What can be checked of the tables that are derived from nothing: whether the runs can be read, and the one key of `meta`
//! that is not the users'.
//!
//! A run's state is not compared with its rows: a program may log a row without changing the run, and name the row of a
//! change as it likes.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension};

use crate::archive::{ARCHIVED_UP_TO, Problem};
use crate::base::error::{Result, quoted};
use crate::base::status::RunStatus;
use crate::base::time::UtcDay;
use crate::log::Core;

/// What is wrong.
pub(super) fn check(core: &Core) -> Result<Vec<Problem>> {
    let mut reasons = core.database().read("verify", check_meta)?;
    reasons.extend(core.database().read("verify", check_runs)?);
    let path = core.database().path();
    Ok(reasons.into_iter().map(|reason| Problem { path: path.to_owned(), day: None, ids: None, reason }).collect())
}

fn check_meta(connection: &Connection) -> Result<Vec<String>> {
    let day: Option<String> = connection
        .query_row("SELECT CAST(value AS TEXT) FROM meta WHERE key = ?1", [ARCHIVED_UP_TO], |row| row.get(0))
        .optional()?;
    let is_day = day.as_deref().is_none_or(|day| day.parse::<UtcDay>().is_ok());
    Ok(match day {
        Some(day) if !is_day => {
            vec![format!("meta: {ARCHIVED_UP_TO} is {day:?}, which is no day; the next archive job sets it anew")]
        }
        _ => Vec::new(),
    })
}

fn check_runs(connection: &Connection) -> Result<Vec<String>> {
    let mut statement = connection.prepare_cached("SELECT run_id, status, timestamp FROM workflow_runs")?;
    let mut rows = statement.query([])?;
    let mut reasons = Vec::new();
    while let Some(row) = rows.next()? {
        let (Ok(run_id), Ok(status)) = (row.get_ref(0)?.as_str(), row.get_ref(1)?.as_str()) else {
            reasons.push(format!("workflow_runs: {:?} is no id, or its state is no text", row.get_ref(0)?));
            continue;
        };
        if status.parse::<RunStatus>().is_err() {
            reasons.push(format!(
                "run {} is in the unknown state {}; set it with force",
                quoted(run_id),
                quoted(status)
            ));
        } else if !matches!(row.get_ref(2)?, ValueRef::Integer(_) | ValueRef::Real(_)) {
            reasons.push(format!("run {}: its timestamp is no number; set its state with force", quoted(run_id)));
        }
    }
    Ok(reasons)
}
