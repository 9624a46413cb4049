//! `LogStore`: runs by workflow, state and time.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;

use crate::base::status::RunStatus;
use crate::py::argument::{Arg, Flag, Text, arguments};
use crate::py::call::{Long, read};
use crate::py::convert::Count;
use crate::py::interpreter;
use crate::py::log::LogStore;
use crate::py::results::{List, New, status_member};
use crate::py::run::list;
use crate::py::run_record::{create_run, extract_run};
use crate::py::several::{Several, names};
use crate::py::timestamp::Timestamp;
use crate::store;
use crate::workflow::{self, Run, RunFilter, RunList};

/// Runs that an iterator reads at a time.
const PAGE_RUNS: u64 = 256;

fn last_of(after: Option<&Bound<'_, PyAny>>) -> PyResult<Option<(i64, String)>> {
    let after = after.map(|run| extract_run(run, "after")).transpose()?;
    Ok(after.map(|(run, _)| (run.timestamp, run.run_id)))
}

/// Makes a filter of the arguments with these names.
macro_rules! run_filter {
    ($workflow:ident, $status:ident, $since:ident, $until:ident, $after:ident, $limit:ident, $descending:ident) => {{
        arguments!($workflow, $status, $since, $until, $limit, $descending);
        RunFilter {
            workflows: names($workflow),
            statuses: $status.map(|Several(statuses)| statuses),
            since: $since.map(|bound| bound.milliseconds),
            until: $until.map(|bound| bound.milliseconds),
            after: last_of($after)?,
            limit: $limit.map(|limit| limit.0),
            descending: $descending.0,
        }
    }};
}

#[pymethods]
impl LogStore {
    /// The runs that match every filter given, newest first unless `descending` is false.
    ///
    /// `workflow` and `status` take one value or a collection. `since` and `until` bound the time at which the run
    /// took its state, both inclusive. Runs of one timestamp are ordered by id. `after`: the last run of the previous
    /// page, after which this one begins. The cost follows what is returned, not the number of runs; without
    /// `workflow`, also the number of workflows. A run whose stored status is unknown is left out and reported, as in
    /// `get_active_workflow_runs`.
    #[pyo3(
        signature = (*, workflow = None, status = None, since = None, until = None, after = None, limit = None,
            descending = Arg::ON),
        text_signature = "($self, *, workflow=None, status=None, since=None, until=None, after=None, limit=None, \
            descending=True)"
    )]
    #[expect(clippy::too_many_arguments, reason = "the filters")]
    fn query_workflow_runs<'py>(
        &self,
        py: Python<'py>,
        workflow: Option<Arg<Several<Text>>>,
        status: Option<Arg<Several<RunStatus>>>,
        since: Option<Arg<Timestamp>>,
        until: Option<Arg<Timestamp>>,
        after: Option<&Bound<'py, PyAny>>,
        limit: Option<Arg<Count>>,
        descending: Arg<Flag>,
    ) -> PyResult<List<Bound<'py, PyAny>>> {
        let filter = run_filter!(workflow, status, since, until, after, limit, descending);
        let runs = move |store: &store::LogStore| workflow::query_runs(store.log().database(), &filter);
        list(py, read(py, &self.store, runs)?)
    }

    /// The runs of `query_workflow_runs`, any number of them in constant memory, with no transaction between steps.
    ///
    /// A run that changes its state meanwhile may be met twice or not at all, as its place in the order is another one
    /// then.
    #[pyo3(
        signature = (*, workflow = None, status = None, since = None, until = None, after = None, limit = None,
            descending = Arg::ON),
        text_signature = "($self, *, workflow=None, status=None, since=None, until=None, after=None, limit=None, \
            descending=True)"
    )]
    #[expect(clippy::too_many_arguments, reason = "the filters")]
    fn iter_workflow_runs(
        &self,
        workflow: Option<Arg<Several<Text>>>,
        status: Option<Arg<Several<RunStatus>>>,
        since: Option<Arg<Timestamp>>,
        until: Option<Arg<Timestamp>>,
        after: Option<&Bound<'_, PyAny>>,
        limit: Option<Arg<Count>>,
        descending: Arg<Flag>,
    ) -> PyResult<New<WorkflowRunIterator>> {
        self.log().database().check_open()?;
        let filter = run_filter!(workflow, status, since, until, after, limit, descending);
        let left = filter.limit.unwrap_or(u64::MAX);
        let state = State { filter, left, page: Vec::new().into_iter() };
        Ok(New(WorkflowRunIterator { store: Arc::clone(&self.store), state: std::sync::Mutex::new(state) }))
    }

    /// How many runs are in each state, of the workflows and states given or of all.
    ///
    /// A state that no run is in is left out, and reads as 0.
    #[pyo3(signature = (*, workflow = None, status = None))]
    fn count_workflow_runs<'py>(
        &self,
        py: Python<'py>,
        workflow: Option<Arg<Several<Text>>>,
        status: Option<Arg<Several<RunStatus>>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        arguments!(workflow, status);
        let (workflows, statuses) = (names(workflow), status.map(|Several(statuses)| statuses));
        let counts = read(py, &self.store, move |store| {
            workflow::count_runs(store.log().database(), workflows.as_deref(), statuses.as_deref())
        })?;
        static COUNTER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let counter = interpreter::imported_once(py, &COUNTER, "collections", "Counter")?;
        let members = RunStatus::ALL.into_iter().filter_map(|status| {
            let count = counts.get(status.name())?;
            Some(status_member(py, status).map(|member| (member, count)))
        });
        let members = members.collect::<PyResult<Vec<_>>>()?;
        interpreter::uncollected(py, || {
            // `Counter`'s own `__init__` is Python code.
            let counted = py.get_type::<PyDict>().getattr("__new__")?.call1((counter,))?.cast_into::<PyDict>()?;
            members.into_iter().try_for_each(|(member, count)| counted.set_item(member, count))?;
            Ok(counted.into_any())
        })
    }

    /// Delete the runs that are not active and took their state before `before`; returns how many.
    ///
    /// `workflow`: of this workflow, or of these. Their rows stay in the log, and a run that is made again under such
    /// an id sees them. Runs are deleted a thousand a transaction: what is deleted stays so when the call is
    /// interrupted.
    #[pyo3(signature = (*, before, workflow = None))]
    fn delete_workflow_runs(
        &self,
        py: Python<'_>,
        before: Arg<Timestamp>,
        workflow: Option<Arg<Several<Text>>>,
    ) -> PyResult<u64> {
        arguments!(before, workflow);
        let workflows = names(workflow);
        let store = Arc::clone(&self.store);
        Long::reporting_to(None)?
            .of(&self.store)
            .run(py, move |_| workflow::delete_runs(store.log(), workflows.as_deref(), before.milliseconds))
    }
}

/// Workflow runs in order, read as they are asked for; made by `LogStore.iter_workflow_runs`.
///
/// Any thread may take the next run. An interrupted step loses none.
#[pyclass(frozen, module = "nerve_store")]
pub(super) struct WorkflowRunIterator {
    store: Arc<store::LogStore>,
    state: std::sync::Mutex<State>,
}

struct State {
    filter: RunFilter,
    /// Runs that may still be returned.
    left: u64,
    page: std::vec::IntoIter<Run>,
}

#[pymethods]
impl WorkflowRunIterator {
    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        Ok(self._take(py, 1)?.0.pop())
    }

    /// Up to `most` runs, none only at the end.
    fn _take<'py>(&self, py: Python<'py>, most: usize) -> PyResult<List<Bound<'py, PyAny>>> {
        loop {
            let (taken, filter, left) = {
                let mut state = self.lock();
                let taken: Vec<Run> = state.page.by_ref().take(most).collect();
                (taken, state.filter.clone(), state.left)
            };
            if !taken.is_empty() || left == 0 || most == 0 {
                return taken.iter().map(|run| create_run(py, run)).collect::<PyResult<_>>().map(List);
            }
            let wanted = PAGE_RUNS.min(left);
            let from = filter.after.clone();
            let filter = RunFilter { limit: Some(wanted), ..filter };
            let found = read(py, &self.store, move |store| workflow::query_runs(store.log().database(), &filter))?;
            let unreadable = self.lock().take(from, found, wanted);
            list(py, RunList { runs: Vec::new(), unreadable })?;
        }
    }
}

impl WorkflowRunIterator {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl State {
    /// Takes in a page that was read after this run, unless another thread has gone on meanwhile; returns what could
    /// not be read of it.
    fn take(&mut self, from: Option<(i64, String)>, found: RunList, wanted: u64) -> Vec<crate::Error> {
        if self.filter.after != from || self.page.len() > 0 {
            return Vec::new();
        }
        let count = found.runs.len() as u64;
        self.left = if count < wanted { 0 } else { self.left - count };
        if let Some(last) = found.runs.last() {
            self.filter.after = Some((last.timestamp, last.run_id.clone()));
        }
        self.page = found.runs.into_iter();
        found.unreadable
    }
}
