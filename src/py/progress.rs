//! Progress of long work, told to a Python function.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

use crate::error::{Error, Result};

/// Passes progress on to a Python function and keeps what it raises. Signals are looked at on the way, so that Ctrl-C
/// stops long work between two steps.
pub(super) struct Progress {
    function: Option<Py<PyAny>>,
    raised: Option<PyErr>,
}

impl Progress {
    pub(super) fn new(function: Option<Bound<'_, PyAny>>) -> PyResult<Self> {
        if let Some(other) = function.as_ref().filter(|function| !function.is_callable()) {
            let found = other.get_type().name()?.to_string();
            return Err(PyTypeError::new_err(format!("progress is a function of (done, total), not {found:?}")));
        }
        Ok(Self { function: function.map(Bound::unbind), raised: None })
    }

    /// Whether anybody listens.
    pub(super) fn is_heard(&self) -> bool {
        self.function.is_some()
    }

    /// Called while detached.
    pub(super) fn step(&mut self, done: u64, total: u64) -> Result<()> {
        let outcome = Python::attach(|py| {
            py.check_signals()?;
            self.function.as_ref().map(|function| function.call1(py, (done, total))).transpose()
        });
        outcome.map(drop).map_err(|error| {
            self.raised = Some(error);
            Error::Cancelled
        })
    }

    /// The outcome of the work, or what the function raised.
    pub(super) fn outcome<T>(self, result: Result<T>) -> PyResult<T> {
        match (result, self.raised) {
            (Err(Error::Cancelled), Some(raised)) => Err(raised),
            (result, _) => Ok(result?),
        }
    }
}
