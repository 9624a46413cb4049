//! What the writer and the checkpoints share: how long the write-ahead log is, and whether a flush has failed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rusqlite::Connection;

use crate::base::error::Error;
use crate::db::failure::{Context, is_flush_failure, is_io_failure, system_errno};
use crate::db::held::HeldFiles;
use crate::durable::Poison;

pub(super) struct WalState {
    pub(super) files: Arc<HeldFiles>,
    /// As SQLite reports it.
    pages: AtomicU32,
    pub(super) poison: Poison,
}

impl WalState {
    pub(super) fn new(files: Arc<HeldFiles>) -> Self {
        Self { files, pages: AtomicU32::new(0), poison: Poison::new() }
    }

    /// Pages in the write-ahead log after the last commit.
    pub(super) fn pages(&self) -> u32 {
        self.pages.load(Ordering::Relaxed)
    }

    pub(super) fn set_pages(&self, pages: u32) {
        self.pages.store(pages, Ordering::Relaxed);
    }

    /// Locates `error`, which a commit or a checkpoint on `connection` returned, and remembers it if a flush may have
    /// failed. SQLite does not always say which system call failed, so that any I/O error there counts as a flush; a
    /// quota or a size limit is known to be neither.
    pub(super) fn failed(&self, error: Error, context: Context<'_>, connection: &Connection) -> Error {
        let located = context.locate(error.clone(), Some(connection));
        let is_surely_no_flush = matches!(located, Error::Full { .. }) && !is_flush_failure(&error);
        if is_io_failure(&error) && !is_surely_no_flush {
            return self.flush_failed(&error, context, connection);
        }
        located
    }

    /// Remembers that `error` was a failed flush, and returns it as one.
    pub(super) fn flush_failed(&self, error: &Error, context: Context<'_>, connection: &Connection) -> Error {
        let errno = match system_errno(connection) {
            0 => libc::EIO,
            errno => errno,
        };
        let reason = error.to_string();
        self.poison.set(reason.clone(), errno);
        Error::Flush { path: context.path.to_owned(), operation: context.operation, errno, reason }
    }
}
