//! Waiting for a run that can be claimed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::base::error::Result;
use crate::base::interrupt::INTERVAL;
use crate::db::Watching;
use crate::log::{Core, watch};
use crate::workflow::claim::take::{Take, free_in};

/// A claimant's wait. Commits end it, of this process at once, of others as soon as they are noticed; so does the moment at
/// which a lease runs out or a run may begin. Nothing is read in between.
pub struct Waiting {
    /// None: there is no thread that notices the commits of others, and they are looked for instead.
    watching: Option<Arc<Watching>>,
    /// What the last look found.
    seen: Mutex<Option<Seen>>,
}

#[derive(Clone, Copy)]
struct Seen {
    /// How many changes had been announced.
    changes: u64,
    /// When there may be a run without a further one.
    next: Instant,
}

impl Waiting {
    /// Begins to notice commits.
    pub fn begin(log: &Arc<Core>) -> Self {
        Self { watching: watch(log, INTERVAL), seen: Mutex::new(None) }
    }

    /// Waits up to `timeout` until a claim may take a run; says whether it may.
    pub fn wait(&self, log: &Core, take: &Take, timeout: Duration) -> Result<bool> {
        let end = Instant::now() + timeout;
        loop {
            let now = Instant::now();
            let changes = log.changes().count();
            let is_news = |seen: Seen| seen.changes != changes || seen.next <= now;
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let next = match seen.take().filter(|seen| !is_news(*seen)) {
                Some(seen) => seen.next,
                None => match free_in(log.database(), take)? {
                    Duration::ZERO => return Ok(true),
                    wait if self.watching.is_some() => now + wait,
                    wait => now + wait.min(INTERVAL),
                },
            };
            *seen = Some(Seen { changes, next });
            drop(seen);
            let now = Instant::now();
            if now >= end {
                return Ok(false);
            }
            log.changes().wait(changes, next.min(end).saturating_duration_since(now));
            log.database().check_open()?;
        }
    }
}
