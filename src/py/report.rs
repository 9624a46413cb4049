//! What a call leaves out and goes on without, told to the application's log (the logger `nerve_store`).

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::py::interpreter;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// The writer gave what is of no use.
    Warning,
    /// Something of use cannot be had.
    Error,
}

/// Writes `message` to the application's log.
pub(super) fn report(py: Python<'_>, level: Level, message: &str) -> PyResult<()> {
    call(py, level, message, None)
}

/// The same about a row; the record has its id as `log_id`.
pub(super) fn report_row(py: Python<'_>, level: Level, message: &str, log_id: i64) -> PyResult<()> {
    let extra = PyDict::new(py);
    extra.set_item("log_id", log_id)?;
    let options = PyDict::new(py);
    options.set_item("extra", extra)?;
    call(py, level, message, Some(&options))
}

fn call(py: Python<'_>, level: Level, message: &str, options: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
    let method = match level {
        Level::Warning => "warning",
        Level::Error => "error",
    };
    let logger = interpreter::call(&interpreter::imported(py, "logging", "getLogger")?, ("nerve_store",))?;
    let method = interpreter::attribute(&logger, &PyString::new(py, method))?;
    interpreter::call_with(&method, ("%s", message), options).map(drop)
}
