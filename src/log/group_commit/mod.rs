//! One commit for many callers.
//!
//! A durable commit costs a flush, so callers share them. A caller that finds no commit under way becomes the leader and
//! commits its own rows; callers that come meanwhile queue theirs. The leader then hands over to the first of them, which
//! commits its own rows and all that are queued, and so on. A lone caller hands over to no other.
//! Who leads and who is told is `queue`'s business; this module knows what a commit is.
//!
//! Invariants: rows were checked before they were queued, and an operation that is refused has changed nothing, so
//! that one caller cannot fail another. All share an error of the commit itself. A leader takes the others' work
//! once its transaction has begun, so that a caller that waits for another process's lock can be interrupted,
//! whichever thread waits for it; from then on nothing interrupts the commit.

mod queue;
mod sync;
mod write;

pub(super) use write::{Outcome, Own};

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use crate::base::error::{Error, Result};
use crate::base::interrupt::{check_wait, is_interruptible, shielded};
use crate::db::CHECKPOINT_PAGES;
use crate::durable::Durability;
use crate::log::core::Core;
use crate::log::group_commit::queue::{Done as Told, Flushed, Patience, Queue, Submitted, Told as ToldThread};
use crate::log::group_commit::write::{apply, apply_own};
use crate::log::operation::{Done, Work};
use crate::row::OwnedEntry;

/// Texts that may wait in the queue before further callers wait for room.
const QUEUE_BYTES: usize = 16 << 20;
/// What a row or an operation costs in the queue besides its texts.
const ROW_BYTES: usize = 128;

/// Tells a caller that blocks no thread what became of its works, in their order; called by the thread that committed
/// them. The outer error is of the whole commit.
pub type Waiter = Box<dyn FnOnce(Result<Vec<Result<Done>>>) + Send>;

/// The commits of one log.
pub(crate) struct GroupCommit {
    core: Arc<Core>,
    queue: Queue<Submission, Result<Outcome>, Waiter>,
}

type Job = queue::Job<Submission, Result<Outcome>, Waiter>;
type Panic = Box<dyn Any + Send>;

/// What a caller has to be committed, checked.
struct Submission {
    works: Works,
    durability: Durability,
}

/// A thread has one work, an event loop all of a turn.
enum Works {
    One(Work),
    Many(Vec<Work>),
}

impl Works {
    fn all(&self) -> &[Work] {
        match self {
            Self::One(work) => std::slice::from_ref(work),
            Self::Many(works) => works,
        }
    }
}

impl GroupCommit {
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self { core, queue: Queue::new(QUEUE_BYTES) }
    }

    /// Ends the committer threads, once they have nothing to do.
    pub(super) fn end(&self) {
        self.queue.end();
    }

    /// Commits a caller's work together with that of other callers.
    pub(super) fn commit(&self, own: Own<'_>, durability: Durability) -> Result<Outcome> {
        self.core.database().check_writable(own.name())?;
        let queued = |(own, durability): (Own<'_>, Durability)| {
            let work = own.to_work();
            let bytes = bytes_of(&work);
            (Submission { works: Works::One(work), durability }, bytes)
        };
        let mut panic = None;
        let outcome = self.queue.run((own, durability), queued, &mut |own| self.flush(own, &mut panic), &Interruptible);
        // The lead is handed over by now, so that a panic in a commit stops no other caller.
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
        self.core.database().checkpoint_if_due(CHECKPOINT_PAGES);
        outcome
    }

    /// Queues works and returns at once; `waiter` is called with their outcomes, unless this fails. True: no thread is
    /// to be had that commits them, and the caller is to call [`Self::lead`].
    pub(super) fn submit(self: &Arc<Self>, works: Vec<Work>, durability: Durability, waiter: Waiter) -> Result<bool> {
        self.core.database().check_writable("append")?;
        let bytes = works.iter().map(bytes_of).sum();
        let submission = Submission { works: Works::Many(works), durability };
        match self.queue.submit(submission, bytes, waiter, || self.start_committers()) {
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

    /// Commits the leader's own work and what is queued in one transaction, and tells the callers that wait without a
    /// thread.
    fn flush(&self, own: Option<(Own<'_>, Durability)>, panic: &mut Option<Panic>) -> Flushed<Result<Outcome>> {
        let mut durability = own.map(|(_, durability)| durability);
        let end = self.queue.look(|submission| durability = durability.max(Some(submission.durability)));
        let durability = durability.unwrap_or(Durability::Normal);
        let own = own.map(|(own, _)| own);
        let mut jobs = Vec::new();
        let mut write = || {
            catch_unwind(AssertUnwindSafe(|| self.write(own, durability, &mut jobs))).unwrap_or_else(|caught| {
                *panic = Some(caught);
                Err(Error::Internal)
            })
        };
        // A leader without work of its own works for others, which its interruptions do not concern.
        let outcome = if own.is_some() { write() } else { shielded(write) };
        let (own, outcomes) = match outcome {
            Ok((own, outcomes)) => (own, Ok(outcomes)),
            Err(error) => (Err(error.clone()), Err(error)),
        };
        let is_interrupted = matches!(own, Err(Error::Paused | Error::Cancelled | Error::TimedOut));
        if outcomes.is_err() && jobs.is_empty() && !is_interrupted {
            // They have waited as long as the leader.
            jobs = self.queue.take_before(end);
        }
        Flushed { own, threads: tell(jobs, outcomes) }
    }

    /// Commits; returns the outcome of the leader's own work, and those of the works of `jobs`, which it takes from
    /// the queue.
    fn write(
        &self,
        own: Option<Own<'_>>,
        durability: Durability,
        jobs: &mut Vec<Job>,
    ) -> Result<(Result<Outcome>, Vec<Result<Outcome>>)> {
        let name = own.map_or("append", |own| own.name());
        self.core.commit(name, Some(durability), |transaction| {
            shielded(|| {
                // Jobs that ask for more than the transaction was begun with have arrived since, and wait for the next.
                *jobs = self.queue.take(|submission| submission.durability <= durability);
                let own = own.map_or(Ok(Ok(Outcome::First(0))), |own| apply_own(transaction, own))?;
                let works = jobs.iter().flat_map(|job| job.rows.works.all());
                Ok((own, apply(transaction, works)?))
            })
        })
    }
}

/// A caller waits until its call is interrupted.
struct Interruptible;

impl Patience<Result<Outcome>> for Interruptible {
    fn is_limited(&self) -> bool {
        is_interruptible()
    }

    fn ended(&self) -> Option<Result<Outcome>> {
        check_wait().err().map(Err)
    }
}

/// Tells the waiters; returns what the threads are to be told. `outcomes`: of the works of all jobs.
fn tell(jobs: Vec<Job>, outcomes: Result<Vec<Result<Outcome>>>) -> Vec<ToldThread<Result<Outcome>>> {
    let mut threads = Vec::new();
    let mut outcomes = outcomes.map(Vec::into_iter);
    for Job { rows: Submission { works, .. }, done, .. } in jobs {
        let mut next = || match &mut outcomes {
            Ok(outcomes) => outcomes.next().unwrap_or(Err(Error::Internal)),
            Err(error) => Err(error.clone()),
        };
        match (done, works) {
            (Told::Thread(ticket), _) => threads.push((ticket, next())),
            (Told::Waiter(waiter), works) => {
                let works = match works {
                    Works::One(work) => vec![work],
                    Works::Many(works) => works,
                };
                let done: Vec<_> = works.into_iter().map(|work| Ok(next()?.of(work))).collect();
                waiter(match &outcomes {
                    Ok(_) => Ok(done),
                    Err(error) => Err(error.clone()),
                });
            }
        }
    }
    threads
}

fn bytes_of(work: &Work) -> usize {
    match work {
        Work::Rows(rows) => bytes_of_rows(rows),
        Work::Operation(operation) => operation.size() + ROW_BYTES,
    }
}

fn bytes_of_rows(rows: &[OwnedEntry]) -> usize {
    rows.iter().map(|row| row.borrow().text_bytes() + ROW_BYTES).sum()
}

#[cfg(all(test, loom))]
mod models;
#[cfg(test)]
mod tests;
