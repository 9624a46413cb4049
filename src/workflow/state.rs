//! The materialized state of each run.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};

use crate::base::error::{Error, Result};
use crate::base::status::IS_ACTIVE;
use crate::base::status::RunStatus;
use crate::db::Database;
use crate::durable::Durability;
use crate::log::Core;
use crate::row::{LogEntry, NewLogEntry, SOURCE};

/// A workflow run as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its id; the `ref_id` of its rows.
    pub run_id: String,
    /// The workflow that it is a run of.
    pub workflow: String,
    /// Its state.
    pub status: RunStatus,
    /// When it took this state, in milliseconds.
    pub timestamp: i64,
    /// The exit code, where it has one.
    pub exit_code: Option<i64>,
}

/// Runs that could be read, and the errors that name those that could not.
pub struct RunList {
    /// In the order asked for.
    pub runs: Vec<Run>,
    /// One error a run.
    pub unreadable: Vec<Error>,
}

/// A change of state of an existing run.
pub struct Transition<'a> {
    /// The state to take.
    pub status: RunStatus,
    /// The states that the run must be in; empty: any.
    pub expect: &'a [RunStatus],
    /// The exit code to set.
    pub exit_code: Option<i64>,
}

pub(super) const COLUMNS: &str = "run_id, workflow, status, timestamp, exit_code";

/// Appends the checked `entry` and brings the run to the state `run`, both in one transaction.
pub fn upsert(
    log: &Core,
    entry: &NewLogEntry<'_>,
    run: &Run,
    force: bool,
    durability: Option<Durability>,
) -> Result<LogEntry> {
    let id = log.write("update a workflow run", durability, |transaction| {
        let current = match find(transaction.connection(), &run.run_id, log.database())? {
            // A forced update also replaces what cannot be read.
            Some(Err(_)) if force => None,
            Some(found) => Some(found?),
            None => None,
        };
        if let Some(current) = current.as_ref().filter(|_| !force) {
            check(current, run.status, &[])?;
        }
        store(transaction.connection(), run, current.as_ref(), force)?;
        transaction.insert(std::slice::from_ref(entry))
    })?;
    Ok(entry.stored(id))
}

/// Takes an existing run to another state and logs it, in one transaction; returns the run as it is then.
pub fn transition(
    log: &Core,
    entry: &NewLogEntry<'_>,
    run_id: &str,
    change: &Transition<'_>,
    durability: Option<Durability>,
) -> Result<Run> {
    log.write("update a workflow run", durability, |transaction| {
        let Some(current) = find(transaction.connection(), run_id, log.database())?.transpose()? else {
            return Err(Error::IllegalTransition {
                run_id: run_id.to_owned(),
                from: None,
                to: change.status,
                allowed: Vec::new(),
                reason: "there is no such run; create it with upsert_workflow_run".to_owned(),
            });
        };
        check(&current, change.status, change.expect)?;
        let next = Run {
            status: change.status,
            timestamp: entry.timestamp.unwrap_or_default(),
            exit_code: change.exit_code,
            ..current.clone()
        };
        let stored = store(transaction.connection(), &next, Some(&current), false)?;
        transaction.insert(std::slice::from_ref(entry))?;
        Ok(stored)
    })
}

/// The log row of a transition.
pub fn transition_entry<'a>(
    run_id: &'a str,
    status: RunStatus,
    payload: Option<&'a str>,
    timestamp: Option<i64>,
) -> NewLogEntry<'a> {
    NewLogEntry { source: SOURCE, kind: status.name(), ref_id: Some(run_id), payload, timestamp }
}

/// The run, if there is one; an error that names it, if its row cannot be read.
pub fn get_run(database: &Database, run_id: &str) -> Result<Option<Run>> {
    database.read("read a workflow run", |connection| find(connection, run_id, database))?.transpose()
}

/// The queued and started runs, oldest first.
pub fn active_runs(database: &Database, workflow: Option<&str>) -> Result<RunList> {
    // The comparison is true of every state, and leads to the index of active runs.
    list(database, workflow, &format!("{} AND status >= ''", *IS_ACTIVE), "timestamp, run_id")
}

/// All runs, newest first.
pub fn all_runs(database: &Database, workflow: Option<&str>) -> Result<RunList> {
    list(database, workflow, "true", "timestamp DESC, run_id DESC")
}

fn list(database: &Database, workflow: Option<&str>, condition: &str, order: &str) -> Result<RunList> {
    let of_workflow = if workflow.is_some() { "workflow = ?1" } else { "?1 IS NULL" };
    database.read("list workflow runs", |connection| {
        let mut statement = connection.prepare_cached(&format!(
            "SELECT {COLUMNS} FROM workflow_runs WHERE {of_workflow} AND {condition} ORDER BY {order}"
        ))?;
        let mut rows = statement.query([workflow])?;
        let mut found = RunList { runs: Vec::new(), unreadable: Vec::new() };
        while let Some(row) = rows.next()? {
            match read(row, database)? {
                Ok(run) => found.runs.push(run),
                Err(error) => found.unreadable.push(error),
            }
        }
        Ok(found)
    })
}

fn find(connection: &Connection, run_id: &str, database: &Database) -> Result<Option<Result<Run>>> {
    let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM workflow_runs WHERE run_id = ?1"))?;
    let mut rows = statement.query([run_id])?;
    rows.next()?.map(|row| read(row, database)).transpose()
}

/// The outer error is of the database, the inner one of this run's row alone.
pub(super) fn read(row: &Row<'_>, database: &Database) -> Result<Result<Run>> {
    let run_id = match row.get::<_, String>(0) {
        Ok(run_id) => run_id,
        Err(error) => return Ok(Err(Error::corrupt(database.path(), format!("a workflow run's id: {error}")))),
    };
    let fields = || -> rusqlite::Result<(String, String, i64, Option<i64>)> {
        let timestamp = integer(row, 3, f64::trunc)?;
        // Away from zero, so that a failure does not become a success.
        let exit_code = match row.get_ref(4)? {
            ValueRef::Null => None,
            _ => Some(integer(row, 4, |code| code.abs().ceil().copysign(code))?),
        };
        Ok((row.get(1)?, row.get(2)?, timestamp, exit_code))
    };
    Ok(match fields() {
        Ok((workflow, status, timestamp, exit_code)) => match status.parse() {
            Ok(status) => Ok(Run { run_id, workflow, status, timestamp, exit_code }),
            Err(()) => Err(Error::corrupt(
                database.path(),
                format!(
                    "workflow run {run_id:?} has the unknown status {status:?}; set it with upsert_workflow_run(force=True)"
                ),
            )),
        },
        Err(error) => Err(Error::corrupt(database.path(), format!("workflow run {run_id:?}: {error}"))),
    })
}

/// A column of integers in which JavaScript may have stored a fraction.
fn integer(row: &Row<'_>, column: usize, round: impl Fn(f64) -> f64) -> rusqlite::Result<i64> {
    match row.get_ref(column)? {
        // Saturates beyond 64 bits.
        ValueRef::Real(number) => Ok(round(number) as i64),
        _ => row.get(column),
    }
}

fn check(current: &Run, next: RunStatus, expect: &[RunStatus]) -> Result<()> {
    let reason = if !expect.is_empty() && !expect.contains(&current.status) {
        format!("it is {}, not {} as expected", current.status, names(expect, " or "))
    } else if !current.status.may_become(next) {
        let allowed = match current.status.followers() {
            [] => "nothing follows".to_owned(),
            followers => format!("allowed: {}", names(followers, ", ")),
        };
        format!(
            "it is {} and cannot become {next} ({allowed}); upsert_workflow_run(force=True) overrides",
            current.status
        )
    } else {
        return Ok(());
    };
    Err(Error::IllegalTransition {
        run_id: current.run_id.clone(),
        from: Some(current.status),
        to: next,
        allowed: current.status.followers().to_vec(),
        reason,
    })
}

fn names(statuses: &[RunStatus], separator: &str) -> String {
    statuses.iter().map(|status| status.name()).collect::<Vec<_>>().join(separator)
}

fn store(connection: &Connection, run: &Run, current: Option<&Run>, force: bool) -> Result<Run> {
    let run = Run { exit_code: exit_code(run, current, force), ..run.clone() };
    let mut statement = connection.prepare_cached(
        "INSERT INTO workflow_runs (run_id, workflow, status, timestamp, exit_code) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (run_id) DO UPDATE SET workflow = excluded.workflow, status = excluded.status,
           timestamp = excluded.timestamp, exit_code = excluded.exit_code",
    )?;
    statement.execute((&run.run_id, &run.workflow, run.status.name(), run.timestamp, run.exit_code))?;
    Ok(run)
}

/// The exit code that an update leaves. That of a finished run is never lost to an update without one, and repeating
/// its state does not change it; a resumed run begins anew.
fn exit_code(next: &Run, current: Option<&Run>, force: bool) -> Option<i64> {
    let Some(current) = current else { return next.exit_code };
    let repeated = current.status == next.status;
    if repeated && current.status.is_terminal() && !force {
        current.exit_code
    } else if repeated || current.status.is_terminal() {
        next.exit_code.or(current.exit_code)
    } else {
        next.exit_code
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Log, LogConfig, count};
    use crate::row::Filter;

    fn opened() -> (tempfile::TempDir, Log) {
        let directory = tempfile::tempdir().unwrap();
        let log = Log::open(&directory.path().join("logs.db"), LogConfig::default(), &mut |_, _| Ok(())).unwrap();
        (directory, log)
    }

    fn run(status: RunStatus, exit_code: Option<i64>) -> Run {
        Run { run_id: "r".into(), workflow: "w".into(), status, timestamp: 1, exit_code }
    }

    fn put(log: &Core, status: RunStatus, exit_code: Option<i64>, force: bool) -> Result<LogEntry> {
        let entry = NewLogEntry { timestamp: Some(1), ..transition_entry("r", status, None, None) };
        upsert(log, &entry, &run(status, exit_code), force, None)
    }

    fn rows(log: &Log) -> u64 {
        count(log, &Filter::default()).unwrap()
    }

    #[test]
    fn the_row_and_the_state_change_together_or_not_at_all() {
        let (_directory, log) = opened();
        put(&log, RunStatus::Started, None, false).unwrap();
        put(&log, RunStatus::Completed, Some(0), false).unwrap();
        assert!(matches!(put(&log, RunStatus::Started, None, false), Err(Error::IllegalTransition { .. })));
        assert_eq!((rows(&log), get_run(log.database(), "r").unwrap()), (2, Some(run(RunStatus::Completed, Some(0)))));
        put(&log, RunStatus::Started, None, true).unwrap();
        assert_eq!((rows(&log), get_run(log.database(), "r").unwrap()), (3, Some(run(RunStatus::Started, Some(0)))));
    }

    #[test]
    fn an_exit_code_outlives_what_has_none_and_a_repeat() {
        let finished = run(RunStatus::Failed, Some(1));
        for (next, force, expected) in [
            (run(RunStatus::Failed, None), false, Some(1)),
            (run(RunStatus::Failed, Some(2)), false, Some(1)),
            (run(RunStatus::Failed, Some(2)), true, Some(2)),
            (run(RunStatus::Started, None), true, Some(1)),
            (run(RunStatus::Killed, Some(137)), true, Some(137)),
        ] {
            assert_eq!(exit_code(&next, Some(&finished), force), expected, "{next:?} {force}");
        }
        let crashed = run(RunStatus::Crashed, Some(255));
        assert_eq!(exit_code(&run(RunStatus::Crashed, None), Some(&crashed), false), Some(255));
        assert_eq!(exit_code(&run(RunStatus::Started, None), Some(&crashed), false), None);
    }

    #[test]
    fn runs_that_wait_or_work_are_active_and_no_others() {
        for status in RunStatus::ALL {
            let (_directory, log) = opened();
            put(&log, status, None, true).unwrap();
            let is_listed = !active_runs(log.database(), None).unwrap().runs.is_empty();
            assert_eq!(is_listed, matches!(status, RunStatus::Queued | RunStatus::Started), "{status}");
        }
    }

    #[test]
    fn a_spoiled_run_spoils_no_other() {
        let (_directory, log) = opened();
        put(&log, RunStatus::Started, None, false).unwrap();
        log.database()
            .write("test", None, |connection| {
                Ok(connection.execute_batch("INSERT INTO workflow_runs VALUES ('spoiled', 'w', 'paused', 2, NULL)")?)
            })
            .unwrap();
        for list in [all_runs(log.database(), None).unwrap(), active_runs(log.database(), Some("w")).unwrap()] {
            assert_eq!(list.runs, [run(RunStatus::Started, None)]);
            assert!(list.unreadable.iter().all(|error| error.to_string().contains("spoiled")));
            assert_eq!(list.unreadable.len(), 1);
        }
        assert!(matches!(get_run(log.database(), "spoiled"), Err(Error::Corrupt { .. })));
    }
}
