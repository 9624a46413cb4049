//! Iterators over rows, from the database or from an archive file.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use pyo3::sync::MutexExt;

use crate::base::fork::Generation;
use crate::py::entry::Row;
use crate::store::Rows;

/// The rows of a filter or of an archived day, page by page; no transaction is open between steps.
#[pyclass(frozen, module = "nerve_store._core")]
pub(super) struct LogIterator {
    rows: Mutex<Rows>,
    generation: Generation,
}

impl LogIterator {
    pub(super) fn over(rows: Rows) -> Self {
        Self { rows: Mutex::new(rows), generation: Generation::current() }
    }

    /// In a forked child an error: a thread of the parent may have held the lock.
    fn lock(&self) -> crate::Result<MutexGuard<'_, Rows>> {
        self.generation.check(Path::new(""))?;
        Ok(self.rows.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[pymethods]
impl LogIterator {
    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Row>> {
        self.generation.check(Path::new(""))?;
        let buffered = self.rows.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner).next_buffered();
        if let Some(entry) = buffered {
            return Ok(Some(Row(entry)));
        }
        let entry = py.detach(|| self.lock()?.next_row())?;
        Ok(entry.map(Row))
    }

    /// Up to so many rows at once; none at the end.
    fn _take(&self, py: Python<'_>, most: usize) -> PyResult<Vec<Row>> {
        let rows = py.detach(|| self.lock()?.take(most))?;
        Ok(rows.into_iter().map(Row).collect())
    }
}
