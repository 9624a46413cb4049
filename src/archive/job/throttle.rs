//! How fast an archive run goes: at full speed while nobody appends, and in small steps with rests while others do.
//!
//! A durable append takes a fraction of a millisecond. Beside two busy processors, or a disk that is given megabytes to
//! flush at once, one in a hundred takes ten times as long and more. So beside a log that grows a run does one thing at a
//! time, in small steps, and rests after each.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::base::error::Result;
use crate::db::CHECKPOINT_PAGES;
use crate::log;

/// How long after it last grew a log counts as growing.
const AFTERMATH: Duration = Duration::from_secs(1);
/// How long a rest is at the most.
const LONGEST_REST: Duration = Duration::from_millis(20);

/// How long the write lock may be held to delete rows.
const LONG_BITE: Duration = Duration::from_millis(5);

/// What one transaction, or one checkpoint, of a run takes on.
pub(crate) struct Steps {
    /// Rows that are deleted, at the most: see [`Bite`].
    pub(crate) rows: usize,
    /// References that are written to the manifest.
    pub(crate) refs: usize,
    /// Pages that are carried over from the write-ahead log.
    pub(crate) pages: u32,
}

const FULL_SPEED: Steps = Steps { rows: 2_000, refs: 2_000, pages: CHECKPOINT_PAGES };
/// A checkpoint flushes all its pages at once, and an append's flush waits behind them: 64 pages take a quarter longer
/// in all than 250, and an append notices them half as long.
const GENTLE: Steps = Steps { rows: 200, refs: 50, pages: 64 };

/// How many rows to delete in one transaction, which holds the write lock: as many as take a moment, because one row may
/// have as many megabytes as another has bytes.
pub(crate) struct Bite {
    rows: usize,
}

impl Default for Bite {
    fn default() -> Self {
        Self { rows: 50 }
    }
}

impl Bite {
    pub(crate) fn rows(&self, pace: &Pace) -> usize {
        self.rows.min(pace.steps().rows)
    }

    /// Learns how long so many rows took.
    pub(crate) fn took(&mut self, rows: usize, duration: Duration) {
        if duration > LONG_BITE {
            self.rows = (rows / 2).max(1);
        } else if duration < LONG_BITE / 2 {
            self.rows = rows * 2;
        }
    }
}

/// What a run has seen of those who append.
#[derive(Default)]
pub(crate) struct Pace {
    growth: Mutex<Growth>,
}

#[derive(Default)]
struct Growth {
    last_id: Option<i64>,
    seen: Option<Instant>,
}

impl Pace {
    /// Looks whether the log has grown, through this process or another.
    pub(crate) fn look(&self, connection: &Connection) -> Result<()> {
        let last_id = Some(log::last_given_id(connection)?);
        let mut growth = self.growth.lock().unwrap_or_else(PoisonError::into_inner);
        if growth.last_id.is_some() && growth.last_id != last_id {
            growth.seen = Some(Instant::now());
        }
        growth.last_id = last_id;
        Ok(())
    }

    /// Whether others append at present.
    pub(crate) fn is_gentle(&self) -> bool {
        let growth = self.growth.lock().unwrap_or_else(PoisonError::into_inner);
        growth.seen.is_some_and(|seen| seen.elapsed() < AFTERMATH)
    }

    /// How large a step is to be.
    pub(crate) fn steps(&self) -> &'static Steps {
        if self.is_gentle() { &GENTLE } else { &FULL_SPEED }
    }

    /// Pauses after a step that began then, for half as long as it took, if others append.
    pub(crate) fn rest(&self, began: Instant) {
        if self.is_gentle() {
            std::thread::sleep((began.elapsed() / 2).min(LONGEST_REST));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Log, LogConfig};
    use crate::row::NewLogEntry;

    #[test]
    fn as_many_rows_are_deleted_at_once_as_take_a_moment() {
        let after = |per_row: Duration| {
            let (mut bite, pace) = (Bite::default(), Pace::default());
            for _ in 0..20 {
                let rows = bite.rows(&pace);
                bite.took(rows, per_row * u32::try_from(rows).unwrap());
            }
            bite.rows(&pace)
        };
        assert_eq!(after(Duration::from_nanos(10)), FULL_SPEED.rows);
        assert!((50..=100).contains(&after(LONG_BITE / 100)));
        assert!((5..=10).contains(&after(LONG_BITE / 10)));
        assert_eq!(after(Duration::from_secs(1)), 1);
    }

    #[test]
    fn a_log_that_grows_makes_a_run_gentle() {
        let directory = tempfile::tempdir().unwrap();
        let log = Log::open(&directory.path().join("logs.db"), LogConfig::default(), &mut |_, _| Ok(())).unwrap();
        let pace = Pace::default();
        let look = || log.database().read("test", |connection| pace.look(connection)).unwrap();
        let append = |log: &Log| {
            let row = NewLogEntry { source: "s", kind: "t", ref_id: None, payload: None, timestamp: Some(1) };
            log.append_many(&[row], None).unwrap()
        };
        append(&log);
        look();
        look();
        assert!(!pace.is_gentle(), "what was there before does not count");
        assert_eq!(pace.steps().rows, FULL_SPEED.rows);
        append(&log);
        assert!(!pace.is_gentle(), "nobody has looked");
        look();
        assert!(pace.is_gentle());
        assert_eq!(pace.steps().rows, GENTLE.rows);
        let began = Instant::now() - Duration::from_millis(10);
        let rests = Instant::now();
        pace.rest(began);
        assert!(rests.elapsed() >= Duration::from_millis(5));
        pace.growth.lock().unwrap().seen = Instant::now().checked_sub(AFTERMATH);
        look();
        assert!(!pace.is_gentle(), "it has come to rest");
    }
}
