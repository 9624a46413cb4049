//! Reading a day's file from its first byte to its last with every check that a damaged one fails: for files that the
//! manifest does not know, and to verify those that it knows.

use crate::archive::file::block::PLAIN_BLOCK_BYTES;
use crate::archive::file::format::Format;
use crate::archive::file::line::{MOST_LINE_BYTES, RowRef};
use crate::archive::file::reader::{DayReader, each_line, parse_within_memory};
use crate::archive::file::summary::{Gatherer, Lines, Stored, Summary, TakePart};
use crate::base::error::Result;
use crate::base::interrupt::check;
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
    let mut lines = PlainLines::new(reader);
    let mut block = Lines::default();
    while let Some(line) = lines.next()? {
        let id = rows.take(reader, line)?;
        block.add(id, line.len());
        if lines.block().len() >= PLAIN_BLOCK_BYTES {
            push(reader, &mut stored, std::mem::take(&mut block), lines.block())?;
            lines.end_block();
        }
    }
    if block.row_count > 0 {
        push(reader, &mut stored, block, lines.block())?;
    }
    Ok(stored)
}

/// The lines of a plain file, each with its newline, in time and memory that a long line does not multiply.
pub(crate) struct PlainLines<'a> {
    reader: &'a DayReader,
    /// The lines of the block under way, and what was read after them.
    buffer: Vec<u8>,
    /// Where the next line begins, and up to where it is known to hold no newline.
    seen: usize,
    searched: usize,
    /// Bytes read of the file.
    offset: u64,
}

impl<'a> PlainLines<'a> {
    pub(crate) fn new(reader: &'a DayReader) -> Self {
        Self { reader, buffer: Vec::new(), seen: 0, searched: 0, offset: 0 }
    }

    /// The next line; the last may have no newline.
    pub(crate) fn next(&mut self) -> Result<Option<&[u8]>> {
        let end = loop {
            if let Some(newline) = memchr::memchr(b'\n', &self.buffer[self.searched..]) {
                break self.searched + newline + 1;
            }
            self.searched = self.buffer.len();
            let line = self.searched - self.seen;
            if line > MOST_LINE_BYTES {
                return Err(self.reader.damaged("a line is longer than a row can be"));
            }
            // Much at once where a line is long, so that each byte is copied about once.
            let step = STEP_BYTES.max(line / 2);
            if self.buffer.try_reserve(step).is_err() {
                return Err(self.reader.damaged(&format!("there is no memory for a line of more than {line} bytes")));
            }
            self.buffer.resize(self.searched + step, 0);
            let count = self.reader.read_up_to(&mut self.buffer[self.searched..], self.offset)?;
            self.buffer.truncate(self.searched + count);
            self.offset += count as u64;
            if count == 0 {
                break self.searched;
            }
        };
        let start = std::mem::replace(&mut self.seen, end);
        self.searched = end;
        Ok((start < end).then(|| &self.buffer[start..end]))
    }

    /// The lines since the last block ended.
    pub(crate) fn block(&self) -> &[u8] {
        &self.buffer[..self.seen]
    }

    pub(crate) fn end_block(&mut self) {
        self.buffer.drain(..self.seen);
        self.seen = 0;
        self.searched = 0;
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
    let mut frame = Vec::new();
    reader.read_into(&mut frame, reader.size().saturating_sub(stored.size()), stored.size())?;
    stored.push_trailer(&frame);
    Ok(stored)
}

fn push(reader: &DayReader, stored: &mut Stored, lines: Lines, bytes: &[u8]) -> Result<()> {
    check()?;
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
        let entry = match parse_within_memory(text) {
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
