//! From SQLite's result codes to the errors of this crate.
#![expect(unsafe_code, reason = "SQLite's error number, which rusqlite does not tell")]

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, ffi};
use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::io::Errno;

use crate::base::error::{Error, Result, quoted};
use crate::base::interrupt::check_wait;
use crate::db::file::File;

/// What to do about a damaged database.
const WAY_OUT: &str = "restore the file from a backup, or save what can be read with `nerve-store salvage`; see docs/durability.md, \"Damage, and the ways out\"";

/// What is being done to which database, for the errors of it.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) path: &'a Path,
    pub(super) operation: &'static str,
    pub(super) busy_timeout: Duration,
}

impl Context<'_> {
    /// Turns an error of SQLite into the error of this operation; other errors pass. `connection` has the system's
    /// error number.
    pub(super) fn locate(&self, error: Error, connection: Option<&Connection>) -> Error {
        let error = match error {
            Error::Sqlite(error) => error,
            Error::Damaged { .. } => return Error::corrupt(self.path, format!("{}: {error}", self.operation)),
            other => return other,
        };
        if let rusqlite::Error::StatementChangedRows(count) = *error {
            let reason = format!(
                "{}: {count} rows were stored in the place of those that were to be: a trigger of another program passes some over; drop it",
                self.operation
            );
            return Error::corrupt(self.path, reason);
        }
        let message = words_of(&error);
        let Some(failure) = error.sqlite_error() else {
            // A value of the wrong type, or text that is not UTF-8: what another program wrote.
            return Error::corrupt(self.path, format!("{}: {message}", self.operation));
        };
        let errno = connection.map_or(0, system_errno);
        match failure.code {
            // What interrupted the statement still holds.
            ErrorCode::OperationInterrupted => check_wait().err().unwrap_or(Error::Cancelled),
            // The last is what SQLite says when a process stopped in the middle of a recovery, or a lock call fails.
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed => {
                // The wait for the lock may have been interrupted.
                check_wait().err().unwrap_or_else(|| Error::Busy {
                    path: self.path.to_owned(),
                    operation: self.operation,
                    timeout: self.busy_timeout,
                })
            }
            ErrorCode::DiskFull => self.system(if errno == 0 { libc::ENOSPC } else { errno }, message),
            ErrorCode::SystemIoFailure => self.system(if errno == 0 { libc::EIO } else { errno }, message),
            ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied => {
                let (errno, reason) = diagnose(self.path, errno, message);
                self.system(errno, reason)
            }
            ErrorCode::OutOfMemory => self.system(libc::ENOMEM, message),
            ErrorCode::DatabaseCorrupt if connection.is_some_and(has_failed_to_read) => {
                self.system(libc::EIO, format!("the file could not be read; try again. If it is damaged, {WAY_OUT}"))
            }
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => {
                Error::corrupt(self.path, format!("{}: {message}; {WAY_OUT}", self.operation))
            }
            ErrorCode::TooBig => Error::Value(format!("a value is longer than SQLite can store: {message}")),
            _ => Error::corrupt(self.path, format!("{}: {message}", self.operation)),
        }
    }

    fn system(&self, errno: i32, reason: String) -> Error {
        Error::errno(self.path, self.operation, errno, reason)
    }
}

/// What SQLite says, on one line; of a statement that it does not understand, where that is.
pub(super) fn words_of(error: &rusqlite::Error) -> String {
    let rusqlite::Error::SqlInputError { msg, sql, offset, .. } = error else { return error.to_string() };
    let mut words = String::with_capacity(msg.len());
    for character in msg.chars() {
        match character {
            _ if character.is_control() => words.push_str(quoted(&character.to_string()).trim_matches('"')),
            _ => words.push(character),
        }
    }
    let before = usize::try_from(*offset).ok().and_then(|offset| sql.as_bytes().get(..offset));
    match before.map_or(0, |before| before.iter().filter(|&&byte| byte == b'\n').count()) {
        0 => words,
        lines => format!("{words} (line {})", lines + 1),
    }
}

/// An error unless a statement has stored as many rows as it was to store.
pub(crate) fn stored(changed: usize, wanted: usize) -> Result<()> {
    if changed == wanted { Ok(()) } else { Err(rusqlite::Error::StatementChangedRows(changed).into()) }
}

/// Whether `error` is a failed read, write or flush: after one in a commit the state on the disk is unknown.
pub(super) fn is_io_failure(error: &Error) -> bool {
    matches!(error, Error::Sqlite(error) if error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure))
}

/// Whether `error` is surely a failed flush.
pub(super) fn is_flush_failure(error: &Error) -> bool {
    let Error::Sqlite(error) = error else { return false };
    let code = error.sqlite_error().map(|failure| failure.extended_code);
    matches!(code, Some(ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC))
}

/// Whether `error` is a lock that another connection holds.
pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// Whether `error` says that a file could not be opened or made.
pub(super) fn is_unopenable(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied))
}

/// Whether the device has failed to read a file of `connection`, which SQLite takes for damage of the file.
fn has_failed_to_read(connection: &Connection) -> bool {
    let files = [File::database(connection), File::log(connection)];
    files.into_iter().flatten().any(|file| matches!(file.last_errno(), libc::EIO | libc::ENXIO))
}

/// The error number of the system call that failed last on `connection`.
pub(super) fn system_errno(connection: &Connection) -> i32 {
    // SAFETY: the handle is open for as long as the borrow, and the call only reads it.
    unsafe { ffi::sqlite3_system_errno(connection.handle()) }
}

/// SQLite says only "unable to open" or "readonly" in these cases; the file system knows more.
fn diagnose(path: &Path, errno: i32, message: String) -> (i32, String) {
    let directory = path.parent().unwrap_or(path);
    for (context, wanted) in [(path, Access::READ_OK), (directory, Access::WRITE_OK), (path, Access::WRITE_OK)] {
        if let Some(error) = refusal(context, wanted) {
            let needed = if wanted == Access::READ_OK { "readable" } else { "writable" };
            return (error.raw_os_error(), format!("{message}: {} must be {needed}", context.display()));
        }
    }
    (if errno == 0 { libc::EIO } else { errno }, message)
}

/// Why the system refuses this process what is wanted of the file or directory; None if it does not.
pub(super) fn refusal(path: &Path, wanted: Access) -> Option<Errno> {
    accessat(CWD, path, wanted, AtFlags::EACCESS).err()
}

/// For `read`-only stores: the refusal to write.
pub(super) fn read_only(path: &Path, operation: &'static str) -> Error {
    Error::errno(path, operation, libc::EROFS, "the store was opened with read_only".into())
}

/// Shorthand for results.
pub(super) trait Located<T> {
    fn located(self, context: Context<'_>, connection: Option<&Connection>) -> Result<T>;
}

impl<T, E: Into<Error>> Located<T> for std::result::Result<T, E> {
    fn located(self, context: Context<'_>, connection: Option<&Connection>) -> Result<T> {
        self.map_err(|error| context.locate(error.into(), connection))
    }
}
