//! Following the log.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::sync::MutexExt;

use crate::base::error::Error;
use crate::base::fork::Generation;
use crate::base::interrupt::{INTERVAL, Scope};
use crate::log::wake;
use crate::py::argument::{Arg, Flag, Seconds, Text, arguments};
use crate::py::call::{caught, read, read_within};
use crate::py::convert::Integer;
use crate::py::entry::Row;
use crate::py::interpreter;
use crate::py::log::LogStore;
use crate::py::results::{List, New};
use crate::py::timestamp::Timestamp;
use crate::row::{self, Filter};
use crate::store::{self, Follower};

/// The default that the signature names.
const DEFAULT_POLL_INTERVAL: Seconds = Seconds(Duration::from_millis(50));

/// How long a read lasts that an event loop may wait for: about ten reads of a row that was just committed.
const BRIEF: Duration = Duration::from_millis(1);

/// The rows of a filter as they are appended, by whatever process; endless, until it is closed.
///
/// As a context manager it is closed at the end.
#[pyclass(frozen, module = "nerve_store._core")]
pub(super) struct LogFollower {
    store: Arc<store::LogStore>,
    poll_interval: Duration,
    state: Arc<Mutex<State>>,
    is_closed: Arc<AtomicBool>,
    generation: Generation,
}

struct State {
    follower: Follower,
    page: std::vec::IntoIter<row::LogEntry>,
}

impl LogFollower {
    /// Reads the next rows unless some are there already; waits up to `timeout` for the first. They stay until they
    /// are taken, so that an interrupted step loses none.
    fn fill(&self, py: Python<'_>, timeout: Duration) -> PyResult<()> {
        self.generation.check(Path::new(""))?;
        let (state, is_closed) = (Arc::clone(&self.state), Arc::clone(&self.is_closed));
        let work = move |_: &store::LogStore| {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.page.len() == 0 && !is_closed.load(Ordering::SeqCst) {
                state.page = state.follower.next_page(timeout)?.into_iter();
            }
            Ok(())
        };
        read_within(py, timeout + INTERVAL, None, &self.store, work)
    }

    /// While attached; waits detached. In a forked child an error: a thread of the parent may have held the lock.
    fn lock(&self, py: Python<'_>) -> PyResult<MutexGuard<'_, State>> {
        self.generation.check(Path::new(""))?;
        Ok(self.state.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner))
    }
}

#[pymethods]
impl LogFollower {
    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Row>> {
        loop {
            if self.closed() {
                return Ok(None);
            }
            let buffered = self.lock(py)?.page.next();
            if let Some(entry) = buffered {
                return Ok(Some(Row(entry)));
            }
            interpreter::check_signals(py)?;
            self.fill(py, self.poll_interval.min(INTERVAL))?;
        }
    }

    /// End the iteration, in whatever thread it waits. Does nothing if it was closed before.
    fn close(&self, py: Python<'_>) {
        self.is_closed.store(true, Ordering::SeqCst);
        if self.generation.is_current() {
            // A waiting thread holds the state, and the store with it.
            py.detach(|| wake(self.store.log()));
        }
    }

    /// Whether it was closed.
    #[getter]
    fn closed(&self) -> bool {
        self.is_closed.load(Ordering::SeqCst)
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (exc_type = None, exc = None, traceback = None))]
    fn __exit__(
        &self,
        py: Python<'_>,
        exc_type: Option<&Bound<'_, PyAny>>,
        exc: Option<&Bound<'_, PyAny>>,
        traceback: Option<&Bound<'_, PyAny>>,
    ) {
        let _ = (exc_type, exc, traceback);
        self.close(py);
    }

    /// Whether nothing is to be read before something is announced.
    fn _is_settled(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.lock(py)?.follower.is_settled())
    }

    /// The rows that there are now; None if they may be many or large, or reading them takes long.
    fn _poll_briefly(&self, py: Python<'_>) -> PyResult<Option<List<Row>>> {
        self.generation.check(Path::new(""))?;
        let brief = Scope { deadline: Some(Instant::now() + BRIEF), ..Scope::default() };
        let read = || {
            // Another thread that has it reads.
            let Ok(mut state) = self.state.try_lock() else { return Ok(None) };
            if state.page.len() == 0 && !self.closed() {
                return state.follower.few();
            }
            Ok(Some(std::mem::take(&mut state.page).collect()))
        };
        match py.detach(|| brief.enter(|| caught(read))) {
            Ok(rows) => Ok(rows.map(|rows| List(rows.into_iter().map(Row).collect()))),
            Err(Error::TimedOut) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The rows that there are now, perhaps none; waits for nothing.
    fn _poll(&self, py: Python<'_>) -> PyResult<List<Row>> {
        self.fill(py, Duration::ZERO)?;
        let page: Vec<_> = std::mem::take(&mut self.lock(py)?.page).collect();
        Ok(List(page.into_iter().map(Row).collect()))
    }
}

#[pymethods]
impl LogStore {
    /// The rows that match, as they are appended by any process, each once, in id order; endless.
    ///
    /// `after_id` None: from now on. Rows that were archived before the follower came to them are read from the
    /// archive, unless `archived` is false. A commit is seen at once, by whatever process; where the system does not
    /// tell of other processes' writes (a network's file system), within `poll_interval` seconds. Waiting reads no
    /// disk. `close()`, from any thread, ends the iteration; closing the store ends it with `StoreClosedError`.
    #[pyo3(
        signature = (*, after_id = None, poll_interval = Arg::of(DEFAULT_POLL_INTERVAL), source = None, r#type = None, ref_id = None,
            since = None, until = None, archived = Arg::ON),
        text_signature = "($self, *, after_id=None, poll_interval=0.05, source=None, type=None, ref_id=None, \
            since=None, until=None, archived=True)"
    )]
    #[expect(clippy::too_many_arguments, reason = "the filters")]
    fn follow(
        &self,
        py: Python<'_>,
        after_id: Option<Arg<Integer>>,
        poll_interval: Arg<Seconds>,
        source: Option<Arg<Text>>,
        r#type: Option<Arg<Text>>,
        ref_id: Option<Arg<Text>>,
        since: Option<Arg<Timestamp>>,
        until: Option<Arg<Timestamp>>,
        archived: Arg<Flag>,
    ) -> PyResult<New<LogFollower>> {
        arguments!(after_id, poll_interval, source, r#type, ref_id, since, until, archived);
        let poll_interval = interval(poll_interval)?;
        let archived = archived.0;
        let text = |text: Option<Text>| text.map(|text| text.to_string());
        let filter = Filter {
            source: text(source),
            kind: text(r#type),
            ref_id: text(ref_id),
            since: since.map(|bound| bound.milliseconds),
            until: until.map(|bound| bound.milliseconds),
            after_id: after_id.map(|id| id.0),
            ..Filter::default()
        };
        let follower = read(py, &self.store, move |store| store.follow(filter.clone(), archived, poll_interval))?;
        let state = Arc::new(Mutex::new(State { follower, page: Vec::new().into_iter() }));
        let is_closed = Arc::default();
        let generation = Generation::current();
        Ok(New(LogFollower { store: Arc::clone(&self.store), poll_interval, state, is_closed, generation }))
    }
}

/// The time between two looks, if it can be one.
pub(super) fn interval(poll_interval: Seconds) -> PyResult<Duration> {
    if poll_interval.0.is_zero() {
        return Err(PyValueError::new_err("poll_interval is a number of seconds above 0, not 0.0"));
    }
    Ok(poll_interval.0)
}
