//! Keeping a claim, and giving it back.

use std::time::Duration;

use crate::base::boot::Moment;
use crate::base::error::Result;
use crate::base::status::RunStatus;
use crate::base::time::now;
use crate::log::{Operation, Transaction};
use crate::workflow::claim::record::{Fence, RunClaim, Term, give_back};
use crate::workflow::entry::state_entry;
use crate::workflow::put::store;
use crate::workflow::state::{Found, Run};

/// Lets a claim last for another lease from now on. One whose lease ran out may be renewed until the run is taken
/// over.
#[derive(Clone, Debug)]
pub struct Renew {
    /// The claim.
    pub fence: Fence,
    /// The new lease; None: as long as the one before.
    pub lease: Option<Duration>,
}

impl Operation for Renew {
    type Answer = RunClaim;

    const NAME: &'static str = "renew a claim";

    fn apply(&self, transaction: &mut Transaction<'_>) -> Result<RunClaim> {
        let (found, record) = self.fence.check(transaction.connection(), transaction.path())?;
        let term = Term::new(Moment::now()?, now()?, self.lease.unwrap_or_else(|| record.lease()));
        term.renew(transaction.connection(), &self.fence.run_id)?;
        Ok(RunClaim {
            run: found.run,
            owner: record.owner().to_owned(),
            attempt: record.attempt,
            token: self.fence.token,
            expires_at: term.expires_at,
        })
    }

    fn bytes(&self) -> usize {
        self.fence.run_id.len()
    }
}

/// Gives a claim back: logs that the run was interrupted and that it is queued again.
#[derive(Clone, Debug)]
pub struct Release {
    /// The claim.
    pub fence: Fence,
    /// For how long the run is not to be claimed.
    pub delay: Duration,
}

impl Operation for Release {
    type Answer = Run;

    const NAME: &'static str = "release a claim";

    fn apply(&self, transaction: &mut Transaction<'_>) -> Result<Run> {
        let (found, _) = self.fence.check(transaction.connection(), transaction.path())?;
        let time = now()?;
        let run_id = &found.run.run_id;
        transaction.insert(&[
            state_entry(run_id, RunStatus::Interrupted, None, Some(time)),
            state_entry(run_id, RunStatus::Queued, None, Some(time)),
        ])?;
        let connection = transaction.connection();
        let interrupted = Run { status: RunStatus::Interrupted, timestamp: time, exit_code: None, ..found.run.clone() };
        let interrupted = Found { run: interrupted, ..found };
        let queued = Run { status: RunStatus::Queued, ..interrupted.run.clone() };
        let queued = store(connection, &queued, Some(&interrupted), false)?;
        let delay = i64::try_from(self.delay.as_millis()).unwrap_or(i64::MAX);
        give_back(connection, &queued.run_id, (delay > 0).then(|| time.saturating_add(delay)))?;
        Ok(queued)
    }

    fn bytes(&self) -> usize {
        self.fence.run_id.len()
    }
}
