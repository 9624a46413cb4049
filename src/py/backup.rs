//! `LogStore`: backups.

use std::sync::Arc;

use pyo3::prelude::*;

use crate::durable::Copied;
use crate::py::argument::{Arg, arguments};
use crate::py::blob::BlobStore;
use crate::py::call::Long;
use crate::py::convert::FilePath;
use crate::py::log::LogStore;
use crate::py::results::{Record, Tuple};
use crate::store;

#[pymethods]
impl LogStore {
    /// Copy the database to the file `target`, while others write; every row acknowledged before is in the copy.
    ///
    /// The copy is verified and synced before it gets its name. A file that is there is replaced if it is an older
    /// backup of this database; one that was opened for writing since, or that is anything else, is refused
    /// (`StoreIOError`). A damaged database is a `CorruptStoreError`, and leaves what is there. `progress` is called
    /// with (done, total) bytes.
    #[pyo3(signature = (target, *, progress = None))]
    fn backup<'py>(
        &self,
        py: Python<'py>,
        target: Arg<FilePath>,
        progress: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        arguments!(target);
        let store = Arc::clone(&self.store);
        let long = Long::reporting_to(progress)?.of(&self.store);
        create_report(py, &long.run(py, move |report| store.backup_database(&target.0, report))?)
    }

    /// Copy the database, the archive and `blobs` to the directory `target`; see `Store.backup`.
    #[pyo3(name = "_backup_directory", signature = (target, blobs, *, progress))]
    fn backup_directory<'py>(
        &self,
        py: Python<'py>,
        target: Arg<FilePath>,
        blobs: &Bound<'py, BlobStore>,
        progress: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        arguments!(target);
        let (store, blobs) = (Arc::clone(&self.store), blobs.get().shared());
        let long = Long::reporting_to(progress)?.of(&self.store);
        let backup = long.run(py, move |report| {
            store.backup(&target.0, blobs.readable_size(), &mut |root, advance| blobs.copy_to(root, advance), report)
        })?;
        create_report(py, &backup)
    }
}

fn create_report<'py>(py: Python<'py>, backup: &store::Backup) -> PyResult<Bound<'py, PyAny>> {
    static REPORT: Record = Record::new("BackupReport");
    static PROBLEM: Record = Record::new("VerifyProblem");
    let Copied { count: days, new_count: new_days, .. } = backup.days;
    let Copied { count: blobs, new_count: new_blobs, .. } = backup.blobs;
    let problems = backup.days.problems.iter().chain(&backup.blobs.problems);
    let problems = problems.map(|(path, reason)| {
        PROBLEM.create(py, (path.as_os_str(), reason.as_str(), None::<()>, None::<()>, None::<()>))
    });
    let problems = Tuple(problems.collect::<PyResult<Vec<_>>>()?);
    let copied = backup.days.copied_bytes + backup.blobs.copied_bytes;
    let shared = backup.days.shared_bytes + backup.blobs.shared_bytes;
    let fields = (
        backup.path.as_os_str(),
        backup.database_bytes,
        backup.last_id,
        days,
        new_days,
        blobs,
        new_blobs,
        copied,
        shared,
        problems,
    );
    REPORT.create(py, fields)
}
