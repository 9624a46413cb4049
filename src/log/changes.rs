//! How followers learn of this process's commits.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// How followers hear of this process's commits.
#[derive(Default)]
pub(crate) struct Changes {
    pub(crate) waiting: AtomicUsize,
    count: Mutex<u64>,
    changed: Condvar,
}

impl Changes {
    pub(crate) fn announce(&self) {
        // A follower that is not counted yet has not looked at the log yet, and will see the change there.
        if self.waiting.load(Ordering::SeqCst) > 0 {
            *self.count.lock().unwrap_or_else(PoisonError::into_inner) += 1;
            self.changed.notify_all();
        }
    }

    pub(crate) fn count(&self) -> u64 {
        *self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn wait(&self, known: u64, timeout: Duration) {
        let count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.changed.wait_timeout_while(count, timeout, |count| *count == known));
    }
}
