//! `Check`: the rules for arguments, for those parts of the package that are written in Python.

use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use crate::archive::Vacuum;
use crate::base::status::RunStatus;
use crate::base::time::UtcDay;
use crate::durable::Durability;
use crate::log::Key;
use crate::py::archive::Compression;
use crate::py::argument::{Arg, Flag, Seconds, SecondsOrDelta, Text, arguments, named};
use crate::py::blob::{kept, parse};
use crate::py::blob_write::{self, Data, in_items, utf8};
use crate::py::call::check_progress;
use crate::py::claim::{attempts, positive};
use crate::py::convert::{Count, FilePath, Integer, Span};
use crate::py::fields::{Fields, Json};
use crate::py::follow::interval;
use crate::py::given::{Given, several};
use crate::py::results::{List, status_member};
use crate::py::run::expected;
use crate::py::run_record::{Claim, check_ref, create_run, extract_run};
use crate::py::several::Several;
use crate::py::timestamp::Timestamp;
use crate::row::check_name;

type Object<'py> = Bound<'py, PyAny>;

/// The five fields of a row that can be stored, and whether its timestamp looks like seconds.
type Fitting<'py> = (Bound<'py, PyTuple>, bool);

/// The rules for arguments, as calls on a directory have them: each returns what it takes, or raises their error.
///
/// What is refused is a `TypeError` or a `ValueError` whose text begins with `name`. What accepts None passes it on.
#[pyclass(frozen, module = "nerve_store._core")]
pub(super) struct Check;

#[pymethods]
impl Check {
    /// A text without lone surrogates.
    #[staticmethod]
    fn text(value: &Object<'_>, name: &str) -> PyResult<String> {
        named::<Text>(value, name).map(|text| text.to_string())
    }

    /// A text, or None.
    #[staticmethod]
    fn optional_text(value: Option<&Object<'_>>, name: &str) -> PyResult<Option<String>> {
        value.map(|value| Self::text(value, name)).transpose()
    }

    /// The texts of one text or of a collection, or None.
    #[staticmethod]
    fn texts(value: Option<&Object<'_>>, name: &str) -> PyResult<Option<List<String>>> {
        let texts = value.map(|value| named::<Several<Text>>(value, name)).transpose()?;
        Ok(texts.map(|Several(texts)| List(texts.iter().map(|text| text.to_string()).collect())))
    }

    /// A whole number of 64 bits, or None; a bool is none.
    #[staticmethod]
    fn integer(value: Option<&Object<'_>>, name: &str) -> PyResult<Option<i64>> {
        value.map(|value| named::<Integer>(value, name).map(|integer| integer.0)).transpose()
    }

    /// A whole number from 0 on.
    #[staticmethod]
    fn count(value: &Object<'_>, name: &str) -> PyResult<u64> {
        named::<Count>(value, name).map(|count| count.0)
    }

    /// A whole number from 0 on, or None.
    #[staticmethod]
    fn optional_count(value: Option<&Object<'_>>, name: &str) -> PyResult<Option<u64>> {
        value.map(|value| Self::count(value, name)).transpose()
    }

    /// A bool.
    #[staticmethod]
    fn flag(value: &Object<'_>, name: &str) -> PyResult<bool> {
        named::<Flag>(value, name).map(|flag| flag.0)
    }

    /// The milliseconds of a time of any year.
    #[staticmethod]
    fn time(value: &Object<'_>, name: &str) -> PyResult<i64> {
        named::<Timestamp>(value, name).map(|time| time.milliseconds)
    }

    /// The same, or None.
    #[staticmethod]
    fn optional_time(value: Option<&Object<'_>>, name: &str) -> PyResult<Option<i64>> {
        value.map(|value| Self::time(value, name)).transpose()
    }

    /// The milliseconds of a time of the years 1970 to 9999, or None.
    #[staticmethod]
    fn timestamp(value: Option<&Object<'_>>, name: &str) -> PyResult<Option<i64>> {
        value.map(|value| named::<Timestamp>(value, name)?.checked(name)).transpose()
    }

    /// A calendar date of the years 1970 to 9999.
    #[staticmethod]
    fn day<'py>(value: &Object<'py>, name: &str) -> PyResult<Object<'py>> {
        named::<UtcDay>(value, name).map(|_| value.clone())
    }

    /// A `timedelta` that is not negative.
    #[staticmethod]
    fn span<'py>(value: &Object<'py>, name: &str) -> PyResult<Object<'py>> {
        named::<Span>(value, name).map(|_| value.clone())
    }

    /// A number of seconds from 0 on.
    #[staticmethod]
    fn seconds(value: &Object<'_>, name: &str) -> PyResult<f64> {
        named::<Seconds>(value, name).map(|seconds| seconds.0.as_secs_f64())
    }

    /// The seconds of a span of time from 0 on, which is a number or a `timedelta`.
    #[staticmethod]
    fn seconds_or_delta(value: &Object<'_>, name: &str) -> PyResult<f64> {
        named::<SecondsOrDelta>(value, name).map(|seconds| seconds.0.as_secs_f64())
    }

    /// The seconds between two looks of a follower.
    #[staticmethod]
    fn poll_interval(value: &Object<'_>) -> PyResult<f64> {
        interval(named(value, "poll_interval")?).map(|interval| interval.as_secs_f64())
    }

    /// The seconds of a lease.
    #[staticmethod]
    fn lease(value: &Object<'_>) -> PyResult<f64> {
        positive(named::<SecondsOrDelta>(value, "lease")?.0).map(|lease| lease.as_secs_f64())
    }

    /// How often a run may be claimed, or None.
    #[staticmethod]
    fn max_attempts(value: Option<&Object<'_>>) -> PyResult<Option<i64>> {
        attempts(value.map(|value| named(value, "max_attempts")).transpose()?)
    }

    /// `full`, `normal` or None.
    #[staticmethod]
    fn durability<'py>(value: Option<&Object<'py>>) -> PyResult<Option<Object<'py>>> {
        value.map(|value| named::<Durability>(value, "durability").map(|_| value.clone())).transpose()
    }

    /// `zstd` or None.
    #[staticmethod]
    fn compression<'py>(value: Option<&Object<'py>>) -> PyResult<Option<Object<'py>>> {
        value.map(|value| named::<Compression>(value, "compression").map(|_| value.clone())).transpose()
    }

    /// A bool or `incremental`.
    #[staticmethod]
    fn vacuum<'py>(value: &Object<'py>) -> PyResult<Object<'py>> {
        named::<Vacuum>(value, "vacuum").map(|_| value.clone())
    }

    /// What can be told of progress, or None.
    #[staticmethod]
    fn progress(value: Option<&Object<'_>>) -> PyResult<()> {
        value.map_or(Ok(()), check_progress)
    }

    /// A key of an append.
    #[staticmethod]
    fn key(value: &Object<'_>) -> PyResult<String> {
        let key = Self::text(value, "key")?;
        Key::checked(&key)?;
        Ok(key)
    }

    /// A path of a file.
    #[staticmethod]
    fn path(value: &Object<'_>, name: &str) -> PyResult<PathBuf> {
        named::<FilePath>(value, name).map(|path| path.0)
    }

    /// The items of an argument `entries`, which may be any.
    #[staticmethod]
    fn entries<'py>(entries: &Object<'py>) -> PyResult<List<Object<'py>>> {
        several(entries)?.collect::<PyResult<_>>().map(List)
    }

    /// The hash of a blob in lowercase; None for a text that is none.
    #[staticmethod]
    fn hash(value: &Object<'_>) -> PyResult<Option<String>> {
        Ok(parse(&named(value, "hash")?).map(|digest| digest.to_string()))
    }

    /// The hashes of blobs to keep, in lowercase.
    #[staticmethod]
    fn keep(value: &Object<'_>) -> PyResult<List<String>> {
        Ok(List(kept(value)?.iter().map(ToString::to_string).collect()))
    }

    /// The items of an argument `items`, one at a time.
    #[staticmethod]
    fn items<'py>(items: &Object<'py>) -> PyResult<Object<'py>> {
        blob_write::several(items).map(|items| items.into_any())
    }

    /// The bytes of a text or of a bytes-like object, which never change; `index`: its place among `items`.
    #[staticmethod]
    #[pyo3(signature = (data, index = None))]
    fn data<'py>(py: Python<'py>, data: Object<'py>, index: Option<usize>) -> PyResult<Bound<'py, PyBytes>> {
        bytes_of(py, data).map_err(|error| match index {
            Some(index) => in_items(py, index, error),
            None => error,
        })
    }

    /// The id of a run that a row is to be about.
    #[staticmethod]
    fn run_id(value: &Object<'_>) -> PyResult<String> {
        let run_id = Self::text(value, "run_id")?;
        check_name("run_id", &run_id)?;
        Ok(run_id)
    }

    /// The payload of a call that takes `payload` or `json`.
    #[staticmethod]
    fn payload(payload: Option<&Object<'_>>, json: &Object<'_>) -> PyResult<Option<String>> {
        let payload = payload.map(|payload| named::<Text>(payload, "payload")).transpose()?;
        Ok(json.extract::<Json<'_>>()?.or(payload)?.map(|text| text.to_string()))
    }

    /// The fields of a row, the timestamp in milliseconds, and whether that looks like seconds.
    #[staticmethod]
    #[pyo3(signature = (source, r#type, ref_id, payload, timestamp, *, max_payload_bytes))]
    fn row<'py>(
        py: Python<'py>,
        source: Arg<Text>,
        r#type: Arg<Text>,
        ref_id: Option<Arg<Text>>,
        payload: Option<Arg<Text>>,
        timestamp: Option<Arg<Timestamp>>,
        max_payload_bytes: usize,
    ) -> PyResult<Fitting<'py>> {
        arguments!(source, r#type, ref_id, payload, timestamp);
        fitting(py, &Given::Fields(Fields { source, kind: r#type, ref_id, payload, timestamp }), max_payload_bytes)
    }

    /// The same of a row that was given as one argument, `entry`.
    #[staticmethod]
    #[pyo3(signature = (entry, *, max_payload_bytes))]
    fn entry<'py>(py: Python<'py>, entry: Arg<Given>, max_payload_bytes: usize) -> PyResult<Fitting<'py>> {
        arguments!(entry);
        fitting(py, &entry, max_payload_bytes)
    }

    /// A state of a run.
    #[staticmethod]
    fn status<'py>(py: Python<'py>, value: &Object<'py>) -> PyResult<Object<'py>> {
        status_member(py, named::<RunStatus>(value, "status")?).cloned()
    }

    /// One state or several, or None.
    #[staticmethod]
    fn statuses<'py>(py: Python<'py>, value: Option<&Object<'py>>) -> PyResult<Option<List<Object<'py>>>> {
        let statuses = value.map(|value| named::<Several<RunStatus>>(value, "status")).transpose()?;
        statuses.map(|Several(statuses)| members(py, &statuses)).transpose()
    }

    /// One state or several that a run must be in, or None.
    #[staticmethod]
    fn expect<'py>(py: Python<'py>, value: Option<&Object<'py>>) -> PyResult<Option<List<Object<'py>>>> {
        value.map(|value| members(py, &expected(value)?)).transpose()
    }

    /// A `WorkflowRun` with these fields, checked, and whether its timestamp looks like seconds.
    #[staticmethod]
    fn run<'py>(py: Python<'py>, value: &Object<'py>, name: &str) -> PyResult<(Object<'py>, bool)> {
        let (run, timestamp) = extract_run(value, name)?;
        Ok((create_run(py, &run)?, timestamp.is_like_seconds))
    }

    /// A `RunClaim`, or None. A claim of another run than `ref_id` is a `ValueError`, unless that is None.
    #[staticmethod]
    #[pyo3(signature = (value, ref_id = None))]
    fn claim<'py>(value: Option<&Object<'py>>, ref_id: Option<&str>) -> PyResult<Option<Object<'py>>> {
        let Some(claim) = value else { return Ok(None) };
        check_ref(&named::<Claim>(claim, "claim")?.0, ref_id)?;
        Ok(Some(claim.clone()))
    }
}

fn fitting<'py>(py: Python<'py>, given: &Given, max_payload_bytes: usize) -> PyResult<Fitting<'py>> {
    let row = given.borrow().checked(max_payload_bytes)?;
    let fields =
        (row.source, row.kind, row.ref_id, row.payload, row.timestamp.unwrap_or_default()).into_pyobject(py)?;
    Ok((fields, given.timestamp().is_some_and(|timestamp| timestamp.is_like_seconds)))
}

fn bytes_of<'py>(py: Python<'py>, data: Object<'py>) -> PyResult<Bound<'py, PyBytes>> {
    match Data::of(data)? {
        Data::Text(text) => Ok(PyBytes::new(py, utf8(&text)?)),
        Data::Bytes(bytes) => Ok(bytes),
        Data::Exported(memory) => {
            let memory = memory.shared();
            PyBytes::new_with(py, memory.size(), |bytes| {
                memory.copy_to(0, bytes);
                Ok(())
            })
        }
    }
}

fn members<'py>(py: Python<'py>, statuses: &[RunStatus]) -> PyResult<List<Object<'py>>> {
    statuses.iter().map(|status| status_member(py, *status).cloned()).collect::<PyResult<_>>().map(List)
}
