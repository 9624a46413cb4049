//! `LogStore.arrow`: rows for data tools, by Arrow's PyCapsule interface.
#![expect(unsafe_code, reason = "capsules around structs of C")]

use std::ffi::{CStr, c_void};
use std::path::Path;
use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::prelude::*;

use crate::base::fork::Generation;
use crate::py::argument::{Arg, Flag, Text, arguments};
use crate::py::call::read;
use crate::py::convert::{Count, Integer};
use crate::py::log::LogStore;
use crate::py::pages::Pages;
use crate::py::results::New;
use crate::py::timestamp::Timestamp;
use crate::row::Filter;
use crate::store;
use crate::store::arrow::{ArrowArrayStream, ArrowSchema, schema, stream, stream_of};

const SCHEMA: &CStr = c"arrow_schema";
const STREAM: &CStr = c"arrow_array_stream";

/// The defaults that the signature names.
const DEFAULT_BATCH_ROWS: u64 = 65_536;

/// Rows of a log for data tools, by Arrow's PyCapsule interface, which pyarrow, Polars, DuckDB and others read.
///
/// Each reading begins anew, with the rows that there are then. Columns: `id` (int64), `source` and `type`
/// (dictionaries of utf8), `ref_id` and `payload` (utf8), `timestamp` (milliseconds, UTC).
#[pyclass(frozen, module = "nerve_store._core")]
pub(super) struct ArrowStream {
    rows: Rows,
    batch_rows: usize,
    generation: Generation,
}

/// Whose rows they are.
enum Rows {
    Log {
        store: Arc<store::LogStore>,
        filter: Filter,
        archived: bool,
    },
    /// See [`arrow_stream`].
    OpenedBy(Py<PyAny>),
}

/// Rows for data tools from elsewhere.
///
/// `open()` begins a reading, and returns a callable that returns the next rows at each call, and none at the end.
#[pyfunction]
pub(super) fn arrow_stream(open: Py<PyAny>, batch_rows: usize) -> PyResult<ArrowStream> {
    if batch_rows == 0 {
        return Err(PyValueError::new_err("batch_rows is at least 1, not 0"));
    }
    Ok(ArrowStream { rows: Rows::OpenedBy(open), batch_rows, generation: Generation::current() })
}

#[pymethods]
impl ArrowStream {
    #[pyo3(signature = (requested_schema = None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        // The interface lets a producer that cannot convert return what it has.
        let _ = requested_schema;
        self.generation.check(Path::new(""))?;
        let batch_rows = self.batch_rows;
        let opened = match &self.rows {
            Rows::Log { store, filter, archived } => {
                let (theirs, filter, archived) = (Arc::clone(store), filter.clone(), *archived);
                read(py, store, move |_| stream(&theirs, filter.clone(), archived, batch_rows).map(Movable))?.0
            }
            Rows::OpenedBy(open) => stream_of(Box::new(Pages::new(open.call0(py)?)), batch_rows),
        };
        capsule(py, opened, STREAM, release_stream)
    }

    #[expect(clippy::unused_self, reason = "the interface is one of methods")]
    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        capsule(py, schema(), SCHEMA, release_schema)
    }
}

/// A stream on its way between threads: it holds nothing of the thread that opened it.
struct Movable(ArrowArrayStream);

// SAFETY: its state is a store, which threads share, and rows, which belong to no thread.
unsafe impl Send for Movable {}

/// A capsule that frees the struct with itself, unless that was moved away or released before.
fn capsule<'py, T>(
    py: Python<'py>,
    value: T,
    name: &'static CStr,
    destructor: unsafe extern "C" fn(*mut ffi::PyObject),
) -> PyResult<Bound<'py, PyAny>> {
    let pointer = Box::into_raw(Box::new(value)).cast::<c_void>();
    // SAFETY: the pointer is not null, the name lives for ever; a new reference or null comes back.
    unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyCapsule_New(pointer, name.as_ptr(), Some(destructor))) }
}

unsafe extern "C" fn release_stream(capsule: *mut ffi::PyObject) {
    // SAFETY: `capsule` made it, with a boxed struct of this type under this name.
    unsafe {
        let pointer = ffi::PyCapsule_GetPointer(capsule, STREAM.as_ptr());
        if !pointer.is_null() {
            Box::from_raw(pointer.cast::<ArrowArrayStream>()).release();
        }
    }
}

unsafe extern "C" fn release_schema(capsule: *mut ffi::PyObject) {
    // SAFETY: the same.
    unsafe {
        let pointer = ffi::PyCapsule_GetPointer(capsule, SCHEMA.as_ptr());
        if !pointer.is_null() {
            Box::from_raw(pointer.cast::<ArrowSchema>()).release();
        }
    }
}

#[pymethods]
impl LogStore {
    /// The rows of `query` for data tools, without Python objects.
    ///
    /// `pyarrow.table(logs.arrow())`, `polars.DataFrame(logs.arrow(source="workflow"))`,
    /// `duckdb.sql("SELECT … FROM stream")`. They are read as they are asked for, in batches of at most `batch_rows`,
    /// in constant memory, and no transaction is open between batches. Rows that are appended after a reading began
    /// are not included.
    #[pyo3(
        signature = (*, batch_rows = Arg::of(Count(DEFAULT_BATCH_ROWS)), source = None, r#type = None, ref_id = None,
            since = None, until = None, after_id = None, before_id = None, limit = None, descending = Arg::OFF,
            archived = Arg::OFF),
        text_signature = "($self, *, batch_rows=65536, source=None, type=None, ref_id=None, since=None, until=None, \
            after_id=None, before_id=None, limit=None, descending=False, archived=False)"
    )]
    #[expect(clippy::too_many_arguments, reason = "the filters")]
    fn arrow(
        &self,
        batch_rows: Arg<Count>,
        source: Option<Arg<Text>>,
        r#type: Option<Arg<Text>>,
        ref_id: Option<Arg<Text>>,
        since: Option<Arg<Timestamp>>,
        until: Option<Arg<Timestamp>>,
        after_id: Option<Arg<Integer>>,
        before_id: Option<Arg<Integer>>,
        limit: Option<Arg<Count>>,
        descending: Arg<Flag>,
        archived: Arg<Flag>,
    ) -> PyResult<New<ArrowStream>> {
        arguments!(batch_rows, source, r#type, ref_id, since, until, after_id, before_id, limit, descending, archived);
        let batch_rows = usize::try_from(batch_rows.0).unwrap_or(usize::MAX);
        if batch_rows == 0 {
            return Err(PyValueError::new_err("batch_rows is at least 1, not 0"));
        }
        self.log().database().check_open()?;
        let text = |text: Option<Text>| text.map(|text| text.to_string());
        let time = |bound: Option<Timestamp>| bound.map(|bound| bound.milliseconds);
        let filter = Filter {
            source: text(source),
            kind: text(r#type),
            ref_id: text(ref_id),
            since: time(since),
            until: time(until),
            after_id: after_id.map(|id| id.0),
            before_id: before_id.map(|id| id.0),
            limit: limit.map(|limit| limit.0),
            descending: descending.0,
        };
        let rows = Rows::Log { store: Arc::clone(&self.store), filter, archived: archived.0 };
        Ok(New(ArrowStream { rows, batch_rows, generation: Generation::current() }))
    }
}
