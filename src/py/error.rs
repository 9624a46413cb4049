//! The one place that turns an error of the core into a Python exception. The classes are defined in Python
//! (`nerve_store.exceptions`), so that they can have two bases and pickle.

use std::path::Path;

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::base::error::Error;
use crate::py::interpreter;

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        Python::attach(|py| {
            let exception = match &error {
                Error::Value(message) => return PyValueError::new_err(message.clone()),
                Error::Cancelled | Error::Paused | Error::Internal => return PyRuntimeError::new_err(message),
                Error::TimedOut => raise(py, "QueryTimeoutError", (libc::ETIMEDOUT, &message)),
                Error::Closed { path } => simple(py, "StoreClosedError", &message, path),
                Error::Forked { path } | Error::ForkedAmidWork { path } => {
                    simple(py, "ForkedStoreError", &message, path)
                }
                Error::Corrupt { path, .. } => simple(py, "CorruptStoreError", &message, path),
                Error::Archive { path, .. } | Error::IdConflict { path, .. } => {
                    simple(py, "ArchiveError", &message, path)
                }
                Error::ArchiveCorrupt { path, .. } => simple(py, "ArchiveCorruptError", &message, path),
                Error::Unavailable { place, .. } => simple(py, "StoreUnavailableError", &message, Path::new(place)),
                Error::Sqlite(_) | Error::Damaged { .. } => raise(py, "CorruptStoreError", (&message,)),
                Error::Moved { path, .. } => system(py, "StoreMovedError", libc::ESTALE, &message, path),
                Error::Busy { path, .. } => system(py, "StoreBusyError", libc::ETIMEDOUT, &message, path),
                Error::ArchiveBusy { path } => system(py, "ArchiveBusyError", libc::EBUSY, &message, path),
                Error::Full { path, errno, .. } => system(py, "StoreFullError", *errno, &message, path),
                Error::Io { path, errno, .. }
                | Error::Flush { path, errno, .. }
                | Error::Poisoned { path, errno, .. } => system(py, "StoreIOError", *errno, &message, path),
                Error::SchemaVersion { path, found, supported, .. } => simple(py, "SchemaVersionError", &message, path)
                    .and_then(|exception| {
                        exception.setattr("found", found)?;
                        exception.setattr("supported", supported)?;
                        Ok(exception)
                    }),
                Error::IllegalTransition { run_id, from, to, allowed, .. } => {
                    raise(py, "IllegalTransitionError", (&message,)).and_then(|exception| {
                        exception.setattr("run_id", run_id)?;
                        exception.setattr("from_status", from.map(|status| status.name()))?;
                        exception.setattr("to_status", to.name())?;
                        exception.setattr("allowed", PyTuple::new(py, allowed.iter().map(|status| status.name()))?)?;
                        Ok(exception)
                    })
                }
                Error::RunExists { run_id, .. } => raise(py, "RunExistsError", (&message,)).and_then(|exception| {
                    exception.setattr("run_id", run_id)?;
                    Ok(exception)
                }),
                Error::ClaimLost { run_id, token, .. } => {
                    raise(py, "ClaimLostError", (&message,)).and_then(|exception| {
                        exception.setattr("run_id", run_id)?;
                        exception.setattr("token", token)?;
                        Ok(exception)
                    })
                }
                Error::Idempotency { key, first_id, .. } => {
                    raise(py, "IdempotencyError", (&message,)).and_then(|exception| {
                        exception.setattr("key", key)?;
                        exception.setattr("first_id", first_id)?;
                        Ok(exception)
                    })
                }
                Error::BlobCorrupt { hash, actual, path } => {
                    simple(py, "BlobCorruptError", &message, path).and_then(|exception| {
                        exception.setattr("hash", hash.to_string())?;
                        exception.setattr("actual_hash", actual.to_string())?;
                        Ok(exception)
                    })
                }
                Error::BlobNotFound { hash, path } => system(py, "BlobNotFoundError", libc::ENOENT, &message, path)
                    .and_then(|exception| {
                        exception.setattr("hash", hash)?;
                        Ok(exception)
                    }),
            };
            // An exception that cannot be built is itself the exception.
            exception.map_or_else(|error| error, PyErr::from_value)
        })
    }
}

fn raise<'py>(py: Python<'py>, name: &str, arguments: impl interpreter::Arguments<'py>) -> PyResult<Bound<'py, PyAny>> {
    interpreter::call(&interpreter::imported(py, "nerve_store.exceptions", name)?, arguments)
}

/// A class with a message and a path.
fn simple<'py>(py: Python<'py>, name: &str, message: &str, path: &Path) -> PyResult<Bound<'py, PyAny>> {
    let exception = raise(py, name, (message,))?;
    exception.setattr("path", path.as_os_str())?;
    Ok(exception)
}

/// A class that is also an `OSError`.
fn system<'py>(py: Python<'py>, name: &str, errno: i32, message: &str, path: &Path) -> PyResult<Bound<'py, PyAny>> {
    let exception = raise(py, name, (errno, message, path.as_os_str()))?;
    exception.setattr("path", path.as_os_str())?;
    Ok(exception)
}
