//! Changes of state, and what they leave.

use super::*;
use crate::log::{Log, LogConfig, count};
use crate::row::Filter;
use crate::workflow::state::{active_runs, all_runs, get_run};
use crate::workflow::state_entry;

fn opened() -> (tempfile::TempDir, Log) {
    let directory = tempfile::tempdir().unwrap();
    let log = Log::open(&directory.path().join("logs.db"), LogConfig::default(), &mut |_, _| Ok(())).unwrap();
    (directory, log)
}

fn run(status: RunStatus, exit_code: Option<i64>) -> Run {
    Run { run_id: "r".into(), workflow: "w".into(), status, timestamp: 1, exit_code }
}

fn put(log: &Log, status: RunStatus, exit_code: Option<i64>, force: bool) -> Result<LogEntry> {
    let entry = NewLogEntry { timestamp: Some(1), ..state_entry("r", status, None, None) };
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
