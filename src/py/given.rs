//! Rows as callers give them.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyRange, PyTuple};

use crate::py::argument::{Refusal, named};
use crate::py::entry::{LogEntry, NewLogEntry};
use crate::py::fields::Fields;
use crate::py::interpreter::{self, uncollected};
use crate::py::timestamp::Timestamp;
use crate::row;

/// A row to append as it was given; its texts are not copied.
pub(super) enum Given {
    New(Py<NewLogEntry>),
    Stored(Py<LogEntry>),
    Fields(Fields),
}

impl Given {
    /// The row in the core's terms.
    pub(super) fn borrow(&self) -> row::NewLogEntry<'_> {
        match self {
            Self::New(entry) => entry.get().borrow(),
            Self::Stored(entry) => (&entry.get().0).into(),
            Self::Fields(fields) => fields.borrow(),
        }
    }

    /// When it happened, if that was given.
    pub(super) fn timestamp(&self) -> Option<Timestamp> {
        match self {
            Self::New(entry) => entry.get().timestamp,
            Self::Stored(entry) => Some(Timestamp::stored(entry.get().0.timestamp)),
            Self::Fields(fields) => fields.timestamp,
        }
    }
}

impl<'a, 'py> FromPyObject<'a, 'py> for Given {
    type Error = Refusal;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> Result<Self, Refusal> {
        if let Ok(tuple) = object.cast::<PyTuple>() {
            if tuple.len() != 5 {
                let length = tuple.len();
                return Err(Refusal::Type(format!(
                    "is, as a tuple, (source, type, ref_id, payload, timestamp); this one has {length} items"
                )));
            }
            return Ok(Self::Fields(Fields {
                source: named(&tuple.get_item(0)?, "source")?,
                kind: named(&tuple.get_item(1)?, "type")?,
                ref_id: optional(&tuple.get_item(2)?, "ref_id")?,
                payload: optional(&tuple.get_item(3)?, "payload")?,
                timestamp: optional(&tuple.get_item(4)?, "timestamp")?,
            }));
        }
        if let Ok(entry) = object.cast::<NewLogEntry>() {
            return Ok(Self::New(entry.to_owned().unbind()));
        }
        if let Ok(entry) = object.cast::<LogEntry>() {
            return Ok(Self::Stored(entry.to_owned().unbind()));
        }
        Err(Refusal::not(&object, "a NewLogEntry, a LogEntry or a tuple"))
    }
}

fn optional<'a, 'py, T>(object: &'a Bound<'py, PyAny>, name: &str) -> PyResult<Option<T>>
where
    T: FromPyObject<'a, 'py, Error = Refusal>,
{
    if object.is_none() { Ok(None) } else { named(object, name).map(Some) }
}

/// The same exception, saying which of the rows it is about.
pub(super) fn at_index(py: Python<'_>, index: usize, error: PyErr) -> PyErr {
    let message = format!("entries[{index}]: {}", error.value(py));
    if error.is_instance_of::<PyTypeError>(py) {
        PyTypeError::new_err(message)
    } else if error.is_instance_of::<PyValueError>(py) {
        PyValueError::new_err(message)
    } else {
        error
    }
}

/// The items of an argument `entries`.
pub(super) fn several<'py>(entries: &Bound<'py, PyAny>) -> PyResult<interpreter::Items<'py>> {
    interpreter::items(entries)?.map_err(|_| Refusal::not(entries, "an iterable of rows").about("entries"))
}

/// The row at `index` of those that were given.
pub(super) fn given_at(py: Python<'_>, index: usize, entry: &Bound<'_, PyAny>) -> PyResult<Given> {
    entry.extract::<Given>().map_err(|refusal| match refusal {
        Refusal::Raised(error) => at_index(py, index, error),
        refusal => refusal.about(&format!("entries[{index}]")),
    })
}

/// The rows of a call.
pub(super) fn all_given(py: Python<'_>, entries: &Bound<'_, PyAny>) -> PyResult<Vec<Given>> {
    several(entries)?.enumerate().map(|(index, entry)| given_at(py, index, &entry?)).collect()
}

/// The rows in the core's terms, if all can be stored.
pub(super) fn all_checked<'a>(
    py: Python<'_>,
    given: &'a [Given],
    max_text_bytes: usize,
) -> PyResult<Vec<row::NewLogEntry<'a>>> {
    let checked = given.iter().map(|entry| entry.borrow().checked(max_text_bytes)).enumerate();
    checked.map(|(index, row)| row.map_err(|error| at_index(py, index, error.into()))).collect()
}

/// The `range` of so many ids.
pub(super) fn range(py: Python<'_>, first: i64, count: usize) -> PyResult<Bound<'_, PyAny>> {
    let after = first + i64::try_from(count)?;
    uncollected(py, || py.get_type::<PyRange>().call1((first, after)))
}
