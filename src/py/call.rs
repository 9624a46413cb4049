//! How a call of Python's runs: what becomes of signals and of Python's functions while the core works.
//!
//! Python looks at signals in its main thread, when the interpreter runs there. A call that takes long therefore looks at
//! them itself, every [`INTERVAL`], and a handler may do anything: use the store, close it, raise. So no handler and no
//! progress function runs while the core holds a lock or has begun a transaction on the same thread:
//!
//! - a read ([`read`]) is given up after an interval and begun again in a thread of its own, beside which the calling
//!   thread looks at signals; a handler that raises ends the call at once. One that returns rows ([`read_rows`]) keeps
//!   those it has read, and goes on after them in the calling thread;
//! - a write ([`write`]) is given up while it waits for a lock, before it has begun anything, and is begun again; once
//!   begun it is brought to its end, so that what raises has written nothing;
//! - long work ([`Long`]) runs in a thread of its own from the beginning, and the calling thread reports progress.
//!
//! In other threads than the main one reads and writes are neither given up nor begun again.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use pyo3::prelude::*;

use crate::base::error::{Error, Result};
use crate::base::fork::Generation;
use crate::base::interrupt::{INTERVAL, Pause, Scope, Stop, check, check_wait};
use crate::base::progress::Progress;
use crate::py::argument::Refusal;
use crate::py::interpreter;
use crate::row::LogEntry;
use crate::store::{LogStore, Query};

/// How long work in a thread of its own waits for an unanswered report before it goes on, if others wait for the work.
const UNANSWERED: Duration = Duration::from_secs(1);

thread_local! {
    /// The calls for which this thread waits, by their stores, while it runs signal handlers and progress functions.
    static CALLS: RefCell<Vec<(usize, Arc<Stop>)>> = const { RefCell::new(Vec::new()) };
}

/// Does work that neither waits nor lasts. A panic in it is an error, and does not reach Python.
pub(super) fn detach<T: Send>(py: Python<'_>, work: impl FnOnce() -> Result<T> + Send) -> PyResult<T> {
    Ok(py.detach(|| caught(work))?)
}

/// Runs `work`; a panic is [`Error::Internal`].
pub(super) fn caught<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    // What the work shares with others is locked, and taken over whatever its state; what it owns is dropped.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(Error::Internal))
}

/// A scope in which this thread's call is given up after `interval`.
fn pausing(interval: Duration, only_waits: bool, waits_since: Option<Instant>) -> Scope {
    let pause =
        Pause { at: Instant::now() + interval, only_waits, is_wanted: interpreter::is_main_thread, waits_since };
    Scope { pause: Some(pause), ..Scope::shared() }
}

/// Does work that only reads. Signals that have come meanwhile are looked at before its result becomes Python objects: in
/// the allocation of one, a collection of cycles may run the handlers, and lose what they raise.
pub(super) fn read<T: Send + 'static>(
    py: Python<'_>,
    store: &Arc<LogStore>,
    work: impl Fn(&LogStore) -> Result<T> + Send + Sync + 'static,
) -> PyResult<T> {
    read_within(py, INTERVAL, None, store, work)
}

/// The same; `interval` is how long it takes in the usual case, `timeout` how long it may take.
pub(super) fn read_within<T: Send + 'static>(
    py: Python<'_>,
    interval: Duration,
    timeout: Option<Duration>,
    store: &Arc<LogStore>,
    work: impl Fn(&LogStore) -> Result<T> + Send + Sync + 'static,
) -> PyResult<T> {
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let scope = Scope { deadline, ..pausing(interval, false, None) };
    match py.detach(|| scope.enter(|| caught(|| work(store)))) {
        Err(Error::Paused) => {}
        outcome => {
            let value = outcome?;
            interpreter::check_signals(py)?;
            return Ok(value);
        }
    }
    interpreter::check_signals(py)?;
    let theirs = Arc::clone(store);
    Long { deadline, is_abandoned: true, ..Long::default() }.of(store).run(py, move |_| work(&theirs))
}

/// Reads the rows of a query, which goes on where it was given up, in this thread for as long as it gets on.
pub(super) fn read_rows(py: Python<'_>, store: &Arc<LogStore>, mut query: Query) -> PyResult<Vec<LogEntry>> {
    loop {
        let known = query.row_count();
        let scope = pausing(INTERVAL, false, None);
        match py.detach(|| scope.enter(|| caught(|| store.go_on(&mut query)))) {
            Err(Error::Paused) => interpreter::check_signals(py)?,
            outcome => {
                outcome?;
                interpreter::check_signals(py)?;
                return Ok(query.into_rows());
            }
        }
        if query.row_count() == known || !query.goes_on_cheaply() {
            let theirs = Arc::clone(store);
            return Long { is_abandoned: true, ..Long::default() }.of(store).run(py, move |_| {
                theirs.go_on(&mut query)?;
                Ok(query.into_rows())
            });
        }
    }
}

/// Does work that writes in one transaction.
pub(super) fn write<T: Send>(py: Python<'_>, work: impl Fn() -> Result<T> + Sync) -> PyResult<T> {
    let mut waits_since = None;
    loop {
        let scope = pausing(INTERVAL, true, waits_since);
        let (outcome, scope) = py.detach(|| scope.enter_and_leave(|| caught(&work)));
        match outcome {
            Err(Error::Paused) => {
                waits_since = scope.pause.and_then(|pause| pause.waits_since).or(waits_since);
                interpreter::check_signals(py)?;
            }
            outcome => return Ok(outcome?),
        }
    }
}

/// Ends the calls of a store during which this thread closes it, from a signal handler or a progress function: they
/// would wait for each other.
pub(super) fn end_calls_of(store: &Arc<LogStore>) {
    CALLS.with_borrow(|calls| {
        calls.iter().filter(|(other, _)| *other == address(store)).for_each(|(_, stop)| stop.ask())
    });
}

/// Work that may take long.
#[derive(Default)]
pub(super) struct Long {
    progress: Option<Py<PyAny>>,
    /// The store, which a signal handler or a progress function may close.
    store: Option<Arc<LogStore>>,
    deadline: Option<Instant>,
    /// Other calls wait for this one, so that it waits only so long for a report to be answered.
    is_awaited: bool,
    /// It may go on for a moment after the call has ended.
    is_abandoned: bool,
}

enum News<T> {
    Progress(u64, u64),
    Done(Result<T>),
}

/// A progress function must be callable.
pub(super) fn check_progress(progress: &Bound<'_, PyAny>) -> PyResult<()> {
    if progress.is_callable() {
        return Ok(());
    }
    Err(Refusal::not(progress, "a function of (done, total)").about("progress"))
}

impl Long {
    /// Work that reports to `progress`, which must be callable, if there is one.
    pub(super) fn reporting_to(progress: Option<Bound<'_, PyAny>>) -> PyResult<Self> {
        progress.as_ref().map_or(Ok(()), check_progress)?;
        Ok(Self { progress: progress.map(Bound::unbind), ..Self::default() })
    }

    /// The work of a store.
    pub(super) fn of(self, store: &Arc<LogStore>) -> Self {
        Self { store: Some(Arc::clone(store)), ..self }
    }

    /// The work holds a lock while it reports, for which a progress function may wait.
    pub(super) fn awaited(self) -> Self {
        Self { is_awaited: true, ..self }
    }

    /// Whether there is a function to report to.
    pub(super) fn is_heard(&self) -> bool {
        self.progress.is_some()
    }

    /// Runs work that can be begun again: in this thread, as a read, as long as there is nothing to report.
    pub(super) fn run_shortly<T: Send + 'static>(
        self,
        py: Python<'_>,
        work: impl Fn(&mut Progress<'_>) -> Result<T> + Send + Sync + 'static,
    ) -> PyResult<T> {
        if !self.is_heard() {
            let scope = pausing(INTERVAL, false, None);
            match py.detach(|| scope.enter(|| caught(|| work(&mut |_, _| check())))) {
                Err(Error::Paused) => interpreter::check_signals(py)?,
                outcome => return Ok(outcome?),
            }
        }
        self.run(py, move |report| work(report))
    }

    /// Runs the work in a thread of its own; in this one, if there is none to be had.
    pub(super) fn run<T: Send + 'static>(
        self,
        py: Python<'_>,
        work: impl FnOnce(&mut Progress<'_>) -> Result<T> + Send + 'static,
    ) -> PyResult<T> {
        let stop = Arc::new(Stop::default());
        let scope = Scope { stop: Some(Arc::clone(&stop)), deadline: self.deadline, ..Scope::default() };
        let (sender, mut news) = channel();
        let (answer, answers) = channel();
        let work = Arc::new(std::sync::Mutex::new(Some(work)));
        let is_awaited = self.is_awaited;
        let theirs = Arc::clone(&work);
        let run = move || {
            let Some(work) = theirs.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take() else { return };
            let mut reports = Reports { news: sender.clone(), answers, unanswered: 0, is_awaited };
            let outcome = scope.enter(|| caught(|| work(&mut |done, total| reports.report(done, total))));
            // Without a receiver the call has ended.
            let _ = sender.send(News::Done(outcome));
        };
        match std::thread::Builder::new().name("nerve_store-call".into()).spawn(run) {
            Ok(_) => self.wait(py, &mut news, &answer, &stop),
            Err(_) => {
                let work = work.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
                let work = work.ok_or(Error::Internal)?;
                self.run_here(py, work)
            }
        }
    }

    /// Waits for the work, and meanwhile reports its progress and looks at signals.
    fn wait<T: Send>(
        &self,
        py: Python<'_>,
        news: &mut Receiver<News<T>>,
        answer: &Sender<()>,
        stop: &Arc<Stop>,
    ) -> PyResult<T> {
        let generation = Generation::current();
        let mut raised = None;
        let outcome = loop {
            let receiver = &mut *news;
            let next = py.detach(move || receiver.recv_timeout(INTERVAL));
            if let Ok(News::Done(outcome)) = next {
                break outcome;
            }
            if raised.is_none() {
                let store = self.store.as_ref().map_or(0, address);
                CALLS.with_borrow_mut(|calls| calls.push((store, Arc::clone(stop))));
                let looked = interpreter::check_signals(py).and_then(|()| match (&self.progress, &next) {
                    (Some(progress), Ok(News::Progress(done, total))) => {
                        interpreter::call(progress.bind(py), (*done, *total)).map(drop)
                    }
                    _ => Ok(()),
                });
                CALLS.with_borrow_mut(Vec::pop);
                raised = looked.err();
            }
            if !generation.is_current() {
                // This is a child, and the work was left behind in its parent.
                let path = self.store.as_ref().map(|store| store.log().database().path().to_owned());
                return Err(raised.unwrap_or_else(|| Error::Forked { path: path.unwrap_or_default() }.into()));
            }
            let is_late = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if raised.is_some() || check().is_err() {
                stop.ask();
            }
            if self.is_abandoned {
                if is_late {
                    stop.ask();
                    break Err(Error::TimedOut);
                }
                if stop.is_asked() {
                    break Err(Error::Cancelled);
                }
            }
            if matches!(next, Ok(News::Progress(..))) {
                // Without a receiver the work has ended.
                let _ = answer.send(());
            }
            if matches!(next, Err(RecvTimeoutError::Disconnected)) {
                break Err(Error::Internal);
            }
        };
        match (outcome, raised) {
            (Ok(value), Some(raised)) if !self.is_abandoned => {
                interpreter::raise_later(py, raised);
                Ok(value)
            }
            (_, Some(raised)) => Err(raised),
            (Err(Error::Cancelled), None) => {
                self.store.as_ref().map_or(Ok(()), |store| store.log().database().check_open())?;
                Err(Error::Cancelled.into())
            }
            (outcome, None) => Ok(outcome?),
        }
    }

    fn run_here<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut Progress<'_>) -> Result<T> + Send,
    ) -> PyResult<T> {
        let mut raised = None;
        let scope = Scope { deadline: self.deadline, ..Scope::shared() };
        let outcome = py.detach(|| {
            let mut report = |done: u64, total: u64| {
                let reported = interpreter::attach(|py| {
                    interpreter::check_signals(py)?;
                    let progress = self.progress.as_ref().map(|progress| progress.bind(py));
                    progress.map_or(Ok(()), |progress| interpreter::call(progress, (done, total)).map(drop))
                });
                reported.ok_or(Error::Cancelled)?.map_err(|error| {
                    raised = Some(error);
                    Error::Cancelled
                })
            };
            scope.enter(|| caught(|| work(&mut report)))
        });
        match (outcome, raised) {
            (Err(Error::Cancelled | Error::Forked { .. }), Some(raised)) => Err(raised),
            (outcome, _) => Ok(outcome?),
        }
    }
}

/// The way of reports to the calling thread.
struct Reports<T> {
    news: Sender<News<T>>,
    answers: Receiver<()>,
    unanswered: u32,
    is_awaited: bool,
}

impl<T> Reports<T> {
    /// Reports and waits until that was taken in; an error if the work is to end.
    fn report(&mut self, done: u64, total: u64) -> Result<()> {
        let began = Instant::now();
        if self.news.send(News::Progress(done, total)).is_err() {
            return Err(Error::Cancelled);
        }
        self.unanswered += 1;
        while self.unanswered > 0 {
            match self.answers.recv_timeout(INTERVAL) {
                Ok(()) => self.unanswered -= 1,
                Err(RecvTimeoutError::Timeout) => {
                    check_wait()?;
                    if self.is_awaited && (self.unanswered > 1 || began.elapsed() >= UNANSWERED) {
                        break;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return Err(Error::Cancelled),
            }
        }
        check_wait()
    }
}

/// What tells stores apart.
fn address(store: &Arc<LogStore>) -> usize {
    Arc::as_ptr(store) as usize
}

/// Interrupts the calls that are made through it, from another thread.
#[pyclass(frozen, module = "nerve_store._core")]
pub(super) struct Interruption(Arc<Stop>);

#[pymethods]
impl Interruption {
    #[new]
    fn new() -> Self {
        Self(Arc::default())
    }

    /// End the call under way, and any later one, as soon as it can end without having written anything.
    fn interrupt(&self) {
        self.0.ask();
    }

    /// Call `function`, which takes no arguments; what it calls of a store is interrupted.
    fn run(&self, function: Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let scope = Scope { stop: Some(Arc::clone(&self.0)), ..Scope::default() };
        scope.enter(|| interpreter::call(&function, ())).map(Bound::unbind)
    }
}
