//! One commit for many callers.
//!
//! A durable commit costs a flush, so callers share them. A caller that finds no commit under way becomes the leader and
//! commits its own rows; callers that come meanwhile queue theirs. The leader then hands over to the first of them, which
//! commits its own rows and all that are queued, and so on. A lone caller hands over to no other.
//! Who leads and who is told is `queue`'s business; this module knows what a commit is.
//!
//! Invariants: rows were checked before they were queued, so that one caller's rows cannot fail another's. A leader takes
//! the others' rows once its transaction has begun, so that a caller that waits for another process's lock can be
//! interrupted, whichever thread waits for it; from then on nothing interrupts the commit.

mod queue;
mod sync;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use crate::base::error::{Error, Result};
use crate::base::interrupt::{check_wait, is_interruptible, shielded};
use crate::db::CHECKPOINT_PAGES;
use crate::durable::Durability;
use crate::log::core::Core;
use crate::log::group_commit::queue::{Done, Flushed, Patience, Queue, Submitted, Told};
use crate::log::insert::first_of;
use crate::row::{NewLogEntry, OwnedEntry};

/// Texts that may wait in the queue before further callers wait for room.
const QUEUE_BYTES: usize = 16 << 20;
/// What a row costs in the queue besides its texts.
const ROW_BYTES: usize = 128;

/// Rows that were committed.
pub struct Committed {
    /// The id of the first; the others follow one by one.
    pub first_id: i64,
    /// The rows.
    pub rows: Vec<OwnedEntry>,
}

/// Tells a caller that blocks no thread what became of its rows; called by the thread that committed them.
pub type Waiter = Box<dyn FnOnce(Result<Committed>) + Send>;

/// The commits of one log.
pub(crate) struct GroupCommit {
    core: Arc<Core>,
    queue: Queue<Rows, Result<i64>, Waiter>,
}

type Job = queue::Job<Rows, Result<i64>, Waiter>;
type Panic = Box<dyn Any + Send>;

/// A caller's rows, checked.
struct Rows {
    rows: Vec<OwnedEntry>,
    durability: Durability,
}

/// The leader's own rows, which are not copied.
type Own<'a> = (&'a [NewLogEntry<'a>], Durability);

impl GroupCommit {
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self { core, queue: Queue::new(QUEUE_BYTES) }
    }

    /// Ends the committer threads, once they have nothing to do.
    pub(super) fn end(&self) {
        self.queue.end();
    }

    /// Commits checked rows together with those of other callers; returns the first id.
    pub(super) fn commit(&self, rows: &[NewLogEntry<'_>], durability: Durability) -> Result<i64> {
        self.core.database().check_writable("append")?;
        let queued = |(rows, durability): Own<'_>| {
            let rows: Vec<_> = rows.iter().map(OwnedEntry::from).collect();
            let bytes = bytes_of(&rows);
            (Rows { rows, durability }, bytes)
        };
        let mut panic = None;
        let first_id =
            self.queue.run((rows, durability), queued, &mut |own| self.flush(own, &mut panic), &Interruptible);
        // The lead is handed over by now, so that a panic in a commit stops no other caller.
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
        self.core.database().checkpoint_if_due(CHECKPOINT_PAGES);
        first_id
    }

    /// Queues checked rows and returns at once; `waiter` is called with their outcome, unless this fails. True: no thread is
    /// to be had that commits them, and the caller is to call [`Self::lead`].
    pub(super) fn submit(
        self: &Arc<Self>,
        rows: Vec<OwnedEntry>,
        durability: Durability,
        waiter: Waiter,
    ) -> Result<bool> {
        self.core.database().check_writable("append")?;
        let bytes = bytes_of(&rows);
        match self.queue.submit(Rows { rows, durability }, bytes, waiter, || self.start_committers()) {
            Submitted::Queued => Ok(false),
            Submitted::Leads => Ok(true),
            Submitted::Refused => Err(Error::Closed { path: self.core.database().path().to_owned() }),
        }
    }

    /// Commits what is queued. A panic is told to those who wait, as an error.
    pub(super) fn lead(&self) {
        drop(self.queue.lead(None, &mut |own| self.flush(own, &mut None)));
        self.core.database().checkpoint_if_due(CHECKPOINT_PAGES);
    }

    /// Threads that lead when only callers wait that have no thread of their own: one, while the other runs a
    /// checkpoint. They end with the log. False if there is none.
    fn start_committers(self: &Arc<Self>) -> bool {
        let is_started = self.start_committer();
        if is_started {
            // Without the second one the callers wait for checkpoints.
            self.start_committer();
        }
        is_started
    }

    fn start_committer(self: &Arc<Self>) -> bool {
        let commits = Arc::clone(self);
        let run = move || {
            while commits.queue.wait_for_lead() {
                commits.lead();
            }
        };
        std::thread::Builder::new().name("nerve_store-commit".into()).spawn(run).is_ok()
    }

    /// Commits the leader's own rows and what is queued in one transaction, and tells the callers that wait without a
    /// thread.
    fn flush(&self, own: Option<Own<'_>>, panic: &mut Option<Panic>) -> Flushed<Result<i64>> {
        let mut durability = own.map(|(_, durability)| durability);
        let end = self.queue.look(|rows| durability = durability.max(Some(rows.durability)));
        let durability = durability.unwrap_or(Durability::Normal);
        let mut jobs = Vec::new();
        let mut write = || {
            catch_unwind(AssertUnwindSafe(|| self.write(own, durability, &mut jobs))).unwrap_or_else(|caught| {
                *panic = Some(caught);
                Err(Error::Internal)
            })
        };
        // A leader without rows of its own works for others, which its interruptions do not concern.
        let outcome = if own.is_some() { write() } else { shielded(write) };
        let (own, firsts) = match outcome {
            Ok((own, firsts)) => (Ok(own), Ok(firsts)),
            Err(error) => (Err(error.clone()), Err(error)),
        };
        let is_interrupted = matches!(own, Err(Error::Paused | Error::Cancelled | Error::TimedOut));
        if own.is_err() && jobs.is_empty() && !is_interrupted {
            // They have waited as long as the leader.
            jobs = self.queue.take_before(end);
        }
        Flushed { own, threads: tell(jobs, &firsts) }
    }

    /// Commits; returns the first id of the leader's own rows, and that of each of `jobs`, which it takes from the queue.
    fn write(&self, own: Option<Own<'_>>, durability: Durability, jobs: &mut Vec<Job>) -> Result<(i64, Vec<i64>)> {
        self.core.commit("append", Some(durability), |transaction| {
            shielded(|| {
                // Jobs that ask for more than the transaction was begun with have arrived since, and wait for the next.
                *jobs = self.queue.take(|rows| rows.durability <= durability);
                let own =
                    own.map_or(Ok(0), |(rows, _)| transaction.insert(rows).map(|last| first_of(last, rows.len())))?;
                // All in one go, so that small jobs share statements as large ones do.
                let rows: Vec<_> = jobs.iter().flat_map(|job| job.rows.rows.iter().map(OwnedEntry::borrow)).collect();
                let last = transaction.insert(&rows)?;
                let mut next = first_of(last, rows.len());
                let firsts = jobs.iter().map(|job| {
                    let first = next;
                    next += job.rows.rows.len().cast_signed() as i64;
                    first
                });
                Ok((own, firsts.collect()))
            })
        })
    }
}

/// A caller waits until its call is interrupted.
struct Interruptible;

impl Patience<Result<i64>> for Interruptible {
    fn is_limited(&self) -> bool {
        is_interruptible()
    }

    fn ended(&self) -> Option<Result<i64>> {
        check_wait().err().map(Err)
    }
}

/// Tells the waiters; returns what the threads are to be told.
fn tell(jobs: Vec<Job>, firsts: &Result<Vec<i64>>) -> Vec<Told<Result<i64>>> {
    let mut threads = Vec::new();
    for (index, Job { rows: Rows { rows, .. }, done, .. }) in jobs.into_iter().enumerate() {
        let first = firsts.as_ref().map(|firsts| firsts[index]).map_err(Error::clone);
        match done {
            Done::Thread(ticket) => threads.push((ticket, first)),
            Done::Waiter(waiter) => waiter(first.map(|first_id| Committed { first_id, rows })),
        }
    }
    threads
}

fn bytes_of(rows: &[OwnedEntry]) -> usize {
    rows.iter().map(|row| row.borrow().text_bytes() + ROW_BYTES).sum()
}

#[cfg(all(test, loom))]
mod models;
#[cfg(test)]
mod tests;
