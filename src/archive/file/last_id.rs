//! The greatest id in a day's file, without reading more of it than its end.

use crate::archive::file::format::Format;
use crate::archive::file::line::{LineHead, MOST_LINE_BYTES, line_id};
use crate::archive::file::reader::{DayReader, each_line};
use crate::archive::file::remains::Remains;
use crate::base::error::Result;

/// Bytes that the first step reads.
const FIRST_STEP: u64 = 16 << 10;

/// The greatest id in the file, whose ids ascend; None if it tells none. What can be read of a damaged file counts.
pub(crate) fn last_id(reader: DayReader) -> Option<i64> {
    let found = match reader.format() {
        Format::Plain => of_plain(&reader).ok().flatten(),
        Format::Zstd => {
            let blocks = reader.trailing_blocks();
            if let Ok(blocks) = blocks {
                let last = blocks.len().checked_sub(1)?;
                return of_block(reader.with_blocks(blocks), last);
            }
            None
        }
    };
    found.or_else(|| Remains::read(reader).last_id())
}

/// The greatest id of the lines at the end, of which the first is left out unless it is the file's.
fn of_plain(reader: &DayReader) -> Result<Option<i64>> {
    let (mut step, mut buffer) = (FIRST_STEP.min(reader.size()), Vec::new());
    loop {
        let start = reader.size() - step;
        reader.read_into(&mut buffer, step, start)?;
        let whole = match memchr::memchr(b'\n', &buffer) {
            _ if start == 0 => &buffer[..],
            Some(newline) => &buffer[newline + 1..],
            None => &[],
        };
        let found = greatest(whole);
        if found.is_some() || start == 0 || step > MOST_LINE_BYTES as u64 {
            return Ok(found);
        }
        step = (step * 4).min(reader.size());
    }
}

fn of_block(mut reader: DayReader, last: usize) -> Option<i64> {
    let first_id = reader.blocks()[last].first_id;
    match reader.block(last) {
        Ok(()) => greatest(reader.last_block().1).max(Some(first_id)),
        // As many rows as the table says, one id after the other.
        Err(_) => Some(first_id.saturating_add(i64::from(reader.blocks()[last].row_count))),
    }
}

fn greatest(lines: &[u8]) -> Option<i64> {
    each_line(lines).filter_map(|line| line_id(line).or_else(|| LineHead::of(line).map(|head| head.id))).max()
}
