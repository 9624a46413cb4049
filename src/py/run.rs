//! `LogStore`: workflow runs.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::PyString;

use crate::base::status::RunStatus;
use crate::base::time::check_timestamp;
use crate::durable::Durability;
use crate::py::call::read;
use crate::py::convert::Integer;
use crate::py::entry::Given;
use crate::py::interpreter;
use crate::py::log::LogStore;
use crate::py::perform::perform;
use crate::py::report::{Level, report};
use crate::py::run_record::{Claim, create_run, extract_run, fence};
use crate::store;
use crate::workflow as run;
use crate::workflow::{Create, Fence, RunList, Transition, Upsert};

#[pymethods]
impl LogStore {
    /// Create a run that is not there, logging the row (workflow, status, run_id, payload), in one transaction.
    ///
    /// A run that is there is a `RunExistsError`; with `exist_ok` it is returned as it is, if it is of the same
    /// workflow. `not_before` (milliseconds) keeps a queued run from being claimed before.
    #[pyo3(
        signature = (run_id, workflow, *, status = RunStatus::Queued, payload = None, timestamp = None,
            not_before = None, exist_ok = false, durability = None),
        text_signature = "($self, run_id, workflow, *, status='queued', payload=None, timestamp=None, not_before=None, \
            exist_ok=False, durability=None)"
    )]
    #[expect(clippy::too_many_arguments, reason = "the columns")]
    fn create_workflow_run<'py>(
        &self,
        py: Python<'py>,
        run_id: PyBackedStr,
        workflow: PyBackedStr,
        status: RunStatus,
        payload: Option<PyBackedStr>,
        timestamp: Option<Integer>,
        not_before: Option<Integer>,
        exist_ok: bool,
        durability: Option<Durability>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let payload = payload.as_deref();
        let create = checked_create(self, &run_id, &workflow, status, payload, timestamp, not_before, exist_ok)?;
        perform(py, &self.store, create, durability)
    }

    /// Append `entry` and bring the run to the state `run`, both in one transaction.
    ///
    /// The entry's ref_id is the run, and a run that is there stays one of its workflow (`ValueError`). A run that is
    /// not there may begin in any state; otherwise the transition must be legal (`IllegalTransitionError`), unless
    /// forced. Repeating the current state is allowed and logged. The exit code of a finished run is never lost to an
    /// update that has none.
    ///
    /// While another claimant's lease on the run lasts, only a call that carries the `claim`, kills the run or is
    /// forced may change it. A claim that is lost is a `ClaimLostError`, and nothing is changed.
    #[pyo3(signature = (entry, run, *, force = false, durability = None, claim = None))]
    #[expect(clippy::too_many_arguments, reason = "the options")]
    fn upsert_workflow_run<'py>(
        &self,
        py: Python<'py>,
        entry: Given,
        run: &Bound<'_, PyAny>,
        force: bool,
        durability: Option<Durability>,
        claim: Option<Claim>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let upsert = checked_upsert(self, &entry, run, force, |_| fence(claim))?;
        perform(py, &self.store, upsert, durability)
    }

    /// The predecessor's name for `upsert_workflow_run`.
    #[pyo3(signature = (entry, run, *, force = false, durability = None, claim = None))]
    #[expect(clippy::too_many_arguments, reason = "the options")]
    fn append_with_workflow_update<'py>(
        &self,
        py: Python<'py>,
        entry: Given,
        run: &Bound<'_, PyAny>,
        force: bool,
        durability: Option<Durability>,
        claim: Option<Claim>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.upsert_workflow_run(py, entry, run, force, durability, claim)
    }

    /// Take an existing run to `status`, logging the row (workflow, status, run_id, payload), in one transaction.
    ///
    /// `expect`: the state, or states, that the run must be in now. A run that is not there, is in another state or
    /// cannot go there is an `IllegalTransitionError` and changes nothing. So is a change without the `claim` of a run
    /// that is under a claim whose lease lasts, unless it kills the run. A claim that is lost is a `ClaimLostError`.
    #[pyo3(signature = (run_id, status, *, expect = None, exit_code = None, payload = None, timestamp = None,
        durability = None, claim = None))]
    #[expect(clippy::too_many_arguments, reason = "the columns")]
    fn transition<'py>(
        &self,
        py: Python<'py>,
        run_id: PyBackedStr,
        status: RunStatus,
        expect: Option<&Bound<'py, PyAny>>,
        exit_code: Option<Integer>,
        payload: Option<PyBackedStr>,
        timestamp: Option<Integer>,
        durability: Option<Durability>,
        claim: Option<Claim>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let payload = payload.as_deref();
        let change = checked_transition(self, &run_id, status, expect, exit_code, payload, timestamp, fence(claim))?;
        perform(py, &self.store, change, durability)
    }

    /// The run, or None. A run whose stored status is unknown is a `CorruptStoreError` that names it.
    fn get_workflow_run<'py>(&self, py: Python<'py>, run_id: PyBackedStr) -> PyResult<Option<Bound<'py, PyAny>>> {
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
        workflow: Option<PyBackedStr>,
    ) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let workflow = workflow.map(|workflow| workflow.to_string());
        let runs = move |store: &store::LogStore| run::active_runs(store.log().database(), workflow.as_deref());
        list(py, read(py, &self.store, runs)?)
    }

    /// All runs, newest first; an unreadable one as in `get_active_workflow_runs`.
    #[pyo3(signature = (workflow = None))]
    fn get_all_workflow_runs<'py>(
        &self,
        py: Python<'py>,
        workflow: Option<PyBackedStr>,
    ) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let workflow = workflow.map(|workflow| workflow.to_string());
        let runs = move |store: &store::LogStore| run::all_runs(store.log().database(), workflow.as_deref());
        list(py, read(py, &self.store, runs)?)
    }
}

#[expect(clippy::too_many_arguments, reason = "the columns")]
pub(super) fn checked_create(
    store: &LogStore,
    run_id: &str,
    workflow: &str,
    status: RunStatus,
    payload: Option<&str>,
    timestamp: Option<Integer>,
    not_before: Option<Integer>,
    exist_ok: bool,
) -> PyResult<Create> {
    let entry = store.check(run::state_entry(run_id, status, payload, timestamp.map(|timestamp| timestamp.0)))?;
    let not_before = not_before.map(|time| check_timestamp(time.0)).transpose()?;
    Ok(Create { entry: (&entry).into(), workflow: workflow.to_owned(), status, not_before, exist_ok })
}

/// `claim`: of the run.
pub(super) fn checked_upsert(
    store: &LogStore,
    entry: &Given,
    run: &Bound<'_, PyAny>,
    force: bool,
    claim: impl FnOnce(&str) -> Option<Fence>,
) -> PyResult<Upsert> {
    let run = extract_run(run)?;
    let entry = store.check(entry.borrow())?;
    let claim = claim(&run.run_id);
    Ok(Upsert::new(&entry, run, force, claim)?)
}

#[expect(clippy::too_many_arguments, reason = "the columns")]
pub(super) fn checked_transition(
    store: &LogStore,
    run_id: &str,
    status: RunStatus,
    expect: Option<&Bound<'_, PyAny>>,
    exit_code: Option<Integer>,
    payload: Option<&str>,
    timestamp: Option<Integer>,
    claim: Option<Fence>,
) -> PyResult<Transition> {
    let expect = expect.map(expected).transpose()?.unwrap_or_default();
    let entry = store.check(run::state_entry(run_id, status, payload, timestamp.map(|timestamp| timestamp.0)))?;
    claim.as_ref().map_or(Ok(()), |claim| claim.check_run(run_id))?;
    Ok(Transition { entry: (&entry).into(), status, expect, exit_code: exit_code.map(|code| code.0), claim })
}

/// The readable runs; each unreadable one is reported by name, in the log of the application.
fn list<'py>(py: Python<'py>, list: RunList) -> PyResult<Vec<Bound<'py, PyAny>>> {
    for error in list.unreadable {
        report(py, Level::Error, &error.to_string())?;
    }
    list.runs.iter().map(|run| create_run(py, run)).collect()
}

fn expected(expect: &Bound<'_, PyAny>) -> PyResult<Vec<RunStatus>> {
    if expect.is_instance_of::<PyString>() {
        return Ok(vec![expect.extract()?]);
    }
    let statuses = interpreter::items(expect)?.map(|status| status?.extract()).collect::<PyResult<Vec<_>>>()?;
    if statuses.is_empty() {
        return Err(PyValueError::new_err("expect names no status; leave it out to expect nothing"));
    }
    Ok(statuses)
}
