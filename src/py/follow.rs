//! Following the log, and appending from event loops: what `nerve_store.aio` is built on.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::PyList;

use super::convert::Integer;
use super::entry::{Given, LogEntry, Row, at_index, range};
use super::log::LogStore;
use crate::archive::Archive;
use crate::durable::Durability;
use crate::log::{self, Committed, Filter, Follower, Log, OwnedEntry, Waiter};

/// Between two looks at signals while a follower waits.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(100);

/// The rows of a filter as they are appended, by whatever process; endless.
#[pyclass(frozen, module = "nerve_store._core")]
pub(super) struct LogFollower {
    log: Arc<Log>,
    /// None: the rows of the log alone.
    archive: Option<Arc<Archive>>,
    poll_interval: Duration,
    state: Mutex<State>,
}

struct State {
    follower: Follower,
    page: std::vec::IntoIter<log::LogEntry>,
}

impl LogFollower {
    fn read(&self, log: &Log, filter: &Filter) -> crate::Result<(Vec<log::LogEntry>, i64)> {
        match &self.archive {
            Some(archive) => archive.next_page(log, filter),
            None => log::read_page(log, filter),
        }
    }

    fn step(&self, timeout: Duration) -> crate::Result<Option<log::LogEntry>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.page.len() == 0 {
            let read = |log: &Log, filter: &Filter| self.read(log, filter);
            state.page = state.follower.next_page(&self.log, timeout, &read)?.into_iter();
        }
        Ok(state.page.next())
    }
}

#[pymethods]
impl LogFollower {
    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Row> {
        let mut looked = Instant::now();
        loop {
            if let Some(entry) = py.detach(|| self.step(self.poll_interval.min(SIGNAL_INTERVAL)))? {
                return Ok(Row(entry));
            }
            if looked.elapsed() >= SIGNAL_INTERVAL {
                py.check_signals()?;
                looked = Instant::now();
            }
        }
    }

    /// The rows that there are now, perhaps none; waits for nothing.
    fn _poll(&self, py: Python<'_>) -> PyResult<Vec<Row>> {
        let page = py.detach(|| -> crate::Result<Vec<log::LogEntry>> {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let kept: Vec<_> = std::mem::take(&mut state.page).collect();
            if !kept.is_empty() {
                return Ok(kept);
            }
            let read = |log: &Log, filter: &Filter| self.read(log, filter);
            state.follower.next_page(&self.log, Duration::ZERO, &read)
        })?;
        Ok(page.into_iter().map(Row).collect())
    }
}

#[pymethods]
impl LogStore {
    /// The rows that match, as they are appended by any process, each once, in id order; endless.
    #[pyo3(signature = (*, after_id = None, poll_interval = 0.05, source = None, r#type = None, ref_id = None, since = None,
        until = None, archived = true))]
    #[expect(clippy::too_many_arguments, reason = "the filters")]
    fn follow(
        &self,
        py: Python<'_>,
        after_id: Option<Integer>,
        poll_interval: f64,
        source: Option<PyBackedStr>,
        r#type: Option<PyBackedStr>,
        ref_id: Option<PyBackedStr>,
        since: Option<Integer>,
        until: Option<Integer>,
        archived: bool,
    ) -> PyResult<LogFollower> {
        let poll_interval =
            Duration::try_from_secs_f64(poll_interval).ok().filter(|interval| !interval.is_zero()).ok_or_else(
                || PyValueError::new_err(format!("poll_interval is a number of seconds above 0, not {poll_interval}")),
            )?;
        let text = |text: Option<PyBackedStr>| text.map(|text| text.to_string());
        let filter = Filter {
            source: text(source),
            kind: text(r#type),
            ref_id: text(ref_id),
            since: since.map(|bound| bound.0),
            until: until.map(|bound| bound.0),
            after_id: after_id.map(|id| id.0),
            ..Filter::default()
        };
        let follower = py.detach(|| Follower::open(&self.log, filter))?;
        let state = Mutex::new(State { follower, page: Vec::new().into_iter() });
        let archive = archived.then(|| Arc::clone(&self.archive));
        Ok(LogFollower { log: Arc::clone(&self.log), archive, poll_interval, state })
    }

    /// Queue rows and return at once; `channel` learns what became of them, under `token`.
    #[pyo3(signature = (channel, token, entries, durability))]
    fn _submit(
        &self,
        py: Python<'_>,
        channel: &Bound<'_, AppendChannel>,
        token: u64,
        entries: Vec<Given>,
        durability: Option<Durability>,
    ) -> PyResult<()> {
        let mut rows = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            let checked = self.check(entry.borrow()).map_err(|error| at_index(py, index, error.into()))?;
            rows.push(OwnedEntry::from(&checked));
        }
        let waiter: Arc<dyn Waiter> = Arc::clone(&channel.get().waiter) as Arc<dyn Waiter>;
        Ok(log::submit(&self.log, rows, durability, waiter, token)?)
    }
}

/// The way back from the commits to one event loop.
#[pyclass(frozen, module = "nerve_store._core")]
pub(super) struct AppendChannel {
    waiter: Arc<LoopWaiter>,
}

struct LoopWaiter {
    /// `loop.call_soon_threadsafe`.
    call: Py<PyAny>,
    /// Called in the loop with the outcomes: (token, rows or None, exception or None) each.
    resolve: Py<PyAny>,
}

#[pymethods]
impl AppendChannel {
    /// `call` is an event loop's `call_soon_threadsafe`; `resolve` is called by it with the outcomes of each commit.
    #[new]
    fn new(call: Py<PyAny>, resolve: Py<PyAny>) -> Self {
        Self { waiter: Arc::new(LoopWaiter { call, resolve }) }
    }
}

impl Waiter for LoopWaiter {
    fn resolve(&self, outcomes: Vec<(u64, crate::Result<Committed>)>) {
        Python::attach(|py| {
            let told = PyList::empty(py);
            let outcome =
                outcomes.into_iter().try_for_each(|(token, outcome)| told.append(describe(py, token, outcome)?));
            let called = outcome.and_then(|()| self.call.call1(py, (&self.resolve, told)));
            if let Err(error) = called {
                // The loop is closed: nobody waits for the outcome any more. Anything else goes where Python reports
                // what cannot be raised.
                if !error.is_instance_of::<pyo3::exceptions::PyRuntimeError>(py) {
                    error.write_unraisable(py, None);
                }
            }
        });
    }
}

/// A token, the ids of its rows and, of a single row, the row; or the exception.
type Outcome<'py> = (u64, Option<Bound<'py, PyAny>>, Option<Py<LogEntry>>, Option<PyErr>);

fn describe(py: Python<'_>, token: u64, outcome: crate::Result<Committed>) -> PyResult<Outcome<'_>> {
    Ok(match outcome {
        Ok(Committed { first_id, rows }) => {
            let ids = range(py, first_id, rows.len())?;
            let only = if rows.len() == 1 { rows.into_iter().next() } else { None };
            let entry = only.map(|row| Py::new(py, LogEntry(row.into_stored(first_id)))).transpose()?;
            (token, Some(ids), entry, None)
        }
        Err(error) => (token, None, None, Some(error.into())),
    })
}
