//! The materialized state of each run, and reading it.

use std::path::Path;
use std::sync::LazyLock;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};

use crate::base::error::{Error, Result, quoted};
use crate::base::status::IS_ACTIVE;
use crate::base::status::RunStatus;
use crate::db::Database;

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

pub(super) const COLUMNS: &str = "run_id, workflow, status, timestamp, exit_code";

static FIND: LazyLock<String> =
    LazyLock::new(|| format!("SELECT {COLUMNS}, rowid FROM workflow_runs WHERE run_id = ?1"));

/// A run, and where its row is.
pub(super) struct Found {
    pub(super) rowid: i64,
    pub(super) run: Run,
}

/// The run, if there is one; an error that names it, if its row cannot be read.
pub fn get_run(database: &Database, run_id: &str) -> Result<Option<Run>> {
    let found = database.read("read a workflow run", |connection| find(connection, run_id, database.path()))?;
    Ok(found.transpose()?.map(|found| found.run))
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
            match read(row, database.path())? {
                Ok(run) => found.runs.push(run),
                Err(error) => found.unreadable.push(error),
            }
        }
        Ok(found)
    })
}

/// The run, if there is one; the inner error names it, if its row cannot be read.
pub(super) fn find(connection: &Connection, run_id: &str, path: &Path) -> Result<Option<Result<Found>>> {
    let mut statement = connection.prepare_cached(&FIND)?;
    let mut rows = statement.query([run_id])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let rowid = row.get(5)?;
    Ok(Some(read(row, path)?.map(|run| Found { rowid, run })))
}

/// Reads [`COLUMNS`]. The outer error is of the database, the inner one of this run's row alone.
pub(super) fn read(row: &Row<'_>, path: &Path) -> Result<Result<Run>> {
    let run_id = match row.get::<_, String>(0) {
        Ok(run_id) => run_id,
        Err(error) => return Ok(Err(Error::corrupt(path, format!("a workflow run's id: {error}")))),
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
                path,
                format!(
                    "workflow run {} has the unknown status {}; set it with upsert_workflow_run(force=True)",
                    quoted(&run_id),
                    quoted(&status)
                ),
            )),
        },
        Err(error) => Err(Error::corrupt(path, format!("workflow run {}: {error}", quoted(&run_id)))),
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
