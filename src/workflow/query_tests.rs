//! Runs by workflow, state and time, beside a plain sort; and that no list looks at all runs.

use proptest::prelude::*;
use rusqlite::{Connection, StatementStatus};

use crate::base::status::{IS_ACTIVE, IS_ENDED, RunStatus};
use crate::log::{Log, LogConfig};
use crate::workflow::delete::delete_runs;
use crate::workflow::query::{RunFilter, count_runs, query_runs};
use crate::workflow::state::{Run, get_run};

const STATUSES: [&str; 9] =
    ["queued", "started", "completed", "failed", "crashed", "interrupted", "dropped", "killed", "paused"];
const WORKFLOWS: [&str; 3] = ["a", "b", "c"];

fn opened() -> (tempfile::TempDir, Log) {
    let directory = tempfile::tempdir().unwrap();
    let log = Log::open(&directory.path().join("logs.db"), LogConfig::default(), &mut |_, _| Ok(())).unwrap();
    (directory, log)
}

/// As another program stores it: with a fraction, where the last number says so.
fn put(connection: &Connection, id: usize, (workflow, status, timestamp, has_fraction): (usize, usize, i64, bool)) {
    let timestamp = timestamp as f64 + if has_fraction { 0.5 } else { 0.0 };
    connection
        .execute(
            "INSERT OR REPLACE INTO workflow_runs VALUES (?1, ?2, ?3, ?4, NULL)",
            (format!("run-{id}"), WORKFLOWS[workflow], STATUSES[status], timestamp),
        )
        .unwrap();
}

fn texts(numbers: &[usize]) -> Vec<String> {
    numbers.iter().map(|number| WORKFLOWS[*number].to_owned()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn pages_are_those_of_a_plain_sort(
        runs in proptest::collection::vec((0..3_usize, 0..9_usize, 0_i64..12, prop::bool::weighted(0.1)), 0..120),
        again in proptest::collection::vec((0..120_usize, (0..3_usize, 0..9_usize, 0_i64..12, Just(false))), 0..20),
        workflows in proptest::option::of(proptest::collection::vec(0..3_usize, 0..3)),
        statuses in proptest::option::of(proptest::collection::vec(0..8_usize, 0..4)),
        (since, until) in (proptest::option::of(0_i64..12), proptest::option::of(0_i64..12)),
        descending: bool,
        limit in 1_u64..40,
    ) {
        let (_directory, log) = opened();
        let mut model: Vec<Option<(usize, usize, i64, bool)>> = vec![None; 120];
        log.database().write("test", None, |connection| {
            for (id, run) in runs.iter().copied().enumerate().chain(again) {
                put(connection, id, run);
                model[id] = Some(run);
            }
            Ok(())
        }).unwrap();
        let mut wanted: Vec<(f64, String, Run)> = Vec::new();
        for (id, run) in model.iter().enumerate() {
            let Some((workflow, status, timestamp, has_fraction)) = *run else { continue };
            let stored = timestamp as f64 + if has_fraction { 0.5 } else { 0.0 };
            let is_wanted = workflows.as_ref().is_none_or(|wanted| wanted.contains(&workflow))
                && statuses.as_ref().is_none_or(|wanted| wanted.contains(&status))
                && since.is_none_or(|since| stored >= since as f64)
                && until.is_none_or(|until| stored <= until as f64);
            if is_wanted && let Ok(status) = STATUSES[status].parse() {
                let run_id = format!("run-{id}");
                let run = Run { run_id: run_id.clone(), workflow: WORKFLOWS[workflow].into(), status, timestamp, exit_code: None };
                wanted.push((stored, run_id, run));
            }
        }
        wanted.sort_by(|one, other| one.0.total_cmp(&other.0).then_with(|| one.1.cmp(&other.1)));
        if descending {
            wanted.reverse();
        }
        let statuses: Option<Vec<RunStatus>> =
            statuses.map(|statuses| statuses.iter().map(|status| STATUSES[*status].parse().unwrap()).collect());
        let workflows = workflows.map(|workflows| texts(&workflows));
        let mut filter =
            RunFilter { workflows: workflows.clone(), statuses: statuses.clone(), since, until, after: None, limit: None, descending };
        let all = query_runs(log.database(), &filter).unwrap();
        let expected: Vec<Run> = wanted.into_iter().map(|(_, _, run)| run).collect();
        prop_assert_eq!(&all.runs, &expected);
        filter.limit = Some(limit);
        let mut paged = Vec::new();
        loop {
            let page = query_runs(log.database(), &filter).unwrap().runs;
            let Some(last) = page.last() else { break };
            filter.after = Some((last.timestamp, last.run_id.clone()));
            paged.extend(page);
        }
        prop_assert_eq!(paged, expected);
        let counted = count_runs(log.database(), workflows.as_deref(), statuses.as_deref()).unwrap();
        let of = |name: &str| model.iter().flatten().filter(|run| {
            STATUSES[run.1] == name && workflows.as_ref().is_none_or(|wanted| wanted.iter().any(|one| one == WORKFLOWS[run.0]))
        }).count() as u64;
        for name in STATUSES {
            let is_wanted = statuses.as_ref().is_none_or(|statuses| statuses.iter().any(|status| status.name() == name));
            prop_assert_eq!(counted.get(name).copied().unwrap_or(0), if is_wanted { of(name) } else { 0 }, "{}", name);
        }
        let bound = until.unwrap_or(6);
        let deleted = delete_runs(&log, workflows.as_deref(), bound).unwrap();
        let mut gone = 0;
        for (id, run) in model.iter().enumerate() {
            let Some((workflow, status, timestamp, has_fraction)) = *run else { continue };
            let is_ended = !matches!(STATUSES[status], "queued" | "started" | "paused");
            let is_old = (timestamp as f64 + if has_fraction { 0.5 } else { 0.0 }) < bound as f64;
            let is_gone = is_ended && is_old
                && workflows.as_ref().is_none_or(|wanted| wanted.iter().any(|one| one == WORKFLOWS[workflow]));
            gone += u64::from(is_gone);
            let found = get_run(log.database(), &format!("run-{id}"));
            prop_assert_eq!(matches!(found, Ok(None)), is_gone);
        }
        prop_assert_eq!(deleted, gone);
    }
}

/// Without statistics of the tables, as nearly every database is.
#[test]
fn each_list_is_read_from_its_index() {
    let (_directory, log) = opened();
    let columns = "run_id, workflow, status, timestamp, exit_code";
    let order = "ORDER BY timestamp DESC, run_id DESC LIMIT 50";
    let (active, ended) = (&*IS_ACTIVE, &*IS_ENDED);
    for (sql, index) in [
        (format!("SELECT {columns} FROM workflow_runs WHERE {active} AND status = ? {order}"), "active (status=?)"),
        (
            format!(
                "SELECT {columns} FROM workflow_runs WHERE {active} AND status = ? AND timestamp <= ? AND (timestamp, run_id) < (?, ?) {order}"
            ),
            "active (status=? AND timestamp<?)",
        ),
        (
            format!("SELECT {columns} FROM workflow_runs WHERE {ended} AND status = ? AND workflow = ? {order}"),
            "ended (workflow=? AND status=?)",
        ),
        (
            format!(
                "SELECT {columns} FROM workflow_runs WHERE {ended} AND status = ? AND workflow = ? AND timestamp >= ? AND timestamp <= ? {order}"
            ),
            "ended (workflow=? AND status=? AND timestamp>? AND timestamp<?)",
        ),
        (
            format!(
                "SELECT {columns} FROM workflow_runs WHERE ?1 IS NULL AND {active} AND status >= '' ORDER BY timestamp, run_id"
            ),
            "active (status>?)",
        ),
        (format!("SELECT run_id FROM workflow_runs WHERE {active} AND status >= ''"), "active (status>?)"),
        (
            format!(
                "SELECT rowid FROM workflow_runs WHERE {active} AND status = 'queued' ORDER BY timestamp, rowid LIMIT 1"
            ),
            "active (status=?)",
        ),
        (
            format!(
                "SELECT rowid FROM workflow_runs WHERE {ended} AND workflow = ? AND status = ? AND timestamp < ? LIMIT 9"
            ),
            "ended (workflow=? AND status=? AND timestamp<?)",
        ),
        (
            format!("SELECT workflow FROM workflow_runs WHERE {ended} AND workflow > ? ORDER BY workflow LIMIT 1"),
            "ended (workflow>?)",
        ),
        (
            format!("SELECT count(*) FROM workflow_runs WHERE {ended} AND workflow = ? AND status = ?"),
            "ended (workflow=? AND status=?)",
        ),
    ] {
        let plan: Vec<String> = log
            .database()
            .read("test", |connection| {
                let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
                let mut rows = statement.raw_query();
                let mut plan = Vec::new();
                while let Some(row) = rows.next()? {
                    plan.push(row.get(3)?);
                }
                Ok(plan)
            })
            .unwrap();
        assert!(plan.iter().any(|line| line.ends_with(&format!("INDEX idx_workflow_runs_{index}"))), "{sql}: {plan:?}");
        let sorts_all = plan.iter().any(|line| line == "USE TEMP B-TREE FOR ORDER BY");
        assert!(!sorts_all || sql.contains("status >= ''"), "{sql}: {plan:?}");
    }
    let schema: Vec<String> = log
        .database()
        .read("test", |connection| {
            let mut statement = connection
                .prepare("SELECT sql FROM sqlite_schema WHERE name LIKE 'idx_workflow_runs%' ORDER BY name")?;
            Ok(statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
        })
        .unwrap();
    assert_eq!(schema.len(), 2);
    assert!(schema[0].ends_with(&format!("WHERE {active}")) && schema[1].ends_with(&format!("WHERE {ended}")));
}

/// A condition of an index that makes a table of its own costs each change of a run four of them.
#[test]
fn a_change_of_a_run_makes_no_temporary_table() {
    let (_directory, log) = opened();
    let columns = "run_id, workflow, status, timestamp, exit_code";
    for sql in [
        format!("INSERT INTO workflow_runs ({columns}) VALUES (?, ?, ?, ?, ?)"),
        "UPDATE workflow_runs SET status = ?, timestamp = ?, exit_code = ? WHERE rowid = ?".to_owned(),
        "DELETE FROM workflow_runs WHERE rowid = ?".to_owned(),
    ] {
        let operations: Vec<String> = log
            .database()
            .read("test", |connection| {
                let mut statement = connection.prepare(&format!("EXPLAIN {sql}"))?;
                let mut rows = statement.raw_query();
                let mut operations = Vec::new();
                while let Some(row) = rows.next()? {
                    operations.push(row.get(1)?);
                }
                Ok(operations)
            })
            .unwrap();
        assert!(operations.iter().filter(|operation| *operation == "OpenWrite").count() >= 3, "{sql}: {operations:?}");
        assert!(!operations.iter().any(|operation| operation == "OpenEphemeral"), "{sql}: {operations:?}");
    }
}

#[test]
fn a_statement_is_compiled_once_whatever_is_looked_for() {
    let (_directory, log) = opened();
    let (active, ended) = (&*IS_ACTIVE, &*IS_ENDED);
    for sql in [
        format!("SELECT run_id FROM workflow_runs WHERE {active} AND status = ? LIMIT 50"),
        format!("SELECT run_id FROM workflow_runs WHERE {ended} AND status = ? AND workflow = ? LIMIT 50"),
        format!(
            "SELECT run_id FROM workflow_runs WHERE {ended} AND ? = status AND workflow > ? ORDER BY workflow LIMIT 1"
        ),
        "SELECT run_id FROM run_claims WHERE status = ? AND run_id = ?".to_owned(),
    ] {
        let compiled_again = log
            .database()
            .read("test", |connection| {
                let mut statement = connection.prepare(&sql)?;
                for value in ["completed", "queued", "unknown"] {
                    for parameter in 1..=statement.parameter_count() {
                        statement.raw_bind_parameter(parameter, value)?;
                    }
                    assert!(statement.raw_query().next()?.is_none());
                }
                Ok(statement.get_status(StatementStatus::RePrepare))
            })
            .unwrap();
        assert_eq!(compiled_again, 0, "{sql}");
    }
}
