//! The records that travel by the million: `LogEntry` and `NewLogEntry`.
#![expect(unsafe_code, reason = "the interpreter is told not to track an object that can be in no circle")]

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::{PyAny, PyRange, PyTuple, PyType};

use crate::py::convert::{Integer, repr};
use crate::py::interpreter;
use crate::py::json::to_python;
use crate::row;

/// A row of the log.
///
/// `id` strictly increases and is never reused; `timestamp` is in milliseconds since the Unix epoch, UTC.
#[pyclass(frozen, eq, hash, module = "nerve_store")]
#[derive(PartialEq, Eq, Hash)]
pub(super) struct LogEntry(pub(super) row::LogEntry);

#[pymethods]
impl LogEntry {
    #[classattr]
    #[expect(non_upper_case_globals, reason = "the name is Python's")]
    const __match_args__: (&'static str, &'static str, &'static str, &'static str, &'static str, &'static str) =
        ("id", "source", "type", "ref_id", "payload", "timestamp");

    #[new]
    fn new(
        id: Integer,
        source: PyBackedStr,
        r#type: PyBackedStr,
        ref_id: Option<PyBackedStr>,
        payload: Option<PyBackedStr>,
        timestamp: Integer,
    ) -> Self {
        let fields = Fields { source, kind: r#type, ref_id, payload, timestamp: Some(timestamp.0) };
        Self(fields.borrow().stored(id.0))
    }

    /// Strictly increasing, never reused; the order of ids is the order of commits.
    #[getter]
    fn id(&self) -> i64 {
        self.0.id
    }

    /// Who wrote it.
    #[getter]
    fn source(&self) -> &str {
        self.0.source()
    }

    /// What happened.
    #[getter]
    fn r#type(&self) -> &str {
        self.0.kind()
    }

    /// What it is about; for the rows of a workflow run, its id.
    #[getter]
    fn ref_id(&self) -> Option<&str> {
        self.0.ref_id()
    }

    /// Free text, by custom JSON.
    #[getter]
    fn payload(&self) -> Option<&str> {
        self.0.payload()
    }

    /// Milliseconds since the Unix epoch, UTC.
    #[getter]
    fn timestamp(&self) -> i64 {
        self.0.timestamp
    }

    /// The payload parsed as JSON; None if there is none.
    ///
    /// Any depth and integers of up to 200,000 digits are read, exactly; a number beyond every float becomes infinite.
    /// A payload that is not JSON is a `json.JSONDecodeError`, and a longer integer a `ValueError`. NaN and Infinity,
    /// which `json.dumps` writes, are not JSON.
    fn json<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match self.0.payload() {
            Some(payload) => to_python(py, payload),
            None => Ok(py.None().into_bound(py)),
        }
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let entry = &self.0;
        Ok(format!(
            "LogEntry(id={}, source={}, type={}, ref_id={}, payload={}, timestamp={})",
            entry.id,
            repr(py, Some(entry.source()))?,
            repr(py, Some(entry.kind()))?,
            repr(py, entry.ref_id())?,
            repr(py, entry.payload())?,
            entry.timestamp
        ))
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyType>, Bound<'py, PyTuple>)> {
        let entry = &slf.get().0;
        let fields = (entry.id, entry.source(), entry.kind(), entry.ref_id(), entry.payload(), entry.timestamp);
        Ok((slf.get_type(), fields.into_pyobject(slf.py())?))
    }
}

/// A row on its way to Python, where it becomes a [`LogEntry`] that the cycle collector need not look at.
pub(super) struct Row(pub(super) row::LogEntry);

impl<'py> IntoPyObject<'py> for Row {
    type Target = LogEntry;
    type Output = Bound<'py, LogEntry>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Self::Output> {
        let entry = interpreter::uncollected(py, || Bound::new(py, LogEntry(self.0)))?;
        // Every class of pyo3 takes part in the collection of cycles, and rows are made by the million: looking at each
        // was a tenth of what it cost to read one. CPython does the same with tuples of texts and numbers.
        // SAFETY: the object is whole, takes part in the collection, and refers to no object that could refer to it.
        unsafe { ffi::PyObject_GC_UnTrack(entry.as_ptr().cast()) };
        Ok(entry)
    }
}

/// A row to append. `timestamp` is in milliseconds since the Unix epoch, UTC; None: the time of the append.
#[pyclass(frozen, eq, hash, module = "nerve_store")]
#[derive(PartialEq, Eq, Hash)]
pub(super) struct NewLogEntry {
    source: String,
    kind: String,
    ref_id: Option<String>,
    payload: Option<String>,
    timestamp: Option<i64>,
}

#[pymethods]
impl NewLogEntry {
    #[classattr]
    #[expect(non_upper_case_globals, reason = "the name is Python's")]
    const __match_args__: (&'static str, &'static str, &'static str, &'static str, &'static str) =
        ("source", "type", "ref_id", "payload", "timestamp");

    #[new]
    #[pyo3(signature = (source, r#type, ref_id = None, payload = None, timestamp = None))]
    fn new(
        source: PyBackedStr,
        r#type: PyBackedStr,
        ref_id: Option<PyBackedStr>,
        payload: Option<PyBackedStr>,
        timestamp: Option<Integer>,
    ) -> Self {
        Self {
            source: source.to_string(),
            kind: r#type.to_string(),
            ref_id: ref_id.map(|text| text.to_string()),
            payload: payload.map(|text| text.to_string()),
            timestamp: timestamp.map(|timestamp| timestamp.0),
        }
    }

    /// Who writes it.
    #[getter]
    fn source(&self) -> &str {
        &self.source
    }

    /// What happened.
    #[getter]
    fn r#type(&self) -> &str {
        &self.kind
    }

    /// What it is about; for the rows of a workflow run, its id.
    #[getter]
    fn ref_id(&self) -> Option<&str> {
        self.ref_id.as_deref()
    }

    /// Free text, by custom JSON.
    #[getter]
    fn payload(&self) -> Option<&str> {
        self.payload.as_deref()
    }

    /// Milliseconds since the Unix epoch, UTC; None: the time of the append.
    #[getter]
    fn timestamp(&self) -> Option<i64> {
        self.timestamp
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!(
            "NewLogEntry(source={}, type={}, ref_id={}, payload={}, timestamp={})",
            repr(py, Some(&self.source))?,
            repr(py, Some(&self.kind))?,
            repr(py, self.ref_id.as_deref())?,
            repr(py, self.payload.as_deref())?,
            self.timestamp.map_or_else(|| "None".to_owned(), |timestamp| timestamp.to_string())
        ))
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyType>, Bound<'py, PyTuple>)> {
        let entry = slf.get();
        let fields = (&entry.source, &entry.kind, &entry.ref_id, &entry.payload, entry.timestamp);
        Ok((slf.get_type(), fields.into_pyobject(slf.py())?))
    }
}

/// A row to append as it was given; its texts are not copied.
pub(super) enum Given {
    New(Py<NewLogEntry>),
    Stored(Py<LogEntry>),
    Fields(Fields),
}

/// The fields of a row, its texts still Python's.
pub(super) struct Fields {
    pub(super) source: PyBackedStr,
    pub(super) kind: PyBackedStr,
    pub(super) ref_id: Option<PyBackedStr>,
    pub(super) payload: Option<PyBackedStr>,
    pub(super) timestamp: Option<i64>,
}

impl Fields {
    /// The row in the core's terms.
    pub(super) fn borrow(&self) -> row::NewLogEntry<'_> {
        row::NewLogEntry {
            source: &self.source,
            kind: &self.kind,
            ref_id: self.ref_id.as_deref(),
            payload: self.payload.as_deref(),
            timestamp: self.timestamp,
        }
    }
}

impl Given {
    /// The row in the core's terms.
    pub(super) fn borrow(&self) -> row::NewLogEntry<'_> {
        match self {
            Self::New(entry) => {
                let entry = entry.get();
                row::NewLogEntry {
                    source: &entry.source,
                    kind: &entry.kind,
                    ref_id: entry.ref_id.as_deref(),
                    payload: entry.payload.as_deref(),
                    timestamp: entry.timestamp,
                }
            }
            Self::Stored(entry) => {
                let entry = &entry.get().0;
                row::NewLogEntry {
                    source: entry.source(),
                    kind: entry.kind(),
                    ref_id: entry.ref_id(),
                    payload: entry.payload(),
                    timestamp: Some(entry.timestamp),
                }
            }
            Self::Fields(fields) => fields.borrow(),
        }
    }
}

impl<'a, 'py> FromPyObject<'a, 'py> for Given {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(tuple) = object.cast::<PyTuple>() {
            type Row = (PyBackedStr, PyBackedStr, Option<PyBackedStr>, Option<PyBackedStr>, Option<Integer>);
            if tuple.len() != 5 {
                let length = tuple.len();
                return Err(PyTypeError::new_err(format!(
                    "a row as a tuple is (source, type, ref_id, payload, timestamp); this one has {length} items"
                )));
            }
            let (source, kind, ref_id, payload, timestamp): Row = tuple.extract()?;
            return Ok(Self::Fields(Fields {
                source,
                kind,
                ref_id,
                payload,
                timestamp: timestamp.map(|timestamp| timestamp.0),
            }));
        }
        if let Ok(entry) = object.cast::<NewLogEntry>() {
            return Ok(Self::New(entry.to_owned().unbind()));
        }
        if let Ok(entry) = object.cast::<LogEntry>() {
            return Ok(Self::Stored(entry.to_owned().unbind()));
        }
        let found = object.get_type().name()?.to_string();
        Err(PyTypeError::new_err(format!("a row is a NewLogEntry, a LogEntry or a tuple, not {found:?}")))
    }
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

/// The `range` of so many ids.
pub(super) fn range(py: Python<'_>, first: i64, count: usize) -> PyResult<Bound<'_, PyAny>> {
    py.get_type::<PyRange>().call1((first, first + i64::try_from(count)?))
}
