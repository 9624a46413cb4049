//! What can be checked of the tables that are derived from nothing: the runs against the rows that logged their states,
//! and the one key of `meta` that is not the users'.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension};

use crate::archive::{ARCHIVED_UP_TO, Problem};
use crate::base::error::{Error, Result};
use crate::base::status::RunStatus;
use crate::base::time::UtcDay;
use crate::log::{Core, Snapshot};
use crate::row::{Filter, LogEntry, SOURCE};

/// Runs that one transaction looks at.
const PAGE_RUNS: u64 = 500;
/// Rows of a run, from the newest, among which the one is looked for that logged its state.
const NEWEST_ROWS: u64 = 64;

/// A run of which the rows in the database say something else.
struct Suspect {
    run_id: String,
    status: RunStatus,
    logged: RunStatus,
}

/// Calls its second argument with every row of log and archive that matches.
pub(super) type Each<'a> = dyn Fn(&Filter, &mut dyn FnMut(LogEntry)) -> Result<()> + 'a;

/// What is wrong.
pub(super) fn check(core: &Core, each: &Each<'_>) -> Result<Vec<Problem>> {
    let mut reasons = core.database().read("verify", check_meta)?;
    let mut suspects = Vec::new();
    let mut after = None;
    loop {
        let page = core.read("verify", |snapshot| check_runs(snapshot, after.take(), &mut reasons, &mut suspects))?;
        match page {
            Some(last) => after = Some(last),
            None => break,
        }
    }
    for Suspect { run_id, status, logged } in suspects {
        if newest_anywhere(&run_id, each)?.is_none_or(|newest| newest == logged) {
            reasons.push(format!("run {run_id:?} is {status}, and the log says since then that it is {logged}"));
        }
    }
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

/// Checks the runs after one; returns the last of them, or None at the end.
fn check_runs(
    snapshot: &Snapshot<'_>,
    after: Option<i64>,
    reasons: &mut Vec<String>,
    suspects: &mut Vec<Suspect>,
) -> Result<Option<i64>> {
    let mut statement = snapshot.connection().prepare_cached(
        "SELECT rowid, run_id, status, timestamp FROM workflow_runs WHERE rowid > ?1 ORDER BY rowid LIMIT ?2",
    )?;
    let mut rows = statement.query((after.unwrap_or(i64::MIN), PAGE_RUNS))?;
    let mut last = None;
    while let Some(row) = rows.next()? {
        last = Some(row.get(0)?);
        let (Ok(run_id), Ok(name)) = (row.get_ref(1)?.as_str(), row.get_ref(2)?.as_str()) else {
            reasons.push(format!("workflow_runs: {:?} is no id, or its state is no text", row.get_ref(1)?));
            continue;
        };
        let Ok(status) = name.parse::<RunStatus>() else {
            reasons.push(format!("run {run_id:?} is in the unknown state {name:?}; set it with force"));
            continue;
        };
        let timestamp = match row.get_ref(3)? {
            ValueRef::Integer(timestamp) => timestamp,
            ValueRef::Real(timestamp) => timestamp as i64,
            _ => {
                reasons.push(format!("run {run_id:?}: its timestamp is no number; set its state with force"));
                continue;
            }
        };
        if let Some(logged) = logged_since(snapshot, run_id, timestamp)?
            && logged != status
        {
            suspects.push(Suspect { run_id: run_id.to_owned(), status, logged });
        }
    }
    Ok(last)
}

/// The newest state of the run in the log, if it is not older than `timestamp`. Older rows may have been put back from
/// the archive while newer ones are still there.
fn logged_since(snapshot: &Snapshot<'_>, run_id: &str, timestamp: i64) -> Result<Option<RunStatus>> {
    let mut newest = None;
    snapshot.search(&newest_rows(run_id), |entry| {
        if newest.is_none()
            && let Ok(status) = entry.kind().parse::<RunStatus>()
        {
            newest = Some((status, entry.timestamp));
        }
    })?;
    Ok(newest.filter(|(_, at)| *at >= timestamp).map(|(status, _)| status))
}

/// The newest state of the run in log and archive: where the timestamps of a run do not ascend, its newest row may be
/// archived before an older one. None if a file cannot be read, which is told where the file is checked.
fn newest_anywhere(run_id: &str, each: &Each<'_>) -> Result<Option<RunStatus>> {
    let mut newest = None;
    let read = each(&newest_rows(run_id), &mut |entry| {
        if newest.is_none() {
            newest = entry.kind().parse::<RunStatus>().ok();
        }
    });
    match read {
        Ok(()) => Ok(newest),
        Err(Error::ArchiveCorrupt { .. } | Error::Io { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn newest_rows(run_id: &str) -> Filter {
    Filter {
        source: Some(SOURCE.to_owned()),
        ref_id: Some(run_id.to_owned()),
        limit: Some(NEWEST_ROWS),
        descending: true,
        ..Filter::default()
    }
}
