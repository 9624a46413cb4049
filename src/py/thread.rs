//! `LogStore`: the threads of runs.
//!
//! Invariant: a row whose payload cannot be read or built costs that row alone, and is reported.

use pyo3::IntoPyObjectExt;
use pyo3::exceptions::{PyMemoryError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBool;

use crate::py::argument::{Arg, Text, arguments};
use crate::py::call::read;
use crate::py::convert::{Count, repr};
use crate::py::interpreter;
use crate::py::json::{integer, to_python};
use crate::py::log::LogStore;
use crate::py::report::{Level, report, report_row};
use crate::py::results::{Dict, List, Record};
use crate::workflow as run;
use crate::workflow::{Content, Round, Thread, ThreadMessage, Trigger, WholeNumber};

static THREAD_MESSAGE: Record = Record::new("ThreadMessage");
static THREAD_ROUND: Record = Record::new("ThreadRound");

/// Rows that one call reports each by its id; further ones are counted.
const MAX_REPORTS: usize = 100;

#[pymethods]
impl LogStore {
    /// What started the run, from its first `started` row; None if that says nothing.
    ///
    /// The row's object, if it has a string `prompt` and a number `maxRounds`, as `{prompt, maxRounds, dryRun}`; else
    /// its `triggerPayload` object by the same rule; else that object as it is. A row whose payload cannot be read is
    /// reported to the logger `nerve_store`, and gives None.
    fn get_trigger_payload<'py>(&self, py: Python<'py>, run_id: Arg<Text>) -> PyResult<Option<Bound<'py, PyAny>>> {
        arguments!(run_id);
        let owned = run_id.to_string();
        let trigger = read(py, &self.store, move |store| run::trigger_payload(store, &owned))?;
        Ok(self.build(py, &run_id, "trigger", &trigger, create_trigger)?.0.pop())
    }

    /// The run's command events: every `thread_command_event` whose payload is an object with a string `type`.
    ///
    /// A row whose payload is no JSON, or whose values cannot be built, is left out and reported, with its id, to the
    /// logger `nerve_store`.
    fn get_thread_events<'py>(&self, py: Python<'py>, run_id: Arg<Text>) -> PyResult<List<Bound<'py, PyAny>>> {
        arguments!(run_id);
        let owned = run_id.to_string();
        let events = read(py, &self.store, move |store| run::events(store, &owned))?;
        self.build(py, &run_id, "events", &events, |py, _, event| to_python(py, event))
    }

    /// The run's messages: every `thread_workflow_message` whose payload has a string `role` and `content`.
    ///
    /// A row whose payload is no JSON, or whose values cannot be built, is left out and reported, with its id, to the
    /// logger `nerve_store`.
    fn get_thread_messages<'py>(&self, py: Python<'py>, run_id: Arg<Text>) -> PyResult<List<Bound<'py, PyAny>>> {
        arguments!(run_id);
        let owned = run_id.to_string();
        let messages = read(py, &self.store, move |store| run::messages(store, &owned))?;
        self.build(py, &run_id, "messages", &messages, |py, _, message| create_message(py, message))
    }

    /// How many rounds the run's thread has.
    fn get_thread_round_count(&self, py: Python<'_>, run_id: Arg<Text>) -> PyResult<u64> {
        arguments!(run_id);
        let owned = run_id.to_string();
        read(py, &self.store, move |store| run::round_count(store, &owned))
    }

    /// The rounds numbered below `before` (0: all), newest first, from the `limit` newest numbers.
    ///
    /// A round is a command event or a message whose payload is JSON and no thread start. One that is neither a
    /// message nor an object with a string `type` takes a number but is not returned, so that fewer than `limit`
    /// rounds may come back.
    #[pyo3(signature = (run_id, *, before = Arg::of(Count(0)), limit), text_signature = "($self, run_id, *, before=0, limit)")]
    fn get_thread_rounds<'py>(
        &self,
        py: Python<'py>,
        run_id: Arg<Text>,
        before: Arg<Count>,
        limit: Arg<Count>,
    ) -> PyResult<List<Bound<'py, PyAny>>> {
        arguments!(run_id, before, limit);
        let before = before.0;
        let owned = run_id.to_string();
        let rounds = read(py, &self.store, move |store| run::rounds(store, &owned, before, limit.0))?;
        self.build(py, &run_id, "rounds", &rounds, create_round)
    }
}

impl LogStore {
    /// The Python objects of what was found in the run's thread; a row without one is reported.
    fn build<'py, T>(
        &self,
        py: Python<'py>,
        run_id: &str,
        what: &str,
        thread: &Thread<T>,
        create: impl Fn(Python<'py>, i64, &T) -> PyResult<Bound<'py, PyAny>>,
    ) -> PyResult<List<Bound<'py, PyAny>>> {
        let mut built = Vec::with_capacity(thread.found.len());
        let mut left_out: Vec<_> =
            thread.malformed.iter().map(|(id, malformed)| (*id, Level::Warning, malformed.to_string())).collect();
        for (id, found) in &thread.found {
            interpreter::check_signals(py)?;
            match create(py, *id, found) {
                Ok(object) => built.push(object),
                Err(error) if is_of_the_row(py, &error) => left_out.push((*id, Level::Error, error.to_string())),
                Err(error) => return Err(error),
            }
        }
        if left_out.is_empty() {
            return Ok(List(built));
        }
        let (path, run_id) = (self.log().database().path().display(), repr(py, Some(run_id))?);
        for (id, level, reason) in left_out.iter().take(MAX_REPORTS) {
            let message = format!("{path}: row {id} of run {run_id} is left out of its {what}: {reason}");
            report_row(py, *level, &message, *id)?;
        }
        if let Some(more) = left_out.len().checked_sub(MAX_REPORTS).filter(|more| *more > 0) {
            let message = format!("{path}: {more} more rows of run {run_id} are left out of its {what}");
            report(py, Level::Warning, &message)?;
        }
        Ok(List(built))
    }
}

/// Whether a payload caused the error, by what it says or by its size.
fn is_of_the_row(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PyValueError>(py) || error.is_instance_of::<PyMemoryError>(py)
}

fn create_trigger<'py>(py: Python<'py>, _: i64, trigger: &Trigger) -> PyResult<Bound<'py, PyAny>> {
    match trigger {
        Trigger::Object(object) => to_python(py, object),
        Trigger::Prompt { prompt, max_rounds, dry_run } => {
            let dry_run = PyBool::new(py, *dry_run).to_owned().into_any();
            let (prompt, max_rounds) = (to_python(py, prompt)?, to_python(py, max_rounds)?);
            Dict([("prompt", prompt), ("maxRounds", max_rounds), ("dryRun", dry_run)]).into_bound_py_any(py)
        }
    }
}

fn create_round<'py>(py: Python<'py>, log_id: i64, round: &Round) -> PyResult<Bound<'py, PyAny>> {
    let message = create_message(py, &round.message)?;
    THREAD_ROUND.create(py, (round.round, log_id, round.timestamp, message))
}

fn create_message<'py>(py: Python<'py>, message: &ThreadMessage) -> PyResult<Bound<'py, PyAny>> {
    let content = match &message.content {
        Content::Json(text) => to_python(py, text)?,
        Content::Text(text) => text.into_bound_py_any(py)?,
    };
    let meta = match message.meta.as_deref() {
        Some(meta) => to_python(py, meta)?,
        None => py.None().into_bound(py),
    };
    let timestamp = match &message.timestamp {
        WholeNumber::Small(number) => number.into_bound_py_any(py)?,
        WholeNumber::Large(digits) => integer(py, digits)?,
    };
    THREAD_MESSAGE.create(py, (to_python(py, &message.role)?, content, meta, timestamp))
}
