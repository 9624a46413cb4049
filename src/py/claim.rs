//! `LogStore`: claims of workflow runs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::base::interrupt::INTERVAL;
use crate::durable::Durability;
use crate::py::argument::{Arg, SecondsOrDelta, Text, arguments};
use crate::py::call::read_within;
use crate::py::convert::Integer;
use crate::py::interpreter;
use crate::py::log::LogStore;
use crate::py::perform::perform;
use crate::py::run_record::Claim;
use crate::py::several::{Several, names};
use crate::store;
use crate::workflow::{Release, Renew, Take, Waiting, is_any_free};

/// How long a lease lasts unless the call says otherwise.
const DEFAULT_LEASE: SecondsOrDelta = SecondsOrDelta(Duration::from_secs(60));

#[pymethods]
impl LogStore {
    /// Claim a run for `owner` and return the claim; None if there is none to claim.
    ///
    /// A run whose lease ran out is taken over, the one whose lease ended first; else the oldest `queued` run that may
    /// begin becomes `started`. Each run goes to one claimant, in whatever process. Taking a run over first logs
    /// `crashed`. The `started` row has no payload; its id is the claim's token.
    ///
    /// - `workflow`, `run_id`: only runs of that workflow, or of one of several; only that run.
    /// - `lease`: seconds, or a timedelta, for which the run is the owner's unless `renew_claim` makes it longer.
    ///   It is measured by a clock that no program sets, and ends when the machine is started anew.
    /// - `wait`: seconds, or a timedelta, to wait for a run. A commit of this process ends the wait at once, one of
    ///   another process as soon as it is noticed, as `follow` does.
    /// - `max_attempts`: a run whose lease ran out and that has been claimed so often is left `crashed`.
    #[pyo3(
        signature = (owner, *, workflow = None, run_id = None, lease = Arg::of(DEFAULT_LEASE),
            wait = Arg::of(SecondsOrDelta(Duration::ZERO)), max_attempts = None, durability = None),
        text_signature = "($self, owner, *, workflow=None, run_id=None, lease=60.0, wait=0.0, max_attempts=None, \
            durability=None)"
    )]
    #[expect(clippy::too_many_arguments, reason = "the options")]
    fn claim_workflow_run<'py>(
        &self,
        py: Python<'py>,
        owner: Arg<Text>,
        workflow: Option<Arg<Several<Text>>>,
        run_id: Option<Arg<Text>>,
        lease: Arg<SecondsOrDelta>,
        wait: Arg<SecondsOrDelta>,
        max_attempts: Option<Arg<Integer>>,
        durability: Option<Arg<Durability>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        arguments!(owner, workflow, run_id, lease, wait, max_attempts, durability);
        let take = take(&owner, workflow, run_id, positive(lease.0)?, max_attempts)?;
        let deadline = Instant::now().checked_add(wait.0);
        let mut waiting = None;
        loop {
            let claim = perform(py, &self.store, take.clone(), durability)?;
            if !claim.is_none() || wait.0.is_zero() {
                return Ok(claim);
            }
            let waiting = waiting.get_or_insert_with(|| Arc::new(Waiting::begin(self.store.log().core())));
            loop {
                let left = deadline.map_or(INTERVAL, |deadline| deadline.saturating_duration_since(Instant::now()));
                let (waiting, take, timeout) = (Arc::clone(waiting), take.clone(), left.min(INTERVAL));
                interpreter::check_signals(py)?;
                let work = move |store: &store::LogStore| waiting.wait(store.log(), &take, timeout);
                if read_within(py, timeout + INTERVAL, None, &self.store, work)? {
                    break;
                }
                if left.is_zero() {
                    return Ok(py.None().into_bound(py));
                }
            }
        }
    }

    /// Whether a claim may take a run now; waits for nothing.
    #[pyo3(signature = (workflow, run_id, max_attempts))]
    fn _is_run_free(
        &self,
        py: Python<'_>,
        workflow: Option<Arg<Several<Text>>>,
        run_id: Option<Arg<Text>>,
        max_attempts: Option<Arg<Integer>>,
    ) -> PyResult<bool> {
        arguments!(workflow, run_id, max_attempts);
        let take = take("", workflow, run_id, Duration::ZERO, max_attempts)?;
        let work = move |store: &store::LogStore| is_any_free(store.log().database(), &take);
        read_within(py, INTERVAL, None, &self.store, work)
    }

    /// Let a claim last for another lease from now on, and return it as it is then.
    ///
    /// `lease` None: as long as the one before. A claim whose lease ran out can be renewed until another claimant
    /// takes the run over. A claim that is lost is a `ClaimLostError`.
    #[pyo3(signature = (claim, *, lease = None))]
    fn renew_claim<'py>(
        &self,
        py: Python<'py>,
        claim: Arg<Claim>,
        lease: Option<Arg<SecondsOrDelta>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        arguments!(claim, lease);
        let lease = lease.map(|lease| lease.0).map(positive).transpose()?;
        perform(py, &self.store, Renew { fence: claim.0, lease }, None)
    }

    /// Give a claimed run back: log that it was interrupted and that it is queued again, in one commit.
    ///
    /// `delay`: seconds, or a timedelta, for which it is not to be claimed. Returns the run. A claim that is lost is a
    /// `ClaimLostError`.
    #[pyo3(
        signature = (claim, *, delay = Arg::of(SecondsOrDelta(Duration::ZERO))),
        text_signature = "($self, claim, *, delay=0.0)"
    )]
    fn release_claim<'py>(
        &self,
        py: Python<'py>,
        claim: Arg<Claim>,
        delay: Arg<SecondsOrDelta>,
    ) -> PyResult<Bound<'py, PyAny>> {
        arguments!(claim, delay);
        perform(py, &self.store, Release { fence: claim.0, delay: delay.0 }, None)
    }
}

fn take(
    owner: &str,
    workflow: Option<Several<Text>>,
    run_id: Option<Text>,
    lease: Duration,
    max_attempts: Option<Integer>,
) -> PyResult<Take> {
    let max_attempts = attempts(max_attempts)?;
    Ok(Take {
        owner: owner.to_owned(),
        workflows: names(workflow),
        run_id: run_id.map(|run_id| run_id.to_string()),
        lease,
        max_attempts,
    })
}

/// How often a run may be claimed, if the number can be one.
pub(super) fn attempts(most: Option<Integer>) -> PyResult<Option<i64>> {
    match most {
        Some(Integer(most)) if most < 1 => {
            Err(PyValueError::new_err(format!("max_attempts is at least 1, not {most}")))
        }
        most => Ok(most.map(|most| most.0)),
    }
}

/// The lease, if it can be one.
pub(super) fn positive(lease: Duration) -> PyResult<Duration> {
    if lease < Duration::from_millis(1) {
        return Err(PyValueError::new_err("lease is a number of seconds above 0, from a millisecond on"));
    }
    Ok(lease)
}
