//! Iterators over rows, from the database or from an archive file.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use pyo3::sync::MutexExt;

use crate::base::fork::Generation;
use crate::py::call::read;
use crate::py::entry::Row;
use crate::py::interpreter;
use crate::py::results::List;
use crate::store::{LogStore, Rows};

/// The rows of a filter or of an archived day, page by page; no transaction is open between steps.
#[pyclass(frozen, module = "nerve_store._core")]
pub(super) struct LogIterator {
    store: Arc<LogStore>,
    rows: Arc<Mutex<Rows>>,
    generation: Generation,
}

impl LogIterator {
    pub(super) fn over(store: &Arc<LogStore>, rows: Rows) -> Self {
        Self { store: Arc::clone(store), rows: Arc::new(Mutex::new(rows)), generation: Generation::current() }
    }

    /// While attached; waits detached. In a forked child an error: a thread of the parent may have held the lock.
    fn lock(&self, py: Python<'_>) -> PyResult<MutexGuard<'_, Rows>> {
        self.generation.check(Path::new(""))?;
        Ok(self.rows.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the next page unless rows are buffered. They stay in the buffer until they are taken from it, so that an
    /// interrupted step loses none.
    fn fill(&self, py: Python<'_>) -> PyResult<()> {
        self.generation.check(Path::new(""))?;
        // `list(rows)` takes step after step without a look at signals.
        interpreter::check_signals(py)?;
        let rows = Arc::clone(&self.rows);
        read(py, &self.store, move |_| rows.lock().unwrap_or_else(PoisonError::into_inner).fill())
    }
}

#[pymethods]
impl LogIterator {
    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Row>> {
        loop {
            let buffered = self.lock(py)?.next_buffered();
            if let Some(entry) = buffered {
                return Ok(Some(Row(entry)));
            }
            self.fill(py)?;
            // Another thread may have taken the rows of the page.
            let mut rows = self.lock(py)?;
            if let Some(entry) = rows.next_buffered() {
                return Ok(Some(Row(entry)));
            }
            if rows.is_ended() {
                return Ok(None);
            }
        }
    }

    /// Up to so many rows at once; none at the end.
    fn _take(&self, py: Python<'_>, most: usize) -> PyResult<List<Row>> {
        loop {
            self.fill(py)?;
            let mut rows = self.lock(py)?;
            let page = rows.take_buffered(most);
            if !page.is_empty() || rows.is_ended() {
                return Ok(List(page.into_iter().map(Row).collect()));
            }
        }
    }
}
