//! The fields of a row that is to be appended, and a payload that is given as a value.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyEllipsis;

use crate::py::argument::{Text, named};
use crate::py::interpreter;
use crate::py::timestamp::Timestamp;
use crate::row;

/// The fields of a row, its texts still Python's.
pub(super) struct Fields {
    pub(super) source: Text,
    pub(super) kind: Text,
    pub(super) ref_id: Option<Text>,
    pub(super) payload: Option<Text>,
    pub(super) timestamp: Option<Timestamp>,
}

impl Fields {
    /// The row in the core's terms.
    pub(super) fn borrow(&self) -> row::NewLogEntry<'_> {
        row::NewLogEntry {
            source: &self.source,
            kind: &self.kind,
            ref_id: self.ref_id.as_deref(),
            payload: self.payload.as_deref(),
            timestamp: self.timestamp.map(|timestamp| timestamp.milliseconds),
        }
    }
}

/// The value of an argument `json`, whose default is `...`, since None is a value.
pub(super) struct Json<'py>(Option<Bound<'py, PyAny>>);

impl<'a, 'py> FromPyObject<'a, 'py> for Json<'py> {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        Ok(Self(if object.is_instance_of::<PyEllipsis>() { None } else { Some(object.to_owned()) }))
    }
}

impl Json<'_> {
    /// What it is when it is left out.
    pub(super) const NONE: Self = Self(None);

    /// The payload: `payload` as it was given, or the JSON text of this value. Both are a `TypeError`.
    pub(super) fn or(self, payload: Option<Text>) -> PyResult<Option<Text>> {
        let Some(value) = self.0 else { return Ok(payload) };
        if payload.is_some() {
            return Err(PyTypeError::new_err("payload and json are both given; a row has one of them"));
        }
        let py = value.py();
        let dumps = interpreter::imported(py, "nerve_store._json", "dumps")?;
        named(&interpreter::call(&dumps, (value,))?, "json").map(Some)
    }
}
