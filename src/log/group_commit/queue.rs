//! Who leads, who waits and who is told, where callers share their work: at any time one of them does all there is.
//!
//! It knows nothing of rows and databases, so that loom can try all its interleavings (`models.rs`).
//!
//! Invariants: while anything is queued, one caller leads or has been told to, so that no wake-up is lost; each job is
//! taken by one leader, once, or withdrawn by its own caller, once; the queue is bounded.
//!
//! A caller that leads takes its own job out of the queue first. A caller that is interrupted while it waits, or while
//! its flush waits to begin, therefore leaves nothing behind that another could still take.

use crate::log::group_commit::sync::{Arc, Condvar, Mutex, lock, wait, wait_briefly};

/// `R`: what is queued. `O`: what a blocked thread is told. `W`: a caller that waits without a thread.
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
    /// Of the next job.
    number: u64,
    /// A caller leads, or has been told to.
    is_led: bool,
    is_committer_started: bool,
    /// The committer thread is to lead.
    committer_leads: bool,
    is_ended: bool,
}

/// Something to do, and how its caller learns the outcome.
pub(crate) struct Job<R, O, W> {
    pub(crate) rows: R,
    pub(crate) done: Done<O, W>,
    bytes: usize,
    number: u64,
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

    /// Waits for a moment; None if nothing has arrived.
    fn wait_briefly(&self) -> Option<News<O>> {
        let mut news = lock(&self.news);
        if news.is_none() {
            news = wait_briefly(&self.arrived, news).0;
        }
        news.take()
    }
}

/// How a blocked caller may be interrupted.
pub(crate) trait Patience<O> {
    /// Whether the caller may be interrupted, now or later.
    fn is_limited(&self) -> bool;
    /// The outcome of a caller that is to wait no longer; asked every moment while the caller waits.
    fn ended(&self) -> Option<O>;
}

impl<R, O, W> Queue<R, O, W> {
    pub(crate) fn new(limit: usize) -> Self {
        let state = State {
            jobs: Vec::new(),
            bytes: 0,
            number: 0,
            is_led: false,
            is_committer_started: false,
            committer_leads: false,
            is_ended: false,
        };
        Self { state: Mutex::new(state), room: Condvar::new(), committer: Condvar::new(), limit }
    }

    /// Does the work together with that of other callers, blocking. While another caller leads, what `queued` makes of it,
    /// rows and their bytes, is queued. An interrupted caller leaves nothing behind.
    pub(crate) fn run<T: Copy>(
        &self,
        own: T,
        queued: impl FnOnce(T) -> (R, usize),
        flush: &mut impl FnMut(Option<T>) -> Flushed<O>,
        patience: &impl Patience<O>,
    ) -> O {
        let mut state = lock(&self.state);
        while state.is_led && state.bytes >= self.limit {
            if patience.is_limited() {
                let (guard, is_over) = wait_briefly(&self.room, state);
                state = guard;
                if is_over {
                    drop(state);
                    if let Some(outcome) = patience.ended() {
                        return outcome;
                    }
                    state = lock(&self.state);
                }
            } else {
                state = wait(&self.room, state);
            }
        }
        if !state.is_led {
            state.is_led = true;
            drop(state);
            return self.lead(Some(own), flush);
        }
        let ticket = Arc::new(Ticket::new());
        let (rows, bytes) = queued(own);
        state.push(rows, Done::Thread(Arc::clone(&ticket)), bytes);
        drop(state);
        match self.wait(&ticket, patience) {
            Ok(News::Done(outcome)) => outcome,
            // Its job has left the queue.
            Ok(News::Lead) => self.lead(Some(own), flush),
            Err(outcome) => outcome,
        }
    }

    /// Waits for news; or the outcome of a caller that waits no longer, whose job has left the queue.
    fn wait(&self, ticket: &Arc<Ticket<O>>, patience: &impl Patience<O>) -> Result<News<O>, O> {
        while patience.is_limited() {
            if let Some(news) = ticket.wait_briefly() {
                return Ok(news);
            }
            if let Some(outcome) = patience.ended() {
                // Else a leader has taken it, or it is to lead: the news is on its way.
                return if self.withdraw(ticket) { Err(outcome) } else { Ok(ticket.wait()) };
            }
        }
        Ok(ticket.wait())
    }

    /// Takes the caller's job out of the queue; false if it is not there any more.
    fn withdraw(&self, ticket: &Arc<Ticket<O>>) -> bool {
        let mut state = lock(&self.state);
        let is_own = |job: &Job<R, O, W>| matches!(&job.done, Done::Thread(other) if Arc::ptr_eq(other, ticket));
        match state.jobs.iter().position(is_own) {
            Some(index) => {
                self.remove(&mut state, index);
                true
            }
            None => false,
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
        state.push(rows, Done::Waiter(waiter), bytes);
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

    /// Has `flush` do the leader's own work, if there is any, and what it takes from the queue; hands over; tells the
    /// threads. In this order, so that the next flush does not wait for wake-ups.
    pub(crate) fn lead<T>(&self, own: Option<T>, flush: &mut impl FnMut(Option<T>) -> Flushed<O>) -> O {
        let Flushed { own, mut threads } = flush(own);
        loop {
            let keeps = self.hand_over();
            for (ticket, outcome) in threads {
                ticket.tell(News::Done(outcome));
            }
            if !keeps {
                return own;
            }
            threads = flush(None).threads;
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

    /// For the leader: looks at what is queued, and returns where the queue ends now, for [`Self::take_before`].
    pub(crate) fn look(&self, look: impl FnMut(&R)) -> u64 {
        let state = lock(&self.state);
        state.jobs.iter().map(|job| &job.rows).for_each(look);
        state.number
    }

    /// For the leader: takes what is queued, up to the first job that does not fit.
    pub(crate) fn take(&self, mut fits: impl FnMut(&R) -> bool) -> Vec<Job<R, O, W>> {
        self.take_while(|job| fits(&job.rows))
    }

    /// For the leader: takes what was queued when [`Self::look`] returned `end`, and has not been withdrawn.
    pub(crate) fn take_before(&self, end: u64) -> Vec<Job<R, O, W>> {
        self.take_while(|job| job.number < end)
    }

    fn take_while(&self, is_wanted: impl FnMut(&Job<R, O, W>) -> bool) -> Vec<Job<R, O, W>> {
        let mut state = lock(&self.state);
        let count = match state.jobs.iter().map(is_wanted).position(|is_wanted| !is_wanted) {
            Some(count) => count,
            None => state.jobs.len(),
        };
        let rest = state.jobs.split_off(count);
        let taken = std::mem::replace(&mut state.jobs, rest);
        self.make_room(&mut state, taken.iter().map(|job| job.bytes).sum());
        taken
    }

    fn remove(&self, state: &mut State<R, O, W>, index: usize) {
        let job = state.jobs.remove(index);
        self.make_room(state, job.bytes);
    }

    fn make_room(&self, state: &mut State<R, O, W>, bytes: usize) {
        let was_full = state.bytes >= self.limit;
        state.bytes -= bytes;
        if was_full && state.bytes < self.limit {
            self.room.notify_all();
        }
    }

    /// Hands the lead over to a caller whose job is queued, and which then leads with that job as its own; or gives the
    /// lead up. Says whether the caller keeps it, because the callers that wait have no thread and the committer has
    /// ended.
    fn hand_over(&self) -> bool {
        let mut state = lock(&self.state);
        let threads = state.jobs.iter().enumerate().find_map(|(index, job)| match &job.done {
            Done::Thread(ticket) => Some((index, Arc::clone(ticket))),
            Done::Waiter(_) => None,
        });
        if let Some((index, ticket)) = threads {
            self.remove(&mut state, index);
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
    fn push(&mut self, rows: R, done: Done<O, W>, bytes: usize) {
        self.bytes += bytes;
        let number = self.number;
        self.number += 1;
        self.jobs.push(Job { rows, done, bytes, number });
    }
}
