//! `WriteBatch`: many changes in one commit.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::{PyTuple, PyType};

use crate::base::status::RunStatus;
use crate::durable::Durability;
use crate::log::{DeleteMeta, SetMeta};
use crate::py::convert::Integer;
use crate::py::entry::{Fields, Given, at_index};
use crate::py::interpreter;
use crate::py::log::LogStore;
use crate::py::perform::perform;
use crate::py::run::{checked_create, checked_transition, checked_upsert};
use crate::py::run_record::{Claim, fence};
use crate::row::OwnedEntry;
use crate::store::check_meta_key;
use crate::workflow::{AppendOne, Batch, Fence, Step};

/// Changes that are committed together, all or none; `LogStore.batch` makes it.
///
/// Its methods check their arguments, and write nothing. At the end of the `with` block everything is committed in one
/// transaction, in the order of the calls. An exception in the block discards everything, and so does a change that is
/// refused: then nothing has changed.
#[pyclass(frozen, module = "nerve_store")]
pub(super) struct WriteBatch {
    store: Py<LogStore>,
    durability: Option<Durability>,
    state: Mutex<State>,
}

struct State {
    batch: Batch,
    is_ended: bool,
    ids: Option<Py<PyAny>>,
}

impl WriteBatch {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, step: Step) -> PyResult<()> {
        let mut state = self.state();
        if state.is_ended {
            return Err(ended());
        }
        state.batch.push(step);
        Ok(())
    }

    /// The claim, for changes of its run.
    fn claim_of(&self, run_id: &str) -> Option<Fence> {
        self.state().batch.claim.clone().filter(|claim| claim.run_id == run_id)
    }
}

fn ended() -> PyErr {
    PyRuntimeError::new_err("the batch has ended; begin another with batch()")
}

#[pymethods]
impl LogStore {
    /// Begin a batch: changes that are committed together, all or none, at the end of its `with` block.
    ///
    /// A `claim` fences all of it: a claim that is lost is a `ClaimLostError`, and nothing is changed.
    #[pyo3(signature = (*, durability = None, claim = None))]
    fn batch(slf: &Bound<'_, Self>, durability: Option<Durability>, claim: Option<Claim>) -> PyResult<WriteBatch> {
        slf.get().log().database().check_writable("write a batch")?;
        let batch = Batch { claim: fence(claim), ..Batch::default() };
        let state = Mutex::new(State { batch, is_ended: false, ids: None });
        Ok(WriteBatch { store: slf.clone().unbind(), durability, state })
    }
}

#[pymethods]
impl WriteBatch {
    /// The ids of all its rows, in the order of the calls; None before the commit.
    ///
    /// Those of changes of state are among them. A key that was there gives the id of its first row, a run that was there (`exist_ok`) none.
    #[getter]
    fn ids(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.state().ids.as_ref().map(|ids| ids.clone_ref(py))
    }

    /// Add a row: see `LogStore.append`.
    #[pyo3(signature = (source, r#type, ref_id = None, payload = None, timestamp = None, *, key = None))]
    #[expect(clippy::too_many_arguments, reason = "the columns")]
    fn append(
        &self,
        source: PyBackedStr,
        r#type: PyBackedStr,
        ref_id: Option<PyBackedStr>,
        payload: Option<PyBackedStr>,
        timestamp: Option<Integer>,
        key: Option<PyBackedStr>,
    ) -> PyResult<()> {
        let timestamp = timestamp.map(|timestamp| timestamp.0);
        let fields = Fields { source, kind: r#type, ref_id, payload, timestamp };
        let entry = OwnedEntry::from(&self.store.get().check(fields.borrow())?);
        self.push(match key {
            None => Step::Append(vec![entry]),
            Some(key) => Step::AppendOnce(AppendOne { entry, key: Some(crate::log::Key::checked(&key)?), claim: None }),
        })
    }

    /// Add rows: see `LogStore.append_many`.
    fn append_many(&self, py: Python<'_>, entries: &Bound<'_, PyAny>) -> PyResult<()> {
        let mut rows = Vec::new();
        for (index, entry) in interpreter::items(entries)?.enumerate() {
            let entry = entry?.extract::<Given>().map_err(|error| at_index(py, index, error))?;
            let entry = self.store.get().check(entry.borrow()).map_err(|error| at_index(py, index, error.into()))?;
            rows.push(OwnedEntry::from(&entry));
        }
        self.push(Step::Append(rows))
    }

    /// Add a new run: see `LogStore.create_workflow_run`.
    #[pyo3(
        signature = (run_id, workflow, *, status = RunStatus::Queued, payload = None, timestamp = None,
            not_before = None, exist_ok = false),
        text_signature = "($self, run_id, workflow, *, status='queued', payload=None, timestamp=None, not_before=None, \
            exist_ok=False)"
    )]
    #[expect(clippy::too_many_arguments, reason = "the columns")]
    fn create_workflow_run(
        &self,
        run_id: PyBackedStr,
        workflow: PyBackedStr,
        status: RunStatus,
        payload: Option<PyBackedStr>,
        timestamp: Option<Integer>,
        not_before: Option<Integer>,
        exist_ok: bool,
    ) -> PyResult<()> {
        let payload = payload.as_deref();
        let create =
            checked_create(self.store.get(), &run_id, &workflow, status, payload, timestamp, not_before, exist_ok)?;
        self.push(Step::Create(create))
    }

    /// Add a row and the state of a run: see `LogStore.upsert_workflow_run`.
    #[pyo3(signature = (entry, run, *, force = false))]
    fn upsert_workflow_run(&self, entry: Given, run: &Bound<'_, PyAny>, force: bool) -> PyResult<()> {
        let upsert = checked_upsert(self.store.get(), &entry, run, force, |run_id| self.claim_of(run_id))?;
        self.push(Step::Upsert(upsert))
    }

    /// Add a change of state: see `LogStore.transition`.
    #[pyo3(signature = (run_id, status, *, expect = None, exit_code = None, payload = None, timestamp = None))]
    #[expect(clippy::too_many_arguments, reason = "the columns")]
    fn transition(
        &self,
        run_id: PyBackedStr,
        status: RunStatus,
        expect: Option<&Bound<'_, PyAny>>,
        exit_code: Option<Integer>,
        payload: Option<PyBackedStr>,
        timestamp: Option<Integer>,
    ) -> PyResult<()> {
        let claim = self.claim_of(&run_id);
        let payload = payload.as_deref();
        let transition =
            checked_transition(self.store.get(), &run_id, status, expect, exit_code, payload, timestamp, claim)?;
        self.push(Step::Transition(transition))
    }

    /// Add a value of meta: see `LogStore.set_meta`.
    fn set_meta(&self, key: PyBackedStr, value: PyBackedStr) -> PyResult<()> {
        check_meta_key(&key)?;
        self.push(Step::SetMeta(SetMeta { key: key.to_string(), value: value.to_string() }))
    }

    /// Add the removal of a key of meta: see `LogStore.delete_meta`.
    fn delete_meta(&self, key: PyBackedStr) -> PyResult<()> {
        check_meta_key(&key)?;
        self.push(Step::DeleteMeta(DeleteMeta { key: key.to_string() }))
    }

    fn __enter__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        if slf.get().state().is_ended {
            return Err(ended());
        }
        Ok(slf)
    }

    #[pyo3(signature = (exc_type = None, exc = None, traceback = None))]
    fn __exit__(
        &self,
        py: Python<'_>,
        exc_type: Option<Bound<'_, PyType>>,
        exc: Option<Bound<'_, PyAny>>,
        traceback: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let _ = (exc, traceback);
        if exc_type.is_some() {
            self._end()?;
            return Ok(());
        }
        let ids = self._commit(py)?;
        self._committed(ids.unbind());
        Ok(())
    }

    /// Commit what was added, and return the ids.
    fn _commit<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let batch = self.take()?;
        if batch.steps.is_empty() && batch.claim.is_none() {
            return Ok(PyTuple::empty(py).into_any());
        }
        perform(py, &self.store.get().store, batch, self.durability)
    }

    /// Discard what was added; nothing can be added any more.
    fn _end(&self) -> PyResult<()> {
        self.take().map(drop)
    }

    /// Tell the ids that were committed.
    fn _committed(&self, ids: Py<PyAny>) {
        let was = self.state().ids.replace(ids);
        drop(was);
    }
}

impl WriteBatch {
    fn take(&self) -> PyResult<Batch> {
        let mut state = self.state();
        if state.is_ended {
            return Err(ended());
        }
        state.is_ended = true;
        Ok(std::mem::take(&mut state.batch))
    }
}
