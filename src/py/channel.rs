//! Appending from event loops: what `nerve_store.aio` is built on.
//!
//! Each event loop has a channel. Writes go in with the future that is to be resolved; those of one turn of the
//! loop are submitted together. The thread that commits them leaves the outcome in the mailbox and writes to a
//! descriptor that the loop watches: commits never wait for the interpreter, and one wake-up takes in all the
//! outcomes there are.

use std::collections::HashMap;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use pyo3::{IntoPyObjectExt, intern};

use crate::durable::Durability;
use crate::log::{Answer, Done, Shared, Work};
use crate::py::argument::{Arg, Text, arguments};
use crate::py::entry::Row;
use crate::py::fields::{Fields, Json};
use crate::py::given::{at_index, given_at, range};
use crate::py::interpreter;
use crate::py::log::LogStore;
use crate::py::mailbox::{Mailbox, Outcome};
use crate::py::perform::{Redirected, Revocable, redirect};
use crate::py::timestamp::Timestamp;
use crate::row::OwnedEntry;

/// Bytes of text for which an append takes one more place among those in flight.
const PLACE_BYTES: usize = 8 << 10;
/// How far up the caller of an append is: above `AsyncLogStore`.
const CALLER: u32 = 2;
/// Places that are submitted without waiting for the end of the turn, so that their commit and the rest of a long turn
/// go on at the same time.
const BATCH_PLACES: usize = 256;

/// The way of one event loop's appends to the commits, and of their outcomes back; for `nerve_store.aio`.
#[pyclass(frozen, module = "nerve_store._core")]
pub(super) struct AppendChannel {
    store: Py<LogStore>,
    mailbox: Arc<Mailbox>,
    calls: Mutex<Calls>,
}

/// What is on its way.
#[derive(Default)]
struct Calls {
    /// Of this turn of the loop.
    gathered: Batch,
    /// The loop will call `submit` at the end of this turn.
    is_scheduled: bool,
    submitted: HashMap<u64, Vec<Call>>,
    last_batch: u64,
}

/// Calls and, in their order, their works. The rows of calls that follow each other are one.
#[derive(Default)]
struct Batch {
    calls: Vec<Call>,
    works: Vec<Work>,
    /// The strongest that was asked for.
    durability: Option<Durability>,
    places: usize,
}

struct Call {
    future: Py<PyAny>,
    wants: Wants,
    places: usize,
}

/// What a future is resolved with: its row, the ids of so many, or what an operation answers.
enum Wants {
    Entry,
    Ids(usize),
    Answer(fn(Python<'_>, Answer) -> PyResult<Bound<'_, PyAny>>, Arc<Revocable>),
}

#[pymethods]
impl AppendChannel {
    #[new]
    fn new(store: Py<LogStore>) -> std::io::Result<Self> {
        Ok(Self { store, mailbox: Arc::new(Mailbox::new()?), calls: Mutex::default() })
    }

    /// The descriptor that is readable when there are outcomes to take in.
    fn fileno(&self) -> RawFd {
        self.mailbox.descriptor()
    }

    /// Send a row on its way; `future` will be resolved with it.
    ///
    /// Returns how many places it takes besides the one that every call takes.
    #[expect(clippy::too_many_arguments, reason = "the columns")]
    fn append(
        slf: &Bound<'_, Self>,
        future: Py<PyAny>,
        source: Arg<Text>,
        r#type: Arg<Text>,
        ref_id: Option<Arg<Text>>,
        payload: Option<Arg<Text>>,
        timestamp: Option<Arg<Timestamp>>,
        json: Json<'_>,
        durability: Option<Arg<Durability>>,
    ) -> PyResult<usize> {
        arguments!(source, r#type, ref_id, payload, timestamp, durability);
        let fields = Fields { source, kind: r#type, ref_id, payload: json.or(payload)?, timestamp };
        let store = slf.get().store.get();
        let row = OwnedEntry::from(&store.check(fields.borrow())?);
        store.warn_of_seconds(slf.py(), timestamp, CALLER)?;
        Self::gather(slf, future, Wants::Entry, Gathered::Row(row), durability)
    }

    /// The same for rows that are all or nothing; `future` will be resolved with the range of their ids.
    fn append_many(
        slf: &Bound<'_, Self>,
        future: Py<PyAny>,
        entries: Vec<Bound<'_, PyAny>>,
        durability: Option<Arg<Durability>>,
    ) -> PyResult<usize> {
        arguments!(durability);
        let (py, store) = (slf.py(), slf.get().store.get());
        let mut rows = Vec::with_capacity(entries.len());
        let mut timestamps = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            let given = given_at(py, index, entry)?;
            let checked = store.check(given.borrow()).map_err(|error| at_index(py, index, error.into()))?;
            rows.push(OwnedEntry::from(&checked));
            timestamps.push(given.timestamp());
        }
        for timestamp in timestamps {
            store.warn_of_seconds(py, timestamp, CALLER)?;
        }
        Self::gather(slf, future, Wants::Ids(rows.len()), Gathered::Rows(rows), durability)
    }

    /// Call a method of the store that writes with these arguments, and send what it writes on its way.
    ///
    /// `future` will be resolved with what the method returns otherwise. Returns how many places it takes besides the
    /// one that every call takes; None if there is nothing to write, and the call takes none.
    fn perform(
        slf: &Bound<'_, Self>,
        future: Py<PyAny>,
        function: Bound<'_, PyAny>,
        arguments: Bound<'_, PyTuple>,
        keywords: Bound<'_, PyDict>,
    ) -> PyResult<Option<usize>> {
        let mut returned = None;
        let redirected = redirect(&slf.get().store.get().store, || {
            returned = Some(interpreter::call_with(&function, arguments, Some(&keywords))?);
            Ok(())
        })?;
        if let Some(Redirected { operation, durability, told }) = redirected {
            let operation = Revocable::new(operation);
            let work = Gathered::Work(Work::Operation(Arc::clone(&operation) as Arc<dyn Shared>));
            return Self::gather(slf, future, Wants::Answer(told, operation), work, durability).map(Some);
        }
        interpreter::call_method(future.bind(slf.py()), intern!(slf.py(), "set_result"), (returned,))?;
        Ok(None)
    }

    /// Take back the call whose future this is, if its commit has not begun. Nothing is written then.
    fn revoke(&self, future: &Bound<'_, PyAny>) {
        for call in self.calls().all().filter(|call| call.future.is(future)) {
            if let Wants::Answer(_, operation) = &call.wants {
                operation.revoke();
            }
        }
    }

    /// Submit what has gathered; called by the loop at the end of a turn.
    fn submit(&self, py: Python<'_>) {
        let batch = {
            let mut calls = self.calls();
            calls.is_scheduled = false;
            std::mem::take(&mut calls.gathered)
        };
        if !batch.calls.is_empty() {
            self.submit_batch(py, batch);
        }
    }

    /// Resolve the futures whose outcomes have arrived; returns how many places that frees.
    ///
    /// Futures that were cancelled meanwhile are passed over.
    fn resolve(&self, py: Python<'_>) -> usize {
        let mut places = 0;
        for (number, outcome) in self.mailbox.empty() {
            let calls = self.calls().submitted.remove(&number).unwrap_or_default();
            places += calls.iter().map(|call| call.places).sum::<usize>();
            resolve_all(py, calls, outcome);
        }
        places
    }

    /// The futures of what is on its way.
    fn futures(&self, py: Python<'_>) -> Vec<Py<PyAny>> {
        self.calls().all().map(|call| call.future.clone_ref(py)).collect()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.store)?;
        // The thread that holds the lock is in the middle of a call, and keeps this alive.
        match self.calls.try_lock() {
            Ok(calls) => calls.all().try_for_each(|call| visit.call(&call.future)),
            Err(_) => Ok(()),
        }
    }

    fn __clear__(&self) {
        let calls = std::mem::take(&mut *self.calls());
        drop(calls);
    }
}

impl AppendChannel {
    fn gather(
        slf: &Bound<'_, Self>,
        future: Py<PyAny>,
        wants: Wants,
        gathered: Gathered,
        durability: Option<Durability>,
    ) -> PyResult<usize> {
        let (py, channel) = (slf.py(), slf.get());
        // Here and not only at the end of the turn, because the loop may have stopped listening by then.
        channel.store.get().log().database().check_writable("append")?;
        if !channel.calls().is_scheduled {
            let event_loop = interpreter::call_method(future.bind(py), intern!(py, "get_loop"), ())?;
            interpreter::call_method(&event_loop, intern!(py, "call_soon"), (slf.getattr(intern!(py, "submit"))?,))?;
        }
        let mut calls = channel.calls();
        calls.is_scheduled = true;
        let batch = &mut calls.gathered;
        let more = gathered.bytes() / PLACE_BYTES;
        batch.take(gathered);
        batch.calls.push(Call { future, wants, places: 1 + more });
        batch.durability = batch.durability.max(Some(durability.unwrap_or(channel.default_durability())));
        batch.places += 1 + more;
        if batch.places >= BATCH_PLACES {
            let batch = std::mem::take(batch);
            drop(calls);
            channel.submit_batch(py, batch);
        }
        Ok(more)
    }

    fn submit_batch(&self, py: Python<'_>, batch: Batch) {
        let number = {
            let mut calls = self.calls();
            calls.last_batch += 1;
            let number = calls.last_batch;
            calls.submitted.insert(number, batch.calls);
            number
        };
        let mailbox = Arc::clone(&self.mailbox);
        let waiter = Box::new(move |outcome| mailbox.put(number, outcome));
        let durability = batch.durability.unwrap_or(self.default_durability());
        let log = self.store.get().log();
        match log.submit(batch.works, durability, waiter) {
            Ok(false) => {}
            Ok(true) => py.detach(|| log.commit_submitted()),
            Err(error) => self.mailbox.put(number, Err(error)),
        }
    }

    fn default_durability(&self) -> Durability {
        self.store.get().log().database().config().durability
    }

    /// Never held while Python objects are dropped or called, which could come back here.
    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Calls {
    fn all(&self) -> impl Iterator<Item = &Call> {
        self.gathered.calls.iter().chain(self.submitted.values().flatten())
    }
}

/// What a call gives to be committed.
enum Gathered {
    Row(OwnedEntry),
    Rows(Vec<OwnedEntry>),
    Work(Work),
}

impl Gathered {
    fn bytes(&self) -> usize {
        let bytes = |row: &OwnedEntry| row.borrow().text_bytes();
        match self {
            Self::Row(row) => bytes(row),
            Self::Rows(rows) | Self::Work(Work::Rows(rows)) => rows.iter().map(bytes).sum(),
            Self::Work(Work::Operation(operation)) => operation.size(),
        }
    }
}

impl Batch {
    fn take(&mut self, gathered: Gathered) {
        match (gathered, self.works.last_mut()) {
            (Gathered::Row(row), Some(Work::Rows(rows))) => rows.push(row),
            (Gathered::Row(row), _) => self.works.push(Work::Rows(vec![row])),
            (Gathered::Rows(more) | Gathered::Work(Work::Rows(more)), Some(Work::Rows(rows))) => rows.extend(more),
            (Gathered::Rows(rows), _) => self.works.push(Work::Rows(rows)),
            (Gathered::Work(work), _) => self.works.push(work),
        }
    }
}

/// Resolves the futures of one batch.
fn resolve_all(py: Python<'_>, calls: Vec<Call>, outcome: Outcome) {
    let mut results = match outcome {
        Ok(done) => Ok(Results { done: done.into_iter(), next_id: 0, rows: Vec::new().into_iter() }),
        Err(error) => Err(error),
    };
    for Call { future, wants, .. } in calls {
        let future = future.bind(py);
        let result = match &mut results {
            Ok(results) => results.next(py, wants),
            Err(error) => Err(error.clone().into()),
        };
        let resolved = match result {
            Ok(result) => interpreter::call_method(future, intern!(py, "set_result"), (result,)),
            Err(error) => interpreter::call_method(future, intern!(py, "set_exception"), (error,)),
        };
        if let Err(error) = resolved {
            // Done already means that it was cancelled.
            let is_done = interpreter::call_method(future, intern!(py, "done"), ()).and_then(|done| done.is_truthy());
            if !is_done.unwrap_or(false) {
                error.write_unraisable(py, Some(future));
            }
        }
    }
}

/// What became of the works of a batch, call by call.
struct Results {
    done: std::vec::IntoIter<crate::Result<Done>>,
    /// Of the rows that are left of a work.
    next_id: i64,
    rows: std::vec::IntoIter<OwnedEntry>,
}

impl Results {
    fn next<'py>(&mut self, py: Python<'py>, wants: Wants) -> PyResult<Bound<'py, PyAny>> {
        if let Wants::Answer(told, _) = wants {
            return match self.done.next().ok_or(crate::Error::Internal)?? {
                Done::Answer(answer) => told(py, answer),
                Done::Rows { .. } => Err(crate::Error::Internal.into()),
            };
        }
        if self.rows.len() == 0
            && let Some(done) = self.done.next()
            && let Done::Rows { first_id, rows } = done?
        {
            (self.next_id, self.rows) = (first_id, rows.into_iter());
        }
        let first = self.next_id;
        match wants {
            Wants::Ids(count) => {
                self.next_id += i64::try_from(count)?;
                self.rows.by_ref().take(count).for_each(drop);
                range(py, first, count)
            }
            _ => {
                self.next_id += 1;
                let row = self.rows.next().ok_or(crate::Error::Internal)?;
                Row(row.into_stored(first)).into_bound_py_any(py)
            }
        }
    }
}
