//! Reading a day's file from its first byte to its last with every check that a damaged one fails: for files that the
//! manifest does not know, and to verify those that it knows.

use crate::archive::file::block::PLAIN_BLOCK_BYTES;
use crate::archive::file::format::Format;
use crate::archive::file::line::{RowRef, parse_line};
use crate::archive::file::reader::{DayReader, each_line};
use crate::archive::file::summary::{Gatherer, Lines, Stored, Summary, TakePart};
use crate::base::error::Result;
use crate::base::time::UtcDay;
use crate::row::LogEntry;

/// Bytes that one step reads of a plain file.
const STEP_BYTES: usize = 256 << 10;

/// What a scan tells on its way.
pub(crate) struct Watch<'a> {
    /// Takes the references.
    pub(crate) take_part: &'a mut TakePart<'a>,
    /// Whether a row is a round that is to be noted.
    pub(crate) is_round: &'a dyn Fn(&LogEntry) -> bool,
}

/// Reads the whole file. Each line must be a whole row of its day, with a greater id than the one before.
pub(crate) fn scan(reader: DayReader, watch: Watch<'_>) -> Result<Summary> {
    let (day, format) = (reader.day(), reader.format());
    let mut rows =
        Rows { gatherer: Gatherer::new(watch.take_part), is_round: watch.is_round, day, line: 0, last_id: 0 };
    let stored = match format {
        Format::Plain => scan_plain(&reader, &mut rows)?,
        Format::Zstd => {
            let blocks = reader.trailing_blocks()?;
            scan_frames(reader.with_blocks(blocks), &mut rows)?
        }
    };
    let (ids, kinds) = rows.gatherer.finish()?;
    Ok(Summary::new(day, format, stored, ids, kinds))
}

fn scan_plain(reader: &DayReader, rows: &mut Rows<'_>) -> Result<Stored> {
    let mut stored = Stored::default();
    // The block under way, and what was read after it; lines up to `seen` have been taken in.
    let (mut buffer, mut seen) = (Vec::new(), 0);
    let mut block = Lines::default();
    let mut end = 0;
    loop {
        let length = buffer.len();
        buffer.resize(length + STEP_BYTES, 0);
        let count = reader.read_up_to(&mut buffer[length..], end)?;
        buffer.truncate(length + count);
        end += count as u64;
        let mut start = 0;
        while let Some(newline) = memchr::memchr(b'\n', &buffer[seen..]) {
            let line_end = seen + newline + 1;
            let id = rows.take(reader, &buffer[seen..line_end])?;
            block.add(id, line_end - seen);
            seen = line_end;
            if seen - start >= PLAIN_BLOCK_BYTES {
                push(reader, &mut stored, std::mem::take(&mut block), &buffer[start..seen])?;
                start = seen;
            }
        }
        if count == 0 {
            if seen < buffer.len() {
                return Err(reader.damaged(&format!("line {}: the line is cut off", rows.line + 1)));
            }
            if block.row_count > 0 {
                push(reader, &mut stored, block, &buffer[start..seen])?;
            }
            return Ok(stored);
        }
        buffer.drain(..start);
        seen -= start;
    }
}

fn scan_frames(mut reader: DayReader, rows: &mut Rows<'_>) -> Result<Stored> {
    let mut stored = Stored::default();
    for index in 0..reader.blocks().len() {
        let mut block = Lines::default();
        reader.block(index)?;
        let (bytes, lines) = reader.last_block();
        for line in each_line(lines) {
            block.add(rows.take(&reader, line)?, line.len());
        }
        let known = reader.blocks()[index];
        if (block.row_count, block.first_id) != (known.row_count, known.first_id) {
            return Err(reader.damaged(&format!("the frame at {} does not hold what the table says", known.offset)));
        }
        push(&reader, &mut stored, block, bytes)?;
    }
    let mut frame = vec![0; usize::try_from(reader.size() - stored.size()).unwrap_or(0)];
    reader.read_at(&mut frame, stored.size())?;
    stored.push_trailer(&frame);
    Ok(stored)
}

fn push(reader: &DayReader, stored: &mut Stored, lines: Lines, bytes: &[u8]) -> Result<()> {
    if stored.push(lines, bytes) { Ok(()) } else { Err(reader.damaged("a line is longer than a row can be")) }
}

/// The rows of the file, checked one by one.
struct Rows<'a> {
    gatherer: Gatherer<'a>,
    is_round: &'a dyn Fn(&LogEntry) -> bool,
    day: UtcDay,
    /// Lines taken in.
    line: u64,
    last_id: i64,
}

impl Rows<'_> {
    /// Takes in a line with its newline; returns its id.
    fn take(&mut self, reader: &DayReader, line: &[u8]) -> Result<i64> {
        self.line += 1;
        let damaged = |reason: &str| Err(reader.damaged(&format!("line {}: {reason}", self.line)));
        let Some(text) = line.strip_suffix(b"\n") else { return damaged("the line is cut off") };
        let entry = match parse_line(text) {
            Ok(entry) => entry,
            Err(reason) => return damaged(&format!("not a row: {reason}")),
        };
        if UtcDay::of(entry.timestamp).ok() != Some(self.day) {
            return damaged(&format!("row {} is of another day", entry.id));
        }
        if entry.id <= self.last_id {
            return damaged(&format!("row {} is out of order", entry.id));
        }
        self.last_id = entry.id;
        self.gatherer.add(&RowRef::from(&entry), (self.is_round)(&entry))?;
        Ok(entry.id)
    }
}
