//! Changing the state of a run, and logging it in the same transaction.

use crate::base::boot::Moment;
use crate::base::error::{Error, Result, quoted};
use crate::base::status::RunStatus;
use crate::durable::Durability;
use crate::log::{Log, Operation, Transaction};
use crate::row::{LogEntry, NewLogEntry, OwnedEntry};
use crate::workflow::claim::{Fence, Record, Seen, follow, forget, lose};
use crate::workflow::put::store;
use crate::workflow::state::{Found, Run};

const NAME: &str = "update a workflow run";

/// Appends a row and brings a run to a state.
#[derive(Clone, Debug)]
pub struct Upsert {
    entry: OwnedEntry,
    run: Run,
    force: bool,
    claim: Option<Fence>,
}

impl Upsert {
    /// Of the checked `entry`, which must be about the run.
    pub fn new(entry: &NewLogEntry<'_>, run: Run, force: bool, claim: Option<Fence>) -> Result<Self> {
        if entry.ref_id != Some(&run.run_id) {
            let ref_id = entry.ref_id.map_or("None".to_owned(), quoted);
            return Err(Error::Value(format!("the entry's ref_id is {ref_id}, not the run {}", quoted(&run.run_id))));
        }
        claim.as_ref().map_or(Ok(()), |claim| claim.check_run(&run.run_id))?;
        Ok(Self { entry: entry.into(), run, force, claim })
    }
}

impl Upsert {
    /// Whether it only repeats the state that the claim's run took.
    pub(super) fn repeats(&self, run: &Run) -> bool {
        self.run.run_id == run.run_id && self.run.status == run.status
    }
}

impl Operation for Upsert {
    type Answer = LogEntry;

    const NAME: &'static str = NAME;

    fn apply(&self, transaction: &mut Transaction<'_>) -> Result<LogEntry> {
        let (connection, path) = (transaction.connection(), transaction.path());
        let (current, record) = match &self.claim {
            Some(claim) => {
                let (found, record) = claim.check_change(connection, path, self.run.status)?;
                (Some(found), Some(record))
            }
            None => match Seen::look(connection, &self.run.run_id, path)? {
                // A forced update also replaces what cannot be read.
                Seen { found: Some(Err(_)), record } if self.force => (None, record),
                Seen { found, record } => (found.transpose()?, record),
            },
        };
        if let Some(Found { run: Run { workflow, .. }, .. }) = &current
            && *workflow != self.run.workflow
        {
            return Err(Error::Value(format!(
                "run {} is one of workflow {}, and cannot become one of {}",
                quoted(&self.run.run_id),
                quoted(workflow),
                quoted(&self.run.workflow)
            )));
        }
        if let Some(current) = current.as_ref().filter(|_| !self.force) {
            check(&current.run, self.run.status, &[])?;
        }
        let claimed = self.claim.is_some();
        let (id, _) = change(transaction, &self.entry, &self.run, (current, record), claimed, self.force)?;
        Ok(self.entry.clone().into_stored(id))
    }

    fn bytes(&self) -> usize {
        self.entry.borrow().text_bytes() + self.run.run_id.len() + self.run.workflow.len()
    }
}

/// [`Upsert`], in a commit that is shared.
pub fn upsert(
    log: &Log,
    entry: &NewLogEntry<'_>,
    run: &Run,
    force: bool,
    durability: Option<Durability>,
) -> Result<LogEntry> {
    log.perform(Upsert::new(entry, run.clone(), force, None)?, durability)
}

/// Takes an existing run to another state, and logs it. Answers with the row's id and the run as it is then.
#[derive(Clone, Debug)]
pub struct Transition {
    /// The row to log, checked: see [`crate::workflow::state_entry`].
    pub entry: OwnedEntry,
    /// The state to take.
    pub status: RunStatus,
    /// The states that the run must be in; empty: any.
    pub expect: Vec<RunStatus>,
    /// The exit code to set.
    pub exit_code: Option<i64>,
    /// The claim under which the run works.
    pub claim: Option<Fence>,
}

impl Transition {
    /// Whether it only repeats the state that the claim's run took.
    pub(super) fn repeats(&self, run: &Run) -> bool {
        self.entry.borrow().ref_id == Some(&run.run_id) && self.status == run.status
    }
}

impl Operation for Transition {
    type Answer = (i64, Run);

    const NAME: &'static str = NAME;

    fn apply(&self, transaction: &mut Transaction<'_>) -> Result<(i64, Run)> {
        let (connection, path) = (transaction.connection(), transaction.path());
        let entry = self.entry.borrow();
        let run_id = entry.ref_id.unwrap_or_default();
        let (current, record) = match &self.claim {
            Some(claim) => {
                claim.check_run(run_id)?;
                let (found, record) = claim.check_change(connection, path, self.status)?;
                (found, Some(record))
            }
            None => {
                let Seen { found, record } = Seen::look(connection, run_id, path)?;
                let found = found.transpose()?.ok_or_else(|| Error::IllegalTransition {
                    run_id: run_id.to_owned(),
                    from: None,
                    to: self.status,
                    allowed: Vec::new(),
                    reason: "there is no such run; create it with create_workflow_run".to_owned(),
                })?;
                (found, record)
            }
        };
        check(&current.run, self.status, &self.expect)?;
        let next = Run {
            status: self.status,
            timestamp: entry.timestamp.unwrap_or_default(),
            exit_code: self.exit_code,
            ..current.run.clone()
        };
        change(transaction, &self.entry, &next, (Some(current), record), self.claim.is_some(), false)
    }

    fn bytes(&self) -> usize {
        self.entry.borrow().text_bytes()
    }
}

/// Creates a run that is not there, and logs it. Answers with the row's id and the run; without an id if it was there.
#[derive(Clone, Debug)]
pub struct Create {
    /// The row to log, checked: see [`crate::workflow::state_entry`].
    pub entry: OwnedEntry,
    /// The workflow.
    pub workflow: String,
    /// The state to begin in.
    pub status: RunStatus,
    /// When a queued run may be claimed, in milliseconds.
    pub not_before: Option<i64>,
    /// A run of the same workflow that is there is the answer.
    pub exist_ok: bool,
}

impl Operation for Create {
    type Answer = (Option<i64>, Run);

    const NAME: &'static str = "create a workflow run";

    fn apply(&self, transaction: &mut Transaction<'_>) -> Result<(Option<i64>, Run)> {
        let entry = self.entry.borrow();
        let run_id = entry.ref_id.unwrap_or_default();
        let Seen { found, record } = Seen::look(transaction.connection(), run_id, transaction.path())?;
        if let Some(found) = found {
            let Run { workflow, status, .. } = &found.as_ref().map_err(Error::clone)?.run;
            if self.exist_ok && *workflow == self.workflow {
                return Ok((None, found?.run));
            }
            let way_out = match self.exist_ok {
                true => "exist_ok accepts a run of the same workflow only: choose another id",
                false => "choose another id, or pass exist_ok",
            };
            let (run_id, workflow) = (run_id.to_owned(), workflow.clone());
            return Err(Error::RunExists { run_id, workflow, status: *status, way_out });
        }
        let run = Run {
            run_id: run_id.to_owned(),
            workflow: self.workflow.clone(),
            status: self.status,
            timestamp: entry.timestamp.unwrap_or_default(),
            exit_code: None,
        };
        let id = transaction.insert_soon(&self.entry)?;
        store(transaction.connection(), &run, None, false)?;
        forget(transaction.connection(), run_id, record.as_ref(), self.not_before)?;
        Ok((Some(id), run))
    }

    fn bytes(&self) -> usize {
        self.entry.borrow().text_bytes() + self.workflow.len()
    }
}

/// Logs `entry` and brings the run from `current`, with its newest claim, to `next`; returns the row's id and the run. A
/// change without the claim under which the run works is refused while the lease lasts, unless it kills the run or is
/// forced; and it ends the claim.
fn change(
    transaction: &mut Transaction<'_>,
    entry: &OwnedEntry,
    next: &Run,
    (current, record): (Option<Found>, Option<Record>),
    is_claimed: bool,
    force: bool,
) -> Result<(i64, Run)> {
    let mut ends_claim = false;
    if let Some(Found { run, .. }) = &current
        && !is_claimed
        // Of a queued run none holds.
        && run.status != RunStatus::Queued
        && let Some(record) = &record
    {
        if !force && next.status != RunStatus::Killed && record.is_live(run, Moment::now()?) {
            return Err(Error::IllegalTransition {
                run_id: run.run_id.clone(),
                from: Some(run.status),
                to: next.status,
                allowed: vec![RunStatus::Killed],
                reason: format!(
                    "{} works on it under a claim: carry the claim, wait for its lease to end, or kill the run",
                    quoted(record.owner())
                ),
            });
        }
        ends_claim = record.holds(run);
    }
    let id = transaction.insert_soon(entry)?;
    let connection = transaction.connection();
    let stored = store(connection, next, current.as_ref(), force)?;
    if is_claimed {
        follow(connection, &stored)?;
    } else if ends_claim {
        lose(connection, &stored.run_id)?;
    }
    if current.is_none() && !is_claimed {
        forget(connection, &stored.run_id, record.as_ref(), None)?;
    }
    Ok((id, stored))
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

#[cfg(test)]
#[path = "change_tests.rs"]
mod tests;
