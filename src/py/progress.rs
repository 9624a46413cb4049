//! Progress of long work, told to a Python function.

use std::path::Path;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

use crate::base::error::{Error, Result};
use crate::base::fork::Generation;
use crate::py::interpreter;

/// Passes progress on to a Python function and keeps what it raises. Signals are looked at on the way, so that Ctrl-C
/// stops long work between two steps.
pub(super) struct Report {
    progress: Option<Py<PyAny>>,
    raised: Option<PyErr>,
    generation: Generation,
}

impl Report {
    /// To `progress`, which must be callable, if there is one.
    pub(super) fn to(progress: Option<Bound<'_, PyAny>>) -> PyResult<Self> {
        if let Some(progress) = progress.as_ref().filter(|progress| !progress.is_callable()) {
            let found = progress.get_type().name()?.to_string();
            return Err(PyTypeError::new_err(format!("progress is a function of (done, total), not {found:?}")));
        }
        Ok(Self { progress: progress.map(Bound::unbind), raised: None, generation: Generation::current() })
    }

    /// Whether anybody listens.
    pub(super) fn is_heard(&self) -> bool {
        self.progress.is_some()
    }

    /// One step; an error asks the work to stop.
    pub(super) fn step(&mut self, done: u64, total: u64) -> Result<()> {
        let told = interpreter::attach(|py| {
            py.check_signals()?;
            self.progress
                .as_ref()
                .map_or(Ok(()), |progress| interpreter::call(progress.bind(py), (done, total)).map(drop))
        });
        // The function, or a signal's handler, may have forked: then the work is the parent's.
        let outcome = told.ok_or(Error::Cancelled)?.and_then(|()| Ok(self.generation.check(Path::new(""))?));
        outcome.map_err(|error| {
            self.raised = Some(error);
            Error::Cancelled
        })
    }

    /// The outcome of the work, or what the function raised to stop it.
    pub(super) fn settle<T>(self, outcome: Result<T>) -> PyResult<T> {
        match (outcome, self.raised) {
            (Err(Error::Cancelled | Error::Forked { .. }), Some(raised)) => Err(raised),
            (outcome, _) => Ok(outcome?),
        }
    }
}
