//! Storing the state of a run.

use rusqlite::Connection;

use crate::base::error::Result;
use crate::db::stored;
use crate::workflow::state::{Found, Run};

/// Stores the state of a run whose row is `current`; None: there is none, or one that cannot be read.
pub(super) fn store(connection: &Connection, run: &Run, current: Option<&Found>, force: bool) -> Result<Run> {
    let run = Run { exit_code: exit_code(run, current.map(|current| &current.run), force), ..run.clone() };
    if let Some(current) = current {
        // By the row's number, so that the run is not looked up by its id again.
        let mut statement = connection
            .prepare_cached("UPDATE workflow_runs SET status = ?2, timestamp = ?3, exit_code = ?4 WHERE rowid = ?1")?;
        stored(statement.execute((current.rowid, run.status.name(), run.timestamp, run.exit_code))?, 1)?;
    } else {
        const INSERT: &str =
            "INSERT INTO workflow_runs (run_id, workflow, status, timestamp, exit_code) VALUES (?1, ?2, ?3, ?4, ?5)";
        const REPLACE: &str =
            "INSERT INTO workflow_runs (run_id, workflow, status, timestamp, exit_code) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (run_id) DO UPDATE SET workflow = excluded.workflow, status = excluded.status,
               timestamp = excluded.timestamp, exit_code = excluded.exit_code";
        // Only a forced update replaces a run, one that cannot be read.
        let mut statement = connection.prepare_cached(if force { REPLACE } else { INSERT })?;
        stored(statement.execute((&run.run_id, &run.workflow, run.status.name(), run.timestamp, run.exit_code))?, 1)?;
    }
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
    use crate::base::status::RunStatus;

    fn run(status: RunStatus, exit_code: Option<i64>) -> Run {
        Run { run_id: "r".into(), workflow: "w".into(), status, timestamp: 1, exit_code }
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
}
