//! How fast an archive job goes: at full speed while no rows are appended, and in small steps with rests while others do.
//!
//! A durable append takes a fraction of a millisecond. Beside two busy processors, or a disk that is given megabytes to
//! flush at once, one in a hundred takes ten times as long and more. So beside a log that grows a job does one thing at a
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
const LONG_BATCH: Duration = Duration::from_millis(5);

/// What one transaction, or one checkpoint, of a job takes on.
pub(crate) struct Steps {
    /// Rows that are deleted, at the most: see [`AdaptiveBatch`].
    pub(crate) rows: usize,
    /// References that are written to the manifest.
    pub(crate) refs: usize,
    /// Pages that are carried over from the write-ahead log.
    pub(crate) pages: u32,
}

const FULL_SPEED: Steps = Steps { rows: 2_000, refs: 2_000, pages: CHECKPOINT_PAGES };
/// A checkpoint flushes all its pages at once, and an append's flush waits behind them: 64 pages take a quarter longer
/// in all than 250, and an append notices them half as long.
const THROTTLED: Steps = Steps { rows: 200, refs: 50, pages: 64 };

/// How many rows to delete in one transaction, which holds the write lock: as many as take a moment, because one row may
/// have as many megabytes as another has bytes.
pub(crate) struct AdaptiveBatch {
    rows: usize,
}

impl Default for AdaptiveBatch {
    fn default() -> Self {
        Self { rows: 50 }
    }
}

impl AdaptiveBatch {
    pub(crate) fn rows(&self, throttle: &Throttle) -> usize {
        self.rows.min(throttle.steps().rows)
    }

    /// Learns how long so many rows took.
    pub(crate) fn took(&mut self, rows: usize, duration: Duration) {
        if duration > LONG_BATCH {
            self.rows = (rows / 2).max(1);
        } else if duration < LONG_BATCH / 2 {
            self.rows = rows * 2;
        }
    }
}

/// What a job has seen of those who append.
#[derive(Default)]
pub(crate) struct Throttle {
    growth: Mutex<Growth>,
}

#[derive(Default)]
struct Growth {
    last_id: Option<i64>,
    seen: Option<Instant>,
}

impl Throttle {
    /// Looks whether the log has grown, through this process or another.
    pub(crate) fn observe(&self, connection: &Connection) -> Result<()> {
        let last_id = Some(log::last_given_id(connection)?);
        let mut growth = self.growth.lock().unwrap_or_else(PoisonError::into_inner);
        if growth.last_id.is_some() && growth.last_id != last_id {
            growth.seen = Some(Instant::now());
        }
        growth.last_id = last_id;
        Ok(())
    }

    /// Whether others append at present.
    pub(crate) fn is_throttled(&self) -> bool {
        let growth = self.growth.lock().unwrap_or_else(PoisonError::into_inner);
        growth.seen.is_some_and(|seen| seen.elapsed() < AFTERMATH)
    }

    /// How large a step is to be.
    pub(crate) fn steps(&self) -> &'static Steps {
        if self.is_throttled() { &THROTTLED } else { &FULL_SPEED }
    }

    /// Pauses after a step that began then, for half as long as it took, if others append.
    pub(crate) fn pause(&self, began: Instant) {
        if self.is_throttled() {
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
            let (mut batch, throttle) = (AdaptiveBatch::default(), Throttle::default());
            for _ in 0..20 {
                let rows = batch.rows(&throttle);
                batch.took(rows, per_row * u32::try_from(rows).unwrap());
            }
            batch.rows(&throttle)
        };
        assert_eq!(after(Duration::from_nanos(10)), FULL_SPEED.rows);
        assert!((50..=100).contains(&after(LONG_BATCH / 100)));
        assert!((5..=10).contains(&after(LONG_BATCH / 10)));
        assert_eq!(after(Duration::from_secs(1)), 1);
    }

    #[test]
    fn a_log_that_grows_throttles_a_job() {
        let directory = tempfile::tempdir().unwrap();
        let log = Log::open(&directory.path().join("logs.db"), LogConfig::default(), &mut |_, _| Ok(())).unwrap();
        let throttle = Throttle::default();
        let observe = || log.database().read("test", |connection| throttle.observe(connection)).unwrap();
        let append = |log: &Log| {
            let row = NewLogEntry { source: "s", kind: "t", ref_id: None, payload: None, timestamp: Some(1) };
            log.append_many(&[row], None).unwrap()
        };
        append(&log);
        observe();
        observe();
        assert!(!throttle.is_throttled(), "what was there before does not count");
        assert_eq!(throttle.steps().rows, FULL_SPEED.rows);
        append(&log);
        assert!(!throttle.is_throttled(), "nobody has looked");
        observe();
        assert!(throttle.is_throttled());
        assert_eq!(throttle.steps().rows, THROTTLED.rows);
        let began = Instant::now() - Duration::from_millis(10);
        let rests = Instant::now();
        throttle.pause(began);
        assert!(rests.elapsed() >= Duration::from_millis(5));
        throttle.growth.lock().unwrap().seen = Instant::now().checked_sub(AFTERMATH);
        observe();
        assert!(!throttle.is_throttled(), "it has come to rest");
    }
}
