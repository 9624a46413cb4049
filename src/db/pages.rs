//! Pages of the database, as a read transaction sees them, many read with one call.
//!
//! A page that the write-ahead log has no frame of is in the file as the transaction sees it: readers find it there, and
//! checkpoints, which are all that writes to the file, write only pages of which the log has frames. Which ones it has is
//! looked at when the transaction has begun. Frames of later commits count, too, as do those that the log holds from before
//! it began anew: their pages come from SQLite, as those of the others in the log do.
//!
//! Without a log, in a database that another program put into another mode, a reader's lock keeps the file as it is.
#![expect(unsafe_code, reason = "the state of the transaction, which rusqlite does not tell of a borrowed connection")]

use std::collections::HashSet;

use rusqlite::{CachedStatement, Connection, OptionalExtension, ffi};

use crate::base::error::Result;
use crate::db::file::{File, MAIN};
use crate::db::format::word;

/// Pages that are read at once where one lies near the one before.
const WINDOW_PAGES: u32 = 16;

const DATABASE_HEADER_BYTES: usize = 100;
const LOG_HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;
const UTF8: u32 = 1;

/// The pages of the database in the caller's read transaction.
pub(super) struct Pages<'a> {
    connection: &'a Connection,
    file: File,
    /// Those that the write-ahead log has frames of.
    logged: HashSet<u32>,
    page_bytes: usize,
    /// Bytes of a page that hold data.
    pub(super) usable: usize,
    /// Pages of the file, from the one with the number `first` on; none before the first is read.
    window: Vec<u8>,
    first: u32,
    by_sqlite: Option<CachedStatement<'a>>,
    /// The page that came from SQLite last.
    page: Vec<u8>,
}

impl<'a> Pages<'a> {
    /// None if the file is none that can be read so, or if the log has more than `most_frames`.
    pub(super) fn open(connection: &'a Connection, most_frames: u64) -> Result<Option<Self>> {
        // A writer's changes are in its memory. Without a transaction, nothing keeps the file as it is.
        // SAFETY: the handle is open for as long as the borrow.
        let state = unsafe { ffi::sqlite3_txn_state(connection.handle(), MAIN.as_ptr()) };
        if state != ffi::SQLITE_TXN_READ {
            return Ok(None);
        }
        let Some(file) = File::database(connection) else { return Ok(None) };
        let mut header = [0; DATABASE_HEADER_BYTES];
        // The size of pages and the encoding never change, so that they may be read from the file.
        if file.read(&mut header, 0) != ffi::SQLITE_OK || word(&header, 56) != UTF8 {
            return Ok(None);
        }
        let page_bytes = match u16::from_be_bytes([header[16], header[17]]) {
            1 => 65_536,
            size => usize::from(size),
        };
        let usable = page_bytes.saturating_sub(usize::from(header[20]));
        if !page_bytes.is_power_of_two() || page_bytes < 512 || usable < 480 {
            return Ok(None);
        }
        let logged = match File::log(connection) {
            Some(log) => match logged(log, page_bytes, most_frames) {
                Some(logged) => logged,
                None => return Ok(None),
            },
            None => HashSet::new(),
        };
        Ok(Some(Self {
            connection,
            file,
            logged,
            page_bytes,
            usable,
            window: Vec::new(),
            first: 0,
            by_sqlite: None,
            page: Vec::new(),
        }))
    }

    /// The page with this number; None if there is none, or if it cannot be read.
    pub(super) fn page(&mut self, number: u32) -> Result<Option<&[u8]>> {
        if number == 0 {
            return Ok(None);
        }
        if self.logged.contains(&number) {
            return self.page_by_sqlite(number);
        }
        if self.place(number).is_none() {
            self.move_window(number);
        }
        Ok(self.place(number).map(|place| &self.window[place..place + self.page_bytes]))
    }

    /// Where in the window the page is.
    fn place(&self, number: u32) -> Option<usize> {
        let place = usize::try_from(number.checked_sub(self.first)?).ok()? * self.page_bytes;
        (place < self.window.len()).then_some(place)
    }

    /// Reads the page, and those around it if the one before was near it.
    fn move_window(&mut self, number: u32) {
        let is_near = number.abs_diff(self.first) <= 2 * WINDOW_PAGES;
        let start = (number - 1) / WINDOW_PAGES * WINDOW_PAGES + 1;
        for (first, count) in [(start, WINDOW_PAGES), (number, 1)] {
            if count > 1 && !is_near {
                continue;
            }
            self.window.resize(count as usize * self.page_bytes, 0);
            self.first = first;
            let offset = u64::from(first - 1) * self.page_bytes as u64;
            if self.file.read(&mut self.window, offset) == ffi::SQLITE_OK {
                return;
            }
        }
        self.window.clear();
    }

    fn page_by_sqlite(&mut self, number: u32) -> Result<Option<&[u8]>> {
        let statement = match &mut self.by_sqlite {
            Some(statement) => statement,
            none => none.insert(self.connection.prepare_cached("SELECT data FROM sqlite_dbpage WHERE pgno = ?1")?),
        };
        let page = &mut self.page;
        page.clear();
        let found = statement.query_row([number], |row| {
            page.extend_from_slice(row.get_ref(0)?.as_blob()?);
            Ok(())
        });
        Ok(found.optional()?.filter(|()| self.page.len() == self.page_bytes).map(|()| &*self.page))
    }
}

/// The pages of which the log may have a frame; None if it has more than `most_frames`, or if it cannot be read.
fn logged(log: File, page_bytes: usize, most_frames: u64) -> Option<HashSet<u32>> {
    let frame_bytes = (FRAME_HEADER_BYTES + page_bytes) as u64;
    let frames = log.size()?.saturating_sub(LOG_HEADER_BYTES as u64).div_ceil(frame_bytes);
    if frames > most_frames {
        return None;
    }
    let mut logged = HashSet::new();
    let mut number = [0; 4];
    for frame in 0..frames {
        match log.read(&mut number, LOG_HEADER_BYTES as u64 + frame * frame_bytes) {
            ffi::SQLITE_OK => logged.insert(u32::from_be_bytes(number)),
            // The log ends before: it began anew, which it does only while the file holds all that this transaction sees.
            ffi::SQLITE_IOERR_SHORT_READ => break,
            // A frame may be there that is not known of.
            _ => return None,
        };
    }
    Some(logged)
}
