//! `WriteBatch`: many changes in one commit.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyTuple, PyType};

use crate::base::status::RunStatus;
use crate::durable::Durability;
use crate::log::{DeleteMeta, Key, SetMeta};
use crate::py::argument::{Arg, Flag, Text, arguments};
use crate::py::convert::Integer;
use crate::py::fields::{Fields, Json};
use crate::py::given::{Given, at_index, given_at, several};
use crate::py::log::LogStore;
use crate::py::perform::perform;
use crate::py::results::New;
use crate::py::run::{Change, NewRun, checked_upsert};
use crate::py::run_record::{Claim, fence};
use crate::py::timestamp::Timestamp;
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
    fn batch(
        slf: &Bound<'_, Self>,
        durability: Option<Arg<Durability>>,
        claim: Option<Arg<Claim>>,
    ) -> PyResult<New<WriteBatch>> {
        arguments!(durability, claim);
        slf.get().log().database().check_writable("write a batch")?;
        let batch = Batch { claim: fence(claim), ..Batch::default() };
        let state = Mutex::new(State { batch, is_ended: false, ids: None });
        Ok(New(WriteBatch { store: slf.clone().unbind(), durability, state }))
    }
}

#[pymethods]
impl WriteBatch {
    /// The ids of all its rows, in the order of the calls; None before the commit.
    ///
    /// Those of changes of state are among them. A key that was there gives the id of its first row, a run that was
    /// there (`exist_ok`) none.
    #[getter]
    fn ids(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.state().ids.as_ref().map(|ids| ids.clone_ref(py))
    }

    /// Add a row: see `LogStore.append`.
    #[pyo3(
        signature = (source, r#type, ref_id = None, payload = None, timestamp = None, *, json = Json::NONE, key = None),
        text_signature = "($self, source, type, ref_id=None, payload=None, timestamp=None, *, json=..., key=None)"
    )]
    #[expect(clippy::too_many_arguments, reason = "the columns")]
    fn append(
        &self,
        py: Python<'_>,
        source: Arg<Text>,
        r#type: Arg<Text>,
        ref_id: Option<Arg<Text>>,
        payload: Option<Arg<Text>>,
        timestamp: Option<Arg<Timestamp>>,
        json: Json<'_>,
        key: Option<Arg<Text>>,
    ) -> PyResult<()> {
        arguments!(source, r#type, ref_id, payload, timestamp, key);
        let fields = Fields { source, kind: r#type, ref_id, payload: json.or(payload)?, timestamp };
        let store = self.store.get();
        let entry = OwnedEntry::from(&store.check(fields.borrow())?);
        let key = key.map(|key| Key::checked(&key)).transpose()?;
        store.warn_of_seconds(py, timestamp, 1)?;
        self.push(match key {
            None => Step::Append(vec![entry]),
            Some(key) => Step::AppendOnce(AppendOne { entry, key: Some(key), claim: None }),
        })
    }

    /// Add rows: see `LogStore.append_many`.
    fn append_many(&self, py: Python<'_>, entries: &Bound<'_, PyAny>) -> PyResult<()> {
        let mut rows = Vec::new();
        let mut timestamps = Vec::new();
        for (index, entry) in several(entries)?.enumerate() {
            let given = given_at(py, index, &entry?)?;
            let entry = self.store.get().check(given.borrow()).map_err(|error| at_index(py, index, error.into()))?;
            rows.push(OwnedEntry::from(&entry));
            timestamps.push(given.timestamp());
        }
        for timestamp in timestamps {
            self.store.get().warn_of_seconds(py, timestamp, 1)?;
        }
        self.push(Step::Append(rows))
    }

    /// Add a new run: see `LogStore.create_workflow_run`.
    #[pyo3(
        signature = (run_id, workflow, *, status = Arg::of(RunStatus::Queued), payload = None, json = Json::NONE,
            timestamp = None, not_before = None, exist_ok = Arg::OFF),
        text_signature = "($self, run_id, workflow, *, status='queued', payload=None, json=..., timestamp=None, \
            not_before=None, exist_ok=False)"
    )]
    #[expect(clippy::too_many_arguments, reason = "the columns")]
    fn create_workflow_run(
        &self,
        py: Python<'_>,
        run_id: Arg<Text>,
        workflow: Arg<Text>,
        status: Arg<RunStatus>,
        payload: Option<Arg<Text>>,
        json: Json<'_>,
        timestamp: Option<Arg<Timestamp>>,
        not_before: Option<Arg<Timestamp>>,
        exist_ok: Arg<Flag>,
    ) -> PyResult<()> {
        arguments!(run_id, workflow, status, payload, timestamp, not_before, exist_ok);
        let run = NewRun { run_id, workflow, status, payload: json.or(payload)?, timestamp, not_before };
        self.push(Step::Create(run.checked(py, self.store.get(), exist_ok.0)?))
    }

    /// Add a row and the state of a run: see `LogStore.upsert_workflow_run`.
    #[pyo3(
        signature = (entry, run, *, force = Arg::OFF),
        text_signature = "($self, entry, run, *, force=False)"
    )]
    fn upsert_workflow_run(
        &self,
        py: Python<'_>,
        entry: Arg<Given>,
        run: &Bound<'_, PyAny>,
        force: Arg<Flag>,
    ) -> PyResult<()> {
        arguments!(entry, force);
        let upsert = checked_upsert(py, self.store.get(), &entry, run, force.0, |run_id| self.claim_of(run_id))?;
        self.push(Step::Upsert(upsert))
    }

    /// Add a change of state: see `LogStore.transition`.
    #[pyo3(
        signature = (run_id, status, *, expect = None, exit_code = None, payload = None, json = Json::NONE,
            timestamp = None),
        text_signature = "($self, run_id, status, *, expect=None, exit_code=None, payload=None, json=..., \
            timestamp=None)"
    )]
    #[expect(clippy::too_many_arguments, reason = "the columns")]
    fn transition(
        &self,
        py: Python<'_>,
        run_id: Arg<Text>,
        status: Arg<RunStatus>,
        expect: Option<&Bound<'_, PyAny>>,
        exit_code: Option<Arg<Integer>>,
        payload: Option<Arg<Text>>,
        json: Json<'_>,
        timestamp: Option<Arg<Timestamp>>,
    ) -> PyResult<()> {
        arguments!(run_id, status, exit_code, payload, timestamp);
        let claim = self.claim_of(&run_id);
        let change = Change { run_id, status, exit_code, payload: json.or(payload)?, timestamp };
        self.push(Step::Transition(change.checked(py, self.store.get(), expect, claim)?))
    }

    /// Add a value of meta: see `LogStore.set_meta`.
    fn set_meta(&self, key: Arg<Text>, value: Arg<Text>) -> PyResult<()> {
        arguments!(key, value);
        check_meta_key(&key)?;
        self.push(Step::SetMeta(SetMeta { key: key.to_string(), value: value.to_string() }))
    }

    /// Add the removal of a key of meta: see `LogStore.delete_meta`.
    fn delete_meta(&self, key: Arg<Text>) -> PyResult<()> {
        arguments!(key);
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
