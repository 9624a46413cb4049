//! Arguments, each refused by its name.
//!
//! pyo3 converts an argument before a method runs, and tells its name in a note alone, which `str(error)` leaves out. A
//! method therefore takes [`Arg`]s, which cannot be refused, and converts them by [`arguments!`]:
//!
//! ```text
//! fn get_meta(&self, py: Python<'_>, key: Arg<Text>) -> PyResult<Option<String>> {
//!     arguments!(key);
//! ```
//!
//! What can be refused says why by a [`Refusal`], whose words follow the name: "must be str, not int".

use std::fmt::Display;
use std::time::Duration;

use pyo3::exceptions::{PyOverflowError, PyTypeError, PyUnicodeEncodeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::{PyBool, PyDelta, PyString};

/// Why an argument is refused.
pub enum Refusal {
    /// It is of another type.
    Type(String),
    /// It is of the type, and means nothing.
    Value(String),
    /// It is text with a lone surrogate, about which Python has an exception with fields of its own.
    Surrogate(PyErr),
    /// One of its items is, the one at this index.
    Item(usize, Box<Self>),
    /// Python code that was asked for the value raised.
    Raised(PyErr),
}

impl Refusal {
    /// It must be something else than an object of this type.
    pub(super) fn not(object: &Bound<'_, PyAny>, wanted: impl Display) -> Self {
        Self::Type(format!("must be {wanted}, not {}", type_name(object)))
    }

    /// The exception, about the argument `name`.
    pub(super) fn about(self, name: &str) -> PyErr {
        match self {
            Self::Type(words) => PyTypeError::new_err(format!("{name} {words}")),
            Self::Value(words) => PyValueError::new_err(format!("{name} {words}")),
            Self::Surrogate(error) => {
                let reason = format!("surrogates not allowed in {name}");
                Python::attach(|py| error.value(py).setattr("reason", reason)).map_or_else(|other| other, |()| error)
            }
            Self::Item(index, refusal) => refusal.about(&format!("{name}[{index}]")),
            Self::Raised(error) => error,
        }
    }
}

impl From<Refusal> for PyErr {
    fn from(refusal: Refusal) -> Self {
        refusal.about("the value")
    }
}

impl From<PyErr> for Refusal {
    fn from(error: PyErr) -> Self {
        Self::Raised(error)
    }
}

/// The name of an object's type, as Python's own messages have it.
pub(super) fn type_name(object: &Bound<'_, PyAny>) -> String {
    if object.is_none() {
        return "None".to_owned();
    }
    object.get_type().name().map_or_else(|_| "it".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// An argument that was given, and what it is, if it can be that.
pub(super) struct Arg<T>(Result<T, Refusal>);

impl<'a, 'py, T> FromPyObject<'a, 'py> for Arg<T>
where
    T: FromPyObject<'a, 'py>,
    T::Error: Into<Refusal>,
{
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        Ok(Self(T::extract(object).map_err(Into::into)))
    }
}

impl<T> Arg<T> {
    /// What it is when it is left out.
    pub(super) const fn of(value: T) -> Self {
        Self(Ok(value))
    }
}

/// What has a name: an [`Arg`], or one that may be left out.
pub(super) trait Named {
    type Value;

    /// The value; an exception that says `name` if it was refused.
    fn named(self, name: &str) -> PyResult<Self::Value>;
}

impl<T> Named for Arg<T> {
    type Value = T;

    fn named(self, name: &str) -> PyResult<T> {
        self.0.map_err(|refusal| refusal.about(name))
    }
}

impl<T> Named for Option<Arg<T>> {
    type Value = Option<T>;

    fn named(self, name: &str) -> PyResult<Option<T>> {
        self.map(|argument| argument.named(name)).transpose()
    }
}

/// Makes values of the arguments with these names.
macro_rules! arguments {
    ($($name:ident),+ $(,)?) => {
        $(
            let $name = {
                let name = stringify!($name);
                crate::py::argument::Named::named($name, name.strip_prefix("r#").unwrap_or(name))?
            };
        )+
    };
}
pub(super) use arguments;

/// Converts `object`, which is called `name`.
pub(super) fn named<'a, 'py, T>(object: &'a Bound<'py, PyAny>, name: &str) -> PyResult<T>
where
    T: FromPyObject<'a, 'py>,
    T::Error: Into<Refusal>,
{
    object.extract::<T>().map_err(|error| error.into().about(name))
}

/// A `str` without lone surrogates, not copied.
pub(super) struct Text(pub(super) PyBackedStr);

impl std::ops::Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'a, 'py> FromPyObject<'a, 'py> for Text {
    type Error = Refusal;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> Result<Self, Refusal> {
        if !object.is_instance_of::<PyString>() {
            return Err(Refusal::not(&object, "str"));
        }
        object.extract::<PyBackedStr>().map(Self).map_err(|error| not_text(object.py(), error))
    }
}

/// Why a `str` could not be encoded.
pub(super) fn not_text(py: Python<'_>, error: PyErr) -> Refusal {
    if error.is_instance_of::<PyUnicodeEncodeError>(py) { Refusal::Surrogate(error) } else { Refusal::Raised(error) }
}

/// A `bool`.
#[derive(Clone, Copy)]
pub(super) struct Flag(pub(super) bool);

impl<'a, 'py> FromPyObject<'a, 'py> for Flag {
    type Error = Refusal;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> Result<Self, Refusal> {
        match object.cast::<PyBool>() {
            Ok(flag) => Ok(Self(flag.is_true())),
            // numpy's, which pyo3 knows.
            Err(_) => object.extract::<bool>().map(Self).map_err(|_| Refusal::not(&object, "bool")),
        }
    }
}

impl Arg<Flag> {
    /// The default of a flag that is off.
    pub(super) const OFF: Self = Self::of(Flag(false));
    /// The default of one that is on.
    pub(super) const ON: Self = Self::of(Flag(true));
}

/// 10,000 years, as which longer spans count: each can be added to any time that there is.
const LONGEST: Duration = Duration::from_secs(315_569_520_000);

/// A number of seconds from 0 on.
#[derive(Clone, Copy)]
pub(super) struct Seconds(pub(super) Duration);

impl<'a, 'py> FromPyObject<'a, 'py> for Seconds {
    type Error = Refusal;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> Result<Self, Refusal> {
        seconds(&object, "a number of seconds").map(Self)
    }
}

/// The seconds that a number is; `wanted`: what the argument must be.
fn seconds(object: &Bound<'_, PyAny>, wanted: &str) -> Result<Duration, Refusal> {
    if object.is_instance_of::<PyBool>() {
        return Err(Refusal::not(object, wanted));
    }
    let value = object.extract::<f64>().map_err(|error| {
        let py = object.py();
        match error.is_instance_of::<PyOverflowError>(py) {
            true => Refusal::Value("is more seconds than can be waited for".to_owned()),
            false if error.is_instance_of::<PyTypeError>(py) => Refusal::not(object, wanted),
            false => Refusal::Raised(error),
        }
    })?;
    let duration = Duration::try_from_secs_f64(value)
        .map_err(|_| Refusal::Value(format!("is a number of seconds from 0, not {value}")))?;
    Ok(duration.min(LONGEST))
}

/// A span of time from 0 on: seconds, or a timedelta.
#[derive(Clone, Copy)]
pub(super) struct SecondsOrDelta(pub(super) Duration);

impl<'a, 'py> FromPyObject<'a, 'py> for SecondsOrDelta {
    type Error = Refusal;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> Result<Self, Refusal> {
        let Ok(delta) = object.cast::<PyDelta>() else {
            return seconds(&object, "a number of seconds or a timedelta").map(Self);
        };
        let seconds = delta.call_method0(intern!(object.py(), "total_seconds"))?.extract::<f64>()?;
        let duration = Duration::try_from_secs_f64(seconds).ok();
        duration
            .map(|duration| Self(duration.min(LONGEST)))
            .ok_or_else(|| Refusal::Value(format!("is a span of time from 0, not {seconds} seconds")))
    }
}
