//! Reading a day's file from its first byte to its last with every check that a damaged one fails: for files that the
//! manifest does not know, and to verify those that it knows.

use super::block::{Block, PLAIN_BLOCK_BYTES};
use super::format::Format;
use super::line::{RowRef, parse_line};
use super::reader::{DayReader, each_line};
use super::summary::{Gatherer, Stored, Summary, TakePart};
use crate::digest::Hasher;
use crate::error::Result;
use crate::log::LogEntry;
use crate::time::UtcDay;

/// Bytes that one step reads of a plain file.
const STEP_BYTES: usize = 256 << 10;

/// What a scan tells on its way.
pub(super) struct Watch<'a> {
    /// Takes the references.
    pub(super) take_part: &'a mut TakePart<'a>,
    /// Whether a row is a round that is to be noted.
    pub(super) is_round: &'a dyn Fn(&LogEntry) -> bool,
    /// Called with the number of rows read since it was called last; an error stops the scan.
    pub(super) advance: &'a mut dyn FnMut(u64) -> Result<()>,
}

/// Reads the whole file. Each line must be a whole row of its day, with a greater id than the one before.
pub(super) fn scan(reader: DayReader, watch: Watch<'_>) -> Result<Summary> {
    let (day, format) = (reader.day(), reader.format());
    let mut rows = Rows {
        gatherer: Gatherer::new(watch.take_part),
        is_round: watch.is_round,
        advance: watch.advance,
        day,
        line: 0,
        reported: 0,
        last_id: 0,
    };
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
    let mut stored = StoredSoFar::default();
    // The block under way, and what was read after it; lines up to `seen` have been taken in.
    let (mut buffer, mut seen) = (Vec::new(), 0);
    let mut block = Open::default();
    let mut end = 0;
    loop {
        let length = buffer.len();
        buffer.resize(length + STEP_BYTES, 0);
        let count = reader.read_up_to(&mut buffer[length..], end)?;
        buffer.truncate(length + count);
        stored.hasher.update(&buffer[length..]);
        end += count as u64;
        let mut start = 0;
        while let Some(newline) = memchr::memchr(b'\n', &buffer[seen..]) {
            let line_end = seen + newline + 1;
            let id = rows.take(reader, &buffer[seen..line_end])?;
            block.take(id);
            seen = line_end;
            if seen - start >= PLAIN_BLOCK_BYTES {
                stored.push(std::mem::take(&mut block), &buffer[start..seen]);
                start = seen;
            }
        }
        if count == 0 {
            if seen < buffer.len() {
                return Err(reader.damaged(&format!("line {}: the line is cut off", rows.line + 1)));
            }
            if block.row_count > 0 {
                stored.push(block, &buffer[start..seen]);
            }
            rows.report()?;
            return Ok(stored.finish(end, end));
        }
        buffer.drain(..start);
        seen -= start;
        rows.report()?;
    }
}

fn scan_frames(mut reader: DayReader, rows: &mut Rows<'_>) -> Result<Stored> {
    let mut stored = StoredSoFar::default();
    let mut raw_size = 0;
    for index in 0..reader.blocks().len() {
        let mut block = Open::default();
        reader.block(index)?;
        let (bytes, lines) = reader.last_block();
        raw_size += lines.len() as u64;
        stored.hasher.update(bytes);
        for line in each_line(lines) {
            block.take(rows.take(&reader, line)?);
        }
        let known = reader.blocks()[index];
        if (block.row_count, block.first_id) != (known.row_count, known.first_id) {
            return Err(reader.damaged(&format!("the frame at {} does not hold what the table says", known.offset)));
        }
        stored.push(block, bytes);
        rows.report()?;
    }
    let mut frame = vec![0; usize::try_from(reader.size() - stored.size).unwrap_or(0)];
    reader.read_at(&mut frame, stored.size)?;
    stored.hasher.update(&frame);
    Ok(stored.finish(reader.size(), raw_size))
}

/// The block under way.
#[derive(Default)]
struct Open {
    row_count: u32,
    first_id: i64,
}

impl Open {
    fn take(&mut self, id: i64) {
        if self.row_count == 0 {
            self.first_id = id;
        }
        self.row_count += 1;
    }
}

#[derive(Default)]
struct StoredSoFar {
    blocks: Vec<Block>,
    size: u64,
    hasher: Hasher,
}

impl StoredSoFar {
    fn push(&mut self, block: Open, bytes: &[u8]) {
        self.blocks.push(Block {
            offset: self.size,
            stored_bytes: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
            row_count: block.row_count,
            first_id: block.first_id,
            checksum: Block::checksum(bytes),
        });
        self.size += bytes.len() as u64;
    }

    fn finish(self, size: u64, raw_size: u64) -> Stored {
        Stored { size, raw_size, sha256: self.hasher.finish(), blocks: self.blocks }
    }
}

/// The rows of the file, checked one by one.
struct Rows<'a> {
    gatherer: Gatherer<'a>,
    is_round: &'a dyn Fn(&LogEntry) -> bool,
    advance: &'a mut dyn FnMut(u64) -> Result<()>,
    day: UtcDay,
    /// Lines taken in.
    line: u64,
    /// Lines told of.
    reported: u64,
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

    fn report(&mut self) -> Result<()> {
        let rows = self.line - self.reported;
        self.reported = self.line;
        (self.advance)(rows)
    }
}
