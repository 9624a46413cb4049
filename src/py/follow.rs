//! Following the log.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;

use crate::base::fork::Generation;
use crate::py::convert::Integer;
use crate::py::entry::Row;
use crate::py::log::LogStore;
use crate::row::{self, Filter};
use crate::store::Follower;

/// Between two looks at signals while a follower waits.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(100);

/// The rows of a filter as they are appended, by whatever process; endless.
#[pyclass(frozen, module = "nerve_store._core")]
pub(super) struct LogFollower {
    poll_interval: Duration,
    state: Mutex<State>,
    generation: Generation,
}

struct State {
    follower: Follower,
    page: std::vec::IntoIter<row::LogEntry>,
}

impl LogFollower {
    /// In a forked child an error: a thread of the parent may have held the lock.
    fn lock(&self) -> crate::Result<MutexGuard<'_, State>> {
        self.generation.check(Path::new(""))?;
        Ok(self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn step(&self, timeout: Duration) -> crate::Result<Option<row::LogEntry>> {
        let mut state = self.lock()?;
        if state.page.len() == 0 {
            state.page = state.follower.next_page(timeout)?.into_iter();
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
        let page = py.detach(|| -> crate::Result<Vec<row::LogEntry>> {
            let mut state = self.lock()?;
            let kept: Vec<_> = std::mem::take(&mut state.page).collect();
            if !kept.is_empty() {
                return Ok(kept);
            }
            state.follower.next_page(Duration::ZERO)
        })?;
        Ok(page.into_iter().map(Row).collect())
    }
}

#[pymethods]
impl LogStore {
    /// The rows that match, as they are appended by any process, each once, in id order; endless.
    ///
    /// `after_id` None: from now on. Rows that were archived before the follower came to them are read from the
    /// archive, unless `archived` is false. A commit of this process is seen at once, one of another process within
    /// `poll_interval` seconds; waiting reads no disk. Closing the store ends it with `StoreClosedError`.
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
        let follower = py.detach(|| self.store.follow(filter, archived))?;
        let state = Mutex::new(State { follower, page: Vec::new().into_iter() });
        Ok(LogFollower { poll_interval, state, generation: Generation::current() })
    }
}
