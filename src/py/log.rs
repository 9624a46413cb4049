//! `LogStore`: opening, appending, reading, meta, closing. Its methods on runs are in `run`, on the archive in `archive`.

use std::ffi::OsString;
use std::sync::Arc;

use pyo3::IntoPyObjectExt;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyMapping, PyString, PyTuple, PyType};
use rusqlite::types::Value;

use crate::db::{Config, SqlParams};
use crate::durable::Durability;
use crate::log;
use crate::log::Log;
use crate::py::convert::{Count, FilePath, Integer, Record, date, path_text, seconds};
use crate::py::entry::{Fields, Given, LogEntry, Row, at_index, range};
use crate::py::interpreter;
use crate::py::iter::LogIterator;
use crate::py::progress::Report;
use crate::row::{self, DEFAULT_MAX_TEXT_BYTES, Filter};
use crate::store::{self, StoreConfig};

/// SQLite stores rows of up to a billion bytes, and a row has four texts.
const MOST_TEXT_BYTES: u64 = 200 << 20;

static LOG_STATS: Record = Record::new("LogStats");

/// The log database and its archive: rows, workflow runs, meta.
///
/// One object serves any number of threads; any number of processes may open the same file. Use it as a context
/// manager, or call `close()`. A forked child must open its own (`ForkedStoreError`).
#[pyclass(frozen, module = "nerve_store")]
pub(super) struct LogStore {
    pub(super) store: Arc<store::LogStore>,
    max_text_bytes: usize,
}

impl LogStore {
    pub(super) fn log(&self) -> &Log {
        self.store.log()
    }

    /// The row in the core's terms, if it can be stored.
    pub(super) fn check<'a>(&self, entry: row::NewLogEntry<'a>) -> crate::Result<row::NewLogEntry<'a>> {
        entry.checked(self.max_text_bytes)
    }
}

#[pymethods]
impl LogStore {
    /// Open the database at `path`, or create it (directories 0700, file 0600).
    #[new]
    #[expect(clippy::too_many_arguments, reason = "the options")]
    #[pyo3(
        signature = (path, *, durability = Durability::Full, read_only = false, busy_timeout = 30.0, archive_dir = None,
            segment_rows = Count(4096), max_payload_bytes = Count(DEFAULT_MAX_TEXT_BYTES as u64), progress = None),
        text_signature = "(path, *, durability='full', read_only=False, busy_timeout=30.0, archive_dir=None, \
            segment_rows=4096, max_payload_bytes=67108864, progress=None)"
    )]
    fn new(
        py: Python<'_>,
        path: FilePath,
        durability: Durability,
        read_only: bool,
        busy_timeout: f64,
        archive_dir: Option<FilePath>,
        segment_rows: Count,
        max_payload_bytes: Count,
        progress: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let busy_timeout = seconds("busy_timeout", busy_timeout)?;
        if !(1..=MOST_TEXT_BYTES).contains(&max_payload_bytes.0) {
            return Err(PyValueError::new_err(format!(
                "max_payload_bytes is from 1 to {MOST_TEXT_BYTES}, not {}",
                max_payload_bytes.0
            )));
        }
        if segment_rows.0 < 2 {
            return Err(PyValueError::new_err(format!("segment_rows is at least 2, not {}", segment_rows.0)));
        }
        let config = StoreConfig {
            database: Config { durability, read_only, busy_timeout, ..Config::default() },
            segment_rows: Some(segment_rows.0),
            archive_directory: archive_dir.map(|directory| std::path::absolute(directory.0)).transpose()?,
        };
        let mut report = Report::to(progress)?;
        let store = py.detach(|| store::LogStore::open(&path.0, config, &mut |done, total| report.step(done, total)));
        let store = Arc::new(report.settle(store)?);
        Ok(Self { store, max_text_bytes: usize::try_from(max_payload_bytes.0).unwrap_or(usize::MAX) })
    }

    /// The absolute path of the database.
    #[getter]
    fn path(&self) -> OsString {
        path_text(self.log().database().path())
    }

    /// The absolute path of the directory of the day files.
    #[getter]
    fn archive_dir(&self) -> OsString {
        path_text(self.store.archive().directory())
    }

    /// Whether the store refuses writes.
    #[getter]
    fn read_only(&self) -> bool {
        self.log().database().config().read_only
    }

    /// Whether `close()` was called.
    #[getter]
    fn closed(&self) -> bool {
        self.log().database().is_closed()
    }

    /// Append one row and return it; it is as durable as asked when this returns.
    #[pyo3(signature = (source, r#type, ref_id = None, payload = None, timestamp = None, *, durability = None))]
    #[expect(clippy::too_many_arguments, reason = "the columns")]
    fn append(
        &self,
        py: Python<'_>,
        source: PyBackedStr,
        r#type: PyBackedStr,
        ref_id: Option<PyBackedStr>,
        payload: Option<PyBackedStr>,
        timestamp: Option<Integer>,
        durability: Option<Durability>,
    ) -> PyResult<LogEntry> {
        let fields =
            Fields { source, kind: r#type, ref_id, payload, timestamp: timestamp.map(|timestamp| timestamp.0) };
        let entry = self.check(fields.borrow())?;
        Ok(LogEntry(py.detach(|| self.log().append(&entry, durability))?))
    }

    /// Append rows in one transaction, all or none; returns their ids.
    #[pyo3(signature = (entries, *, durability = None))]
    fn append_many<'py>(
        &self,
        py: Python<'py>,
        entries: &Bound<'py, PyAny>,
        durability: Option<Durability>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let mut given = Vec::new();
        for (index, entry) in interpreter::items(entries)?.enumerate() {
            given.push(entry?.extract::<Given>().map_err(|error| at_index(py, index, error))?);
        }
        let mut rows = Vec::with_capacity(given.len());
        for (index, entry) in given.iter().enumerate() {
            rows.push(self.check(entry.borrow()).map_err(|error| at_index(py, index, error.into()))?);
        }
        let first = py.detach(|| self.log().append_many(&rows, durability))?;
        range(py, first, rows.len())
    }

    /// The rows that match every filter given, in id order.
    #[pyo3(signature = (*, source = None, r#type = None, ref_id = None, since = None, until = None, after_id = None,
        before_id = None, limit = None, descending = false, archived = false))]
    #[expect(clippy::too_many_arguments, reason = "the filters")]
    fn query(
        &self,
        py: Python<'_>,
        source: Option<PyBackedStr>,
        r#type: Option<PyBackedStr>,
        ref_id: Option<PyBackedStr>,
        since: Option<Integer>,
        until: Option<Integer>,
        after_id: Option<Integer>,
        before_id: Option<Integer>,
        limit: Option<Count>,
        descending: bool,
        archived: bool,
    ) -> PyResult<Vec<Row>> {
        let filter = filter(source, r#type, ref_id, since, until, after_id, before_id, limit, descending);
        let rows = py.detach(|| self.store.query(&filter, archived))?;
        Ok(rows.into_iter().map(Row).collect())
    }

    /// The rows of `query`, any number of them in constant memory, holding no transaction between steps.
    #[pyo3(signature = (*, source = None, r#type = None, ref_id = None, since = None, until = None, after_id = None,
        before_id = None, limit = None, descending = false, archived = false))]
    #[expect(clippy::too_many_arguments, reason = "the filters")]
    fn iter(
        &self,
        py: Python<'_>,
        source: Option<PyBackedStr>,
        r#type: Option<PyBackedStr>,
        ref_id: Option<PyBackedStr>,
        since: Option<Integer>,
        until: Option<Integer>,
        after_id: Option<Integer>,
        before_id: Option<Integer>,
        limit: Option<Count>,
        descending: bool,
        archived: bool,
    ) -> PyResult<LogIterator> {
        let filter = filter(source, r#type, ref_id, since, until, after_id, before_id, limit, descending);
        Ok(LogIterator::over(py.detach(|| self.store.iter(filter, archived))?))
    }

    /// How many rows `query` would return.
    #[pyo3(signature = (*, source = None, r#type = None, ref_id = None, since = None, until = None, after_id = None,
        before_id = None, limit = None, descending = false, archived = false))]
    #[expect(clippy::too_many_arguments, reason = "the filters")]
    fn count(
        &self,
        py: Python<'_>,
        source: Option<PyBackedStr>,
        r#type: Option<PyBackedStr>,
        ref_id: Option<PyBackedStr>,
        since: Option<Integer>,
        until: Option<Integer>,
        after_id: Option<Integer>,
        before_id: Option<Integer>,
        limit: Option<Count>,
        descending: bool,
        archived: bool,
    ) -> PyResult<u64> {
        let filter = filter(source, r#type, ref_id, since, until, after_id, before_id, limit, descending);
        Ok(py.detach(|| self.store.count(&filter, archived))?)
    }

    /// The rows of one read-only SQL statement, on a connection of its own.
    #[pyo3(signature = (query, params = None), text_signature = "($self, query, params=())")]
    fn sql<'py>(
        &self,
        py: Python<'py>,
        query: PyBackedStr,
        params: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Vec<Bound<'py, PyTuple>>> {
        let params = sql_params(params)?;
        let rows = py.detach(|| self.log().database().sql(&query, &params))?;
        rows.into_iter()
            .map(|row| {
                PyTuple::new(py, row.into_iter().map(|value| sql_result(py, value)).collect::<PyResult<Vec<_>>>()?)
            })
            .collect()
    }

    /// The value under `key`, or None.
    fn get_meta(&self, py: Python<'_>, key: PyBackedStr) -> PyResult<Option<String>> {
        Ok(py.detach(|| log::get_meta(self.log().database(), &key))?)
    }

    /// Set the value under `key`, as durable as the store.
    fn set_meta(&self, py: Python<'_>, key: PyBackedStr, value: PyBackedStr) -> PyResult<()> {
        Ok(py.detach(|| log::set_meta(self.log().database(), &key, &value))?)
    }

    /// Build the index anew from the rows, in one transaction.
    #[pyo3(signature = (*, progress = None))]
    fn reindex(&self, py: Python<'_>, progress: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        let mut report = Report::to(progress)?;
        let outcome = py.detach(|| self.store.reindex(&mut |done, total| report.step(done, total)));
        report.settle(outcome)
    }

    /// Figures of the database; counts the rows.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let (stats, watermark) = py.detach(|| self.store.stats())?;
        let runs = PyDict::new(py);
        for (status, count) in stats.runs {
            runs.set_item(status, count)?;
        }
        let watermark = watermark.map(|day| date(py, day)).transpose()?;
        LOG_STATS.create(
            py,
            (
                path_text(self.log().database().path()),
                stats.row_count,
                stats.ids.map(|ids| ids.first),
                stats.ids.map(|ids| ids.last),
                stats.timestamps.map(|timestamps| timestamps.first),
                stats.timestamps.map(|timestamps| timestamps.last),
                runs,
                stats.database_bytes,
                stats.wal_bytes,
                stats.free_bytes,
                watermark,
            ),
        )
    }

    /// Wait for calls under way and close; harmless when closed already. Later calls raise `StoreClosedError`.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        Ok(py.detach(|| self.store.close())?)
    }

    fn __enter__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        slf.get().log().database().check_open()?;
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
        let _ = (exc_type, exc, traceback);
        self.close(py)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let closed = if self.log().database().is_closed() { " (closed)" } else { "" };
        Ok(format!("<LogStore {}{closed}>", super::convert::repr(py, self.log().database().path().to_str())?))
    }
}

#[expect(clippy::too_many_arguments, reason = "the filters")]
fn filter(
    source: Option<PyBackedStr>,
    kind: Option<PyBackedStr>,
    ref_id: Option<PyBackedStr>,
    since: Option<Integer>,
    until: Option<Integer>,
    after_id: Option<Integer>,
    before_id: Option<Integer>,
    limit: Option<Count>,
    descending: bool,
) -> Filter {
    let text = |text: Option<PyBackedStr>| text.map(|text| text.to_string());
    let integer = |integer: Option<Integer>| integer.map(|integer| integer.0);
    Filter {
        source: text(source),
        kind: text(kind),
        ref_id: text(ref_id),
        since: integer(since),
        until: integer(until),
        after_id: integer(after_id),
        before_id: integer(before_id),
        limit: limit.map(|limit| limit.0),
        descending,
    }
}

fn sql_params(params: Option<&Bound<'_, PyAny>>) -> PyResult<SqlParams> {
    let Some(params) = params else { return Ok(SqlParams::Positional(Vec::new())) };
    if params.is_instance_of::<PyString>() || params.is_instance_of::<PyBytes>() {
        return Err(PyTypeError::new_err("params is a sequence or a mapping of values, not one value"));
    }
    if let Ok(mapping) = params.cast::<PyMapping>() {
        let items = mapping.items()?.iter().map(|item| {
            let (name, value): (String, Bound<'_, PyAny>) = item.extract()?;
            Ok((name, sql_value(&value)?))
        });
        return Ok(SqlParams::Named(items.collect::<PyResult<_>>()?));
    }
    let values = interpreter::items(params)?.map(|value| sql_value(&value?));
    Ok(SqlParams::Positional(values.collect::<PyResult<_>>()?))
}

fn sql_value(value: &Bound<'_, PyAny>) -> PyResult<Value> {
    if value.is_none() {
        Ok(Value::Null)
    } else if value.is_instance_of::<PyBool>() {
        Ok(Value::Integer(value.extract::<bool>()?.into()))
    } else if value.is_instance_of::<PyInt>() {
        Ok(Value::Integer(value.extract::<Integer>()?.0))
    } else if let Ok(float) = value.cast::<PyFloat>() {
        Ok(Value::Real(float.value()))
    } else if value.is_instance_of::<PyString>() {
        Ok(Value::Text(value.extract()?))
    } else if value.is_instance_of::<PyBytes>() {
        Ok(Value::Blob(value.extract::<PyBackedBytes>()?.to_vec()))
    } else {
        let found = value.get_type().name()?.to_string();
        Err(PyTypeError::new_err(format!("an SQL value is None, int, float, str or bytes, not {found:?}")))
    }
}

fn sql_result(py: Python<'_>, value: Value) -> PyResult<Bound<'_, PyAny>> {
    match value {
        Value::Null => Ok(py.None().into_bound(py)),
        Value::Integer(integer) => integer.into_bound_py_any(py),
        Value::Real(real) => real.into_bound_py_any(py),
        Value::Text(text) => text.into_bound_py_any(py),
        Value::Blob(bytes) => Ok(PyBytes::new(py, &bytes).into_any()),
    }
}
