//! `LogStore`: workflow runs.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::PyString;

use crate::base::status::RunStatus;
use crate::base::time::check_timestamp;
use crate::durable::Durability;
use crate::py::call::{read, write};
use crate::py::convert::{Integer, Record};
use crate::py::entry::{Given, LogEntry};
use crate::py::interpreter;
use crate::py::log::LogStore;
use crate::py::report::{Level, report};
use crate::store;
use crate::workflow as run;
use crate::workflow::{Run, RunList, Transition};

static WORKFLOW_RUN: Record = Record::new("WorkflowRun");

#[pymethods]
impl LogStore {
    /// Append `entry` and bring the run to the state `run`, both in one transaction.
    ///
    /// A run that is not there may begin in any state; otherwise the transition must be legal
    /// (`IllegalTransitionError`), unless forced. Repeating the current state is allowed and logged. The exit code of
    /// a finished run is never lost to an update that has none.
    #[pyo3(signature = (entry, run, *, force = false, durability = None))]
    fn upsert_workflow_run(
        &self,
        py: Python<'_>,
        entry: Given,
        run: &Bound<'_, PyAny>,
        force: bool,
        durability: Option<Durability>,
    ) -> PyResult<LogEntry> {
        let run = extract_run(run)?;
        let entry = self.check(entry.borrow())?;
        let stored = write(py, || run::upsert(self.log(), &entry, &run, force, durability))?;
        Ok(LogEntry(stored))
    }

    /// The predecessor's name for `upsert_workflow_run`.
    #[pyo3(signature = (entry, run, *, force = false, durability = None))]
    fn append_with_workflow_update(
        &self,
        py: Python<'_>,
        entry: Given,
        run: &Bound<'_, PyAny>,
        force: bool,
        durability: Option<Durability>,
    ) -> PyResult<LogEntry> {
        self.upsert_workflow_run(py, entry, run, force, durability)
    }

    /// Take an existing run to `status`, logging the row (workflow, status, run_id, payload), in one transaction.
    ///
    /// `expect`: the state, or states, that the run must be in now. A run that is not there, is in another state or
    /// cannot go there is an `IllegalTransitionError` and changes nothing.
    #[pyo3(signature = (run_id, status, *, expect = None, exit_code = None, payload = None, timestamp = None, durability = None))]
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
    ) -> PyResult<Bound<'py, PyAny>> {
        let expect = expect.map(expected).transpose()?.unwrap_or_default();
        let change = Transition { status, expect: &expect, exit_code: exit_code.map(|code| code.0) };
        let timestamp = timestamp.map(|timestamp| timestamp.0);
        let entry = self.check(run::transition_entry(&run_id, status, payload.as_deref(), timestamp))?;
        let run = write(py, || run::transition(self.log(), &entry, &run_id, &change, durability))?;
        create_run(py, &run)
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

pub(super) fn create_run<'py>(py: Python<'py>, run: &Run) -> PyResult<Bound<'py, PyAny>> {
    WORKFLOW_RUN.create(py, (&run.run_id, &run.workflow, run.status.name(), run.timestamp, run.exit_code))
}

/// The readable runs; each unreadable one is reported by name, in the log of the application.
pub(super) fn list<'py>(py: Python<'py>, list: RunList) -> PyResult<Vec<Bound<'py, PyAny>>> {
    for error in list.unreadable {
        report(py, Level::Error, &error.to_string())?;
    }
    list.runs.iter().map(|run| create_run(py, run)).collect()
}

pub(super) fn extract_run(run: &Bound<'_, PyAny>) -> PyResult<Run> {
    let py = run.py();
    if !run.is_instance(WORKFLOW_RUN.class(py)?)? {
        let found = run.get_type().name()?.to_string();
        return Err(PyTypeError::new_err(format!("run is a WorkflowRun, not {found:?}")));
    }
    Ok(Run {
        run_id: field(run, "run_id")?,
        workflow: field(run, "workflow")?,
        status: field(run, "status")?,
        timestamp: check_timestamp(field::<Integer>(run, "timestamp")?.0)?,
        exit_code: field::<Option<Integer>>(run, "exit_code")?.map(|code| code.0),
    })
}

/// A field of a record; a wrong type is an error that says which field has it.
fn field<'py, T>(record: &Bound<'py, PyAny>, name: &str) -> PyResult<T>
where
    T: for<'a> FromPyObject<'a, 'py, Error = PyErr>,
{
    record.getattr(name)?.extract::<T>().map_err(|error| {
        let py = record.py();
        if error.is_instance_of::<PyTypeError>(py) {
            PyTypeError::new_err(format!("run.{name}: {}", error.value(py)))
        } else {
            error
        }
    })
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
