//! Reading a day's file by blocks, each checked against the table that says what was written there.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use crate::archive::file::block::{Block, trailer};
use crate::archive::file::format::{Format, path_of};
use crate::archive::file::frame;
use crate::archive::file::line::{Canonical, Line, Unescaped};
use crate::base::error::{Error, Result};
use crate::base::time::UtcDay;
use crate::durable;
use crate::row::{LogEntry, RawRow};

/// Bytes of a line beyond which memory for its row is asked for beforehand: small allocations do not fail, and a failed
/// one would abort the process.
const LONG_LINE_BYTES: usize = 1 << 20;

/// What tells a file from another one in its place.
type State = (u64, u64, Option<SystemTime>);

/// An open file of a day. A job that adds rows publishes another file, so that this one stays what it is.
pub(crate) struct DayReader {
    path: PathBuf,
    day: UtcDay,
    format: Format,
    /// None while it is closed; what it was is then in `state`.
    file: Option<File>,
    state: State,
    size: u64,
    blocks: Arc<[Block]>,
    stored: Vec<u8>,
    raw: Vec<u8>,
}

impl DayReader {
    /// Opens the day's file; None if there is none. It has no blocks until [`DayReader::with_blocks`].
    pub(crate) fn open(directory: &Path, day: UtcDay, format: Format) -> Result<Option<Self>> {
        let path = path_of(directory, day, format);
        durable::open_regular(&path)?.map(|file| Self::of(file, path, day, format)).transpose()
    }

    /// The same of a file that is open, and that errors call `path`.
    pub(crate) fn of(file: File, path: PathBuf, day: UtcDay, format: Format) -> Result<Self> {
        let state = state_of(&file, &path)?;
        let (size, blocks) = (state.1, Arc::new([]));
        let file = Some(file);
        Ok(Self { path, day, format, file, state, size, blocks, stored: Vec::new(), raw: Vec::new() })
    }

    /// The file in these blocks.
    pub(crate) fn with_blocks(self, blocks: Vec<Block>) -> Self {
        Self { blocks: blocks.into(), ..self }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn day(&self) -> UtcDay {
        self.day
    }

    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// Closes the file until [`DayReader::reopen`].
    pub(crate) fn close(&mut self) {
        self.file = None;
    }

    pub(crate) fn is_open(&self) -> bool {
        self.file.is_some()
    }

    /// Opens the file again; false if another one is in its place.
    pub(crate) fn reopen(&mut self) -> Result<bool> {
        let Some(file) = durable::open_regular(&self.path)? else { return Ok(false) };
        let is_same = state_of(&file, &self.path)? == self.state;
        self.file = is_same.then_some(file);
        Ok(is_same)
    }

    fn file(&self) -> Result<&File> {
        self.file.as_ref().ok_or_else(|| self.damaged("it was closed while it was read"))
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn blocks(&self) -> &Arc<[Block]> {
        &self.blocks
    }

    /// The blocks that the end of a compressed file names.
    pub(crate) fn trailing_blocks(&self) -> Result<Vec<Block>> {
        let foreign = || {
            let reason = "it does not end with a table of frames: it is cut off, or another program compressed it; restore it, or decompress it";
            self.damaged(reason)
        };
        let mut end = [0; trailer::TRAILER_BYTES];
        let start = self.size.checked_sub(end.len() as u64).ok_or_else(foreign)?;
        self.read_at(&mut end, start)?;
        let length = trailer::frame_bytes(&end).ok_or_else(foreign)?;
        let start = self.size.checked_sub(u64::from(length)).ok_or_else(foreign)?;
        let mut frame = Vec::new();
        self.read_into(&mut frame, u64::from(length), start)?;
        let blocks = trailer::blocks(&frame).ok_or_else(foreign)?;
        let end = blocks.last().map_or(0, |block| block.offset + u64::from(block.stored_bytes));
        if end == start { Ok(blocks) } else { Err(foreign()) }
    }

    /// The bytes of the file at `offset`, all of `buffer`.
    pub(crate) fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.file()?.read_exact_at(buffer, offset).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => self.damaged("it is cut off"),
            _ => Error::io(&self.path, "read an archive file", &error),
        })
    }

    /// The same into memory that a size from the file asks for: checked against the file, and an error where there is no
    /// memory.
    pub(crate) fn read_into(&self, buffer: &mut Vec<u8>, length: u64, offset: u64) -> Result<()> {
        if offset.checked_add(length).is_none_or(|end| end > self.size) {
            return Err(self.damaged("it is cut off"));
        }
        if !usize::try_from(length).is_ok_and(|length| resize(buffer, length)) {
            return Err(self.damaged(&format!("there is no memory for {length} bytes of it at once")));
        }
        self.read_at(buffer, offset)
    }

    /// As many bytes from `offset` on as `buffer` takes and the file has.
    pub(crate) fn read_up_to(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file()?.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io(&self.path, "read an archive file", &error)),
            }
        }
        Ok(filled)
    }

    /// Whether the bytes of all blocks are what was written; does not decompress them.
    pub(crate) fn check_blocks(&mut self) -> Result<()> {
        (0..self.blocks.len()).try_for_each(|index| self.read_stored(index))
    }

    /// Reads a block, which [`DayReader::last_block`] then gives.
    pub(crate) fn block(&mut self, index: usize) -> Result<()> {
        self.read_stored(index)?;
        match self.format {
            Format::Plain => Ok(()),
            Format::Zstd => self.decompress(self.blocks[index].offset),
        }
    }

    fn read_stored(&mut self, index: usize) -> Result<()> {
        let block = self.blocks[index];
        let mut stored = std::mem::take(&mut self.stored);
        let read = self.read_into(&mut stored, u64::from(block.stored_bytes), block.offset);
        self.stored = stored;
        read?;
        if Block::checksum(&self.stored) != block.checksum {
            return Err(self.damaged(&format!("the bytes from {} on are not what was written", block.offset)));
        }
        Ok(())
    }

    /// The bytes, as stored, and the lines of the block that was read last.
    pub(crate) fn last_block(&self) -> (&[u8], &[u8]) {
        match self.format {
            Format::Plain => (&self.stored, &self.stored),
            Format::Zstd => (&self.stored, &self.raw),
        }
    }

    fn decompress(&mut self, offset: u64) -> Result<()> {
        frame::decompress(&self.stored, &mut self.raw)
            .map_err(|reason| damaged(&self.path, &format!("the frame at {offset}: {reason}")))
    }

    /// Calls `visit` with each row of a block that `wants` by its id, in order.
    pub(crate) fn each_row(
        &mut self,
        index: usize,
        wants: impl FnMut(i64) -> bool,
        mut visit: impl FnMut(LogEntry, &[u8]),
    ) -> Result<()> {
        self.block(index)?;
        self.each_line_of_last(index, wants, |row, line| {
            visit(LogEntry::from_raw(row)?, line);
            Ok(())
        })
    }

    /// The same with the block of that index, which was read last, and with rows that lie in it.
    pub(crate) fn each_line_of_last(
        &self,
        index: usize,
        mut wants: impl FnMut(i64) -> bool,
        mut visit: impl FnMut(RawRow<'_>, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let (_, lines) = self.last_block();
        let is_text = std::str::from_utf8(lines).is_ok();
        let mut unescaped = Unescaped::default();
        let mut rest = lines;
        while !rest.is_empty() {
            let mut canonical = Canonical::new(rest);
            let id = canonical.id();
            // A line that does not begin as ours do may still be a row.
            if id.is_some_and(|id| !wants(id)) {
                rest = split_line(rest).1;
                continue;
            }
            if is_text && let Some((row, length)) = id.and_then(|id| canonical.row(id, &mut unescaped)) {
                let (line, after) = rest.split_at(length);
                rest = after;
                visit(row, line)?;
                continue;
            }
            let (line, after) = split_line(rest);
            rest = after;
            let found = within_memory(line.strip_suffix(b"\n").unwrap_or(line)).map_err(|reason| {
                self.damaged(&format!("a line in the block at {} is no row: {reason}", self.blocks[index].offset))
            })?;
            if wants(found.row().id) {
                visit(found.row().into(), line)?;
            }
        }
        Ok(())
    }

    /// The error that the file is not what it should be.
    pub(crate) fn damaged(&self, reason: &str) -> Error {
        damaged(&self.path, reason)
    }
}

fn state_of(file: &File, path: &Path) -> Result<State> {
    let metadata = file.metadata().map_err(|error| Error::io(path, "look at an archive file", &error))?;
    Ok((metadata.ino(), metadata.len(), metadata.modified().ok()))
}

/// The error that a day's file is not what it should be.
pub(crate) fn damaged(path: &Path, reason: &str) -> Error {
    let reason = format!("{reason}; restore the file from a backup, or move it away and call reindex()");
    Error::ArchiveCorrupt { path: path.to_owned(), reason }
}

/// The row in a line without its newline, unless there is no memory for it.
pub(crate) fn parse_within_memory(line: &[u8]) -> std::result::Result<LogEntry, String> {
    Ok(within_memory(line)?.row().to_entry())
}

fn within_memory(line: &[u8]) -> std::result::Result<Line<'_>, String> {
    // Its texts are copied up to twice on the way to an entry.
    let has_memory = line.len() < LONG_LINE_BYTES || Vec::<u8>::new().try_reserve_exact(2 * line.len()).is_ok();
    if has_memory { Line::parse(line) } else { Err(format!("there is no memory for {} bytes", line.len())) }
}

/// Makes `buffer` so long; false if there is no memory.
fn resize(buffer: &mut Vec<u8>, length: usize) -> bool {
    buffer.truncate(length);
    if buffer.try_reserve_exact(length - buffer.len()).is_err() {
        return false;
    }
    buffer.resize(length, 0);
    true
}

/// The lines, each with its newline; the last may have none.
pub(crate) fn each_line(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (line, after) = split_line(rest);
        rest = after;
        Some(line)
    })
}

/// The first line, with its newline, and what follows.
fn split_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    bytes.split_at(memchr::memchr(b'\n', bytes).map_or(bytes.len(), |position| position + 1))
}
