//! `LogStore`: opening, appending, meta, closing. Its reads are in `read` and `sql`, its methods on runs in `run`, those
//! on the archive in `archive`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyType;

use crate::db::Config;
use crate::durable::Durability;
use crate::log;
use crate::log::{DeleteMeta, Key, Log, SetMeta};
use crate::py::argument::{Arg, Flag, Seconds, Text, arguments};
use crate::py::call::{Long, end_calls_of, read, write};
use crate::py::convert::{Count, FilePath, date, path_text};
use crate::py::entry::Row;
use crate::py::fields::{Fields, Json};
use crate::py::given::{all_checked, all_given, range};
use crate::py::perform::{frames, perform};
use crate::py::results::{Dict, Record, import_records};
use crate::py::run_record::{Claim, check_ref, check_refs, fence};
use crate::py::timestamp::{Timestamp, UnitWarning};
use crate::py::warning::warn_of_rebuild;
use crate::row::{self, DEFAULT_MAX_TEXT_BYTES, OwnedEntry};
use crate::store::{self, StoreConfig, check_meta_key};
use crate::workflow::{AppendClaimed, AppendOne};

/// The defaults that the signature names.
const DEFAULT_BUSY_TIMEOUT: Seconds = Seconds(Duration::from_secs(30));
const DEFAULT_SEGMENT_ROWS: u64 = 4_096;

/// SQLite stores rows of up to a billion bytes, and a row has four texts.
const MOST_TEXT_BYTES: u64 = 200 << 20;

static LOG_STATS: Record = Record::new("LogStats");

/// The log database and its archive: rows, workflow runs, meta.
///
/// One object serves any number of threads; any number of processes may open the same file. Use it as a context
/// manager, or call `close()`. A forked child must open its own (`ForkedStoreError`).
///
/// The constructor opens the database at `path`, or creates it (directories 0700, file 0600). A database of the
/// predecessor (`@uncaged/nerve-store` 0.5.0) is opened in place and indexed, which takes some seconds per million
/// rows. A symbolic link at `path` is refused.
///
/// - `durability`: what a returned call survives. "full": power loss; "normal": the kill of the process, while a
///   power loss may drop the newest commits.
/// - `read_only`: refuse every write; no database is created, and none is brought up to date.
/// - `busy_timeout`: seconds to wait for another process's lock before `StoreBusyError`.
/// - `archive_dir`: where day files go; default `archive/logs` beside the database.
/// - `segment_rows`: rows of a segment of the index, from 2; for tests and experiments.
/// - `max_payload_bytes`: the longest text accepted in a row, in bytes of UTF-8. Source, type and ref_id take 65,536
///   at most.
/// - `progress`: called with (rows indexed, rows to index) while a database without a segment index gets one; an
///   exception that it raises stops that, and the next opening goes on with it.
///
/// Raises `StoreIOError`, `CorruptStoreError` (no database), `SchemaVersionError` (newer, or another
/// application's), `StoreBusyError`.
#[pyclass(frozen, module = "nerve_store")]
pub(super) struct LogStore {
    pub(super) store: Arc<store::LogStore>,
    /// What it was opened with.
    config: StoreConfig,
    max_text_bytes: usize,
    unit_warning: UnitWarning,
    /// What fetches days from an object store, if the store was opened with one.
    pub(super) remote: OnceLock<Arc<Py<PyAny>>>,
}

impl LogStore {
    fn open(py: Python<'_>, long: Long, path: PathBuf, config: StoreConfig, max_text_bytes: usize) -> PyResult<Self> {
        let opened_with = config.clone();
        let store = long.run_shortly(py, move |report| store::LogStore::open(&path, opened_with.clone(), report))?;
        Ok(Self {
            store: Arc::new(store),
            config,
            max_text_bytes,
            unit_warning: UnitWarning::default(),
            remote: OnceLock::new(),
        })
    }

    pub(super) fn log(&self) -> &Log {
        self.store.log()
    }

    /// The row in the core's terms, if it can be stored.
    pub(super) fn check<'a>(&self, entry: row::NewLogEntry<'a>) -> crate::Result<row::NewLogEntry<'a>> {
        entry.checked(self.max_text_bytes)
    }

    /// Warns once of a timestamp in seconds, on behalf of the caller so many frames up.
    pub(super) fn warn_of_seconds(&self, py: Python<'_>, timestamp: Option<Timestamp>, frames: u32) -> PyResult<()> {
        self.unit_warning.look(py, timestamp, frames)
    }
}

#[pymethods]
impl LogStore {
    /// Open the database at `path`, or create it (directories 0700, file 0600).
    #[new]
    #[expect(clippy::too_many_arguments, reason = "the options")]
    #[pyo3(
        signature = (path, *, durability = Arg::of(Durability::Full), read_only = Arg::OFF,
            busy_timeout = Arg::of(DEFAULT_BUSY_TIMEOUT), archive_dir = None,
            segment_rows = Arg::of(Count(DEFAULT_SEGMENT_ROWS)),
            max_payload_bytes = Arg::of(Count(DEFAULT_MAX_TEXT_BYTES as u64)), progress = None),
        text_signature = "(path, *, durability='full', read_only=False, busy_timeout=30.0, archive_dir=None, \
            segment_rows=4096, max_payload_bytes=67108864, progress=None)"
    )]
    fn new(
        py: Python<'_>,
        path: Arg<FilePath>,
        durability: Arg<Durability>,
        read_only: Arg<Flag>,
        busy_timeout: Arg<Seconds>,
        archive_dir: Option<Arg<FilePath>>,
        segment_rows: Arg<Count>,
        max_payload_bytes: Arg<Count>,
        progress: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        arguments!(path, durability, read_only, busy_timeout, archive_dir, segment_rows, max_payload_bytes);
        let (read_only, busy_timeout) = (read_only.0, busy_timeout.0);
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
        import_records(py)?;
        let max_text_bytes = usize::try_from(max_payload_bytes.0).unwrap_or(usize::MAX);
        Self::open(py, Long::reporting_to(progress)?, path.0, config, max_text_bytes)
    }

    /// The same log, opened as this one was; for a forked child. It reads no days of an object store.
    fn _opened_again(&self, py: Python<'_>) -> PyResult<Self> {
        let path = self.log().database().path().to_owned();
        Self::open(py, Long::default(), path, self.config.clone(), self.max_text_bytes)
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
    ///
    /// `timestamp` is in milliseconds, or an aware `datetime`; None: now. In place of `payload`, `json` takes a JSON
    /// value, which is written compactly; NaN and infinities are a `ValueError`.
    ///
    /// - `key`: makes the append idempotent. A later one with the same key appends nothing and returns the first
    ///   row; with another source, type, ref_id or payload it is an `IdempotencyError`. A key is remembered until
    ///   its row is archived, and for seven days at the least.
    /// - `claim`: the claim under which the row is written, of the run that `ref_id` names, if it names any. A
    ///   claim that is lost is a `ClaimLostError`, and nothing is appended.
    #[pyo3(
        signature = (source, r#type, ref_id = None, payload = None, timestamp = None, *, json = Json::NONE,
            durability = None, key = None, claim = None),
        text_signature = "($self, source, type, ref_id=None, payload=None, timestamp=None, *, json=..., \
            durability=None, key=None, claim=None)"
    )]
    #[expect(clippy::too_many_arguments, reason = "the columns")]
    fn append<'py>(
        &self,
        py: Python<'py>,
        source: Arg<Text>,
        r#type: Arg<Text>,
        ref_id: Option<Arg<Text>>,
        payload: Option<Arg<Text>>,
        timestamp: Option<Arg<Timestamp>>,
        json: Json<'_>,
        durability: Option<Arg<Durability>>,
        key: Option<Arg<Text>>,
        claim: Option<Arg<Claim>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        arguments!(source, r#type, ref_id, payload, timestamp, durability);
        let fields = Fields { source, kind: r#type, ref_id, payload: json.or(payload)?, timestamp };
        let entry = self.check(fields.borrow())?;
        if key.is_none() && claim.is_none() {
            self.warn_of_seconds(py, timestamp, 1)?;
            return Row(write(py, || self.log().append(&entry, durability))?).into_bound_py_any(py);
        }
        arguments!(key, claim);
        let (key, claim) = (key.map(|key| Key::checked(&key)).transpose()?, fence(claim));
        claim.as_ref().map_or(Ok(()), |claim| check_ref(claim, entry.ref_id))?;
        self.warn_of_seconds(py, timestamp, frames())?;
        perform(py, &self.store, AppendOne { entry: (&entry).into(), key, claim }, durability)
    }

    /// Append rows in one transaction, all or none; returns their ids.
    ///
    /// A tuple is (source, type, ref_id, payload, timestamp); the id of a `LogEntry` is ignored. Every row is checked
    /// before anything is written; an error names the index of the row. `claim`: as in `append`.
    #[pyo3(signature = (entries, *, durability = None, claim = None))]
    fn append_many<'py>(
        &self,
        py: Python<'py>,
        entries: &Bound<'py, PyAny>,
        durability: Option<Arg<Durability>>,
        claim: Option<Arg<Claim>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        arguments!(durability, claim);
        let given = all_given(py, entries)?;
        let rows = all_checked(py, &given, self.max_text_bytes)?;
        check_refs(py, claim.as_ref(), &rows)?;
        for entry in &given {
            self.warn_of_seconds(py, entry.timestamp(), frames())?;
        }
        if let Some(Claim(claim)) = claim.filter(|_| !rows.is_empty()) {
            let entries = rows.iter().map(OwnedEntry::from).collect();
            return perform(py, &self.store, AppendClaimed { entries, claim }, durability);
        }
        let first = write(py, || self.log().append_many(&rows, durability))?;
        range(py, first, rows.len())
    }

    /// The value under `key`, or None.
    fn get_meta(&self, py: Python<'_>, key: Arg<Text>) -> PyResult<Option<String>> {
        arguments!(key);
        let key = key.to_string();
        read(py, &self.store, move |store| log::get_meta(store.log().database(), &key))
    }

    /// The values under all keys that begin with `prefix`, by key; with the default, of every key.
    #[pyo3(signature = (prefix = None), text_signature = "($self, prefix='')")]
    fn list_meta(&self, py: Python<'_>, prefix: Option<Arg<Text>>) -> PyResult<Dict<BTreeMap<String, String>>> {
        arguments!(prefix);
        let prefix = prefix.map(|prefix| prefix.to_string()).unwrap_or_default();
        read(py, &self.store, move |store| store.list_meta(&prefix)).map(Dict)
    }

    /// Set the value under `key`, as durable as the store.
    ///
    /// The archive's own key, `archived_up_to`, is a `ValueError`.
    fn set_meta<'py>(&self, py: Python<'py>, key: Arg<Text>, value: Arg<Text>) -> PyResult<Bound<'py, PyAny>> {
        arguments!(key, value);
        check_meta_key(&key)?;
        perform(py, &self.store, SetMeta { key: key.to_string(), value: value.to_string() }, None)
    }

    /// Remove `key`, and say whether it was there.
    ///
    /// The archive's own key, `archived_up_to`, is a `ValueError`.
    fn delete_meta<'py>(&self, py: Python<'py>, key: Arg<Text>) -> PyResult<Bound<'py, PyAny>> {
        arguments!(key);
        check_meta_key(&key)?;
        perform(py, &self.store, DeleteMeta { key: key.to_string() }, None)
    }

    /// Build the manifest of the archive anew from its files, and the index from the rows, in one transaction.
    ///
    /// Needed only if an error or `verify` says so. Files are taken as they are; missing ones are forgotten, damaged
    /// ones left as they are. Rows of the database that have ids of archived rows get new ids, and so do all rows
    /// after the first of them. What is missing in files, and what got new ids, is logged by the logger `nerve_store`.
    ///
    /// `progress` is called with (rows indexed, rows to index), inside the transaction: it must not write to the
    /// store.
    #[pyo3(signature = (*, progress = None))]
    fn reindex(&self, py: Python<'_>, progress: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        let store = Arc::clone(&self.store);
        let long = Long::reporting_to(progress)?.of(&self.store).awaited();
        warn_of_rebuild(py, &long.run(py, move |report| store.reindex(report))?);
        Ok(())
    }

    /// Figures of the database, at a cost that does not grow with its rows.
    ///
    /// `exact`: look at each row. Without it, `row_count` and the timestamps are those that the index knows; they
    /// differ only if more than 8,192 rows may have been deleted since they were indexed, or were written by other
    /// programs.
    #[pyo3(signature = (*, exact = Arg::OFF), text_signature = "($self, *, exact=False)")]
    fn stats<'py>(&self, py: Python<'py>, exact: Arg<Flag>) -> PyResult<Bound<'py, PyAny>> {
        arguments!(exact);
        let exact = exact.0;
        let (stats, watermark) = read(py, &self.store, move |store| store.stats(exact))?;
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
                Dict(stats.runs),
                stats.database_bytes,
                stats.wal_bytes,
                stats.free_bytes,
                watermark,
            ),
        )
    }

    /// Wait for calls under way and close; harmless when closed already. Later calls raise `StoreClosedError`.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        end_calls_of(&self.store);
        write(py, || self.store.close())
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
