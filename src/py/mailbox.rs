//! The outcomes of an event loop's writes, from the threads that commit them to the loop.

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::base::wakeup::Wakeup;
use crate::log::Done;

/// What became of a batch: of each of its works, unless the whole commit failed.
pub(super) type Outcome = crate::Result<Vec<crate::Result<Done>>>;

/// Outcomes that the loop has not taken in yet, by the number of the batch.
pub(super) struct Mailbox {
    outcomes: Mutex<Vec<(u64, Outcome)>>,
    /// Raised from when the first outcome arrives until they are taken.
    news: Wakeup,
}

impl Mailbox {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self { outcomes: Mutex::default(), news: Wakeup::new()? })
    }

    /// Readable when there are outcomes.
    pub(super) fn descriptor(&self) -> RawFd {
        self.news.as_fd().as_raw_fd()
    }

    fn outcomes(&self) -> MutexGuard<'_, Vec<(u64, Outcome)>> {
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn put(&self, batch: u64, outcome: Outcome) {
        let mut outcomes = self.outcomes();
        outcomes.push((batch, outcome));
        let is_first = outcomes.len() == 1;
        drop(outcomes);
        if is_first {
            self.news.raise();
        }
    }

    /// The outcomes that have arrived. The descriptor first: what arrives after it raises it again.
    pub(super) fn empty(&self) -> Vec<(u64, Outcome)> {
        self.news.lower();
        std::mem::take(&mut self.outcomes())
    }
}
