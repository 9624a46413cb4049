//! Writing a day's file: lines are gathered into blocks here, and compressed, hashed and written by a thread beside, so
//! that reading the database and storing what was read each have a core.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use zstd::bulk::Compressor;
use zstd::zstd_safe::CParameter;

use crate::archive::file::block::{PLAIN_BLOCK_BYTES, ZSTD_BLOCK_BYTES, trailer};
use crate::archive::file::format::Format;
use crate::archive::file::summary::{Lines, Stored};
use crate::archive::job::throttle::Throttle;
use crate::base::error::{Error, Result};
use crate::base::parallel;
use crate::base::scope::scope;

/// zstd's own default: on these rows, level 1 is hardly faster and level 6 hardly smaller.
const LEVEL: i32 = 3;
/// Blocks that wait for the thread at the most.
const WAITING_BLOCKS: usize = 8;

/// A block that is not stored yet.
#[derive(Default)]
pub(super) struct RawBlock {
    lines: Lines,
    bytes: Vec<u8>,
}

impl RawBlock {
    /// Appends a row, whose line `write` appends to a buffer; returns how long the block is then.
    pub(super) fn row(&mut self, id: i64, write: impl FnOnce(&mut Vec<u8>)) -> usize {
        let before = self.bytes.len();
        write(&mut self.bytes);
        self.lines.add(id, self.bytes.len() - before);
        self.bytes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines.row_count == 0
    }
}

/// Bytes of lines after which a block ends.
pub(super) fn block_bytes(format: Format) -> usize {
    match format {
        Format::Plain => PLAIN_BLOCK_BYTES,
        Format::Zstd => ZSTD_BLOCK_BYTES,
    }
}

/// Takes the lines of a day.
pub(crate) struct DayWriter<'a> {
    throttle: &'a Throttle,
    block: RawBlock,
    block_bytes: usize,
    storing: Storing<'a>,
}

/// Who stores the blocks.
enum Storing<'a> {
    Thread {
        full: SyncSender<RawBlock>,
        /// Blocks that were stored, for their memory.
        spare: Receiver<RawBlock>,
    },
    /// The calling thread, where no other is to be had; and how that went.
    Here(Box<FileStorage<'a>>, Result<()>),
}

impl DayWriter<'_> {
    /// Appends a row, whose line `write` appends to a buffer. False if storing has failed, which [`write_file`] reports.
    pub(crate) fn row(&mut self, id: i64, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        if self.block.row(id, write) >= self.block_bytes { self.hand_on() } else { true }
    }

    fn hand_on(&mut self) -> bool {
        match &mut self.storing {
            Storing::Here(storage, outcome) => {
                if outcome.is_ok() {
                    *outcome = storage.push(&mut self.block);
                }
                if outcome.is_err() {
                    return false;
                }
            }
            Storing::Thread { full, spare } => {
                if full.send(std::mem::take(&mut self.block)).is_err() {
                    return false;
                }
                // Two threads at work would keep others from both processors, so that a throttled job waits until it is
                // stored.
                let spare = if self.throttle.is_throttled() { spare.recv().ok() } else { spare.try_recv().ok() };
                self.block = spare.unwrap_or_default();
            }
        }
        true
    }
}

/// Runs `produce`, which gives the rows, and stores them in `sink`; returns what `produce` did, and what was stored.
/// `path` is the file that errors name.
pub(crate) fn write_file<'a, T>(
    sink: &'a mut (dyn Write + Send),
    path: &Path,
    format: Format,
    throttle: &'a Throttle,
    produce: impl FnOnce(&mut DayWriter<'_>) -> Result<T>,
) -> Result<(T, Stored)> {
    let storage = Storage::new(sink, path, format)?;
    scope(|scope| {
        let (full, blocks) = sync_channel(WAITING_BLOCKS);
        let (done, spare) = channel();
        let store = move |storage: FileStorage<'_>| storage.store_all(&blocks, &done);
        let (thread, storing) = match parallel::start(scope, storage, store) {
            Ok(thread) => (Some(thread), Storing::Thread { full, spare }),
            Err(storage) => (None, Storing::Here(Box::new(storage), Ok(()))),
        };
        let block_bytes = block_bytes(format);
        let mut writer = DayWriter { throttle, block: RawBlock::default(), block_bytes, storing };
        let produced = produce(&mut writer);
        // In a child that was forked meanwhile, where `produce` fails, there is no thread to take it.
        if produced.is_ok() && !writer.block.is_empty() {
            writer.hand_on();
        }
        let stored = match (writer.storing, thread) {
            (Storing::Here(storage, outcome), _) => outcome.and_then(|()| storage.finish()),
            (Storing::Thread { full, .. }, Some(thread)) => {
                drop(full);
                thread.join()
            }
            (Storing::Thread { .. }, None) => Err(Error::Internal),
        };
        // If storing failed, `produce` only knows that it did.
        stored.and_then(|stored| Ok((produced?, stored)))
    })
}

type FileStorage<'a> = Storage<&'a mut (dyn Write + Send)>;

/// Compresses, hashes and writes blocks.
pub(super) struct Storage<S> {
    sink: S,
    /// The file that errors name.
    path: PathBuf,
    compressor: Option<Compressor<'static>>,
    frame: Vec<u8>,
    stored: Stored,
}

impl<S: Write> Storage<S> {
    pub(super) fn new(sink: S, path: &Path, format: Format) -> Result<Self> {
        let compressor = match format {
            Format::Plain => None,
            Format::Zstd => Some(compressor().map_err(|error| failed(path, &error))?),
        };
        let path = path.to_owned();
        Ok(Self { sink, path, compressor, frame: Vec::new(), stored: Stored::default() })
    }

    /// Stores a block, and empties it; its memory may be used again.
    pub(super) fn push(&mut self, block: &mut RawBlock) -> Result<()> {
        let bytes = match &mut self.compressor {
            None => &block.bytes,
            Some(compressor) => {
                self.frame.clear();
                self.frame.reserve(zstd::zstd_safe::compress_bound(block.bytes.len()));
                let compressed = compressor.compress_to_buffer(&block.bytes, &mut self.frame);
                compressed.map_err(|error| failed(&self.path, &error))?;
                &self.frame
            }
        };
        if !self.stored.push(std::mem::take(&mut block.lines), bytes) {
            return Err(Error::Archive { path: self.path.clone(), reason: "a row is too large for it".into() });
        }
        self.sink.write_all(bytes).map_err(|error| failed(&self.path, &error))?;
        block.bytes.clear();
        Ok(())
    }

    fn store_all(mut self, blocks: &Receiver<RawBlock>, done: &Sender<RawBlock>) -> Result<Stored> {
        for mut block in blocks {
            self.push(&mut block)?;
            // Its taker may have ended.
            let _ = done.send(block);
        }
        self.finish()
    }

    fn finish(self) -> Result<Stored> {
        self.end().map(|(stored, _)| stored)
    }

    /// Ends the file; returns what was stored, and the sink.
    pub(super) fn end(mut self) -> Result<(Stored, S)> {
        if self.compressor.is_some() {
            let trailer = trailer::frame(self.stored.blocks());
            self.stored.push_trailer(&trailer);
            self.sink.write_all(&trailer).map_err(|error| failed(&self.path, &error))?;
        }
        Ok((self.stored, self.sink))
    }

    pub(super) fn sink(&mut self) -> &mut S {
        &mut self.sink
    }
}

fn failed(path: &Path, error: &std::io::Error) -> Error {
    Error::io(path, "write an archive file", error)
}

/// Frames carry their size, which readers allocate by, and a checksum, which `zstd -t` checks.
fn compressor() -> std::io::Result<Compressor<'static>> {
    let mut compressor = Compressor::new(LEVEL)?;
    compressor.set_parameter(CParameter::ChecksumFlag(true))?;
    compressor.set_parameter(CParameter::ContentSizeFlag(true))?;
    Ok(compressor)
}
