//! Timestamps in milliseconds since the Unix epoch, and UTC days.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::base::error::{Error, Result};

/// 1970-01-01T00:00:00.000Z, the least timestamp that can be appended.
pub const MIN_TIMESTAMP: i64 = 0;
/// 9999-12-31T23:59:59.999Z, the greatest.
pub const MAX_TIMESTAMP: i64 = 253_402_300_799_999;

const DAY_MS: i64 = 86_400_000;

/// The times from one to another, both included, in milliseconds since the epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeSpan {
    /// The least timestamp.
    pub first: i64,
    /// The greatest timestamp.
    pub last: i64,
}

impl TimeSpan {
    /// A single time.
    pub fn of(timestamp: i64) -> Self {
        Self { first: timestamp, last: timestamp }
    }

    /// The least span that holds both.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self { first: self.first.min(other.first), last: self.last.max(other.last) }
    }

    /// Whether a time is in both.
    pub fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// Whether all of `other` is in this one.
    pub fn covers(self, other: Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }
}

/// The system clock in nanoseconds, as files are stamped with it.
pub fn now_ns() -> i128 {
    let signed = |duration: Duration| i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX);
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(after) => signed(after),
        Err(before) => -signed(before.duration()),
    }
}

/// The system clock, in milliseconds; an error if it stands outside of the years 1970 to 9999.
pub fn now() -> Result<i64> {
    let milliseconds = match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
    };
    check_timestamp(milliseconds)
        .map_err(|_| Error::Value(format!("the system clock stands at {milliseconds} ms, outside of the years 1970 to 9999; set it, or give a timestamp")))
}

/// `timestamp` if it lies in the years 1970 to 9999.
pub fn check_timestamp(timestamp: i64) -> Result<i64> {
    if (MIN_TIMESTAMP..=MAX_TIMESTAMP).contains(&timestamp) {
        Ok(timestamp)
    } else {
        Err(Error::Value(format!(
            "timestamp {timestamp} is outside of the years 1970 to 9999 (milliseconds since the epoch, 0 to {MAX_TIMESTAMP})"
        )))
    }
}

/// A UTC day, as the number of days since 1970-01-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UtcDay(i32);

impl UtcDay {
    /// The day that `timestamp` falls on; a `Value` error outside of the years 1970 to 9999.
    pub fn of(timestamp: i64) -> Result<Self> {
        check_timestamp(timestamp).map(Self::of_checked)
    }

    /// The last day that lies wholly before `boundary`; a `Value` error if there is none from 1970 on.
    pub fn last_before(boundary: i64) -> Result<Self> {
        let day = Self::of(boundary)?;
        if day.0 == 0 {
            return Err(Error::Value(format!("boundary: no day from 1970 on lies wholly before {boundary} ms")));
        }
        Ok(Self(day.0 - 1))
    }

    fn of_checked(timestamp: i64) -> Self {
        Self(i32::try_from(timestamp.div_euclid(DAY_MS)).unwrap_or(i32::MAX))
    }

    /// The day of a calendar date; None if there is no such date in the years 1970 to 9999.
    pub fn from_date(year: i32, month: u32, day: u32) -> Option<Self> {
        if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) {
            return None;
        }
        let candidate = Self(days_from_civil(year, month, day));
        (candidate.date() == (year, month, day)).then_some(candidate)
    }

    /// Year, month and day of the month.
    pub fn date(self) -> (i32, u32, u32) {
        civil_from_days(self.0)
    }

    /// Its first millisecond.
    pub fn first_timestamp(self) -> i64 {
        i64::from(self.0) * DAY_MS
    }

    /// Its last millisecond.
    pub fn last_timestamp(self) -> i64 {
        self.first_timestamp() + DAY_MS - 1
    }
}

impl fmt::Display for UtcDay {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.date();
        write!(formatter, "{year:04}-{month:02}-{day:02}")
    }
}

impl FromStr for UtcDay {
    type Err = ();

    /// Exactly `YYYY-MM-DD`, a date that exists, years 1970 to 9999.
    fn from_str(text: &str) -> std::result::Result<Self, ()> {
        let bytes = text.as_bytes();
        let digits = |range: std::ops::Range<usize>| -> Option<u32> {
            let part = &bytes[range];
            part.iter()
                .all(u8::is_ascii_digit)
                .then(|| part.iter().fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0')))
        };
        if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' {
            return Err(());
        }
        let (Some(year), Some(month), Some(day)) = (digits(0..4), digits(5..7), digits(8..10)) else { return Err(()) };
        Self::from_date(i32::try_from(year).map_err(drop)?, month, day).ok_or(())
    }
}

// Both from Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms": eras of 400 years, years that begin in March.
fn days_from_civil(year: i32, month: u32, day: u32) -> i32 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted_month = (month.cast_signed() + 9) % 12;
    let day_of_year = (153 * shifted_month + 2) / 5 + day.cast_signed() - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn civil_from_days(days: i32) -> (i32, u32, u32) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * shifted_month + 2) / 5 + 1).cast_unsigned();
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 }.cast_unsigned();
    (era * 400 + year_of_era + i32::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_days() {
        assert_eq!(UtcDay::of(0).unwrap().to_string(), "1970-01-01");
        assert_eq!(UtcDay::of(1_777_089_446_000).unwrap().to_string(), "2026-04-25");
        assert_eq!(UtcDay::of(MAX_TIMESTAMP).unwrap().to_string(), "9999-12-31");
        assert!(UtcDay::of(-1).is_err() && UtcDay::of(MAX_TIMESTAMP + 1).is_err());
        assert_eq!("2024-02-29".parse::<UtcDay>().unwrap().to_string(), "2024-02-29");
    }

    #[test]
    fn only_real_dates_parse() {
        for text in [
            "2023-02-29",
            "1969-12-31",
            "2024-1-01",
            "2024-01-32",
            "2024-00-10",
            "2024-01-0a",
            "+024-01-01",
            "2024/01/01",
            "",
        ] {
            assert!(text.parse::<UtcDay>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_boundary_inside_a_day_keeps_that_day() {
        let midnight = "2026-03-26".parse::<UtcDay>().unwrap().first_timestamp();
        for boundary in [midnight, midnight + 1, midnight + DAY_MS - 1] {
            assert_eq!(UtcDay::last_before(boundary).unwrap().to_string(), "2026-03-25");
        }
        assert!(UtcDay::last_before(DAY_MS - 1).is_err());
    }

    proptest! {
        #[test]
        fn days_and_dates_agree(timestamp in MIN_TIMESTAMP..=MAX_TIMESTAMP) {
            let day = UtcDay::of(timestamp).unwrap();
            prop_assert!((day.first_timestamp()..=day.last_timestamp()).contains(&timestamp));
            prop_assert_eq!(day.to_string().parse::<UtcDay>(), Ok(day));
        }
    }
}
