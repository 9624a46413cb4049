//! Performing operations: at once, or on the way of an event loop.
//!
//! A method of the store that writes calls [`perform`]. Called by a thread, it waits for the commit. Called by
//! `AppendChannel.perform`, it leaves the operation there and returns None: so a method has one signature for both.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;

use crate::durable::Durability;
use crate::log::{Answer, DeleteMeta, Operation, SetMeta, Shared, Transaction};
use crate::py::call::write;
use crate::py::entry::Row;
use crate::py::given::range;
use crate::py::results::Tuple;
use crate::py::run_record::{create_claim, create_run};
use crate::store;
use crate::workflow::{AppendClaimed, AppendOne, Batch, Create, Release, Renew, Take, Transition, Upsert};

/// An operation whose answer Python is told.
pub(super) trait Told: Operation {
    fn to_python(py: Python<'_>, answer: Self::Answer) -> PyResult<Bound<'_, PyAny>>;
}

/// What an event loop is to have committed.
pub(super) struct Redirected {
    pub(super) operation: Arc<dyn Shared>,
    pub(super) durability: Option<Durability>,
    pub(super) told: fn(Python<'_>, Answer) -> PyResult<Bound<'_, PyAny>>,
}

/// An operation that its caller may take back until it is begun.
pub(super) struct Revocable {
    operation: Arc<dyn Shared>,
    is_revoked: AtomicBool,
}

impl Revocable {
    pub(super) fn new(operation: Arc<dyn Shared>) -> Arc<Self> {
        Arc::new(Self { operation, is_revoked: AtomicBool::new(false) })
    }

    pub(super) fn revoke(&self) {
        self.is_revoked.store(true, Ordering::Release);
    }
}

impl Shared for Revocable {
    fn name(&self) -> &'static str {
        self.operation.name()
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> crate::Result<crate::Result<Answer>> {
        if self.is_revoked.load(Ordering::Acquire) {
            return Ok(Err(crate::Error::Cancelled));
        }
        self.operation.perform(transaction)
    }

    fn size(&self) -> usize {
        self.operation.size()
    }
}

/// A place for the operation of the next call; and the store that is to be called.
struct Place {
    store: Arc<store::LogStore>,
    redirected: Option<Redirected>,
}

thread_local! {
    static PLACE: RefCell<Option<Place>> = const { RefCell::new(None) };
}

/// Performs an operation of a store.
pub(super) fn perform<'py, O: Told>(
    py: Python<'py>,
    store: &Arc<store::LogStore>,
    operation: O,
    durability: Option<Durability>,
) -> PyResult<Bound<'py, PyAny>> {
    let operation: Arc<dyn Shared> = Arc::new(operation);
    let operation = PLACE.with_borrow_mut(|place| match place {
        Some(place) if Arc::ptr_eq(&place.store, store) && place.redirected.is_none() => {
            place.redirected = Some(Redirected { operation, durability, told: told::<O> });
            None
        }
        _ => Some(operation),
    });
    let Some(operation) = operation else { return Ok(py.None().into_bound(py)) };
    let answer = write(py, || store.log().perform_shared::<O>(&operation, durability))?;
    O::to_python(py, answer)
}

/// How many frames of Python's above the innermost the caller of the method under way is, for warnings: an event
/// loop's method calls that of the store.
pub(super) fn frames() -> u32 {
    if PLACE.with_borrow(Option::is_some) { 3 } else { 1 }
}

/// Calls `call`, which calls one method of `store` that writes; returns the operation.
pub(super) fn redirect(
    store: &Arc<store::LogStore>,
    call: impl FnOnce() -> PyResult<()>,
) -> PyResult<Option<Redirected>> {
    let outer = PLACE.replace(Some(Place { store: Arc::clone(store), redirected: None }));
    let called = call();
    let place = PLACE.replace(outer);
    called?;
    Ok(place.and_then(|place| place.redirected))
}

fn told<O: Told>(py: Python<'_>, answer: Answer) -> PyResult<Bound<'_, PyAny>> {
    let answer = answer.downcast().map_err(|_| crate::Error::Internal)?;
    O::to_python(py, *answer)
}

impl Told for SetMeta {
    fn to_python(py: Python<'_>, (): ()) -> PyResult<Bound<'_, PyAny>> {
        Ok(py.None().into_bound(py))
    }
}

impl Told for DeleteMeta {
    fn to_python(py: Python<'_>, was_there: bool) -> PyResult<Bound<'_, PyAny>> {
        was_there.into_bound_py_any(py)
    }
}

impl Told for AppendOne {
    fn to_python(py: Python<'_>, entry: crate::row::LogEntry) -> PyResult<Bound<'_, PyAny>> {
        Row(entry).into_bound_py_any(py)
    }
}

impl Told for AppendClaimed {
    fn to_python(py: Python<'_>, (first, count): (i64, usize)) -> PyResult<Bound<'_, PyAny>> {
        range(py, first, count)
    }
}

impl Told for Upsert {
    fn to_python(py: Python<'_>, entry: crate::row::LogEntry) -> PyResult<Bound<'_, PyAny>> {
        Row(entry).into_bound_py_any(py)
    }
}

impl Told for Transition {
    fn to_python(py: Python<'_>, (_, run): Self::Answer) -> PyResult<Bound<'_, PyAny>> {
        create_run(py, &run)
    }
}

impl Told for Create {
    fn to_python(py: Python<'_>, (_, run): Self::Answer) -> PyResult<Bound<'_, PyAny>> {
        create_run(py, &run)
    }
}

impl Told for Take {
    fn to_python(py: Python<'_>, claim: Self::Answer) -> PyResult<Bound<'_, PyAny>> {
        match claim {
            Some(claim) => create_claim(py, &claim),
            None => Ok(py.None().into_bound(py)),
        }
    }
}

impl Told for Renew {
    fn to_python(py: Python<'_>, claim: Self::Answer) -> PyResult<Bound<'_, PyAny>> {
        create_claim(py, &claim)
    }
}

impl Told for Release {
    fn to_python(py: Python<'_>, run: Self::Answer) -> PyResult<Bound<'_, PyAny>> {
        create_run(py, &run)
    }
}

impl Told for Batch {
    fn to_python(py: Python<'_>, ids: Self::Answer) -> PyResult<Bound<'_, PyAny>> {
        Tuple(ids).into_bound_py_any(py)
    }
}
