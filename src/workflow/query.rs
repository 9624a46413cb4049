//! Runs by workflow, state and time, page by page: the newest or the oldest first, at the cost of what is returned.
//!
//! The indexes order the runs of one workflow and state (of one state, where they are active) by time. What a filter wants is
//! merged from these lists, each read a few runs at a time.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row};

use crate::base::error::Result;
use crate::base::status::{IS_ACTIVE, IS_ENDED, RunStatus};
use crate::db::{Database, stored_name};
use crate::workflow::state::{COLUMNS, Run, RunList, read};

/// Runs that are read at first of each list, and that a later page has.
const FIRST_PAGE: usize = 8;
const LONGEST_PAGE: usize = 256;
/// How many times as many the next page has.
const GROWTH: usize = 4;

/// Which runs are wanted; every condition that is given must hold.
#[derive(Clone, Debug, Default)]
pub struct RunFilter {
    /// One of these workflows; None: any.
    pub workflows: Option<Vec<String>>,
    /// In one of these states; None: in any, an unknown one included.
    pub statuses: Option<Vec<RunStatus>>,
    /// Timestamps from here on, inclusive.
    pub since: Option<i64>,
    /// Timestamps up to here, inclusive.
    pub until: Option<i64>,
    /// Those that come after this run in the order: its timestamp and its id.
    pub after: Option<(i64, String)>,
    /// The first so many.
    pub limit: Option<u64>,
    /// The newest first.
    pub descending: bool,
}

/// The runs that are wanted, by timestamp and id.
pub fn query_runs(database: &Database, filter: &RunFilter) -> Result<RunList> {
    database.read("list workflow runs", |connection| {
        let mut found = RunList { runs: Vec::new(), unreadable: Vec::new() };
        let limit = filter.limit.unwrap_or(u64::MAX);
        if limit == 0 {
            return Ok(found);
        }
        let mut merge = Merge::of(connection, database, filter)?;
        while (found.runs.len() as u64) < limit
            && let Some(run) = merge.next_run()?
        {
            match run {
                Ok(run) => found.runs.push(run),
                Err(error) => found.unreadable.push(error),
            }
        }
        Ok(found)
    })
}

/// How many runs are in each state, as it is stored; states that no run is in are left out.
pub fn count_runs(
    database: &Database,
    workflows: Option<&[String]>,
    statuses: Option<&[RunStatus]>,
) -> Result<BTreeMap<String, u64>> {
    database.read("count workflow runs", |connection| count_by_status(connection, workflows, statuses))
}

/// Deletes the runs that are not active and took their state before this instant; returns how many. Their rows stay.
pub(super) fn delete_some(
    connection: &Connection,
    workflows: Option<&[String]>,
    before: i64,
    most: u64,
) -> Result<u64> {
    let mut deleted = 0;
    // In an order, so that both statements choose the same.
    let some = format!(
        "FROM workflow_runs WHERE {} AND workflow = ?1 AND status = ?2 AND timestamp < ?3
         ORDER BY timestamp, rowid LIMIT ?4",
        *IS_ENDED
    );
    // What is known of their claims goes with them.
    let mut forget =
        connection.prepare_cached(&format!("DELETE FROM run_claims WHERE run_id IN (SELECT run_id {some})"))?;
    let mut delete =
        connection.prepare_cached(&format!("DELETE FROM workflow_runs WHERE rowid IN (SELECT rowid {some})"))?;
    for workflow in workflows_of(connection, workflows)? {
        for status in RunStatus::ALL.into_iter().filter(|status| !status.is_active()) {
            if deleted < most {
                let which = (&workflow, status.name(), before, most - deleted);
                forget.execute(which)?;
                deleted += delete.execute(which)? as u64;
            }
        }
    }
    Ok(deleted)
}

fn count_by_status(
    connection: &Connection,
    workflows: Option<&[String]>,
    statuses: Option<&[RunStatus]>,
) -> Result<BTreeMap<String, u64>> {
    let mut counts = BTreeMap::new();
    let is_wanted = |name: &str| statuses.is_none_or(|statuses| statuses.iter().any(|status| status.name() == name));
    let mut add = |status: &str, count: u64| {
        if count > 0 {
            *counts.entry(status.to_owned()).or_default() += count;
        }
    };
    let is_of_workflows =
        |workflow: &str| workflows.is_none_or(|workflows| workflows.iter().any(|wanted| wanted == workflow));
    let mut active = connection.prepare_cached(&format!(
        "SELECT CAST(status AS TEXT), CAST(workflow AS TEXT), count(*) FROM workflow_runs
         WHERE {} AND status >= '' GROUP BY 1, 2",
        *IS_ACTIVE
    ))?;
    let mut rows = active.query([])?;
    while let Some(row) = rows.next()? {
        let (status, workflow) = (stored_name(row, 0)?, stored_name(row, 1)?);
        if is_wanted(&status) && is_of_workflows(&workflow) {
            add(&status, row.get(2)?);
        }
    }
    let mut ended = connection.prepare_cached(&format!(
        "SELECT count(*) FROM workflow_runs WHERE {} AND workflow = ?1 AND status = ?2",
        *IS_ENDED
    ))?;
    for workflow in workflows_of(connection, workflows)? {
        for status in RunStatus::ALL.into_iter().filter(|status| !status.is_active() && is_wanted(status.name())) {
            add(status.name(), ended.query_row((&workflow, status.name()), |row| row.get(0))?);
        }
    }
    Ok(counts)
}

/// The workflows of which runs have ended, looked up one after the other; with `wanted`, these.
fn workflows_of(connection: &Connection, wanted: Option<&[String]>) -> Result<Vec<Value>> {
    if let Some(wanted) = wanted {
        let mut wanted = wanted.to_vec();
        wanted.sort_unstable();
        wanted.dedup();
        return Ok(wanted.into_iter().map(Value::Text).collect());
    }
    next_values(connection, "workflow", &IS_ENDED)
}

/// The states that active runs are in.
fn active_statuses(connection: &Connection) -> Result<Vec<Value>> {
    next_values(connection, "status", &IS_ACTIVE)
}

/// The values of the leading column of an index.
fn next_values(connection: &Connection, column: &str, condition: &str) -> Result<Vec<Value>> {
    let select = |bound: &str| {
        format!("SELECT {column} FROM workflow_runs WHERE {condition} AND {column} {bound} ORDER BY {column} LIMIT 1")
    };
    let mut values = Vec::new();
    // The first without a bound: an integer, which is below every text, would be compared as its digits.
    let mut next: Option<Value> =
        connection.prepare_cached(&select("IS NOT NULL"))?.query_row([], |row| row.get(0)).optional()?;
    let mut statement = connection.prepare_cached(&select("> ?1"))?;
    while let Some(value) = next {
        next = statement.query_row([&value], |row| row.get(0)).optional()?;
        values.push(value);
    }
    Ok(values)
}

/// Lists of runs, of which the next run of each is known.
struct Merge<'a> {
    connection: &'a Connection,
    database: &'a Database,
    filter: &'a RunFilter,
    /// The key of the last run of the page before, as it is stored.
    after: Option<Key>,
    lists: Vec<List>,
    heads: BinaryHeap<Head>,
}

/// Runs that one index has in order.
struct List {
    /// None: of any, which is checked run by run.
    workflow: Option<Value>,
    status: Value,
    is_active: bool,
    page: VecDeque<(Key, Result<Run>)>,
    /// The last one that was read.
    last: Option<Key>,
    /// How many to read next; 0: all have been read.
    wanted: usize,
}

/// A run's place: its timestamp and its id, as they are stored.
#[derive(Clone, Debug, PartialEq)]
struct Key {
    timestamp: Value,
    run_id: Value,
}

/// The next run of a list.
struct Head {
    key: Key,
    list: usize,
    descending: bool,
}

impl<'a> Merge<'a> {
    fn of(connection: &'a Connection, database: &'a Database, filter: &'a RunFilter) -> Result<Self> {
        let mut lists = Vec::new();
        let is_wanted = |status: RunStatus| filter.statuses.as_ref().is_none_or(|wanted| wanted.contains(&status));
        let mut add = |workflow: Option<Value>, status: Value, is_active| {
            let (page, last, wanted) = (VecDeque::new(), None, FIRST_PAGE);
            lists.push(List { workflow, status, is_active, page, last, wanted });
        };
        let active: Vec<Value> = match &filter.statuses {
            None => active_statuses(connection)?,
            Some(_) => [RunStatus::Queued, RunStatus::Started]
                .into_iter()
                .filter(|status| is_wanted(*status))
                .map(|status| Value::Text(status.name().to_owned()))
                .collect(),
        };
        for status in active {
            match &filter.workflows {
                None => add(None, status, true),
                Some(workflows) => {
                    let mut workflows = workflows.clone();
                    workflows.sort_unstable();
                    workflows.dedup();
                    workflows.into_iter().for_each(|workflow| add(Some(Value::Text(workflow)), status.clone(), true));
                }
            }
        }
        let ended: Vec<_> =
            RunStatus::ALL.into_iter().filter(|status| !status.is_active() && is_wanted(*status)).collect();
        if !ended.is_empty() {
            for workflow in workflows_of(connection, filter.workflows.as_deref())? {
                for status in &ended {
                    add(Some(workflow.clone()), Value::Text(status.name().to_owned()), false);
                }
            }
        }
        let after = filter.after.as_ref().map(|after| stored_key(connection, after)).transpose()?;
        let mut merge = Self { connection, database, filter, after, lists, heads: BinaryHeap::new() };
        (0..merge.lists.len()).try_for_each(|list| merge.look(list))?;
        Ok(merge)
    }

    /// The next run; the inner error is of this run alone.
    fn next_run(&mut self) -> Result<Option<Result<Run>>> {
        let Some(head) = self.heads.pop() else { return Ok(None) };
        let run = self.lists[head.list].page.pop_front().map(|(_, run)| run);
        self.look(head.list)?;
        Ok(run)
    }

    /// Learns which run of a list is next.
    fn look(&mut self, index: usize) -> Result<()> {
        let Self { connection, database, filter, after, lists, heads } = self;
        let list = &mut lists[index];
        if list.page.is_empty() && list.wanted > 0 {
            let most = filter.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
            let wanted = list.wanted.min(most);
            let from = list.last.take().or_else(|| after.clone());
            list.page = read_page(connection, database, filter, list, from.as_ref(), wanted)?;
            list.last = list.page.back().map(|(key, _)| key.clone());
            list.wanted = if list.page.len() < wanted { 0 } else { LONGEST_PAGE.min(list.wanted * GROWTH) };
        }
        if let Some((key, _)) = list.page.front() {
            heads.push(Head { key: key.clone(), list: index, descending: filter.descending });
        }
        Ok(())
    }
}

/// Reads on in a list after a run.
fn read_page(
    connection: &Connection,
    database: &Database,
    filter: &RunFilter,
    list: &List,
    after: Option<&Key>,
    wanted: usize,
) -> Result<VecDeque<(Key, Result<Run>)>> {
    let state = if list.is_active { &*IS_ACTIVE } else { &*IS_ENDED };
    let mut conditions = format!("{state} AND status = ?");
    let mut values = vec![list.status.clone()];
    let mut add = |condition: &str, value: &Value| {
        conditions.push_str(" AND ");
        conditions.push_str(condition);
        values.push(value.clone());
    };
    if let Some(workflow) = &list.workflow {
        add("workflow = ?", workflow);
    }
    if let Some(since) = filter.since {
        add("timestamp >= ?", &Value::Integer(since));
    }
    if let Some(until) = filter.until {
        add("timestamp <= ?", &Value::Integer(until));
    }
    let (order, end, beyond) = if filter.descending { ("DESC", "<=", "<") } else { ("ASC", ">=", ">") };
    if let Some(after) = after {
        add(&format!("timestamp {end} ?"), &after.timestamp);
        add(&format!("(timestamp, run_id) {beyond} (?"), &after.timestamp);
        // The other half of the pair.
        conditions.push_str(", ?)");
        values.push(after.run_id.clone());
    }
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM workflow_runs WHERE {conditions}
         ORDER BY timestamp {order}, run_id {order} LIMIT {wanted}"
    ))?;
    let mut rows = statement.query(rusqlite::params_from_iter(values))?;
    let mut page = VecDeque::new();
    while let Some(row) = rows.next()? {
        page.push_back((key_of(row)?, read(row, database.path())?));
    }
    Ok(page)
}

fn key_of(row: &Row<'_>) -> Result<Key> {
    Ok(Key { timestamp: row.get(3)?, run_id: row.get(0)? })
}

/// The place of the last run of the page before: by the timestamp that is stored, which may have a fraction that the caller
/// did not see, unless the run has moved since or is gone.
fn stored_key(connection: &Connection, (timestamp, run_id): &(i64, String)) -> Result<Key> {
    let mut statement = connection.prepare_cached("SELECT timestamp FROM workflow_runs WHERE run_id = ?1")?;
    let mut rows = statement.query([run_id])?;
    let stored = match rows.next()? {
        Some(row) => row.get(0)?,
        None => Value::Null,
    };
    let timestamp = match stored {
        Value::Real(stored) if stored.trunc() as i64 == *timestamp => Value::Real(stored),
        _ => Value::Integer(*timestamp),
    };
    Ok(Key { timestamp, run_id: Value::Text(run_id.clone()) })
}

impl Key {
    fn compare(&self, other: &Self) -> Ordering {
        compare(&self.timestamp, &other.timestamp).then_with(|| compare(&self.run_id, &other.run_id))
    }
}

/// In the order in which SQLite sorts values.
fn compare(one: &Value, other: &Value) -> Ordering {
    let rank = |value: &Value| match value {
        Value::Null => 0,
        Value::Integer(_) | Value::Real(_) => 1,
        Value::Text(_) => 2,
        Value::Blob(_) => 3,
    };
    match (one, other) {
        (Value::Integer(one), Value::Integer(other)) => one.cmp(other),
        (Value::Integer(one), Value::Real(other)) => (*one as f64).total_cmp(other),
        (Value::Real(one), Value::Integer(other)) => one.total_cmp(&(*other as f64)),
        (Value::Real(one), Value::Real(other)) => one.total_cmp(other),
        (Value::Text(one), Value::Text(other)) => one.as_bytes().cmp(other.as_bytes()),
        (Value::Blob(one), Value::Blob(other)) => one.cmp(other),
        _ => rank(one).cmp(&rank(other)),
    }
}

impl Ord for Head {
    /// The head of the heap is the greatest: the next in the order asked for.
    fn cmp(&self, other: &Self) -> Ordering {
        let order = self.key.compare(&other.key);
        if self.descending { order } else { order.reverse() }
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Head {}
