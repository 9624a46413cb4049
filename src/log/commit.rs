//! One commit for many callers.
//!
//! A durable commit costs a flush, so callers share them. Whoever finds no commit under way becomes the leader and
//! commits its own rows; those who come meanwhile queue theirs. The leader then hands over to the first of them, which
//! commits all that is queued at the strongest durability asked for, and so on. A lone caller hands nothing to anybody.
//!
//! Invariants: while anything is queued somebody is leading or has been told to lead, so that no wake-up is lost; rows
//! were checked before they were queued, so that one caller's rows cannot fail another's; the queue is bounded.

use std::any::Any;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

use super::entry::{NewLogEntry, OwnedEntry};
use super::store::Log;
use crate::durable::Durability;
use crate::error::{Error, Result};

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

/// Who waits for rows without blocking a thread.
pub trait Waiter: Send + Sync {
    /// Called once a commit, with the outcome of each token that this waiter gave to [`submit`].
    fn resolve(&self, outcomes: Vec<(u64, Result<Committed>)>);
}

#[derive(Default)]
pub(super) struct Commits {
    state: Mutex<State>,
    /// There may be room in the queue.
    room: Condvar,
    /// The committer thread has been told to lead, or to end.
    committer: Condvar,
}

#[derive(Default)]
struct State {
    queue: Vec<Job>,
    queued_bytes: usize,
    /// Somebody commits, or has been told to.
    is_led: bool,
    is_committer_started: bool,
    /// The committer thread is to lead.
    committer_leads: bool,
    is_ended: bool,
}

struct Job {
    rows: Vec<OwnedEntry>,
    bytes: usize,
    durability: Durability,
    done: Done,
}

enum Done {
    Thread(Arc<Ticket>),
    Waiter(Arc<dyn Waiter>, u64),
}

/// Where a blocked thread learns what became of its rows.
#[derive(Default)]
struct Ticket {
    news: Mutex<Option<News>>,
    arrived: Condvar,
}

enum News {
    Done(Result<i64>),
    Lead,
}

impl Ticket {
    fn tell(&self, news: News) {
        *lock(&self.news) = Some(news);
        self.arrived.notify_one();
    }

    fn wait(&self) -> News {
        let mut news = lock(&self.news);
        loop {
            match news.take() {
                Some(news) => return news,
                None => news = self.arrived.wait(news).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

/// Commits checked rows together with those of other callers; returns the first id.
pub(super) fn commit(log: &Log, rows: &[NewLogEntry<'_>], durability: Durability) -> Result<i64> {
    log.database().check_writable("append")?;
    let commits = log.commits();
    let mut state = lock(&commits.state);
    while state.is_led && state.queued_bytes >= QUEUE_BYTES {
        state = commits.room.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
    if !state.is_led {
        state.is_led = true;
        drop(state);
        return lead(log, Some((rows, durability)));
    }
    let ticket = Arc::new(Ticket::default());
    state.push(Job::new(rows.iter().map(OwnedEntry::from).collect(), durability, Done::Thread(Arc::clone(&ticket))));
    drop(state);
    loop {
        match ticket.wait() {
            News::Done(outcome) => return outcome,
            // Its own rows are in the queue, and their outcome is told through the ticket.
            News::Lead => drop(lead(log, None)),
        }
    }
}

/// Queues checked rows and returns at once; `waiter` learns the outcome from the thread that commits them.
pub fn submit(
    log: &Arc<Log>,
    rows: Vec<OwnedEntry>,
    durability: Option<Durability>,
    waiter: Arc<dyn Waiter>,
    token: u64,
) -> Result<()> {
    log.database().check_writable("append")?;
    let durability = durability.unwrap_or(log.database().config().durability);
    let commits = log.commits();
    let mut state = lock(&commits.state);
    if state.is_ended {
        return Err(Error::Closed { path: log.database().path().to_owned() });
    }
    if !state.is_committer_started {
        start_committer(log)?;
        state.is_committer_started = true;
    }
    state.push(Job::new(rows, durability, Done::Waiter(waiter, token)));
    if !state.is_led {
        state.is_led = true;
        state.committer_leads = true;
        commits.committer.notify_one();
    }
    Ok(())
}

/// The thread that leads when only callers wait that have no thread of their own. It ends with the log.
fn start_committer(log: &Arc<Log>) -> Result<()> {
    let commits = Arc::clone(log.commits());
    let log = Arc::downgrade(log);
    let run = move || {
        while commits.wait_for_committer() {
            match Weak::upgrade(&log) {
                Some(log) => drop(lead(&log, None)),
                None => return,
            }
        }
    };
    let started = std::thread::Builder::new().name("nerve_store-commit".into()).spawn(run);
    started.map(drop).map_err(|error| {
        Error::errno(
            std::path::Path::new(""),
            "start a thread",
            error.raw_os_error().unwrap_or(libc::EAGAIN),
            error.to_string(),
        )
    })
}

impl Commits {
    /// Ends the committer thread, once it has nothing to do.
    pub(super) fn end(&self) {
        lock(&self.state).is_ended = true;
        self.committer.notify_one();
    }

    fn wait_for_committer(&self) -> bool {
        let mut state = lock(&self.state);
        loop {
            if std::mem::take(&mut state.committer_leads) {
                return true;
            }
            if state.is_ended {
                return false;
            }
            state = self.committer.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn take_queue(&self) -> Vec<Job> {
        let mut state = lock(&self.state);
        state.queued_bytes = 0;
        let queue = std::mem::take(&mut state.queue);
        self.room.notify_all();
        queue
    }

    /// Hands the lead over to somebody whose rows are queued, or gives it up; says whether the caller keeps it, because
    /// those who wait have no thread and the committer has ended.
    fn hand_over(&self) -> bool {
        let mut state = lock(&self.state);
        let threads = state.queue.iter().find_map(|job| match &job.done {
            Done::Thread(ticket) => Some(ticket),
            Done::Waiter(..) => None,
        });
        if let Some(ticket) = threads {
            ticket.tell(News::Lead);
        } else if state.queue.is_empty() {
            state.is_led = false;
            // Whoever waited for room finds nobody leading.
            self.room.notify_all();
        } else if state.is_ended {
            return true;
        } else {
            state.committer_leads = true;
            self.committer.notify_one();
        }
        false
    }
}

impl State {
    fn push(&mut self, job: Job) {
        self.queued_bytes += job.bytes;
        self.queue.push(job);
    }
}

impl Job {
    fn new(rows: Vec<OwnedEntry>, durability: Durability, done: Done) -> Self {
        let bytes = rows.iter().map(|row| row.borrow().text_bytes() + ROW_BYTES).sum();
        Self { rows, bytes, durability, done }
    }
}

/// Commits as the leader, and hands over; returns the first id of the leader's own rows.
fn lead(log: &Log, own: Option<(&[NewLogEntry<'_>], Durability)>) -> Result<i64> {
    let (outcome, mut panic) = commit_queue(log, own);
    while log.commits().hand_over() {
        let (_, next) = commit_queue(log, None);
        panic = panic.or(next);
    }
    match panic {
        Some(panic) => resume_unwind(panic),
        None => outcome,
    }
}

/// Commits the leader's own rows and all that is queued in one transaction and tells everybody; returns the first id of
/// the leader's own rows, and what a panic left.
fn commit_queue(
    log: &Log,
    own: Option<(&[NewLogEntry<'_>], Durability)>,
) -> (Result<i64>, Option<Box<dyn Any + Send>>) {
    let jobs = log.commits().take_queue();
    let durability = jobs.iter().map(|job| job.durability).chain(own.map(|(_, durability)| durability)).max();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        log.write("append", durability, |transaction| {
            let own = own.map_or(Ok(0), |(rows, _)| transaction.insert(rows).map(|last| first_of(last, rows.len())))?;
            let mut firsts = Vec::with_capacity(jobs.len());
            let mut rows = Vec::new();
            for job in &jobs {
                rows.extend(job.rows.iter().map(OwnedEntry::borrow));
                firsts.push(rows.len());
            }
            // All in one go, so that small jobs share statements as large ones do.
            let last = transaction.insert(&rows)?;
            let first = first_of(last, rows.len());
            let firsts: Vec<i64> = firsts
                .iter()
                .zip(&jobs)
                .map(|(end, job)| first + (end - job.rows.len()).cast_signed() as i64)
                .collect();
            Ok((own, firsts))
        })
    }));
    let (outcome, panic) = match outcome {
        Ok(outcome) => (outcome, None),
        Err(panic) => (Err(Error::Internal), Some(panic)),
    };
    let (own, firsts) = match outcome {
        Ok((own, firsts)) => (Ok(own), Ok(firsts)),
        Err(error) => (Err(error.clone()), Err(error)),
    };
    tell(jobs, firsts);
    (own, panic)
}

fn tell(jobs: Vec<Job>, firsts: Result<Vec<i64>>) {
    // By the waiter's address: one call a commit for each.
    let mut waiters: HashMap<*const (), (Arc<dyn Waiter>, Vec<_>)> = HashMap::new();
    for (index, job) in jobs.into_iter().enumerate() {
        let first = firsts.as_ref().map(|firsts| firsts[index]).map_err(Error::clone);
        match job.done {
            Done::Thread(ticket) => ticket.tell(News::Done(first)),
            Done::Waiter(waiter, token) => {
                let outcome = first.map(|first_id| Committed { first_id, rows: job.rows });
                let address = Arc::as_ptr(&waiter).cast::<()>();
                waiters.entry(address).or_insert_with(|| (waiter, Vec::new())).1.push((token, outcome));
            }
        }
    }
    for (waiter, outcomes) in waiters.into_values() {
        waiter.resolve(outcomes);
    }
}

/// One writer at a time gives out ids one by one, so those of a transaction are consecutive.
pub(super) fn first_of(last: i64, count: usize) -> i64 {
    last - i64::try_from(count).unwrap_or(i64::MAX) + 1
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
