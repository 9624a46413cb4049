//! Timestamps: milliseconds, or an aware `datetime`; and the warning about seconds.

use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDateTime;

use crate::base::time::{MAX_TIMESTAMP, check_timestamp};
use crate::py::argument::Refusal;
use crate::py::convert::Integer;
use crate::py::interpreter;

/// Integers that are seconds of the years 2001 to 5138, and milliseconds of the first weeks and years of 1970.
const SECONDS: std::ops::RangeInclusive<i64> = 1_000_000_000..=100_000_000_000;

/// A time, in milliseconds since the Unix epoch.
#[derive(Clone, Copy)]
pub(super) struct Timestamp {
    pub(super) milliseconds: i64,
    /// It was given as an integer, and is almost surely in seconds.
    pub(super) is_like_seconds: bool,
}

impl Timestamp {
    /// The milliseconds, if they lie in the years 1970 to 9999; else an exception that says `name`.
    pub(super) fn checked(self, name: &str) -> PyResult<i64> {
        let Self { milliseconds, .. } = self;
        check_timestamp(milliseconds).map_err(|_| {
            PyValueError::new_err(format!(
                "{name} is outside of the years 1970 to 9999 (milliseconds since the epoch, 0 to {MAX_TIMESTAMP}): {milliseconds}"
            ))
        })
    }

    /// One that was stored before.
    pub(super) fn stored(milliseconds: i64) -> Self {
        Self { milliseconds, is_like_seconds: false }
    }
}

impl PartialEq for Timestamp {
    fn eq(&self, other: &Self) -> bool {
        self.milliseconds == other.milliseconds
    }
}

impl Eq for Timestamp {}

impl Hash for Timestamp {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.milliseconds.hash(state);
    }
}

impl<'a, 'py> FromPyObject<'a, 'py> for Timestamp {
    type Error = Refusal;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> Result<Self, Refusal> {
        if let Ok(time) = object.cast::<PyDateTime>() {
            return Ok(Self::stored(milliseconds_of(&time)?));
        }
        match object.extract::<Integer>() {
            Ok(Integer(milliseconds)) => Ok(Self { milliseconds, is_like_seconds: SECONDS.contains(&milliseconds) }),
            Err(Refusal::Type(_)) => Err(Refusal::not(&object, "int (milliseconds) or an aware datetime")),
            Err(refusal) => Err(refusal),
        }
    }
}

/// The whole milliseconds of an aware `datetime`.
fn milliseconds_of(time: &Bound<'_, PyDateTime>) -> Result<i64, Refusal> {
    let py = time.py();
    let offset = interpreter::call_method(time, intern!(py, "utcoffset"), ()).map_err(|error| {
        // `pandas.NaT` is a datetime that has no time, and a zone may be of anyone's making.
        match error.is_instance_of::<PyValueError>(py) || error.is_instance_of::<PyTypeError>(py) {
            true => Refusal::Value(format!("is a datetime whose zone does not tell its offset: {}", error.value(py))),
            false => Refusal::Raised(error),
        }
    })?;
    if offset.is_none() {
        return Err(Refusal::Value(
            "is a naive datetime, whose zone is not known: give it one (datetime.now(UTC), time.astimezone())".into(),
        ));
    }
    let field = |name| time.getattr(name)?.extract::<i64>();
    let of_offset = |name| offset.getattr(name)?.extract::<i64>();
    let days = days_from_civil(field(intern!(py, "year"))?, field(intern!(py, "month"))?, field(intern!(py, "day"))?);
    let seconds = (field(intern!(py, "hour"))? * 60 + field(intern!(py, "minute"))?) * 60
        + field(intern!(py, "second"))?
        - of_offset(intern!(py, "seconds"))?;
    let microseconds = field(intern!(py, "microsecond"))? - of_offset(intern!(py, "microseconds"))?;
    let seconds = (days - of_offset(intern!(py, "days"))?) * 86_400 + seconds;
    Ok((seconds * 1_000_000 + microseconds).div_euclid(1_000))
}

/// The days since 1970-01-01 of a date in the proleptic Gregorian calendar.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March, so that the leap day is a year's last.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year - era * 400;
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The aware `datetime` of a timestamp, in UTC.
pub(super) fn time_of(py: Python<'_>, milliseconds: i64) -> PyResult<Bound<'_, PyAny>> {
    interpreter::call(&interpreter::imported(py, "nerve_store.records", "time_of")?, (milliseconds,))
}

/// Warns once of timestamps that are almost surely in seconds.
#[derive(Default)]
pub(super) struct UnitWarning {
    is_given: AtomicBool,
}

impl UnitWarning {
    /// Looks at timestamps before they are stored. A filter of warnings may turn this one into an exception: then
    /// nothing is stored. `frames`: how far up the caller is.
    pub(super) fn look(&self, py: Python<'_>, timestamp: Option<Timestamp>, frames: u32) -> PyResult<()> {
        let Some(timestamp) = timestamp.filter(|timestamp| timestamp.is_like_seconds) else { return Ok(()) };
        if self.is_given.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let message = format!(
            "timestamp {} looks like seconds; timestamps are milliseconds since the epoch: multiply it by 1,000, or give an aware datetime",
            timestamp.milliseconds
        );
        let category = interpreter::imported(py, "nerve_store.exceptions", "TimestampUnitWarning")?;
        let warn = interpreter::imported(py, "warnings", "warn")?;
        interpreter::call(&warn, (message, category, frames)).map(drop)
    }
}
