//! Appending from event loops: what `nerve_store.aio` is built on.
//!
//! Each event loop has a channel. Appends go in with the future that is to be resolved. Whoever commits them leaves the
//! outcomes here and writes to a descriptor that the loop watches: commits never wait for the interpreter, and one
//! wake-up of the loop takes in all the outcomes there are.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::{IntoPyObjectExt, intern};
use rustix::event::{EventfdFlags, eventfd};

use super::convert::Integer;
use super::entry::{Fields, Given, LogEntry, at_index, range};
use super::log::LogStore;
use crate::durable::Durability;
use crate::log::{self, Committed, OwnedEntry, Waiter};

/// Bytes of text for which an append takes one more place among those in flight.
const PLACE_BYTES: usize = 8 << 10;

/// The way of one event loop's appends to the commits, and of their outcomes back.
#[pyclass(frozen, module = "nerve_store._core")]
pub(super) struct AppendChannel {
    mailbox: Arc<Mailbox>,
    waiting: Mutex<Waiting>,
}

/// Outcomes that the loop has not taken in yet.
struct Mailbox {
    outcomes: Mutex<Vec<(u64, crate::Result<Committed>)>>,
    /// Readable from when the first outcome arrives until they are taken.
    news: OwnedFd,
}

/// The futures of what is in flight, by token.
#[derive(Default)]
struct Waiting {
    futures: HashMap<u64, Awaited>,
    last_token: u64,
}

struct Awaited {
    future: Py<PyAny>,
    wants: Wants,
    places: usize,
}

/// What the future is resolved with.
#[derive(Clone, Copy)]
enum Wants {
    Entry,
    Ids,
}

#[pymethods]
impl AppendChannel {
    #[new]
    fn new() -> std::io::Result<Self> {
        let mailbox =
            Mailbox { outcomes: Mutex::default(), news: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)? };
        Ok(Self { mailbox: Arc::new(mailbox), waiting: Mutex::default() })
    }

    /// The descriptor that is readable when there are outcomes to take in.
    fn fileno(&self) -> RawFd {
        self.mailbox.news.as_raw_fd()
    }

    /// Queue a row and return at once; `future` will be resolved with it. Returns how many places it takes besides
    /// the one that everything takes.
    #[expect(clippy::too_many_arguments, reason = "the columns")]
    fn append(
        &self,
        store: &Bound<'_, LogStore>,
        future: Py<PyAny>,
        source: PyBackedStr,
        r#type: PyBackedStr,
        ref_id: Option<PyBackedStr>,
        payload: Option<PyBackedStr>,
        timestamp: Option<Integer>,
        durability: Option<Durability>,
    ) -> PyResult<usize> {
        let timestamp = timestamp.map(|timestamp| timestamp.0);
        let fields = Fields { source, kind: r#type, ref_id, payload, timestamp };
        let row = OwnedEntry::from(&store.get().check(fields.borrow())?);
        self.submit(store.get(), vec![row], durability, future, Wants::Entry)
    }

    /// The same for rows that are all or nothing; `future` will be resolved with the range of their ids.
    fn append_many(
        &self,
        py: Python<'_>,
        store: &Bound<'_, LogStore>,
        future: Py<PyAny>,
        entries: Vec<Given>,
        durability: Option<Durability>,
    ) -> PyResult<usize> {
        let mut rows = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            let checked = store.get().check(entry.borrow()).map_err(|error| at_index(py, index, error.into()))?;
            rows.push(OwnedEntry::from(&checked));
        }
        self.submit(store.get(), rows, durability, future, Wants::Ids)
    }

    /// Resolve the futures whose outcomes have arrived, passing over those that were cancelled meanwhile; returns how
    /// many places that frees.
    fn resolve(&self, py: Python<'_>) -> usize {
        let mut places = 0;
        for (token, outcome) in self.mailbox.empty() {
            let Some(awaited) = self.waiting().futures.remove(&token) else { continue };
            places += awaited.places;
            if let Err(error) = awaited.resolve(py, outcome) {
                error.write_unraisable(py, Some(awaited.future.bind(py)));
            }
        }
        places
    }

    /// The futures of what is in flight.
    fn futures(&self, py: Python<'_>) -> Vec<Py<PyAny>> {
        self.waiting().futures.values().map(|awaited| awaited.future.clone_ref(py)).collect()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // Locked only by a thread that holds the interpreter, as this one does.
        match self.waiting.try_lock() {
            Ok(waiting) => waiting.futures.values().try_for_each(|awaited| visit.call(&awaited.future)),
            Err(_) => Ok(()),
        }
    }

    fn __clear__(&self) {
        let futures = std::mem::take(&mut self.waiting().futures);
        drop(futures);
    }
}

impl AppendChannel {
    fn submit(
        &self,
        store: &LogStore,
        rows: Vec<OwnedEntry>,
        durability: Option<Durability>,
        future: Py<PyAny>,
        wants: Wants,
    ) -> PyResult<usize> {
        let more = rows.iter().map(|row| row.borrow().text_bytes()).sum::<usize>() / PLACE_BYTES;
        let token = self.waiting().add(Awaited { future, wants, places: 1 + more });
        let waiter: Arc<dyn Waiter> = Arc::clone(&self.mailbox) as Arc<dyn Waiter>;
        if let Err(error) = log::submit(&store.log, rows, durability, waiter, token) {
            let refused = self.waiting().futures.remove(&token);
            drop(refused);
            return Err(error.into());
        }
        Ok(more)
    }

    /// Never held while Python objects are dropped or called, which could come back here.
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn add(&mut self, awaited: Awaited) -> u64 {
        self.last_token += 1;
        self.futures.insert(self.last_token, awaited);
        self.last_token
    }
}

impl Awaited {
    fn resolve(&self, py: Python<'_>, outcome: crate::Result<Committed>) -> PyResult<()> {
        let future = self.future.bind(py);
        let resolved = match outcome {
            Ok(Committed { first_id, mut rows }) => {
                let result = match (self.wants, rows.pop()) {
                    (Wants::Entry, Some(row)) => LogEntry(row.into_stored(first_id)).into_bound_py_any(py)?,
                    (_, last) => range(py, first_id, rows.len() + usize::from(last.is_some()))?,
                };
                future.call_method1(intern!(py, "set_result"), (result,))
            }
            Err(error) => future.call_method1(intern!(py, "set_exception"), (PyErr::from(error),)),
        };
        match resolved {
            // It was cancelled.
            Err(_) if future.call_method0(intern!(py, "done"))?.is_truthy()? => Ok(()),
            resolved => resolved.map(drop),
        }
    }
}

impl Mailbox {
    fn outcomes(&self) -> MutexGuard<'_, Vec<(u64, crate::Result<Committed>)>> {
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The outcomes that have arrived. The descriptor first: what arrives after it makes it readable again.
    fn empty(&self) -> Vec<(u64, crate::Result<Committed>)> {
        // It is not readable if this was called without news; nothing else can fail.
        let _ = rustix::io::read(self.news.as_fd(), &mut [0; 8]);
        std::mem::take(&mut self.outcomes())
    }
}

impl Waiter for Mailbox {
    fn resolve(&self, outcomes: Vec<(u64, crate::Result<Committed>)>) {
        let mut arrived = self.outcomes();
        let is_first = arrived.is_empty();
        arrived.extend(outcomes);
        drop(arrived);
        if is_first {
            // Fails only when it is at its greatest value, and then it is readable.
            let _ = rustix::io::write(self.news.as_fd(), &1_u64.to_ne_bytes());
        }
    }
}
