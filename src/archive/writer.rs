//! Writing a day's file: lines are gathered into blocks here, and compressed, hashed and written by a thread beside, so
//! that reading the database and storing what was read each have a core.

use std::io::Write;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use zstd::bulk::Compressor;
use zstd::zstd_safe::CParameter;

use super::block::{Block, PLAIN_BLOCK_BYTES, ZSTD_BLOCK_BYTES, trailer};
use super::format::Format;
use super::summary::Stored;
use crate::digest::Hasher;
use crate::error::{Error, Result};

/// zstd's own default: on these rows, level 1 is hardly faster and level 6 hardly smaller.
const LEVEL: i32 = 3;
/// Blocks that wait for the thread at the most.
const WAITING_BLOCKS: usize = 8;

/// Lines that are not stored yet.
#[derive(Default)]
struct RawBlock {
    lines: Vec<u8>,
    row_count: u32,
    first_id: i64,
}

/// Takes the lines of a day.
pub(super) struct DayWriter {
    block: RawBlock,
    block_bytes: usize,
    full: SyncSender<RawBlock>,
    /// Blocks that were stored, for their memory.
    spare: Receiver<RawBlock>,
}

impl DayWriter {
    /// Appends a row, whose line `write` appends to a buffer. False if the thread has stopped, and will say why.
    pub(super) fn row(&mut self, id: i64, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        if self.block.row_count == 0 {
            self.block.first_id = id;
        }
        self.block.row_count += 1;
        write(&mut self.block.lines);
        if self.block.lines.len() >= self.block_bytes { self.hand_on() } else { true }
    }

    fn hand_on(&mut self) -> bool {
        let mut next = self.spare.try_recv().unwrap_or_default();
        next.lines.clear();
        next.row_count = 0;
        self.full.send(std::mem::replace(&mut self.block, next)).is_ok()
    }
}

/// Runs `produce`, which gives the rows, and stores them in `sink`; returns what `produce` did, and what was stored.
/// `path` is the file that errors name.
pub(super) fn write_file<T>(
    sink: &mut (dyn Write + Send),
    path: &Path,
    format: Format,
    produce: impl FnOnce(&mut DayWriter) -> Result<T>,
) -> Result<(T, Stored)> {
    std::thread::scope(|scope| {
        let (full, blocks) = sync_channel(WAITING_BLOCKS);
        let (done, spare) = channel();
        let thread = scope.spawn(move || store(&blocks, &done, sink, path, format));
        let block_bytes = match format {
            Format::Plain => PLAIN_BLOCK_BYTES,
            Format::Zstd => ZSTD_BLOCK_BYTES,
        };
        let mut writer = DayWriter { block: RawBlock::default(), block_bytes, full, spare };
        let produced = produce(&mut writer);
        if writer.block.row_count > 0 {
            writer.hand_on();
        }
        drop(writer);
        let stored = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // If the thread stopped, `produce` only knows that it did.
        stored.and_then(|stored| Ok((produced?, stored)))
    })
}

fn store(
    blocks: &Receiver<RawBlock>,
    done: &Sender<RawBlock>,
    sink: &mut dyn Write,
    path: &Path,
    format: Format,
) -> Result<Stored> {
    let failed = |error: std::io::Error| Error::io(path, "write an archive file", &error);
    let mut compressor = match format {
        Format::Plain => None,
        Format::Zstd => Some(compressor().map_err(failed)?),
    };
    let mut stored = Stored { size: 0, raw_size: 0, sha256: Hasher::new().finish(), blocks: Vec::new() };
    let mut hasher = Hasher::new();
    let mut frame = Vec::new();
    for block in blocks {
        let bytes = match &mut compressor {
            None => &block.lines,
            Some(compressor) => {
                frame.clear();
                frame.reserve(zstd::zstd_safe::compress_bound(block.lines.len()));
                compressor.compress_to_buffer(&block.lines, &mut frame).map_err(failed)?;
                &frame
            }
        };
        let stored_bytes = u32::try_from(bytes.len())
            .map_err(|_| Error::Archive { path: path.to_owned(), reason: "a row is too large for it".into() })?;
        hasher.update(bytes);
        sink.write_all(bytes).map_err(failed)?;
        stored.blocks.push(Block {
            offset: stored.size,
            stored_bytes,
            row_count: block.row_count,
            first_id: block.first_id,
            checksum: Block::checksum(bytes),
        });
        stored.size += u64::from(stored_bytes);
        stored.raw_size += block.lines.len() as u64;
        // Nobody may be there to take it any more.
        let _ = done.send(block);
    }
    if format == Format::Zstd {
        let trailer = trailer::frame(&stored.blocks);
        hasher.update(&trailer);
        sink.write_all(&trailer).map_err(failed)?;
        stored.size += trailer.len() as u64;
    }
    stored.sha256 = hasher.finish();
    Ok(stored)
}

/// Frames carry their size, which readers allocate by, and a checksum, which `zstd -t` checks.
fn compressor() -> std::io::Result<Compressor<'static>> {
    let mut compressor = Compressor::new(LEVEL)?;
    compressor.set_parameter(CParameter::ChecksumFlag(true))?;
    compressor.set_parameter(CParameter::ContentSizeFlag(true))?;
    Ok(compressor)
}
