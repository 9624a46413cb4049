//! A day's file: its name, and reading it with every check that a damaged file fails.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::line::parse_line;
use crate::digest::{Digest, Hasher};
use crate::durable;
use crate::error::{Error, Result};
use crate::log::LogEntry;
use crate::time::UtcDay;

const SUFFIX: &str = ".jsonl";
/// Longer than any line: six bytes for each byte of four texts at SQLite's own limit would still fit.
const MAX_LINE_BYTES: u64 = 1 << 36;
const BUFFER_BYTES: usize = 256 << 10;

/// What an archived day's file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchivedDay {
    /// The day.
    pub day: UtcDay,
    /// Rows in the file.
    pub row_count: u64,
    /// The file.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// Its sha256.
    pub sha256: Digest,
    /// Rows that the archive run added; 0 when it is only listed.
    pub added_rows: u64,
}

/// The file of `day` in `directory`.
pub(super) fn path_of(directory: &Path, day: UtcDay) -> PathBuf {
    directory.join(format!("{day}{SUFFIX}"))
}

/// The days that have a file in `directory`, oldest first; none if there is no directory.
pub(super) fn list(directory: &Path) -> Result<Vec<UtcDay>> {
    let failed = |error: std::io::Error| Error::io(directory, "list the archive", &error);
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut days = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        let day = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)).and_then(|day| day.parse::<UtcDay>().ok());
        days.extend(day);
    }
    days.sort_unstable();
    Ok(days)
}

/// Counts and hashes a day's file.
pub(super) fn describe(directory: &Path, day: UtcDay) -> Result<ArchivedDay> {
    let path = path_of(directory, day);
    let mut file = open(&path)?.ok_or_else(|| missing(&path))?;
    let (mut size, mut row_count, mut hasher) = (0, 0, Hasher::new());
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = file.read(&mut buffer).map_err(|error| Error::io(&path, "read an archive file", &error))?;
        if read == 0 {
            return Ok(ArchivedDay { day, row_count, path, size, sha256: hasher.finish(), added_rows: 0 });
        }
        let bytes = &buffer[..read];
        size += read as u64;
        row_count += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        hasher.update(bytes);
    }
}

fn open(path: &Path) -> Result<Option<File>> {
    durable::open_regular(path)
}

fn missing(path: &Path) -> Error {
    Error::Archive { path: path.to_owned(), reason: "there is no such day in the archive".into() }
}

/// A day's file, read line by line. Each line must be a whole row of that day, with a greater id than the one before.
pub struct DayFile {
    path: PathBuf,
    day: UtcDay,
    reader: BufReader<File>,
    line: Vec<u8>,
    number: u64,
    last_id: Option<i64>,
}

impl DayFile {
    /// Opens the file of `day`; an `Archive` error if there is none.
    pub fn open(directory: &Path, day: UtcDay) -> Result<Self> {
        Self::open_if_there(directory, day)?.ok_or_else(|| missing(&path_of(directory, day)))
    }

    /// Opens the file of `day`, if there is one.
    pub(super) fn open_if_there(directory: &Path, day: UtcDay) -> Result<Option<Self>> {
        let path = path_of(directory, day);
        let Some(file) = open(&path)? else { return Ok(None) };
        let reader = BufReader::with_capacity(BUFFER_BYTES, file);
        Ok(Some(Self { path, day, reader, line: Vec::new(), number: 0, last_id: None }))
    }

    /// The next row and its line with the newline; None at the end.
    pub fn next_row(&mut self) -> Result<Option<(LogEntry, &[u8])>> {
        self.line.clear();
        let read = self.reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut self.line);
        if read.map_err(|error| Error::io(&self.path, "read an archive file", &error))? == 0 {
            return Ok(None);
        }
        self.number += 1;
        let Some(line) = self.line.strip_suffix(b"\n") else { return Err(self.damaged("the line is cut off")) };
        let entry = parse_line(line).map_err(|reason| self.damaged(&format!("not a row: {reason}")))?;
        if UtcDay::of(entry.timestamp).ok() != Some(self.day) {
            return Err(self.damaged(&format!("row {} is of another day", entry.id)));
        }
        if self.last_id.is_some_and(|last| entry.id <= last) {
            return Err(self.damaged(&format!("row {} is out of order", entry.id)));
        }
        self.last_id = Some(entry.id);
        Ok(Some((entry, &self.line)))
    }

    /// The file that is read.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn damaged(&self, reason: &str) -> Error {
        let reason = format!("line {}: {reason}; restore the file from a backup, or move it away", self.number);
        Error::ArchiveCorrupt { path: self.path.clone(), reason }
    }
}
