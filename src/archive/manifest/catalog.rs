//! The archive of one database.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::archive::file::reader::DayReader;
use crate::archive::file::summary::Summary;
use crate::archive::manifest::remote::Remote;
use crate::archive::manifest::seen::{DayFile, Seen};
use crate::log::Core;

/// The archive of one database: a directory of files, one a UTC day.
pub struct Archive {
    pub(crate) log: Arc<Core>,
    directory: PathBuf,
    /// The identity of the database, once it is known.
    pub(in crate::archive) identity: OnceLock<String>,
    /// Where days lie whose files are not in the directory, if the store was opened with it.
    pub(in crate::archive) remote: OnceLock<Arc<dyn Remote>>,
    seen: Mutex<Seen>,
}

/// An open file, and what it holds.
pub(crate) struct OpenDay {
    pub(crate) reader: DayReader,
    pub(crate) summary: Summary,
}

impl Archive {
    /// The archive in `directory`, which the first job creates.
    pub fn new(log: Arc<Core>, directory: PathBuf) -> Self {
        Self { log, directory, identity: OnceLock::new(), remote: OnceLock::new(), seen: Mutex::default() }
    }

    /// Where the day files are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The manifest has adopted a file.
    pub(in crate::archive) fn forget_file(&self, file: DayFile) {
        self.seen().examined.remove(&file);
    }

    /// The manifest has adopted files, or describes others.
    pub(in crate::archive) fn forget_seen(&self) {
        *self.seen() = Seen::default();
    }

    pub(in crate::archive) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
