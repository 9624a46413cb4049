//! `LogStore`: the archive; and the helpers on days.

use std::sync::Arc;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDate, PyString};

use crate::archive;
use crate::archive::{Format, Options, Vacuum};
use crate::base::time;
use crate::base::time::UtcDay;
use crate::py::argument::{Arg, Flag, Refusal, Seconds, Text, arguments};
use crate::py::call::{Long, read};
use crate::py::convert::{Count, Span, date, repr};
use crate::py::iter::LogIterator;
use crate::py::log::LogStore;
use crate::py::results::{List, New, Record, Tuple};
use crate::py::timestamp::Timestamp;
use crate::py::warning::warn_of_problems;
use crate::store;

static ARCHIVED_DAY: Record = Record::new("ArchivedDay");
static VERIFY_REPORT: Record = Record::new("VerifyReport");
static VERIFY_PROBLEM: Record = Record::new("VerifyProblem");
static ARCHIVE_RESULT: Record = Record::new("ArchiveResult");

/// How long rows stay in the database by default: 30 days.
pub(super) const DEFAULT_RETENTION: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The UTC day that `timestamp` (milliseconds, years 1970 to 9999, else `ValueError`) falls on.
#[pyfunction]
pub(super) fn utc_day(py: Python<'_>, timestamp: Arg<Timestamp>) -> PyResult<Bound<'_, PyDate>> {
    arguments!(timestamp);
    date(py, UtcDay::of(timestamp.checked("timestamp")?)?)
}

/// The last UTC day that lies wholly before `boundary` (milliseconds, from 1970-01-02 on, else `ValueError`).
#[pyfunction]
pub(super) fn last_archivable_day(py: Python<'_>, boundary: Arg<Timestamp>) -> PyResult<Bound<'_, PyDate>> {
    arguments!(boundary);
    date(py, UtcDay::last_before(boundary.checked("boundary")?)?)
}

#[pymethods]
impl LogStore {
    /// Move the rows of every UTC day that ended before `now - retention` to that day's file.
    ///
    /// A day's file is staged, synced, published, read back and compared before exactly its rows are deleted; a file
    /// that is there already gains the new rows and loses none. Rows of queued and started runs stay. While others
    /// append, in whatever process, it goes at a third of its speed, so that they hardly notice.
    ///
    /// - `now`: milliseconds, or an aware `datetime`; None: the clock.
    /// - `retention`: how long rows stay; the default is `DEFAULT_RETENTION`, 30 days.
    /// - `max_days`: at most so many days gain rows, the oldest first.
    /// - `vacuum`: return the freed space to the file system. True rewrites the database in one go, and needs twice the
    ///   space of what is left in it, in its directory; if an open read of any process keeps the file from becoming
    ///   shorter, `vacuumed` is false. `"incremental"` shortens it in slices between which others write, and needs a
    ///   database that was created for it (`ValueError` otherwise).
    /// - `compression`: `"zstd"` writes `.jsonl.zst`. A file that is compressed stays so when it gains rows; a plain
    ///   one that gains rows is compressed if asked.
    /// - `dry_run`: change nothing and say what would be done; `size` is what the files would have.
    /// - `wait`: seconds to wait for another archive job to end.
    /// - `progress`: called with (rows done, rows to do) every thousand rows; an exception that it raises stops the
    ///   job between two steps and is passed on.
    ///
    /// Raises `ArchiveBusyError` while another archive job is under way, `ArchiveCorruptError` if a day's file is
    /// damaged, `ArchiveError` if it holds other rows under the same ids.
    ///
    /// In a `Store` with `remote`, the files of all days are moved there afterwards. If the object store gives no
    /// answer, the rows have been archived here, and the next job goes on (`StoreUnavailableError`); an object of
    /// others that has the name of a day is left alone (`ArchiveError`, once the other days have been moved).
    #[pyo3(
        name = "_archive_logs",
        signature = (*, now, retention, max_days, vacuum, compression, dry_run, wait, progress)
    )]
    #[expect(clippy::too_many_arguments, reason = "the options")]
    fn archive_logs<'py>(
        &self,
        py: Python<'py>,
        now: Option<Arg<Timestamp>>,
        retention: Arg<Span>,
        max_days: Option<Arg<Count>>,
        vacuum: Arg<Vacuum>,
        compression: Option<Arg<Compression>>,
        dry_run: Arg<Flag>,
        wait: Arg<Seconds>,
        progress: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        arguments!(now, retention, max_days, vacuum, compression, dry_run, wait);
        let (retention, dry_run) = (retention.0, dry_run.0);
        let now = match now {
            Some(now) => now.checked("now")?,
            None => time::now()?,
        };
        let retention = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
        let options = Options {
            boundary: now.saturating_sub(retention),
            max_days: max_days.map(|days| usize::try_from(days.0).unwrap_or(usize::MAX)),
            vacuum,
            format: compression.map_or(Format::Plain, |Compression(format)| format),
            dry_run,
            wait: wait.0,
        };
        let store = Arc::clone(&self.store);
        let long = Long::reporting_to(progress)?.of(&self.store);
        let outcome = long.run(py, move |report| store.archive_logs(options, report))?;
        let days = outcome.days.iter().map(|day| create_day(py, day)).collect::<PyResult<Vec<_>>>()?;
        warn_of_problems(py, &outcome.problems);
        let problems =
            outcome.problems.iter().map(|problem| create_problem(py, problem)).collect::<PyResult<Vec<_>>>()?;
        let (pinned, unarchivable) = (outcome.pinned_rows, outcome.unarchivable_rows);
        let fields = (Tuple(days), outcome.vacuumed, dry_run, pinned, unarchivable, Tuple(problems));
        ARCHIVE_RESULT.create(py, fields)
    }

    /// The days in the archive, oldest first, as the manifest describes them.
    ///
    /// A file that the manifest does not know, such as the predecessor's, is read once to describe it; the next
    /// archive job adopts it.
    fn archived_days<'py>(&self, py: Python<'py>) -> PyResult<List<Bound<'py, PyAny>>> {
        let days = read(py, &self.store, store::LogStore::days)?;
        days.iter().map(|day| create_day(py, day)).collect::<PyResult<_>>().map(List)
    }

    /// Delete the files of the days before `before`, and what the index keeps of them; returns these days in order.
    ///
    /// A day in which a queued or started run has rows stays. Rounds keep their numbers, and ids are not given out
    /// again. The rows are gone for every read at once, also if the call is killed before the files are; the next
    /// archive job removes these then. `dry_run`: only say which days would go.
    ///
    /// Raises `ArchiveBusyError` while an archive job is under way.
    #[pyo3(name = "_expire_archive", signature = (*, before, dry_run))]
    fn expire_archive<'py>(
        &self,
        py: Python<'py>,
        before: Arg<UtcDay>,
        dry_run: Arg<Flag>,
    ) -> PyResult<List<Bound<'py, PyAny>>> {
        arguments!(before, dry_run);
        let store = Arc::clone(&self.store);
        let long = Long::reporting_to(None)?.of(&self.store);
        let days = long.run(py, move |_| store.expire_archive(before, dry_run.0))?;
        days.iter().map(|day| create_day(py, day)).collect::<PyResult<_>>().map(List)
    }

    /// Put the rows of `day` back into the database, under their ids; returns how many were not there.
    ///
    /// The file stays, and the next archive job deletes the rows again. Nothing is put back if the file is damaged
    /// (`ArchiveCorruptError`), if there is none, or if the database has another row under one of the ids
    /// (`ArchiveError`). Reads scan the restored rows until the next archive job or `reindex()`.
    /// `progress` is called with (rows done, rows to do).
    #[pyo3(signature = (day, *, progress = None))]
    fn restore_archive(&self, py: Python<'_>, day: Arg<UtcDay>, progress: Option<Bound<'_, PyAny>>) -> PyResult<u64> {
        arguments!(day);
        let store = Arc::clone(&self.store);
        Long::reporting_to(progress)?.of(&self.store).run(py, move |report| store.restore(day, report))
    }

    /// Check the database, its rows and every archive file, on all cores; what is wrong is in the report.
    ///
    /// SQLite's structures, the checksum of each sealed segment over its rows wherever they are, and of each file the
    /// sha256, every line, and what the manifest says of it. The index is compared with the rows, and the status of a
    /// run with the newest row that logged it. Rows of another program that cannot be read are named, and so is a file
    /// that cannot be. `progress` is called with (rows done, rows to do). In a `Store` with
    /// `remote`, days there are read as well; of those in the cache, only whether the object is there with its size.
    #[pyo3(name = "_verify", signature = (*, progress))]
    fn verify<'py>(&self, py: Python<'py>, progress: Option<Bound<'py, PyAny>>) -> PyResult<Bound<'py, PyAny>> {
        let store = Arc::clone(&self.store);
        let long = Long::reporting_to(progress)?.of(&self.store);
        let verified = long.run(py, move |report| store.verify(report))?;
        let problems =
            verified.problems.iter().map(|problem| create_problem(py, problem)).collect::<PyResult<Vec<_>>>()?;
        let fields = (
            Tuple(problems),
            verified.row_count,
            verified.segment_count,
            verified.day_count,
            verified.archived_row_count,
        );
        VERIFY_REPORT.create(py, fields)
    }

    /// The rows in the file of `day`, in id order, in constant memory; `ArchiveError` if there is none.
    ///
    /// Every block is compared with its checksum before its rows are returned: `ArchiveCorruptError` names the file.
    #[pyo3(name = "read_archive")]
    fn read_archived_day(&self, py: Python<'_>, day: Arg<UtcDay>) -> PyResult<New<LogIterator>> {
        arguments!(day);
        Ok(New(LogIterator::over(&self.store, read(py, &self.store, move |store| store.read_day(day))?)))
    }
}

fn create_problem<'py>(py: Python<'py>, problem: &archive::Problem) -> PyResult<Bound<'py, PyAny>> {
    let day = problem.day.map(|day| date(py, day)).transpose()?;
    let (first, last) = problem.ids.map(<(i64, i64)>::from).unzip();
    VERIFY_PROBLEM.create(py, (problem.path.as_os_str(), problem.reason.as_str(), day, first, last))
}

/// How files are compressed.
pub(super) struct Compression(Format);

impl<'a, 'py> FromPyObject<'a, 'py> for Compression {
    type Error = Refusal;

    fn extract(value: Borrowed<'a, 'py, PyAny>) -> Result<Self, Refusal> {
        const KNOWN: &str = "None or 'zstd'";
        if !value.is_instance_of::<PyString>() {
            return Err(Refusal::not(&value, KNOWN));
        }
        match &*value.extract::<Text>()? {
            "zstd" => Ok(Self(Format::Zstd)),
            other => Err(Refusal::Value(format!("is {KNOWN}, not {}", repr(value.py(), Some(other))?))),
        }
    }
}

impl<'a, 'py> FromPyObject<'a, 'py> for Vacuum {
    type Error = Refusal;

    fn extract(value: Borrowed<'a, 'py, PyAny>) -> Result<Self, Refusal> {
        const KNOWN: &str = "True, False or 'incremental'";
        if value.is_instance_of::<PyBool>() {
            let Flag(full) = value.extract()?;
            return Ok(if full { Self::Full } else { Self::No });
        }
        if !value.is_instance_of::<PyString>() {
            return Err(Refusal::not(&value, KNOWN));
        }
        match &*value.extract::<Text>()? {
            "incremental" => Ok(Self::Incremental),
            other => Err(Refusal::Value(format!("is {KNOWN}, not {}", repr(value.py(), Some(other))?))),
        }
    }
}

fn create_day<'py>(py: Python<'py>, archived: &archive::ArchivedDay) -> PyResult<Bound<'py, PyAny>> {
    let path = archived.path.as_os_str();
    let fields = (
        date(py, archived.day)?,
        archived.row_count,
        path,
        archived.size,
        archived.sha256.to_string(),
        archived.added_rows,
        archived.format.name(),
        archived.id_span.map(|span| span.first),
        archived.id_span.map(|span| span.last),
        archived.archived_at,
    );
    ARCHIVED_DAY.create(py, fields)
}
