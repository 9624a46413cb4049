//! `DayEncoder`: the bytes of a day's file, for the log on PostgreSQL.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

use crate::archive::{self, EncodedDay, Format, RowRef};
use crate::base::error::{Error, Result};
use crate::py::call::detach;
use crate::py::entry::LogEntry;
use crate::py::own::Own;
use crate::py::results::{Dict, List};
use crate::row::{CopiedRow, CopiedRows};

/// The bytes of a day's file, made from its rows in the order of their ids, and what it holds.
///
/// Each call returns the bytes that come next in the file. Rows in another order are a `ValueError`.
#[pyclass(frozen, module = "nerve_store._core")]
pub(super) struct DayEncoder(Own<Option<archive::DayEncoder>>);

impl DayEncoder {
    fn encode<'py>(
        &self,
        py: Python<'py>,
        add: impl FnOnce(&mut archive::DayEncoder) -> Result<()> + Send,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = detach(py, || {
            let mut state = self.0.lock()?;
            let encoder = state.as_mut().ok_or_else(ended)?;
            add(encoder)?;
            Ok(encoder.take())
        })?;
        Ok(PyBytes::new(py, &bytes))
    }
}

fn ended() -> Error {
    Error::Value("the file has ended".into())
}

/// What [`DayEncoder::finish`] returns.
type Finished<'py> = (
    Bound<'py, PyBytes>,
    u64,
    u64,
    String,
    Bound<'py, PyBytes>,
    Dict<Vec<(String, List<i64>)>>,
    Option<List<(String, String)>>,
);

#[pymethods]
impl DayEncoder {
    #[new]
    fn new(compressed: bool) -> PyResult<Self> {
        let format = if compressed { Format::Zstd } else { Format::Plain };
        let encoder = archive::DayEncoder::new(format).map_err(|error| PyValueError::new_err(error.to_string()))?;
        Ok(Self(Own::new(Some(encoder))))
    }

    /// How many rows there are.
    #[getter]
    fn row_count(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.0.locked(py)?.as_ref().ok_or_else(ended)?.row_count())
    }

    /// Append rows as a server sent them.
    ///
    /// `data` are whole messages of a binary COPY of a `LogEntry`'s fields, with texts as PostgreSQL stores them.
    fn copied<'py>(&self, py: Python<'py>, data: PyBackedBytes) -> PyResult<Bound<'py, PyBytes>> {
        self.encode(py, |encoder| {
            CopiedRows::new(&data)?.try_for_each(|row| encoder.add(&RowRef::from(&CopiedRow::of(row?)?), None))
        })
    }

    /// Append rows, those that come from a file with their lines.
    fn add<'py>(
        &self,
        py: Python<'py>,
        rows: Vec<(Py<LogEntry>, Option<PyBackedBytes>)>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        self.encode(py, |encoder| {
            rows.iter().try_for_each(|(row, line)| encoder.add(&RowRef::from(&row.get().0), line.as_deref()))
        })
    }

    /// End the file.
    ///
    /// Returns its last bytes, its size, the size of its lines, its sha256, its ids as native integers of 64 bits, its
    /// references with the ids of their rounds, and its pairs of source and type if they are few.
    fn finish<'py>(&self, py: Python<'py>) -> PyResult<Finished<'py>> {
        let (bytes, day) = detach(py, || self.0.lock()?.take().ok_or_else(ended)?.finish())?;
        let EncodedDay { size, raw_size, sha256, ids, rounds, kinds } = day;
        let ids: Vec<u8> = ids.into_iter().flat_map(i64::to_ne_bytes).collect();
        let rounds = Dict(rounds.into_iter().map(|(ref_id, rounds)| (ref_id.into(), List(rounds))).collect());
        let kinds =
            kinds.map(|kinds| List(kinds.into_iter().map(|(source, kind)| (source.into(), kind.into())).collect()));
        let (bytes, ids) = (PyBytes::new(py, &bytes), PyBytes::new(py, &ids));
        Ok((bytes, size, raw_size, sha256.to_string(), ids, rounds, kinds))
    }
}
