//! Arguments as they come from Python, checked once, and results as they go back.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyDate, PyDateAccess, PyDelta, PyDeltaAccess, PyString, PyType};

use crate::base::status::RunStatus;
use crate::base::time::UtcDay;
use crate::durable::Durability;
use crate::py::interpreter;

impl<'a, 'py> FromPyObject<'a, 'py> for Durability {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        match &*object.extract::<PyBackedStr>()? {
            "full" => Ok(Self::Full),
            "normal" => Ok(Self::Normal),
            other => Err(PyValueError::new_err(format!("durability is \"full\" or \"normal\", not {other:?}"))),
        }
    }
}

impl<'a, 'py> FromPyObject<'a, 'py> for RunStatus {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        let text = object.extract::<PyBackedStr>()?;
        text.parse().map_err(|()| {
            let known = Self::ALL.map(Self::name).join(", ");
            PyValueError::new_err(format!("unknown status {:?}; known are {known}", &*text))
        })
    }
}

/// A whole number of 64 bits: an int, or what has `__index__`; no bool and no float.
#[derive(Clone, Copy)]
pub(super) struct Integer(pub(super) i64);

impl<'a, 'py> FromPyObject<'a, 'py> for Integer {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        if object.is_instance_of::<PyBool>() {
            return Err(PyTypeError::new_err("'bool' object cannot be interpreted as an integer here"));
        }
        object.extract::<i64>().map(Self).map_err(|error| {
            if error.is_instance_of::<PyOverflowError>(object.py()) {
                PyValueError::new_err("the integer does not fit into 64 bits")
            } else {
                error
            }
        })
    }
}

/// A count: an [`Integer`] that is not negative.
#[derive(Clone, Copy)]
pub(super) struct Count(pub(super) u64);

impl<'a, 'py> FromPyObject<'a, 'py> for Count {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        let Integer(value) = object.extract()?;
        u64::try_from(value).map(Self).map_err(|_| PyValueError::new_err(format!("{value} is negative")))
    }
}

/// A path that can be one: not empty, no NUL.
pub(super) struct FilePath(pub(super) PathBuf);

impl<'a, 'py> FromPyObject<'a, 'py> for FilePath {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        let path: PathBuf = interpreter::file_path(&object)?.extract()?;
        let bytes = path.as_os_str().as_encoded_bytes();
        if bytes.is_empty() {
            Err(PyValueError::new_err("the path is empty"))
        } else if bytes.contains(&0) {
            Err(PyValueError::new_err("the path contains a NUL character"))
        } else {
            Ok(Self(path))
        }
    }
}

/// A calendar date; a datetime, which is a date to `isinstance`, is refused.
pub(super) fn day(date: &Bound<'_, PyAny>) -> PyResult<UtcDay> {
    let date = date.cast::<PyDate>()?;
    if date.hasattr("hour")? {
        return Err(PyTypeError::new_err("a datetime.date is needed, not a datetime"));
    }
    UtcDay::from_date(date.get_year(), date.get_month().into(), date.get_day().into())
        .ok_or_else(|| PyValueError::new_err("the day is outside of the years 1970 to 9999"))
}

/// The `datetime.date` of a day.
pub(super) fn date(py: Python<'_>, day: UtcDay) -> PyResult<Bound<'_, PyDate>> {
    let (year, month, day) = day.date();
    PyDate::new(py, year, u8::try_from(month)?, u8::try_from(day)?)
}

/// A path as a `str`.
pub(super) fn path_text(path: &std::path::Path) -> OsString {
    path.as_os_str().to_owned()
}

/// A number of seconds from 0 on; `name` is the argument's.
pub(super) fn seconds(name: &str, value: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(value)
        .map_err(|_| PyValueError::new_err(format!("{name} is a number of seconds from 0, not {value}")))
}

/// A span of time from 0 on: seconds, or a timedelta.
#[derive(Clone, Copy)]
pub(super) struct Span(pub(super) Duration);

impl<'a, 'py> FromPyObject<'a, 'py> for Span {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(delta) = object.cast::<PyDelta>() {
            let seconds = i64::from(delta.get_days()) * 86_400 + i64::from(delta.get_seconds());
            let microseconds = u32::try_from(delta.get_microseconds())?;
            return match u64::try_from(seconds) {
                Ok(seconds) => Ok(Self(Duration::new(seconds, microseconds * 1_000))),
                Err(_) => Err(PyValueError::new_err("a span of time is negative")),
            };
        }
        if object.is_instance_of::<PyBool>() {
            return Err(PyTypeError::new_err("a span of time is a number of seconds or a timedelta, not a bool"));
        }
        let seconds: f64 = object.extract()?;
        match Duration::try_from_secs_f64(seconds) {
            Ok(span) => Ok(Self(span)),
            Err(_) => {
                Err(PyValueError::new_err(format!("a span of time is a number of seconds from 0, not {seconds}")))
            }
        }
    }
}

/// Text in the words of `repr`, or `None`.
pub(super) fn repr(py: Python<'_>, text: Option<&str>) -> PyResult<String> {
    match text {
        Some(text) => Ok(PyString::new(py, text).repr()?.to_string()),
        None => Ok("None".to_owned()),
    }
}

/// Imports what results are made of, which takes some milliseconds and descriptors. Stores do it when they are opened:
/// a call that has changed something must not fail because its result cannot be made.
pub(super) fn import_records(py: Python<'_>) -> PyResult<()> {
    py.import("nerve_store.records").map(drop)
}

/// A class of `nerve_store.records`.
pub(super) struct Record {
    name: &'static str,
    class: PyOnceLock<Py<PyType>>,
}

impl Record {
    pub(super) const fn new(name: &'static str) -> Self {
        Self { name, class: PyOnceLock::new() }
    }

    pub(super) fn class<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyType>> {
        let class = self.class.get_or_try_init(py, || {
            let class = interpreter::imported(py, "nerve_store.records", self.name)?;
            Ok::<_, PyErr>(class.cast_into::<PyType>()?.unbind())
        });
        class.map(|class| class.bind(py))
    }

    /// A new record with these fields, in their order.
    pub(super) fn create<'py>(
        &self,
        py: Python<'py>,
        fields: impl interpreter::Arguments<'py>,
    ) -> PyResult<Bound<'py, PyAny>> {
        interpreter::call(self.class(py)?, fields)
    }
}

/// A class of `nerve_store.records` that is made by the thousand: a dataclass with slots and without `__post_init__`.
///
/// Its instances are filled slot by slot, which takes a quarter of the time that a frozen dataclass's own `__init__`
/// takes, and gives the same.
pub(super) struct PlainRecord<const FIELDS: usize> {
    record: Record,
    names: [&'static str; FIELDS],
    parts: PyOnceLock<Parts<FIELDS>>,
}

struct Parts<const FIELDS: usize> {
    /// `object.__new__`
    new: Py<PyAny>,
    /// The `__set__` of each slot.
    setters: [Py<PyAny>; FIELDS],
}

impl<const FIELDS: usize> PlainRecord<FIELDS> {
    pub(super) const fn new(name: &'static str, names: [&'static str; FIELDS]) -> Self {
        Self { record: Record::new(name), names, parts: PyOnceLock::new() }
    }

    /// A new record with these fields, in the order of the names.
    pub(super) fn create<'py>(
        &self,
        py: Python<'py>,
        fields: [Bound<'py, PyAny>; FIELDS],
    ) -> PyResult<Bound<'py, PyAny>> {
        let class = self.record.class(py)?;
        let parts = self.parts.get_or_try_init(py, || {
            let mut setters = Vec::with_capacity(FIELDS);
            for name in self.names {
                setters.push(class.getattr(name)?.getattr("__set__")?.unbind());
            }
            let setters = setters.try_into().map_err(|_| PyTypeError::new_err("a record has its fields"))?;
            Ok::<_, PyErr>(Parts { new: py.get_type::<PyAny>().getattr("__new__")?.unbind(), setters })
        })?;
        let record = parts.new.bind(py).call1((class,))?;
        for (setter, field) in parts.setters.iter().zip(fields) {
            setter.bind(py).call1((&record, field))?;
        }
        Ok(record)
    }
}
