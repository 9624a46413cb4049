//! `salvage`: what can still be read of a damaged database.

use pyo3::prelude::*;

use crate::base::ids::IdSpan;
use crate::py::argument::{Arg, arguments};
use crate::py::call::Long;
use crate::py::convert::FilePath;
use crate::py::results::{Record, Tuple, import_records};

/// Write what can still be read of the database `damaged` to a new one at `target`, with the help of its archive.
///
/// `damaged` is the file of a database that no process has open. Its `-wal` and `archive/logs` beside it are read as
/// well, and nothing there is changed. The new database has the rows, the runs, meta and the identity, so that it can
/// take the place of the damaged one. Rows for which neither the checksum of their segment nor the archive vouches are
/// kept, and listed as unverified: the newest, which are in no segment yet, and all rows of a segment that lost one.
/// Every other row is right. Runs and meta have no checksums. `progress` is called with (pages done, pages to do).
///
/// `StoreIOError` if there is something at `target`, or if the database is in use.
#[pyfunction]
#[pyo3(signature = (damaged, target, *, progress = None))]
pub(super) fn salvage<'py>(
    py: Python<'py>,
    damaged: Arg<FilePath>,
    target: Arg<FilePath>,
    progress: Option<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    static REPORT: Record = Record::new("SalvageReport");
    arguments!(damaged, target);
    import_records(py)?;
    let long = Long::reporting_to(progress)?;
    let salvaged = long.run(py, move |report| crate::salvage::salvage(&damaged.0, &target.0, report))?;
    let spans = |spans: &[IdSpan]| Tuple(spans.iter().copied().map(<(i64, i64)>::from).collect());
    let fields = (salvaged.row_count, spans(&salvaged.unverified), spans(&salvaged.missing), salvaged.last_id);
    REPORT.create(py, fields)
}
