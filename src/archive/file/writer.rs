//! Writing a day's file: lines are gathered into blocks here, and compressed, hashed and written by a thread beside, so
//! that reading the database and storing what was read each have a core.

use std::io::Write;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use zstd::bulk::Compressor;
use zstd::zstd_safe::CParameter;

use crate::archive::file::block::{PLAIN_BLOCK_BYTES, ZSTD_BLOCK_BYTES, trailer};
use crate::archive::file::format::Format;
use crate::archive::file::summary::{Lines, Stored};
use crate::archive::job::throttle::Throttle;
use crate::base::error::{Error, Result};
use crate::base::scope;

/// zstd's own default: on these rows, level 1 is hardly faster and level 6 hardly smaller.
const LEVEL: i32 = 3;
/// Blocks that wait for the thread at the most.
const WAITING_BLOCKS: usize = 8;

/// A block that is not stored yet.
#[derive(Default)]
struct RawBlock {
    lines: Lines,
    bytes: Vec<u8>,
}

/// Takes the lines of a day.
pub(crate) struct DayWriter<'a> {
    throttle: &'a Throttle,
    block: RawBlock,
    block_bytes: usize,
    full: SyncSender<RawBlock>,
    /// Blocks that were stored, for their memory.
    spare: Receiver<RawBlock>,
}

impl DayWriter<'_> {
    /// Appends a row, whose line `write` appends to a buffer. False if the thread has stopped, and will say why.
    pub(crate) fn row(&mut self, id: i64, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let before = self.block.bytes.len();
        write(&mut self.block.bytes);
        self.block.lines.add(id, self.block.bytes.len() - before);
        if self.block.bytes.len() >= self.block_bytes { self.hand_on() } else { true }
    }

    fn hand_on(&mut self) -> bool {
        if self.full.send(std::mem::take(&mut self.block)).is_err() {
            return false;
        }
        // Two threads at work would keep others from both processors, so that a throttled job waits until it is stored.
        let spare = if self.throttle.is_throttled() { self.spare.recv().ok() } else { self.spare.try_recv().ok() };
        self.block = spare.unwrap_or_default();
        self.block.lines = Lines::default();
        self.block.bytes.clear();
        true
    }
}

/// Runs `produce`, which gives the rows, and stores them in `sink`; returns what `produce` did, and what was stored.
/// `path` is the file that errors name.
pub(crate) fn write_file<T>(
    sink: &mut (dyn Write + Send),
    path: &Path,
    format: Format,
    throttle: &Throttle,
    produce: impl FnOnce(&mut DayWriter<'_>) -> Result<T>,
) -> Result<(T, Stored)> {
    scope::scope(|scope| {
        let (full, blocks) = sync_channel(WAITING_BLOCKS);
        let (done, spare) = channel();
        let thread = scope
            .spawn(move || store(&blocks, &done, sink, path, format))
            .map_err(|error| Error::io(path, "start a thread", &error))?;
        let block_bytes = match format {
            Format::Plain => PLAIN_BLOCK_BYTES,
            Format::Zstd => ZSTD_BLOCK_BYTES,
        };
        let mut writer = DayWriter { throttle, block: RawBlock::default(), block_bytes, full, spare };
        let produced = produce(&mut writer);
        // In a child that was forked meanwhile, where `produce` fails, there is no thread to take it.
        if produced.is_ok() && writer.block.lines.row_count > 0 {
            writer.hand_on();
        }
        drop(writer);
        let stored = thread.join()?;
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
    let mut stored = Stored::default();
    let mut frame = Vec::new();
    for block in blocks {
        let bytes = match &mut compressor {
            None => &block.bytes,
            Some(compressor) => {
                frame.clear();
                frame.reserve(zstd::zstd_safe::compress_bound(block.bytes.len()));
                compressor.compress_to_buffer(&block.bytes, &mut frame).map_err(failed)?;
                &frame
            }
        };
        if !stored.push(block.lines, bytes) {
            return Err(Error::Archive { path: path.to_owned(), reason: "a row is too large for it".into() });
        }
        sink.write_all(bytes).map_err(failed)?;
        // Nobody may be there to take it any more.
        let _ = done.send(block);
    }
    if format == Format::Zstd {
        let trailer = trailer::frame(stored.blocks());
        stored.push_trailer(&trailer);
        sink.write_all(&trailer).map_err(failed)?;
    }
    Ok(stored)
}

/// Frames carry their size, which readers allocate by, and a checksum, which `zstd -t` checks.
fn compressor() -> std::io::Result<Compressor<'static>> {
    let mut compressor = Compressor::new(LEVEL)?;
    compressor.set_parameter(CParameter::ChecksumFlag(true))?;
    compressor.set_parameter(CParameter::ContentSizeFlag(true))?;
    Ok(compressor)
}
