//! The Python bindings, and the only place that knows Python.
//!
//! A method takes owned, checked inputs, detaches from the interpreter, calls the core, and converts what comes back.
//! No Python runs while a lock of the core is held.

mod archive;
mod argument;
mod arrow;
mod backup;
mod batch;
mod blob;
mod blob_stream;
mod blob_write;
mod call;
mod change;
mod channel;
mod check;
mod claim;
mod columns;
mod convert;
mod encoder;
mod entry;
mod error;
mod fields;
mod follow;
mod given;
mod interpreter;
mod iter;
mod json;
mod log;
mod mailbox;
mod memory;
mod news;
mod own;
mod pages;
mod perform;
mod read;
mod remote;
mod report;
mod results;
mod run;
mod run_query;
mod run_record;
mod salvage;
mod several;
mod sql;
mod thread;
mod timestamp;
mod warning;

use pyo3::prelude::*;

/// The core of nerve_store; import its names from `nerve_store`.
#[pymodule(gil_used = false)]
mod _core {
    use super::*;

    #[pymodule_export]
    use super::arrow::{ArrowStream, arrow_stream};
    #[pymodule_export]
    use super::batch::WriteBatch;
    #[pymodule_export]
    use super::call::Interruption;
    #[pymodule_export]
    use super::channel::AppendChannel;
    #[pymodule_export]
    use super::check::Check;
    #[pymodule_export]
    use super::columns::{Columns, is_round, stringify};
    #[pymodule_export]
    use super::encoder::DayEncoder;
    #[pymodule_export]
    use super::follow::LogFollower;
    #[pymodule_export]
    use super::iter::LogIterator;
    #[pymodule_export]
    use super::log::LogStore;
    #[pymodule_export]
    use super::news::News;
    #[pymodule_export]
    use super::pages::copied_rows;
    #[pymodule_export]
    use super::pages::stored_rows;
    #[pymodule_export]
    use super::remote::ArchiveLock;
    #[pymodule_export]
    use super::run_query::WorkflowRunIterator;
    #[pymodule_export]
    use super::salvage::salvage;
    #[pymodule_export]
    use super::{archive::last_archivable_day, archive::utc_day};
    #[pymodule_export]
    use super::{blob::BlobIterator, blob::BlobStore, blob::blob_hash, blob::normalize_blob_hash};
    #[pymodule_export]
    use super::{blob_stream::BlobReader, blob_stream::BlobWriter};
    #[pymodule_export]
    use super::{entry::LogEntry, entry::NewLogEntry};

    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "the name is Python's")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
    #[pymodule_export]
    const BUILD_PROFILE: &str = if cfg!(debug_assertions) { "debug" } else { "release" };
    #[pymodule_export]
    const MAX_TIMESTAMP: i64 = crate::base::time::MAX_TIMESTAMP;
    #[pymodule_export]
    const ARCHIVED_UP_TO: &str = crate::archive::ARCHIVED_UP_TO;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        // Now, when no other thread can fork: see there.
        crate::db::prepare_for_forks();
        module.add("SQLITE_VERSION", crate::db::sqlite_version())?;
        module.add("DEFAULT_RETENTION", super::archive::DEFAULT_RETENTION)
    }
}
