//! Writing a day: its rows from the database merged with the files that may be there, in memory that does not depend on
//! how many there are.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;
use std::vec::IntoIter;

use roaring::RoaringTreemap;

use crate::archive::file::format::Format;
use crate::archive::file::line::{RowRef, fits, write_line};
use crate::archive::file::reader::DayReader;
use crate::archive::file::summary::{Gatherer, Summary, TakePart};
use crate::archive::file::writer::{DayWriter, write_file};
use crate::archive::job::plan::Picker;
use crate::archive::job::throttle::Throttle;
use crate::archive::manifest::catalog::OpenDay;
use crate::archive::manifest::overlap::described;
use crate::archive::manifest::values::set_of;
use crate::base::error::{Error, Result};
use crate::base::time::UtcDay;
use crate::db::Database;
use crate::log::each_by_ids;
use crate::row::{LogEntry, is_round_entry};

/// Rows that one short read transaction takes.
const CHUNK_ROWS: usize = 1_000;

/// What is to be written.
pub(crate) struct Order<'a> {
    pub(crate) day: UtcDay,
    pub(crate) format: Format,
    /// The file that errors name.
    pub(crate) path: PathBuf,
    /// Among which are the rows to take from the database.
    pub(crate) ids: &'a RoaringTreemap,
    /// The files of the day that are there.
    pub(crate) existing: Vec<OpenDay>,
    /// Whether rounds in those files are to be noted, because the log's index has not seen all of them.
    pub(crate) has_rounds: bool,
}

/// What was written.
pub(crate) struct Written {
    pub(crate) summary: Summary,
    /// Rows that were not in the day's file before; those of a second one count.
    pub(crate) added_rows: u64,
    /// The ids that were taken and are now in the file: exactly these may be deleted.
    pub(crate) exported: RoaringTreemap,
    /// Whether rounds were noted.
    pub(crate) noted_rounds: bool,
}

/// Writes the rows that are ordered and those of the existing files to `sink`, in the order of ids, each once.
///
/// A row that is in several places must be the same in all. `advance` hears of each chunk of rows, outside of any
/// transaction.
pub(crate) fn write_day(
    database: &Database,
    order: Order<'_>,
    picker: &mut Picker<'_>,
    sink: &mut (dyn Write + Send),
    take_part: &mut TakePart<'_>,
    throttle: &Throttle,
    advance: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<Written> {
    let Order { day, format, path, ids, existing, has_rounds } = order;
    let known_rows = existing.first().map_or(0, |day| day.summary.row_count());
    let ((exported, noted_rounds, gathered), stored) = write_file(sink, &path, format, throttle, |writer| {
        let gatherer = Gatherer::new(take_part);
        let mut output = Output { writer, gatherer, path: &path, has_rounds, noted_rounds: false };
        let mut existing = existing.into_iter().map(ExistingRows::open).collect::<Result<Vec<_>>>()?;
        let mut exported = RoaringTreemap::new();
        let mut ids = ids.iter();
        loop {
            let chunk: Vec<i64> = ids.by_ref().take(CHUNK_ROWS).map(u64::cast_signed).collect();
            if chunk.is_empty() {
                break;
            }
            let began = Instant::now();
            database.read("export rows", |connection| {
                throttle.observe(connection)?;
                picker.begin();
                each_by_ids(connection, &chunk, |row| {
                    if !picker.takes(connection, row)? {
                        return Ok(());
                    }
                    let row = match RowRef::read(row) {
                        Ok(row) if fits(&row) => row,
                        // What another program stored need not be text; it keeps no other row here.
                        Ok(_) | Err(Error::Damaged { .. }) => {
                            picker.unarchivable += 1;
                            return Ok(());
                        }
                        Err(error) => return Err(error),
                    };
                    exported.insert(row.id.cast_unsigned());
                    output.existing_before(&mut existing, Some(row.id))?;
                    output.row(&mut existing, &row)
                })
            })?;
            advance(chunk.len() as u64)?;
            throttle.pause(began);
        }
        output.existing_before(&mut existing, None)?;
        Ok((exported, output.noted_rounds, output.gatherer.finish()?))
    })?;
    let (ids, kinds) = gathered;
    let summary = Summary::new(day, format, stored, ids, kinds);
    Ok(Written { added_rows: summary.row_count() - known_rows, summary, exported, noted_rounds })
}

/// Whether there is a row to take at all.
pub(crate) fn has_rows(database: &Database, ids: &RoaringTreemap, picker: &mut Picker<'_>) -> Result<bool> {
    let mut ids = ids.iter();
    loop {
        let chunk: Vec<i64> = ids.by_ref().take(CHUNK_ROWS).map(u64::cast_signed).collect();
        if chunk.is_empty() {
            return Ok(false);
        }
        let mut found = false;
        database.read("export rows", |connection| {
            picker.begin();
            each_by_ids(connection, &chunk, |row| {
                found = found || picker.takes(connection, row)?;
                Ok(())
            })
        })?;
        if found {
            return Ok(true);
        }
    }
}

/// The rows of a file that is there already, a block at a time, with their lines.
struct ExistingRows {
    reader: DayReader,
    next_block: usize,
    rows: IntoIter<(LogEntry, Box<[u8]>)>,
    next: Option<(LogEntry, Box<[u8]>)>,
}

impl ExistingRows {
    fn open(day: OpenDay) -> Result<Self> {
        let mut rows = Self { reader: day.reader, next_block: 0, rows: Vec::new().into_iter(), next: None };
        rows.advance()?;
        Ok(rows)
    }

    fn next_id(&self) -> Option<i64> {
        self.next.as_ref().map(|(row, _)| row.id)
    }

    fn advance(&mut self) -> Result<()> {
        self.next = self.rows.next();
        while self.next.is_none() && self.next_block < self.reader.blocks().len() {
            let mut rows = Vec::new();
            self.reader.each_row(self.next_block, |_| true, |row, line| rows.push((row, line.into())))?;
            self.next_block += 1;
            self.rows = rows.into_iter();
            self.next = self.rows.next();
        }
        Ok(())
    }
}

/// Where rows go.
struct Output<'a, 'b, 'c> {
    writer: &'a mut DayWriter<'c>,
    gatherer: Gatherer<'b>,
    path: &'a Path,
    has_rounds: bool,
    noted_rounds: bool,
}

impl Output<'_, '_, '_> {
    /// Copies the rows of the existing files with ids below `id`, or all.
    fn existing_before(&mut self, existing: &mut [ExistingRows], id: Option<i64>) -> Result<()> {
        while let Some(next) = existing.iter().filter_map(ExistingRows::next_id).min()
            && id.is_none_or(|id| next < id)
        {
            self.copy(existing, next, None)?;
        }
        Ok(())
    }

    /// Writes a row of the database, or copies its line if a file has it.
    fn row(&mut self, existing: &mut [ExistingRows], row: &RowRef<'_>) -> Result<()> {
        if existing.iter().any(|file| file.next_id() == Some(row.id)) {
            return self.copy(existing, row.id, Some(row));
        }
        self.gatherer.add(row, false)?;
        self.line(row.id, |buffer| write_line(buffer, row))
    }

    /// Copies the row `id` from the files that have it, which must agree with each other and with `row`.
    fn copy(&mut self, existing: &mut [ExistingRows], id: i64, row: Option<&RowRef<'_>>) -> Result<()> {
        let mut copied: Option<LogEntry> = None;
        for file in existing.iter_mut().filter(|file| file.next_id() == Some(id)) {
            let Some((found, line)) = file.next.take() else { continue };
            let is_same = row.is_none_or(|row| *row == RowRef::from(&found))
                && copied.as_ref().is_none_or(|copied| *copied == found);
            if !is_same {
                let path = file.reader.path().to_owned();
                let reason = if row.is_some() {
                    described(&set_of(&[id]))
                } else {
                    format!("row {id} is another row than in the day's other file; move one of them away")
                };
                return Err(Error::IdConflict { path, reason });
            }
            if copied.is_none() {
                let is_noted = self.has_rounds && is_round_entry(&found);
                self.noted_rounds |= is_noted;
                self.gatherer.add(&RowRef::from(&found), is_noted)?;
                self.line(id, |buffer| buffer.extend_from_slice(&line))?;
            }
            copied = Some(found);
            file.advance()?;
        }
        Ok(())
    }

    fn line(&mut self, id: i64, write: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        if self.writer.row(id, write) {
            return Ok(());
        }
        // The thread that writes has stopped, and its error is the one that is reported.
        Err(Error::Archive { path: self.path.to_owned(), reason: "writing stopped".into() })
    }
}
