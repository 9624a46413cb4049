//! How many pages a reader keeps in memory.
#![expect(unsafe_code, reason = "SQLite's count of the pages that it had to read, which rusqlite does not tell")]

use std::ptr;

use rusqlite::{Connection, ffi};

/// Pages of 4 KiB that the cache holds which a connection is opened with.
const SMALL_PAGES: i32 = 512;

/// Whether the cache of a connection is as large as it gets.
///
/// A thread of 5,000 messages lies on as many pages, and is read again and again while it is watched: 24 MiB keep it in
/// memory. A read that is the only one, as those of most programs of the shell, takes twice as long with such a cache, whose
/// memory is new to the process, as with a small one, whose pages are used over and over.
#[derive(Default)]
pub(super) struct PageCache {
    is_large: bool,
}

impl PageCache {
    /// To be called after a read: gives the next ones a large cache if this one would have filled a small one.
    pub(super) fn suit(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        if !self.is_large && pages_read(connection) > SMALL_PAGES {
            self.enlarge(connection)?;
        }
        Ok(())
    }

    /// Gives a connection the large cache. To be called before it is restricted to users' SQL, which may set no pragma.
    pub(super) fn enlarge(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        connection.execute_batch("PRAGMA cache_size = -24576")?;
        self.is_large = true;
        Ok(())
    }
}

/// Pages that the connection did not have in memory, since the last call.
fn pages_read(connection: &Connection) -> i32 {
    let mut count = 0;
    // SAFETY: the handle is open for as long as the borrow, and the call writes two numbers.
    unsafe {
        ffi::sqlite3_db_status(
            connection.handle(),
            ffi::SQLITE_DBSTATUS_CACHE_MISS,
            &raw mut count,
            ptr::from_mut(&mut 0),
            1,
        )
    };
    count
}
