//! Writing a day: its rows from the database merged with the file that may be there, in memory that does not depend on
//! how many there are.

use std::cmp::Ordering;
use std::io::{self, Write};
use std::path::Path;

use roaring::RoaringTreemap;

use super::day_file::{DayFile, path_of};
use super::line::write_line;
use crate::db::Database;
use crate::digest::{Digest, Hasher};
use crate::error::{Error, Result};
use crate::log::{LogEntry, by_ids};
use crate::time::UtcDay;

/// Rows that one short read transaction takes.
const CHUNK_ROWS: usize = 1_000;
const BUFFER_BYTES: usize = 256 << 10;

/// What was written.
pub(super) struct Written {
    pub(super) row_count: u64,
    /// Rows that were not in the file before.
    pub(super) added_rows: u64,
    pub(super) size: u64,
    pub(super) sha256: Digest,
    /// The ids that were asked for and are now in the file: exactly these may be deleted.
    pub(super) exported: RoaringTreemap,
}

/// Writes the rows with `ids` and those in the day's file to `sink`, in id order, each once.
///
/// A row that is in both must be the same in both. `advance` hears of each chunk of rows, outside of any transaction.
pub(super) fn write_day(
    database: &Database,
    directory: &Path,
    day: UtcDay,
    ids: &RoaringTreemap,
    sink: &mut dyn Write,
    advance: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<Written> {
    let path = path_of(directory, day);
    let mut output =
        Output { sink, path: &path, buffer: Vec::with_capacity(BUFFER_BYTES), hasher: Hasher::new(), size: 0, rows: 0 };
    let mut existing = Existing::open(directory, day)?;
    let mut exported = RoaringTreemap::new();
    let mut added_rows = 0;
    let mut ids = ids.iter();
    loop {
        let chunk: Vec<i64> = ids.by_ref().take(CHUNK_ROWS).map(u64::cast_signed).collect();
        if chunk.is_empty() {
            break;
        }
        let rows = database.read("export rows", |connection| by_ids(connection, &chunk))?;
        for row in rows {
            let Ok(id) = u64::try_from(row.id) else { continue };
            if existing.copy_before(row.id, &mut output)?.is_some_and(|found| found == row.id) {
                existing.copy_same(&row, &mut output)?;
            } else {
                output.row(&row)?;
                added_rows += 1;
            }
            exported.insert(id);
        }
        advance(chunk.len() as u64)?;
    }
    existing.copy_before(i64::MAX, &mut output)?;
    output.flush()?;
    Ok(Written { row_count: output.rows, added_rows, size: output.size, sha256: output.hasher.finish(), exported })
}

/// The rows of the file that is there already, one of them read ahead.
struct Existing {
    file: Option<DayFile>,
    next: Option<(LogEntry, Vec<u8>)>,
}

impl Existing {
    fn open(directory: &Path, day: UtcDay) -> Result<Self> {
        let mut existing = Self { file: DayFile::open_if_there(directory, day)?, next: None };
        existing.advance()?;
        Ok(existing)
    }

    fn advance(&mut self) -> Result<()> {
        self.next = match &mut self.file {
            Some(file) => file.next_row()?.map(|(entry, line)| (entry, line.to_vec())),
            None => None,
        };
        Ok(())
    }

    /// Copies the rows with ids below `id`; returns the id of the next one, if there is one.
    fn copy_before(&mut self, id: i64, output: &mut Output<'_>) -> Result<Option<i64>> {
        while let Some((entry, line)) = &self.next {
            if entry.id.cmp(&id) != Ordering::Less {
                return Ok(Some(entry.id));
            }
            output.line(line)?;
            self.advance()?;
        }
        Ok(None)
    }

    /// Copies the next row, which has the id of `row` and must be it.
    fn copy_same(&mut self, row: &LogEntry, output: &mut Output<'_>) -> Result<()> {
        if let Some((entry, line)) = &self.next {
            if entry != row {
                let reason = format!(
                    "row {} is another row than the one in the database: was the database replaced? Move one of the two away",
                    row.id
                );
                return Err(Error::Archive { path: output.path.to_owned(), reason });
            }
            output.line(line)?;
        }
        self.advance()
    }
}

/// Counts and hashes what it passes on.
struct Output<'a> {
    sink: &'a mut dyn Write,
    path: &'a Path,
    buffer: Vec<u8>,
    hasher: Hasher,
    size: u64,
    rows: u64,
}

impl Output<'_> {
    fn row(&mut self, row: &LogEntry) -> Result<()> {
        write_line(&mut self.buffer, row);
        self.wrote_one()
    }

    fn line(&mut self, line: &[u8]) -> Result<()> {
        self.buffer.extend_from_slice(line);
        self.wrote_one()
    }

    fn wrote_one(&mut self) -> Result<()> {
        self.rows += 1;
        if self.buffer.len() >= BUFFER_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        self.hasher.update(&self.buffer);
        self.size += self.buffer.len() as u64;
        let written: io::Result<()> = self.sink.write_all(&self.buffer);
        self.buffer.clear();
        written.map_err(|error| Error::io(self.path, "write an archive file", &error))
    }
}
