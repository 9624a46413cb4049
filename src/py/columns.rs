//! `Columns`: rows on their way to PostgreSQL; and what the log there asks the core about rows.

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::py::argument::{Arg, Text, arguments};
use crate::py::entry::LogEntry;
use crate::py::fields::Fields;
use crate::py::given::{Given, all_checked, all_given};
use crate::py::interpreter;
use crate::py::own::Own;
use crate::py::results::List;
use crate::py::run_record::{Claim, check_refs};
use crate::py::timestamp::Timestamp;
use crate::row::{self, Arrays};
use crate::workflow;

/// Rows on their way to PostgreSQL, as arrays in its binary form, one a column.
#[pyclass(frozen, module = "nerve_store._core")]
pub(super) struct Columns(Own<Arrays>);

#[pymethods]
impl Columns {
    #[new]
    fn new() -> Self {
        Self(Own::new(Arrays::default()))
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.0.locked(py)?.len())
    }

    /// Bytes of the payloads together.
    #[getter]
    fn payload_bytes(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.0.locked(py)?.payload_bytes())
    }

    /// Append a row that was checked.
    #[pyo3(signature = (source, r#type, ref_id, payload, timestamp))]
    fn add(
        &self,
        py: Python<'_>,
        source: Text,
        r#type: Text,
        ref_id: Option<Text>,
        payload: Option<Text>,
        timestamp: i64,
    ) -> PyResult<()> {
        let timestamp = Some(Timestamp::stored(timestamp));
        let fields = Fields { source, kind: r#type, ref_id, payload, timestamp };
        self.0.locked(py)?.push(&fields.borrow());
        Ok(())
    }

    /// Append rows that were stored, whatever they are.
    fn add_stored(&self, py: Python<'_>, rows: Vec<Py<LogEntry>>) -> PyResult<()> {
        let mut arrays = self.0.locked(py)?;
        rows.iter().for_each(|row| arrays.push(&(&row.get().0).into()));
        Ok(())
    }

    /// Append all rows of a call, or none; returns how many there are.
    ///
    /// An error names the index of the row. Rows of another run than that of a `claim` are refused. `warn` is called
    /// with the first timestamp that looks like seconds, before any row is appended.
    #[pyo3(signature = (entries, max_payload_bytes, warn, claim = None))]
    fn add_new(
        &self,
        py: Python<'_>,
        entries: &Bound<'_, PyAny>,
        max_payload_bytes: usize,
        warn: &Bound<'_, PyAny>,
        claim: Option<Arg<Claim>>,
    ) -> PyResult<usize> {
        arguments!(claim);
        let given = all_given(py, entries)?;
        let rows = all_checked(py, &given, max_payload_bytes)?;
        check_refs(py, claim.as_ref(), &rows)?;
        if let Some(seconds) = given.iter().filter_map(Given::timestamp).find(|time| time.is_like_seconds) {
            interpreter::call(warn, (seconds.milliseconds,))?;
        }
        let mut arrays = self.0.locked(py)?;
        rows.iter().for_each(|row| arrays.push(row));
        Ok(rows.len())
    }

    /// Append the rows of another.
    fn extend(&self, py: Python<'_>, other: &Self) -> PyResult<()> {
        // Not both at once: they may be the same.
        let more = other.0.locked(py)?.clone();
        self.0.locked(py)?.extend(&more);
        Ok(())
    }

    /// The arrays: sources, types, references, payloads, timestamps, and whether each row is a round.
    fn arrays<'py>(&self, py: Python<'py>) -> PyResult<List<Bound<'py, PyBytes>>> {
        let arrays = self.0.locked(py)?.encoded();
        Ok(List(arrays.iter().map(|array| PyBytes::new(py, array)).collect()))
    }
}

/// What `JSON.stringify(JSON.parse(text))` gives for a text that is JSON.
///
/// Integers of 64 bits stay exact, numbers beyond every double stay as they are written, members keep their order.
#[pyfunction]
pub(super) fn stringify(text: &str) -> String {
    workflow::stringify(text)
}

/// Whether a row counts as a round of its thread.
#[pyfunction]
#[pyo3(signature = (source, r#type, payload))]
pub(super) fn is_round(source: &str, r#type: &str, payload: Option<&str>) -> bool {
    row::is_round(Some(source), Some(r#type), payload)
}
