//! The files that SQLite has open, by its own descriptors.
#![expect(unsafe_code, reason = "SQLite's own descriptors, since another one's end would end its locks")]

use std::ffi::{CStr, c_int, c_void};
use std::ptr;

use rusqlite::{Connection, ffi};

pub(super) const MAIN: &CStr = c"main";

/// A file that SQLite has open for a connection.
#[derive(Clone, Copy)]
pub(super) struct File(*mut ffi::sqlite3_file);

impl File {
    /// The database.
    pub(super) fn database(connection: &Connection) -> Option<Self> {
        Self::of(connection, ffi::SQLITE_FCNTL_FILE_POINTER)
    }

    /// Its write-ahead log, or its rollback journal.
    pub(super) fn log(connection: &Connection) -> Option<Self> {
        Self::of(connection, ffi::SQLITE_FCNTL_JOURNAL_POINTER)
    }

    /// The connection's file of this kind; None if it has none open.
    fn of(connection: &Connection, kind: c_int) -> Option<Self> {
        let mut file: *mut ffi::sqlite3_file = ptr::null_mut();
        // SAFETY: the handle is open, and with these kinds the call writes a pointer.
        let outcome = unsafe {
            ffi::sqlite3_file_control(connection.handle(), MAIN.as_ptr(), kind, (&raw mut file).cast::<c_void>())
        };
        // SAFETY: a file of SQLite's is there for as long as its connection; one that is not open has no methods.
        let is_open = unsafe { file.as_ref().is_some_and(|file| !file.pMethods.is_null()) };
        (outcome == ffi::SQLITE_OK && is_open).then_some(Self(file))
    }

    /// Fills `buffer`; SQLite's code, `SQLITE_IOERR_SHORT_READ` if the file ends before.
    pub(super) fn read(self, buffer: &mut [u8], offset: u64) -> c_int {
        let (Ok(count), Ok(offset)) = (c_int::try_from(buffer.len()), i64::try_from(offset)) else {
            return ffi::SQLITE_TOOBIG;
        };
        // SAFETY: see `of`; the connection is this thread's, and the buffer of that length.
        unsafe {
            let read = (*(*self.0).pMethods).xRead;
            read.map_or(ffi::SQLITE_IOERR_READ, |read| read(self.0, buffer.as_mut_ptr().cast(), count, offset))
        }
    }

    /// In bytes; None if it cannot be looked at.
    pub(super) fn size(self) -> Option<u64> {
        let mut size = 0;
        // SAFETY: as in `read`; the call writes a number.
        let outcome = unsafe { (*(*self.0).pMethods).xFileSize.map(|measure| measure(self.0, &raw mut size)) };
        (outcome == Some(ffi::SQLITE_OK)).then(|| u64::try_from(size).ok())?
    }

    /// The number of the system's error in the last call that failed; 0 if none has, or if the file ended before.
    pub(super) fn last_errno(self) -> c_int {
        let mut errno = 0;
        // SAFETY: as in `read`; the call writes a number.
        let outcome = unsafe {
            let control = (*(*self.0).pMethods).xFileControl;
            control.map(|control| control(self.0, ffi::SQLITE_FCNTL_LAST_ERRNO, (&raw mut errno).cast()))
        };
        if outcome == Some(ffi::SQLITE_OK) { errno } else { 0 }
    }
}
