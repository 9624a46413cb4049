//! What a day's file holds, as the manifest keeps it, gathered while the file is written or read.

use std::collections::HashMap;

use roaring::RoaringTreemap;

use crate::archive::file::block::Block;
use crate::archive::file::format::Format;
use crate::archive::file::line::RowRef;
use crate::base::digest::{Digest, Hasher};
use crate::base::error::Result;
use crate::base::ids::IdSpan;
use crate::base::time::UtcDay;
use crate::row::index_key;

/// Pairs of source and type that a summary lists; a day with more is never passed over for them.
const MOST_KINDS: usize = 64;
/// Rows whose references are held in memory before they are handed on.
const PART_ROWS: usize = 1 << 20;

/// What a day's file holds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Summary {
    pub(crate) day: UtcDay,
    pub(crate) format: Format,
    /// Bytes of the file.
    pub(crate) size: u64,
    /// Bytes of its lines.
    pub(crate) raw_size: u64,
    /// Of the file.
    pub(crate) sha256: Digest,
    pub(crate) ids: RoaringTreemap,
    /// Its pairs of source and type; None: too many.
    pub(crate) kinds: Option<Kinds>,
    pub(crate) blocks: Vec<Block>,
}

/// The bytes of a day's file, as far as they have been written or read.
#[derive(Default)]
pub(crate) struct Stored {
    size: u64,
    /// Bytes of the lines.
    raw_size: u64,
    hasher: Hasher,
    blocks: Vec<Block>,
}

/// Lines that make a block.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lines {
    pub(crate) row_count: u32,
    pub(crate) first_id: i64,
    /// Bytes.
    pub(crate) size: u64,
}

impl Lines {
    /// Takes in a line.
    pub(crate) fn add(&mut self, id: i64, size: usize) {
        if self.row_count == 0 {
            self.first_id = id;
        }
        self.row_count += 1;
        self.size += size as u64;
    }
}

impl Stored {
    /// The next block: its lines, and its bytes in the file. False if it is longer than a block can be.
    #[must_use]
    pub(crate) fn push(&mut self, lines: Lines, bytes: &[u8]) -> bool {
        let Ok(stored_bytes) = u32::try_from(bytes.len()) else { return false };
        self.blocks.push(Block {
            offset: self.size,
            stored_bytes,
            row_count: lines.row_count,
            first_id: lines.first_id,
            checksum: Block::checksum(bytes),
        });
        self.raw_size += lines.size;
        self.push_trailer(bytes);
        true
    }

    /// Bytes that are no block's.
    pub(crate) fn push_trailer(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The size, that of the lines, and the sha256.
    pub(crate) fn figures(self) -> (u64, u64, Digest) {
        (self.size, self.raw_size, self.hasher.finish())
    }

    pub(crate) fn blocks(&self) -> &[Block] {
        &self.blocks
    }
}

/// Pairs of source and type, by their keys.
pub(crate) type Kinds = Vec<(Box<str>, Box<str>)>;

/// The pairs of source and type of rows.
pub(crate) struct KindSet {
    /// None: too many.
    kinds: Option<Kinds>,
    /// Where the last row's pair is: most rows have it again.
    last: usize,
}

impl KindSet {
    pub(crate) fn new() -> Self {
        Self { kinds: Some(Vec::new()), last: 0 }
    }

    pub(crate) fn add(&mut self, source: &str, kind: &str) {
        let Some(kinds) = &mut self.kinds else { return };
        let is = |pair: &(Box<str>, Box<str>)| *pair.1 == *kind && *pair.0 == *source;
        if kinds.get(self.last).is_some_and(is) {
            return;
        }
        match kinds.iter().position(is) {
            Some(position) => self.last = position,
            None if kinds.len() == MOST_KINDS => self.kinds = None,
            None => {
                self.last = kinds.len();
                kinds.push((source.into(), kind.into()));
            }
        }
    }

    pub(crate) fn finish(self) -> Option<Kinds> {
        self.kinds
    }
}

impl Summary {
    pub(crate) fn new(day: UtcDay, format: Format, stored: Stored, ids: RoaringTreemap, kinds: Option<Kinds>) -> Self {
        let Stored { size, raw_size, hasher, blocks } = stored;
        Self { day, format, size, raw_size, sha256: hasher.finish(), ids, kinds, blocks }
    }

    /// How many rows the file has.
    pub(crate) fn row_count(&self) -> u64 {
        self.ids.len()
    }

    /// The least and the greatest id.
    pub(crate) fn id_span(&self) -> Option<IdSpan> {
        IdSpan::new(self.ids.min()?.cast_signed(), self.ids.max()?.cast_signed())
    }

    /// Whether the file that both describe is the same.
    pub(crate) fn is_same_file(&self, other: &Self) -> bool {
        (self.format, self.size, self.sha256) == (other.format, other.size, other.sha256)
    }
}

/// Where a reference occurs in a day.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RefRows {
    /// Ascending.
    pub(crate) ids: Vec<i64>,
    /// Those that are rounds which the log's index has never seen; ascending.
    pub(crate) rounds: Vec<i64>,
}

/// The references of some rows that follow one another, by key.
pub(crate) type Part = HashMap<Box<str>, RefRows>;

/// Takes parts as they become full.
pub(crate) type TakePart<'a> = dyn FnMut(Part) -> Result<()> + 'a;

/// Gathers a summary row by row.
pub(crate) struct Gatherer<'a> {
    ids: RoaringTreemap,
    kinds: KindSet,
    part: Part,
    part_rows: usize,
    take_part: &'a mut TakePart<'a>,
}

impl<'a> Gatherer<'a> {
    pub(crate) fn new(take_part: &'a mut TakePart<'a>) -> Self {
        Self { ids: RoaringTreemap::new(), kinds: KindSet::new(), part: Part::new(), part_rows: 0, take_part }
    }

    /// Takes in a row, whose id is above all others.
    pub(crate) fn add(&mut self, row: &RowRef<'_>, is_round: bool) -> Result<()> {
        self.ids.insert(row.id.cast_unsigned());
        self.kinds.add(&index_key(row.source), &index_key(row.kind));
        if let Some(ref_id) = row.ref_id {
            let ref_key = index_key(ref_id);
            let rows = match self.part.get_mut(&*ref_key) {
                Some(rows) => rows,
                None => self.part.entry((*ref_key).into()).or_default(),
            };
            rows.ids.push(row.id);
            if is_round {
                rows.rounds.push(row.id);
            }
        }
        self.part_rows += 1;
        if self.part_rows >= PART_ROWS { self.hand_on() } else { Ok(()) }
    }

    /// What was gathered: the ids, and the pairs of source and type.
    pub(crate) fn finish(mut self) -> Result<(RoaringTreemap, Option<Kinds>)> {
        self.hand_on()?;
        Ok((self.ids, self.kinds.finish()))
    }

    fn hand_on(&mut self) -> Result<()> {
        self.part_rows = 0;
        if self.part.is_empty() { Ok(()) } else { (self.take_part)(std::mem::take(&mut self.part)) }
    }
}
