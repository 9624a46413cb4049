//! `LogStore`: workflow runs.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::base::status::RunStatus;
use crate::durable::Durability;
use crate::py::argument::{Arg, Flag, Text, arguments, named};
use crate::py::call::read;
use crate::py::convert::Integer;
use crate::py::fields::Json;
use crate::py::given::Given;
use crate::py::log::LogStore;
use crate::py::perform::{frames, perform};
use crate::py::report::{Level, report};
use crate::py::results::List;
use crate::py::run_record::{Claim, create_run, extract_run, fence};
use crate::py::several::Several;
use crate::py::timestamp::Timestamp;
use crate::row::{OwnedEntry, check_name};
use crate::store;
use crate::workflow as run;
use crate::workflow::{Create, Fence, RunList, Transition, Upsert};

#[pymethods]
impl LogStore {
    /// Create a run that is not there, logging the row (workflow, status, run_id, payload), in one transaction.
    ///
    /// A run that is there is a `RunExistsError`; with `exist_ok` it is returned as it is, if it is of the same
    /// workflow. `not_before`, a timestamp, keeps a queued run from being claimed before. In place of `payload`,
    /// `json` takes a JSON value.
    #[pyo3(
        signature = (run_id, workflow, *, status = Arg::of(RunStatus::Queued), payload = None, json = Json::NONE,
            timestamp = None, not_before = None, exist_ok = Arg::OFF, durability = None),
        text_signature = "($self, run_id, workflow, *, status='queued', payload=None, json=..., timestamp=None, \
            not_before=None, exist_ok=False, durability=None)"
    )]
    #[expect(clippy::too_many_arguments, reason = "the columns")]
    fn create_workflow_run<'py>(
        &self,
        py: Python<'py>,
        run_id: Arg<Text>,
        workflow: Arg<Text>,
        status: Arg<RunStatus>,
        payload: Option<Arg<Text>>,
        json: Json<'py>,
        timestamp: Option<Arg<Timestamp>>,
        not_before: Option<Arg<Timestamp>>,
        exist_ok: Arg<Flag>,
        durability: Option<Arg<Durability>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        arguments!(run_id, workflow, status, payload, timestamp, not_before, exist_ok, durability);
        let run = NewRun { run_id, workflow, status, payload: json.or(payload)?, timestamp, not_before };
        perform(py, &self.store, run.checked(py, self, exist_ok.0)?, durability)
    }

    /// Append `entry` and bring the run to the state `run`, both in one transaction.
    ///
    /// The entry's ref_id is the run, and a run that is there stays one of its workflow (`ValueError`). A run that is
    /// not there may begin in any state; otherwise the transition must be legal (`IllegalTransitionError`), unless
    /// forced. Repeating the current state is allowed and logged. The exit code of a finished run is never lost to an
    /// update that has none.
    ///
    /// While a claim's lease on the run lasts, only a call that carries the `claim`, kills the run or is forced may
    /// change it. A claim that is lost is a `ClaimLostError`, and nothing is changed.
    #[pyo3(
        signature = (entry, run, *, force = Arg::OFF, durability = None, claim = None),
        text_signature = "($self, entry, run, *, force=False, durability=None, claim=None)"
    )]
    fn upsert_workflow_run<'py>(
        &self,
        py: Python<'py>,
        entry: Arg<Given>,
        run: &Bound<'py, PyAny>,
        force: Arg<Flag>,
        durability: Option<Arg<Durability>>,
        claim: Option<Arg<Claim>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        arguments!(entry, force, durability, claim);
        let upsert = checked_upsert(py, self, &entry, run, force.0, |_| fence(claim))?;
        perform(py, &self.store, upsert, durability)
    }

    /// The predecessor's name for `upsert_workflow_run`.
    #[pyo3(
        signature = (entry, run, *, force = Arg::OFF, durability = None, claim = None),
        text_signature = "($self, entry, run, *, force=False, durability=None, claim=None)"
    )]
    fn append_with_workflow_update<'py>(
        &self,
        py: Python<'py>,
        entry: Arg<Given>,
        run: &Bound<'py, PyAny>,
        force: Arg<Flag>,
        durability: Option<Arg<Durability>>,
        claim: Option<Arg<Claim>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.upsert_workflow_run(py, entry, run, force, durability, claim)
    }

    /// Take an existing run to `status`, logging the row (workflow, status, run_id, payload), in one transaction.
    ///
    /// `expect`: the state, or states, that the run must be in now. A run that is not there, is in another state or
    /// cannot go there is an `IllegalTransitionError` and changes nothing. So is a change without the `claim` of a run
    /// that is under a claim whose lease lasts, unless it kills the run. A claim that is lost is a `ClaimLostError`.
    /// In place of `payload`, `json` takes a JSON value.
    #[pyo3(
        signature = (run_id, status, *, expect = None, exit_code = None, payload = None, json = Json::NONE,
            timestamp = None, durability = None, claim = None),
        text_signature = "($self, run_id, status, *, expect=None, exit_code=None, payload=None, json=..., \
            timestamp=None, durability=None, claim=None)"
    )]
    #[expect(clippy::too_many_arguments, reason = "the columns")]
    fn transition<'py>(
        &self,
        py: Python<'py>,
        run_id: Arg<Text>,
        status: Arg<RunStatus>,
        expect: Option<&Bound<'py, PyAny>>,
        exit_code: Option<Arg<Integer>>,
        payload: Option<Arg<Text>>,
        json: Json<'py>,
        timestamp: Option<Arg<Timestamp>>,
        durability: Option<Arg<Durability>>,
        claim: Option<Arg<Claim>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        arguments!(run_id, status, exit_code, payload, timestamp, durability, claim);
        let change = Change { run_id, status, exit_code, payload: json.or(payload)?, timestamp };
        perform(py, &self.store, change.checked(py, self, expect, fence(claim))?, durability)
    }

    /// The run, or None. A run whose stored status is unknown is a `CorruptStoreError` that names it.
    fn get_workflow_run<'py>(&self, py: Python<'py>, run_id: Arg<Text>) -> PyResult<Option<Bound<'py, PyAny>>> {
        arguments!(run_id);
        let run_id = run_id.to_string();
        let run = read(py, &self.store, move |store| run::get_run(store.log().database(), &run_id))?;
        run.map(|run| create_run(py, &run)).transpose()
    }

    /// The queued and started runs, oldest first.
    ///
    /// A run whose stored status is unknown is left out and reported by name, as an error in the log of
    /// `logging.getLogger("nerve_store")`; `get_workflow_run` raises for it.
    #[pyo3(signature = (workflow = None))]
    fn get_active_workflow_runs<'py>(
        &self,
        py: Python<'py>,
        workflow: Option<Arg<Text>>,
    ) -> PyResult<List<Bound<'py, PyAny>>> {
        arguments!(workflow);
        let workflow = workflow.map(|workflow| workflow.to_string());
        let runs = move |store: &store::LogStore| run::active_runs(store.log().database(), workflow.as_deref());
        list(py, read(py, &self.store, runs)?)
    }

    /// All runs, newest first; an unreadable one as in `get_active_workflow_runs`.
    #[pyo3(signature = (workflow = None))]
    fn get_all_workflow_runs<'py>(
        &self,
        py: Python<'py>,
        workflow: Option<Arg<Text>>,
    ) -> PyResult<List<Bound<'py, PyAny>>> {
        arguments!(workflow);
        let workflow = workflow.map(|workflow| workflow.to_string());
        let runs = move |store: &store::LogStore| run::all_runs(store.log().database(), workflow.as_deref());
        list(py, read(py, &self.store, runs)?)
    }
}

/// A run to create, as it was given.
pub(super) struct NewRun {
    pub(super) run_id: Text,
    pub(super) workflow: Text,
    pub(super) status: RunStatus,
    pub(super) payload: Option<Text>,
    pub(super) timestamp: Option<Timestamp>,
    pub(super) not_before: Option<Timestamp>,
}

impl NewRun {
    pub(super) fn checked(self, py: Python<'_>, store: &LogStore, exist_ok: bool) -> PyResult<Create> {
        check_name("run_id", &self.run_id)?;
        let milliseconds = self.timestamp.map(|timestamp| timestamp.milliseconds);
        let entry = run::state_entry(&self.run_id, self.status, self.payload.as_deref(), milliseconds);
        let entry = OwnedEntry::from(&store.check(entry)?);
        let not_before = self.not_before.map(|time| time.checked("not_before")).transpose()?;
        store.warn_of_seconds(py, self.timestamp, frames())?;
        store.warn_of_seconds(py, self.not_before, frames())?;
        Ok(Create { entry, workflow: self.workflow.to_string(), status: self.status, not_before, exist_ok })
    }
}

/// A row and the state of a run, checked. `claim`: of the run.
pub(super) fn checked_upsert(
    py: Python<'_>,
    store: &LogStore,
    given: &Given,
    run: &Bound<'_, PyAny>,
    force: bool,
    claim: impl FnOnce(&str) -> Option<Fence>,
) -> PyResult<Upsert> {
    let (run, timestamp) = extract_run(run, "run")?;
    let entry = store.check(given.borrow())?;
    let claim = claim(&run.run_id);
    let upsert = Upsert::new(&entry, run, force, claim)?;
    store.warn_of_seconds(py, given.timestamp(), frames())?;
    store.warn_of_seconds(py, Some(timestamp), frames())?;
    Ok(upsert)
}

/// A change of a run's state, as it was given.
pub(super) struct Change {
    pub(super) run_id: Text,
    pub(super) status: RunStatus,
    pub(super) exit_code: Option<Integer>,
    pub(super) payload: Option<Text>,
    pub(super) timestamp: Option<Timestamp>,
}

impl Change {
    pub(super) fn checked(
        self,
        py: Python<'_>,
        store: &LogStore,
        expect: Option<&Bound<'_, PyAny>>,
        claim: Option<Fence>,
    ) -> PyResult<Transition> {
        let expect = expect.map(expected).transpose()?.unwrap_or_default();
        check_name("run_id", &self.run_id)?;
        let milliseconds = self.timestamp.map(|timestamp| timestamp.milliseconds);
        let entry = run::state_entry(&self.run_id, self.status, self.payload.as_deref(), milliseconds);
        let entry = OwnedEntry::from(&store.check(entry)?);
        claim.as_ref().map_or(Ok(()), |claim| claim.check_run(&self.run_id))?;
        store.warn_of_seconds(py, self.timestamp, frames())?;
        Ok(Transition { entry, status: self.status, expect, exit_code: self.exit_code.map(|code| code.0), claim })
    }
}

/// The readable runs; each unreadable one is reported by name, in the log of the application.
pub(super) fn list<'py>(py: Python<'py>, list: RunList) -> PyResult<List<Bound<'py, PyAny>>> {
    for error in list.unreadable {
        report(py, Level::Error, &error.to_string())?;
    }
    list.runs.iter().map(|run| create_run(py, run)).collect::<PyResult<_>>().map(List)
}

/// The states of an argument `expect`.
pub(super) fn expected(expect: &Bound<'_, PyAny>) -> PyResult<Vec<RunStatus>> {
    let Several(statuses) = named(expect, "expect")?;
    if statuses.is_empty() {
        return Err(PyValueError::new_err("expect names no status; leave it out to expect nothing"));
    }
    Ok(statuses)
}
