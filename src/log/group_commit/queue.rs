//! Who leads, who waits and who is told, where callers share their work: at any time one of them does all there is.
//!
//! It knows nothing of rows and databases, so that loom can try all its interleavings (`models.rs`).
//!
//! Invariants: while anything is queued, somebody leads or has been told to, so that no wake-up is lost; each job is
//! taken by one leader, once; the queue is bounded.

use crate::log::group_commit::sync::{Arc, Condvar, Mutex, lock, wait};

/// `R`: what is queued. `O`: what a blocked thread is told. `W`: who waits without a thread.
pub(crate) struct Queue<R, O, W> {
    state: Mutex<State<R, O, W>>,
    /// There is room in the queue.
    room: Condvar,
    /// A committer thread has been told to lead, or all to end.
    committer: Condvar,
    /// Bytes that may be queued before further threads wait for room.
    limit: usize,
}

struct State<R, O, W> {
    jobs: Vec<Job<R, O, W>>,
    bytes: usize,
    /// Somebody leads, or has been told to.
    is_led: bool,
    is_committer_started: bool,
    /// The committer thread is to lead.
    committer_leads: bool,
    is_ended: bool,
}

/// Something to do, and who wants to know what became of it.
pub(crate) struct Job<R, O, W> {
    pub(crate) rows: R,
    pub(crate) done: Done<O, W>,
}

pub(crate) enum Done<O, W> {
    Thread(Arc<Ticket<O>>),
    Waiter(W),
}

/// What became of work that was submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Submitted {
    /// The leader takes it, or a committer thread.
    Queued,
    /// There is no committer thread: the caller is to [`Queue::lead`].
    Leads,
    /// The queue has ended.
    Refused,
}

/// What a leader did.
pub(crate) struct Flushed<O> {
    /// The outcome of its own rows.
    pub(crate) own: O,
    /// The outcomes of the threads whose jobs it took. Waiters have been told already.
    pub(crate) threads: Vec<Told<O>>,
}

/// What a blocked thread is to be told.
pub(crate) type Told<O> = (Arc<Ticket<O>>, O);

/// Where a blocked thread learns what became of its job.
pub(crate) struct Ticket<O> {
    news: Mutex<Option<News<O>>>,
    arrived: Condvar,
}

enum News<O> {
    Done(O),
    Lead,
}

impl<O> Ticket<O> {
    fn new() -> Self {
        Self { news: Mutex::new(None), arrived: Condvar::new() }
    }

    fn tell(&self, news: News<O>) {
        *lock(&self.news) = Some(news);
        self.arrived.notify_one();
    }

    fn wait(&self) -> News<O> {
        let mut news = lock(&self.news);
        loop {
            match news.take() {
                Some(news) => return news,
                None => news = wait(&self.arrived, news),
            }
        }
    }
}

impl<R, O, W> Queue<R, O, W> {
    pub(crate) fn new(limit: usize) -> Self {
        let state = State {
            jobs: Vec::new(),
            bytes: 0,
            is_led: false,
            is_committer_started: false,
            committer_leads: false,
            is_ended: false,
        };
        Self { state: Mutex::new(state), room: Condvar::new(), committer: Condvar::new(), limit }
    }

    /// Does the work together with that of other callers, blocking. If somebody leads already, what `queued` makes of
    /// it, rows and their bytes, is queued.
    pub(crate) fn run<T>(
        &self,
        own: T,
        queued: impl FnOnce(T) -> (R, usize),
        flush: &mut impl FnMut(Option<T>, Vec<Job<R, O, W>>) -> Flushed<O>,
    ) -> O {
        let mut state = lock(&self.state);
        while state.is_led && state.bytes >= self.limit {
            state = wait(&self.room, state);
        }
        if !state.is_led {
            state.is_led = true;
            drop(state);
            return self.lead(Some(own), flush);
        }
        let ticket = Arc::new(Ticket::new());
        let (rows, bytes) = queued(own);
        state.push(Job { rows, done: Done::Thread(Arc::clone(&ticket)) }, bytes);
        drop(state);
        loop {
            match ticket.wait() {
                News::Done(outcome) => return outcome,
                // Its own job is in the queue, and its outcome is told through the ticket.
                News::Lead => drop(self.lead(None, flush)),
            }
        }
    }

    /// Queues work and returns at once. `start` starts the committer threads, which lead whenever
    /// [`Self::wait_for_lead`] says so; false if no thread is to be had.
    pub(crate) fn submit(&self, rows: R, bytes: usize, waiter: W, start: impl FnOnce() -> bool) -> Submitted {
        let mut state = lock(&self.state);
        if state.is_ended {
            return Submitted::Refused;
        }
        if !state.is_committer_started {
            state.is_committer_started = start();
        }
        state.push(Job { rows, done: Done::Waiter(waiter) }, bytes);
        if state.is_led {
            return Submitted::Queued;
        }
        state.is_led = true;
        if !state.is_committer_started {
            return Submitted::Leads;
        }
        state.committer_leads = true;
        drop(state);
        self.committer.notify_one();
        Submitted::Queued
    }

    /// Has `flush` do the leader's own work, if there is any, and all that is queued; hands over; tells the threads.
    /// In this order, so that the next flush does not wait for wake-ups.
    pub(crate) fn lead<T>(
        &self,
        own: Option<T>,
        flush: &mut impl FnMut(Option<T>, Vec<Job<R, O, W>>) -> Flushed<O>,
    ) -> O {
        let Flushed { own, mut threads } = flush(own, self.take());
        loop {
            let keeps = self.hand_over();
            for (ticket, outcome) in threads {
                ticket.tell(News::Done(outcome));
            }
            if !keeps {
                return own;
            }
            threads = flush(None, self.take()).threads;
        }
    }

    /// Waits, in a committer thread, until it is to lead; false: it is to end.
    pub(crate) fn wait_for_lead(&self) -> bool {
        let mut state = lock(&self.state);
        loop {
            if std::mem::take(&mut state.committer_leads) {
                return true;
            }
            if state.is_ended {
                return false;
            }
            state = wait(&self.committer, state);
        }
    }

    /// Ends the committer threads, once they have nothing to do, and refuses what would need it.
    pub(crate) fn end(&self) {
        lock(&self.state).is_ended = true;
        self.committer.notify_all();
    }

    fn take(&self) -> Vec<Job<R, O, W>> {
        let mut state = lock(&self.state);
        if std::mem::take(&mut state.bytes) >= self.limit {
            self.room.notify_all();
        }
        std::mem::take(&mut state.jobs)
    }

    /// Hands the lead over to somebody whose job is queued, or gives it up; says whether the caller keeps it, because
    /// those who wait have no thread and there is no committer.
    fn hand_over(&self) -> bool {
        let mut state = lock(&self.state);
        let thread = state.jobs.iter().find_map(|job| match &job.done {
            Done::Thread(ticket) => Some(Arc::clone(ticket)),
            Done::Waiter(_) => None,
        });
        if let Some(ticket) = thread {
            drop(state);
            ticket.tell(News::Lead);
        } else if state.jobs.is_empty() {
            state.is_led = false;
        } else if state.is_ended || !state.is_committer_started {
            return true;
        } else {
            state.committer_leads = true;
            drop(state);
            self.committer.notify_one();
        }
        false
    }
}

impl<R, O, W> State<R, O, W> {
    fn push(&mut self, job: Job<R, O, W>, bytes: usize) {
        self.bytes += bytes;
        self.jobs.push(job);
    }
}
