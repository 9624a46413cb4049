//! `LogStore`: workflow runs.

use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::base::status::RunStatus;
use crate::base::time::check_timestamp;
use crate::durable::Durability;
use crate::py::argument::{Arg, Flag, Refusal, Text, arguments, named};
use crate::py::call::{read, write};
use crate::py::convert::{Integer, Record};
use crate::py::entry::LogEntry;
use crate::py::fields::Json;
use crate::py::given::{Given, not_a_run};
use crate::py::interpreter;
use crate::py::log::LogStore;
use crate::py::report::{Level, report};
use crate::py::timestamp::Timestamp;
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
    #[pyo3(
        signature = (entry, run, *, force = Arg::OFF, durability = None),
        text_signature = "($self, entry, run, *, force=False, durability=None)"
    )]
    fn upsert_workflow_run(
        &self,
        py: Python<'_>,
        entry: Arg<Given>,
        run: &Bound<'_, PyAny>,
        force: Arg<Flag>,
        durability: Option<Arg<Durability>>,
    ) -> PyResult<LogEntry> {
        arguments!(entry, force, durability);
        let (run, timestamp) = extract_run(run)?;
        let given = entry;
        let entry = self.check(given.borrow())?;
        self.warn_of_seconds(py, given.timestamp(), 1)?;
        self.warn_of_seconds(py, Some(timestamp), 1)?;
        let stored = write(py, || run::upsert(self.log(), &entry, &run, force.0, durability))?;
        Ok(LogEntry(stored))
    }

    /// The predecessor's name for `upsert_workflow_run`.
    #[pyo3(
        signature = (entry, run, *, force = Arg::OFF, durability = None),
        text_signature = "($self, entry, run, *, force=False, durability=None)"
    )]
    fn append_with_workflow_update(
        &self,
        py: Python<'_>,
        entry: Arg<Given>,
        run: &Bound<'_, PyAny>,
        force: Arg<Flag>,
        durability: Option<Arg<Durability>>,
    ) -> PyResult<LogEntry> {
        self.upsert_workflow_run(py, entry, run, force, durability)
    }

    /// Take an existing run to `status`, logging the row (workflow, status, run_id, payload), in one transaction.
    ///
    /// `expect`: the state, or states, that the run must be in now. A run that is not there, is in another state or
    /// cannot go there is an `IllegalTransitionError` and changes nothing. In place of `payload`, `json` takes a JSON
    /// value.
    #[pyo3(
        signature = (run_id, status, *, expect = None, exit_code = None, payload = None, json = Json::NONE,
            timestamp = None, durability = None),
        text_signature = "($self, run_id, status, *, expect=None, exit_code=None, payload=None, json=..., \
            timestamp=None, durability=None)"
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
    ) -> PyResult<Bound<'py, PyAny>> {
        arguments!(run_id, status, exit_code, payload, timestamp, durability);
        let payload = json.or(payload)?;
        let expect = expect.map(expected).transpose()?.unwrap_or_default();
        let change = Transition { status, expect: &expect, exit_code: exit_code.map(|code| code.0) };
        let milliseconds = timestamp.map(|timestamp| timestamp.milliseconds);
        let entry = self.check(run::transition_entry(&run_id, status, payload.as_deref(), milliseconds))?;
        self.warn_of_seconds(py, timestamp, 1)?;
        let run = write(py, || run::transition(self.log(), &entry, &run_id, &change, durability))?;
        create_run(py, &run)
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
    ) -> PyResult<Vec<Bound<'py, PyAny>>> {
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
    ) -> PyResult<Vec<Bound<'py, PyAny>>> {
        arguments!(workflow);
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

/// The run, and when it took its state, as that was given.
pub(super) fn extract_run(run: &Bound<'_, PyAny>) -> PyResult<(Run, Timestamp)> {
    let py = run.py();
    if !run.is_instance(WORKFLOW_RUN.class(py)?)? {
        return Err(not_a_run(run));
    }
    let timestamp: Timestamp = named(&run.getattr("timestamp")?, "run.timestamp")?;
    let exit_code = run.getattr("exit_code")?;
    let run = Run {
        run_id: named::<Text>(&run.getattr("run_id")?, "run.run_id")?.to_string(),
        workflow: named::<Text>(&run.getattr("workflow")?, "run.workflow")?.to_string(),
        status: named(&run.getattr("status")?, "run.status")?,
        timestamp: check_timestamp(timestamp.milliseconds)?,
        exit_code: named::<Option<Integer>>(&exit_code, "run.exit_code")?.map(|code| code.0),
    };
    Ok((run, timestamp))
}

fn expected(expect: &Bound<'_, PyAny>) -> PyResult<Vec<RunStatus>> {
    if expect.is_instance_of::<PyString>() {
        return Ok(vec![named(expect, "expect")?]);
    }
    if !expect.hasattr(intern!(expect.py(), "__iter__"))? {
        return Err(Refusal::not(expect, "a status or a collection of them").about("expect"));
    }
    let statuses: Vec<_> =
        interpreter::items(expect)?.map(|status| named(&status?, "a status in expect")).collect::<PyResult<_>>()?;
    if statuses.is_empty() {
        return Err(PyValueError::new_err("expect names no status; leave it out to expect nothing"));
    }
    Ok(statuses)
}
