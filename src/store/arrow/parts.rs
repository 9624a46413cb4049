//! The rows of a stream in parts, of which several are read side by side.
//!
//! Invariant: parts are in order, as are the rows of each, and what was read of one is kept until it is returned, so that a
//! reading that was interrupted goes on where it was.

use std::collections::VecDeque;
use std::mem;
use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};

use crate::base::error::{Error, Result};
use crate::base::parallel;
use crate::row::RawRow;
use crate::store::arrow::columns::Columns;
use crate::store::rows::is_repeatable;

/// Bytes of text after which a batch ends, whatever the number of its rows; those that are read side by side share them.
/// Memory stays small, and offsets of 32 bits suffice, since one more row adds less than a gigabyte.
const MOST_TEXT_BYTES: usize = 32 << 20;

/// Rows of a part before the size of rows is known.
const FIRST_PART_ROWS: u64 = 16_384;

/// Rows of a part at the least: a thread is started for it.
const LEAST_PART_ROWS: u64 = 2_048;

/// Where rows come from.
pub trait Origin: Send {
    /// Calls `visit` with the next rows until it breaks; returns whether there may be more. Rows that it was called with
    /// before an error do not come again.
    fn each_raw(&mut self, visit: &mut dyn FnMut(RawRow<'_>) -> Result<ControlFlow<()>>) -> Result<bool>;
}

/// Rows that can be divided.
pub(super) trait Divisible: Send {
    /// The next part, of at most so many rows; None at the end. A call that was interrupted is repeated.
    fn next_part(&mut self, rows: u64) -> Result<Option<Box<dyn Origin>>>;

    /// An error if rows that have been read are not to be returned any more.
    fn check(&self) -> Result<()>;
}

/// The parts of a stream that have not been returned.
pub(super) struct Parts {
    open: VecDeque<Part>,
    /// What no part was made of yet.
    rest: Option<Box<dyn Divisible>>,
    /// How many are read side by side.
    threads: usize,
    limits: Limits,
    /// Rows of the next part.
    part_rows: u64,
    /// Rows of a part at the most: those of a batch.
    most_part_rows: u64,
}

/// Where the batches of a part end.
#[derive(Clone, Copy)]
struct Limits {
    rows: usize,
    text_bytes: usize,
}

struct Part {
    /// None: all of it has been read.
    origin: Option<Box<dyn Origin>>,
    /// What was read and not returned.
    columns: Columns,
    /// What comes after that.
    failure: Option<Error>,
}

impl Parts {
    /// Rows that are read one after the other.
    pub(super) fn undivided(origin: Box<dyn Origin>, batch_rows: usize) -> Self {
        let mut parts = Self::new(None, 1, batch_rows, batch_rows);
        parts.open.push_back(Part::of(origin));
        parts
    }

    /// Rows of which so many parts are read side by side.
    pub(super) fn divided(rows: Box<dyn Divisible>, threads: usize, batch_rows: usize) -> Self {
        // No part has more rows than a batch may have. Each is read until it says that it has no more: one whose last row
        // ended a batch would take a thread again, which would find nothing.
        Self::new(Some(rows), threads, batch_rows, usize::MAX)
    }

    fn new(rest: Option<Box<dyn Divisible>>, threads: usize, batch_rows: usize, rows: usize) -> Self {
        let limits = Limits { rows, text_bytes: MOST_TEXT_BYTES / threads };
        let most_part_rows = batch_rows as u64;
        let part_rows = FIRST_PART_ROWS.min(most_part_rows);
        Self { open: VecDeque::new(), rest, threads, limits, part_rows, most_part_rows }
    }

    /// The next batch; without rows at the end. A call that was interrupted is repeated; any other error is the end.
    pub(super) fn next_batch(&mut self) -> Result<Columns> {
        let batch = self.read_batch();
        if batch.as_ref().err().is_some_and(|error| !is_repeatable(error)) {
            (self.open, self.rest) = (VecDeque::new(), None);
        }
        batch
    }

    fn read_batch(&mut self) -> Result<Columns> {
        if let Some(rest) = &self.rest {
            rest.check()?;
        }
        loop {
            while let Some(first) = self.open.front_mut() {
                if !first.is_read(self.limits) {
                    break;
                }
                if let Some(batch) = first.take() {
                    self.suit(&batch);
                    return Ok(batch);
                }
                if let Some(failure) = first.failure.take() {
                    return Err(failure);
                }
                self.open.pop_front();
            }
            while self.open.len() < self.threads
                && let Some(rest) = &mut self.rest
                && let Some(part) = rest.next_part(self.part_rows)?
            {
                self.open.push_back(Part::of(part));
            }
            if self.open.is_empty() {
                return Ok(Columns::default());
            }
            self.read()?;
        }
    }

    /// Reads on in all parts that have no batch.
    fn read(&mut self) -> Result<()> {
        let limits = self.limits;
        let unread: Vec<_> = self.open.iter_mut().filter(|part| !part.is_read(limits)).map(Mutex::new).collect();
        parallel::map(&unread, self.threads, |part| part.lock().unwrap_or_else(PoisonError::into_inner).read(limits))?;
        Ok(())
    }

    /// Makes the next parts so large that one is a batch, of half of the bytes that it may have.
    fn suit(&mut self, batch: &Columns) {
        let bytes = (batch.text_bytes() as u64).max(1);
        let rows = (self.limits.text_bytes as u64 / 2).saturating_mul(batch.len() as u64) / bytes;
        self.part_rows = rows.max(LEAST_PART_ROWS).min(self.most_part_rows);
    }
}

impl Part {
    fn of(origin: Box<dyn Origin>) -> Self {
        Self { origin: Some(origin), columns: Columns::default(), failure: None }
    }

    /// Whether there is a batch, or no more to come.
    fn is_read(&self, limits: Limits) -> bool {
        self.origin.is_none() || self.columns.len() >= limits.rows || self.columns.text_bytes() >= limits.text_bytes
    }

    /// What was read.
    fn take(&mut self) -> Option<Columns> {
        let batch = mem::take(&mut self.columns);
        (batch.len() > 0).then_some(batch)
    }

    /// Reads on until there is a batch, or no more. An error if that was interrupted.
    fn read(&mut self, limits: Limits) -> Result<()> {
        while let Some(origin) = &mut self.origin
            && self.columns.len() < limits.rows
            && self.columns.text_bytes() < limits.text_bytes
        {
            let columns = &mut self.columns;
            let is_more = origin.each_raw(&mut |row| {
                columns.push(row);
                let is_batch = columns.len() >= limits.rows || columns.text_bytes() >= limits.text_bytes;
                Ok(if is_batch { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            });
            match is_more {
                Ok(true) => {}
                Ok(false) => self.origin = None,
                Err(error) if is_repeatable(&error) => return Err(error),
                Err(error) => self.fail(error),
            }
        }
        if let Err(error) = self.columns.check() {
            self.fail(error);
        }
        Ok(())
    }

    /// Gives up the batch that was begun.
    fn fail(&mut self, error: Error) {
        (self.origin, self.columns, self.failure) = (None, Columns::default(), Some(error));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::base::interrupt::{Scope, check};

    /// Rows with the ids of a range, of which one cannot be read, or whose reading is looked at for interruptions.
    #[derive(Clone, Default)]
    struct Numbers {
        next: i64,
        end: i64,
        text: &'static str,
        wrong: Option<i64>,
        pause: Duration,
        /// How often rows were asked for.
        asked: Arc<AtomicUsize>,
    }

    impl Origin for Numbers {
        fn each_raw(&mut self, visit: &mut dyn FnMut(RawRow<'_>) -> Result<ControlFlow<()>>) -> Result<bool> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            while self.next < self.end {
                check()?;
                if self.wrong == Some(self.next) {
                    return Err(Error::Internal);
                }
                std::thread::sleep(self.pause);
                let texts = (&b"s"[..], &b"t"[..], None, Some(self.text.as_bytes()));
                self.next += 1;
                if visit(RawRow { id: self.next - 1, timestamp: 0, texts })?.is_break() {
                    return Ok(true);
                }
            }
            Ok(false)
        }
    }

    impl Divisible for Numbers {
        fn next_part(&mut self, rows: u64) -> Result<Option<Box<dyn Origin>>> {
            let rows = i64::try_from(rows).unwrap();
            let part = Self { end: self.end.min(self.next + rows), ..self.clone() };
            self.next = part.end;
            Ok((part.next < part.end).then(|| Box::new(part) as Box<dyn Origin>))
        }

        fn check(&self) -> Result<()> {
            Ok(())
        }
    }

    /// The ids of each batch until the end or an error.
    fn batches(parts: &mut Parts) -> (Vec<Vec<i64>>, Option<Error>) {
        let mut found = Vec::new();
        loop {
            match parts.next_batch() {
                Ok(batch) if batch.len() == 0 => return (found, None),
                Ok(batch) => found.push(batch.ids().to_vec()),
                Err(error) => return (found, Some(error)),
            }
        }
    }

    #[test]
    fn parts_give_the_rows_in_order_in_batches_within_the_limits() {
        let (text, long) = ("x".repeat(300).leak(), "x".repeat(40_000).leak());
        for threads in [1, 2, 4] {
            for (text, count) in [("", 50_000), (text, 70_000), (long, 3_000)] {
                for batch_rows in [700, 9_000, 100_000] {
                    let numbers = Numbers { end: count, text, ..Numbers::default() };
                    let mut parts = Parts::divided(Box::new(numbers), threads, batch_rows);
                    let (found, failure) = batches(&mut parts);
                    assert!(failure.is_none());
                    let most = batch_rows.min((32 << 20) / threads / text.len().max(1) + 1);
                    assert!(found.iter().all(|batch| batch.len() <= most));
                    assert_eq!(found.concat(), (0..count).collect::<Vec<_>>());
                }
            }
        }
    }

    #[test]
    fn a_thread_that_reads_a_part_reads_all_of_it() {
        for batch_rows in [2_048, 16_384, 65_536] {
            let numbers = Numbers { end: 300_000, text: "x", ..Numbers::default() };
            let asked = Arc::clone(&numbers.asked);
            let (found, _) = batches(&mut Parts::divided(Box::new(numbers), 2, batch_rows));
            assert_eq!(asked.load(Ordering::Relaxed), found.len());
        }
    }

    #[test]
    fn the_rows_before_an_error_come_first_and_it_is_the_end() {
        for threads in [1, 2, 4] {
            for wrong in [0, 16_384, 20_000, 40_000] {
                let numbers = Numbers { end: 60_000, text: "x", wrong: Some(wrong), ..Numbers::default() };
                let mut parts = Parts::divided(Box::new(numbers), threads, 20_000);
                let (found, failure) = batches(&mut parts);
                assert!(matches!(failure, Some(Error::Internal)));
                // Those of the part with the error are not returned.
                let found = found.concat();
                assert!(found.iter().copied().eq(0..i64::try_from(found.len()).unwrap()));
                assert!(found.len() as i64 <= wrong && found.len() as i64 + 20_000 > wrong, "{wrong}: {}", found.len());
                assert_eq!(batches(&mut parts).0.len(), 0);
            }
        }
    }

    #[test]
    fn parts_that_are_interrupted_go_on_where_they_were() {
        let pause = Duration::from_micros(50);
        let numbers = Numbers { end: 5_000, text: "x", pause, ..Numbers::default() };
        let mut parts = Parts::divided(Box::new(numbers), 3, 1_000);
        let (mut found, mut interruptions) = (Vec::new(), 0);
        loop {
            let deadline = Some(Instant::now() + Duration::from_millis(20));
            match (Scope { deadline, ..Scope::default() }).enter(|| parts.next_batch()) {
                Ok(batch) if batch.len() == 0 => break,
                Ok(batch) => found.extend_from_slice(batch.ids()),
                Err(error) => {
                    assert!(matches!(error, Error::TimedOut), "{error}");
                    interruptions += 1;
                    assert!(interruptions < 1_000);
                }
            }
        }
        assert!(interruptions > 2);
        assert_eq!(found, (0..5_000).collect::<Vec<_>>());
    }
}
