//! The records that travel by the million: `LogEntry` and `NewLogEntry`.
#![expect(unsafe_code, reason = "the interpreter is told not to track an object that can be in no circle")]

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict, PyIterator, PyTuple, PyType};

use crate::py::argument::{Arg, Text, arguments};
use crate::py::change::Change;
use crate::py::convert::{Integer, repr};
use crate::py::fields::{Fields, Json};
use crate::py::interpreter;
use crate::py::json::to_python;
use crate::py::results::Dict;
use crate::py::timestamp::{Timestamp, time_of};
use crate::row;

/// The names of a row's fields.
const NAMES: [&str; 6] = ["id", "source", "type", "ref_id", "payload", "timestamp"];

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
        (NAMES[0], NAMES[1], NAMES[2], NAMES[3], NAMES[4], NAMES[5]);

    #[new]
    fn new(
        id: Arg<Integer>,
        source: Arg<Text>,
        r#type: Arg<Text>,
        ref_id: Option<Arg<Text>>,
        payload: Option<Arg<Text>>,
        timestamp: Arg<Timestamp>,
    ) -> PyResult<Self> {
        arguments!(id, source, r#type, ref_id, payload, timestamp);
        let fields = Fields { source, kind: r#type, ref_id, payload, timestamp: Some(timestamp) };
        Ok(Self(fields.borrow().stored(id.0)))
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

    /// The timestamp as an aware `datetime`, in UTC; an `OverflowError` outside of the years 1 to 9999.
    #[getter]
    fn time<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        time_of(py, self.0.timestamp)
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        self.fields(py)?.try_iter()
    }

    /// The fields by their names, in their order.
    fn _asdict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        Dict(NAMES.into_iter().zip(self.fields(py)?)).into_pyobject(py)
    }

    /// A row with other values in these fields.
    #[pyo3(
        signature = (*, id = Change::Keep, source = Change::Keep, r#type = Change::Keep, ref_id = Change::Keep,
            payload = Change::Keep, timestamp = Change::Keep),
        text_signature = "($self, *, id=..., source=..., type=..., ref_id=..., payload=..., timestamp=...)"
    )]
    fn _replace(
        &self,
        id: Change<Integer>,
        source: Change<Text>,
        r#type: Change<Text>,
        ref_id: Change<Option<Text>>,
        payload: Change<Option<Text>>,
        timestamp: Change<Timestamp>,
    ) -> PyResult<Self> {
        arguments!(id, source, r#type, ref_id, payload, timestamp);
        let entry = &self.0;
        let replaced = row::NewLogEntry {
            source: source.as_deref().unwrap_or(entry.source()),
            kind: r#type.as_deref().unwrap_or(entry.kind()),
            ref_id: ref_id.as_ref().map_or(entry.ref_id(), Option::as_deref),
            payload: payload.as_ref().map_or(entry.payload(), Option::as_deref),
            timestamp: Some(timestamp.map_or(entry.timestamp, |timestamp| timestamp.milliseconds)),
        };
        Ok(Self(replaced.stored(id.map_or(entry.id, |id| id.0))))
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
        Ok((slf.get_type(), slf.get().fields(slf.py())?))
    }
}

impl LogEntry {
    fn fields<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let entry = &self.0;
        (entry.id, entry.source(), entry.kind(), entry.ref_id(), entry.payload(), entry.timestamp).into_pyobject(py)
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

/// A row to append.
///
/// `timestamp` is in milliseconds since the Unix epoch, UTC, or an aware `datetime`; None: the time of the append. In
/// place of `payload`, `json` takes a JSON value, which is written compactly.
#[pyclass(frozen, eq, hash, module = "nerve_store")]
#[derive(PartialEq, Eq, Hash)]
pub(super) struct NewLogEntry {
    source: String,
    kind: String,
    ref_id: Option<String>,
    payload: Option<String>,
    pub(super) timestamp: Option<Timestamp>,
}

impl NewLogEntry {
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

#[pymethods]
impl NewLogEntry {
    #[classattr]
    #[expect(non_upper_case_globals, reason = "the name is Python's")]
    const __match_args__: (&'static str, &'static str, &'static str, &'static str, &'static str) =
        ("source", "type", "ref_id", "payload", "timestamp");

    #[new]
    #[pyo3(
        signature = (source, r#type, ref_id = None, payload = None, timestamp = None, *, json = Json::NONE),
        text_signature = "(source, type, ref_id=None, payload=None, timestamp=None, *, json=...)"
    )]
    fn new(
        source: Arg<Text>,
        r#type: Arg<Text>,
        ref_id: Option<Arg<Text>>,
        payload: Option<Arg<Text>>,
        timestamp: Option<Arg<Timestamp>>,
        json: Json<'_>,
    ) -> PyResult<Self> {
        arguments!(source, r#type, ref_id, payload, timestamp);
        let payload = json.or(payload)?;
        Ok(Self {
            source: source.to_string(),
            kind: r#type.to_string(),
            ref_id: ref_id.map(|text| text.to_string()),
            payload: payload.map(|text| text.to_string()),
            timestamp,
        })
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
        self.timestamp.map(|timestamp| timestamp.milliseconds)
    }

    /// The timestamp as an aware `datetime`, in UTC; None: the time of the append.
    #[getter]
    fn time<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.timestamp.map(|timestamp| time_of(py, timestamp.milliseconds)).transpose()
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!(
            "NewLogEntry(source={}, type={}, ref_id={}, payload={}, timestamp={})",
            repr(py, Some(&self.source))?,
            repr(py, Some(&self.kind))?,
            repr(py, self.ref_id.as_deref())?,
            repr(py, self.payload.as_deref())?,
            self.timestamp().map_or_else(|| "None".to_owned(), |timestamp| timestamp.to_string())
        ))
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyType>, Bound<'py, PyTuple>)> {
        let entry = slf.get();
        let fields = (&entry.source, &entry.kind, &entry.ref_id, &entry.payload, entry.timestamp());
        Ok((slf.get_type(), fields.into_pyobject(slf.py())?))
    }
}
