//! Arguments as they come from Python, checked once, and values as they go back.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use pyo3::exceptions::{PyOverflowError, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDate, PyDateTime, PyDelta, PyString};

use crate::base::status::RunStatus;
use crate::base::time::UtcDay;
use crate::durable::Durability;
use crate::py::argument::{Refusal, Text, not_text};
use crate::py::interpreter;

impl<'a, 'py> FromPyObject<'a, 'py> for Durability {
    type Error = Refusal;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> Result<Self, Refusal> {
        match &*object.extract::<Text>()? {
            "full" => Ok(Self::Full),
            "normal" => Ok(Self::Normal),
            other => {
                let found = repr(object.py(), Some(other))?;
                Err(Refusal::Value(format!("is 'full' or 'normal', not {found}")))
            }
        }
    }
}

impl<'a, 'py> FromPyObject<'a, 'py> for RunStatus {
    type Error = Refusal;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> Result<Self, Refusal> {
        let text = object.extract::<Text>()?;
        let Ok(status) = text.parse() else {
            let known = Self::ALL.map(Self::name).join(", ");
            let found = repr(object.py(), Some(&text))?;
            return Err(Refusal::Value(format!("is one of {known}, not {found}")));
        };
        Ok(status)
    }
}

/// A whole number of 64 bits: an int, or what has `__index__`; no bool and no float.
#[derive(Clone, Copy)]
pub(super) struct Integer(pub(super) i64);

impl<'a, 'py> FromPyObject<'a, 'py> for Integer {
    type Error = Refusal;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> Result<Self, Refusal> {
        if object.is_instance_of::<PyBool>() {
            return Err(Refusal::not(&object, "int"));
        }
        object.extract::<i64>().map(Self).map_err(|error| {
            let py = object.py();
            if error.is_instance_of::<PyOverflowError>(py) {
                Refusal::Value("does not fit into 64 bits".to_owned())
            } else if error.is_instance_of::<PyTypeError>(py) {
                Refusal::not(&object, "int")
            } else {
                Refusal::Raised(error)
            }
        })
    }
}

/// A count: an [`Integer`] that is not negative.
#[derive(Clone, Copy)]
pub(super) struct Count(pub(super) u64);

impl<'a, 'py> FromPyObject<'a, 'py> for Count {
    type Error = Refusal;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> Result<Self, Refusal> {
        let Integer(value) = object.extract()?;
        u64::try_from(value).map(Self).map_err(|_| Refusal::Value(format!("is negative: {value}")))
    }
}

/// What is said of a URL in the place of a path; what is given is not shown, since it may have a password.
const NO_PATH: &str = "is a URL, and must be a path of this machine: Store takes an object store as remote=, and \
                       PostgresLogStore a log on a server";

/// A path that can be one: not empty, no NUL, no URL.
pub(super) struct FilePath(pub(super) PathBuf);

impl<'a, 'py> FromPyObject<'a, 'py> for FilePath {
    type Error = Refusal;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> Result<Self, Refusal> {
        let path = interpreter::file_path(&object).and_then(|path| path.extract::<PathBuf>());
        let path = path.map_err(|error| match error.is_instance_of::<PyTypeError>(object.py()) {
            true => Refusal::not(&object, "str or os.PathLike"),
            false => not_text(object.py(), error),
        })?;
        let bytes = path.as_os_str().as_encoded_bytes();
        if bytes.is_empty() {
            Err(Refusal::Value("is an empty path".to_owned()))
        } else if bytes.contains(&0) {
            Err(Refusal::Value("is no path: it contains a NUL character".to_owned()))
        } else if begins_as_url(bytes) {
            Err(Refusal::Value(NO_PATH.to_owned()))
        } else {
            Ok(Self(path))
        }
    }
}

/// Whether there is a scheme: taken for a path, it would be a directory below the current one.
fn begins_as_url(path: &[u8]) -> bool {
    let end = path.windows(3).position(|part| part == b"://");
    end.and_then(|end| path.get(..end)).is_some_and(|scheme| {
        scheme.first().is_some_and(u8::is_ascii_alphabetic)
            && scheme.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+.-".contains(byte))
    })
}

impl<'a, 'py> FromPyObject<'a, 'py> for UtcDay {
    type Error = Refusal;

    /// A calendar date; a datetime, which is a date to `isinstance`, is refused.
    fn extract(object: Borrowed<'a, 'py, PyAny>) -> Result<Self, Refusal> {
        let Some(date) = object.cast::<PyDate>().ok().filter(|_| !object.is_instance_of::<PyDateTime>()) else {
            return Err(Refusal::not(&object, "a datetime.date"));
        };
        // pyo3 asks by a call, whose arguments are an object with which a collection may begin.
        let part = |name| interpreter::attribute(&date, name)?.extract::<u16>();
        let py = object.py();
        let (year, month, day) = (part(intern!(py, "year"))?, part(intern!(py, "month"))?, part(intern!(py, "day"))?);
        Self::from_date(year.into(), month.into(), day.into())
            .ok_or_else(|| Refusal::Value(format!("is outside of the years 1970 to 9999: {}", &*object)))
    }
}

/// A span of time that is not negative: a `timedelta`.
pub(super) struct Span(pub(super) Duration);

impl<'a, 'py> FromPyObject<'a, 'py> for Span {
    type Error = Refusal;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> Result<Self, Refusal> {
        if !object.is_instance_of::<PyDelta>() {
            return Err(Refusal::not(&object, "a datetime.timedelta"));
        }
        object.extract::<Duration>().map(Self).map_err(|_| Refusal::Value(format!("is negative: {}", &*object)))
    }
}

/// The `datetime.date` of a day.
pub(super) fn date(py: Python<'_>, day: UtcDay) -> PyResult<Bound<'_, PyDate>> {
    let (year, month, day) = day.date();
    let (month, day) = (u8::try_from(month)?, u8::try_from(day)?);
    interpreter::uncollected(py, || PyDate::new(py, year, month, day))
}

/// A path as a `str`.
pub(super) fn path_text(path: &std::path::Path) -> OsString {
    path.as_os_str().to_owned()
}

/// Text in the words of `repr`, or `None`.
pub(super) fn repr(py: Python<'_>, text: Option<&str>) -> PyResult<String> {
    match text {
        Some(text) => Ok(PyString::new(py, text).repr()?.to_string()),
        None => Ok("None".to_owned()),
    }
}
