//! Claiming a run: one whose lease ran out, else the oldest that waits.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::types::Value;

use crate::base::boot::Moment;
use crate::base::error::Result;
use crate::base::status::{IS_ACTIVE, RunStatus};
use crate::base::time::now;
use crate::db::Database;
use crate::log::{Operation, Transaction};
use crate::row::OwnedEntry;
use crate::workflow::claim::record::{RunClaim, Seen, Term, lose};
use crate::workflow::entry::state_entry;
use crate::workflow::put::store;
use crate::workflow::state::{COLUMNS, Found, Run, read};

/// What a run whose process died exits with.
const CRASHED_EXIT_CODE: i64 = 255;

/// Takes a run over whose lease ran out, the one whose lease ended first; else the oldest queued run that may
/// begin. Answers None if there is none.
#[derive(Clone, Debug)]
pub struct Take {
    /// Who works on it.
    pub owner: String,
    /// Only runs of one of these workflows.
    pub workflows: Option<Vec<String>>,
    /// Only this run.
    pub run_id: Option<String>,
    /// How long it is the owner's unless the claim is renewed.
    pub lease: Duration,
    /// A run whose lease ran out after so many claims is left crashed.
    pub max_attempts: Option<i64>,
}

/// How long it takes at the most until a run is looked for again that may have become free without a commit that is
/// noticed: the system's clock may have been set.
const MOST_UNSEEN: Duration = Duration::from_secs(1);

/// Whether a claim would take a run, or clear one away: asked before a write transaction is begun for it.
pub fn is_any_free(database: &Database, take: &Take) -> Result<bool> {
    Ok(free_in(database, take)?.is_zero())
}

/// In how long a claim may take a run, or clear one away, unless a commit makes it sooner; at most a second.
pub(super) fn free_in(database: &Database, take: &Take) -> Result<Duration> {
    const NEXT_EXPIRY: &str =
        "SELECT min(expires) FROM run_claims WHERE status = 'started' AND boot = ?1 AND expires > ?2";
    database.read("look for a run", |connection| {
        let (moment, time) = (Moment::now()?, now()?);
        let found = take.look(connection, database.path(), moment, time)?;
        if found.expired.is_some() || !found.stale.is_empty() || !found.exhausted.is_empty() || found.queued.is_some() {
            return Ok(Duration::ZERO);
        }
        let mut statement = connection.prepare_cached(NEXT_EXPIRY)?;
        let expires: Option<i64> = statement.query_row((moment.boot, moment.milliseconds), |row| row.get(0))?;
        let next_beginning = format!(
            "SELECT min(not_before) FROM workflow_runs CROSS JOIN run_claims USING (run_id)
             WHERE workflow_runs.status = 'queued' AND not_before > ?1 AND {}",
            IS_ACTIVE.replace("status", "workflow_runs.status")
        );
        let begins: Option<i64> = connection.prepare_cached(&next_beginning)?.query_row([time], |row| row.get(0))?;
        let waits =
            [expires.map(|at| at.saturating_sub(moment.milliseconds)), begins.map(|at| at.saturating_sub(time))];
        let wait = waits
            .into_iter()
            .flatten()
            .min()
            .map_or(MOST_UNSEEN, |wait| Duration::from_millis(u64::try_from(wait).unwrap_or_default().max(1)));
        Ok(wait.min(MOST_UNSEEN))
    })
}

/// What a look at the runs found.
#[derive(Default)]
struct Sight {
    /// Claims of runs that were changed without them.
    stale: Vec<String>,
    /// Runs whose lease ran out once too often.
    exhausted: Vec<Found>,
    /// The run to take over.
    expired: Option<Found>,
    /// The run to begin with, unless there is one to take over.
    queued: Option<Found>,
}

impl Operation for Take {
    type Answer = Option<RunClaim>;

    const NAME: &'static str = "claim a workflow run";

    fn apply(&self, transaction: &mut Transaction<'_>) -> Result<Option<RunClaim>> {
        let (moment, time) = (Moment::now()?, now()?);
        let sight = self.look(transaction.connection(), transaction.path(), moment, time)?;
        for run_id in &sight.stale {
            lose(transaction.connection(), run_id)?;
        }
        for found in &sight.exhausted {
            crash(transaction, found, time)?;
            lose(transaction.connection(), &found.run.run_id)?;
        }
        let found = match (sight.expired, sight.queued) {
            (Some(found), _) => Found { run: crash(transaction, &found, time)?, ..found },
            (None, Some(found)) => found,
            (None, None) => return Ok(None),
        };
        let entry = OwnedEntry::from(&state_entry(&found.run.run_id, RunStatus::Started, None, Some(time)));
        let token = transaction.insert_soon(&entry)?;
        let started = Run { status: RunStatus::Started, timestamp: time, exit_code: None, ..found.run.clone() };
        let connection = transaction.connection();
        let run = store(connection, &started, Some(&found), false)?;
        let term = Term::new(moment, time, self.lease);
        let attempt = term.begin(connection, &run, &self.owner, token)?;
        Ok(Some(RunClaim { run, owner: self.owner.clone(), attempt, token, expires_at: term.expires_at }))
    }

    fn bytes(&self) -> usize {
        let workflows = self.workflows.iter().flatten().map(String::len).sum::<usize>();
        self.owner.len() + workflows + self.run_id.as_ref().map_or(0, String::len)
    }
}

/// Logs that the run's process died.
fn crash(transaction: &mut Transaction<'_>, found: &Found, time: i64) -> Result<Run> {
    let entry = state_entry(&found.run.run_id, RunStatus::Crashed, None, Some(time));
    transaction.insert_soon(&OwnedEntry::from(&entry))?;
    let crashed =
        Run { status: RunStatus::Crashed, timestamp: time, exit_code: Some(CRASHED_EXIT_CODE), ..found.run.clone() };
    store(transaction.connection(), &crashed, Some(found), false)
}

impl Take {
    fn look(&self, connection: &Connection, path: &Path, moment: Moment, time: i64) -> Result<Sight> {
        let mut sight = Sight::default();
        self.look_for_expired(connection, path, moment, &mut sight)?;
        if sight.expired.is_none() {
            sight.queued = self.queued(connection, path, time)?;
        }
        Ok(sight)
    }

    fn wants(&self, run: &Run) -> bool {
        self.workflows.as_ref().is_none_or(|workflows| workflows.contains(&run.workflow))
    }

    fn look_for_expired(&self, connection: &Connection, path: &Path, moment: Moment, sight: &mut Sight) -> Result<()> {
        const IS_ANY_EXPIRED: &str = "
            SELECT EXISTS (SELECT 1 FROM run_claims WHERE status = 'started' AND boot < ?1)
              OR EXISTS (SELECT 1 FROM run_claims WHERE status = 'started' AND boot > ?1)
              OR EXISTS (SELECT 1 FROM run_claims WHERE status = 'started' AND boot = ?1 AND expires <= ?2)";
        let mut statement = connection.prepare_cached(IS_ANY_EXPIRED)?;
        if !statement.query_row((moment.boot, moment.milliseconds), |row| row.get::<_, bool>(0))? {
            return Ok(());
        }
        // Each reads only what it finds. Those of another boot come first: they are older.
        for condition in ["boot < ?1 AND ?2 IS NOT NULL", "boot > ?1 AND ?2 IS NOT NULL", "boot = ?1 AND expires <= ?2"]
        {
            let sql = format!(
                "SELECT run_id FROM run_claims WHERE status = 'started' AND {condition} ORDER BY boot, expires, token"
            );
            let mut statement = connection.prepare_cached(&sql)?;
            let mut rows = statement.query((moment.boot, moment.milliseconds))?;
            while let Some(row) = rows.next()? {
                let run_id: String = row.get(0)?;
                if self.run_id.as_ref().is_some_and(|wanted| *wanted != run_id) {
                    continue;
                }
                let Seen { found: Some(Ok(found)), record } = Seen::look(connection, &run_id, path)? else {
                    sight.stale.push(run_id);
                    continue;
                };
                let Some(record) = record else { continue };
                if !record.holds(&found.run) {
                    sight.stale.push(run_id);
                } else if !self.wants(&found.run) {
                    // Others take it.
                } else if self.max_attempts.is_some_and(|most| record.attempt >= most) {
                    sight.exhausted.push(found);
                } else {
                    sight.expired = Some(found);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The oldest queued run that may begin and that can be read.
    fn queued(&self, connection: &Connection, path: &Path, time: i64) -> Result<Option<Found>> {
        const MAY_BEGIN: &str = "NOT EXISTS
            (SELECT 1 FROM run_claims WHERE run_claims.run_id = workflow_runs.run_id AND not_before > ?1)";
        let workflows = self.workflows.iter().flatten().cloned().map(Value::Text).collect::<Vec<_>>();
        let (condition, order, run_id) = match (&self.run_id, &self.workflows) {
            (Some(run_id), _) => ("run_id = ?2", "", run_id.as_str()),
            (None, Some(_)) => ("workflow IN (SELECT value FROM rarray(?3))", "ORDER BY timestamp, rowid", ""),
            (None, None) => ("?2 = ''", "ORDER BY timestamp, rowid", ""),
        };
        let sql = format!(
            "SELECT {COLUMNS}, rowid FROM workflow_runs
             WHERE status = 'queued' AND {} AND {condition} AND {MAY_BEGIN} AND ?3 IS ?3 {order}",
            *IS_ACTIVE
        );
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows = statement.query((time, run_id, Rc::new(workflows)))?;
        while let Some(row) = rows.next()? {
            // One that cannot be read is reported by those who list runs.
            if let Ok(run) = read(row, path)?
                && self.wants(&run)
            {
                return Ok(Some(Found { rowid: row.get(5)?, run }));
            }
        }
        Ok(None)
    }
}
