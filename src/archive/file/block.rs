//! The blocks of a day's file: whole lines that are read, checked and (in a compressed file) decompressed together, so
//! that a row costs its block and not its day.
//!
//! The manifest holds the table of a file's blocks; a compressed file also carries it at its end, in a frame that
//! decompressors skip. `docs/format.md` describes the bytes.

use xxhash_rust::xxh3::xxh3_64;

/// Bytes of lines after which a block of a plain file ends.
pub(crate) const PLAIN_BLOCK_BYTES: usize = 64 << 10;
/// The same in a compressed file, before compression: larger frames compress better, smaller ones are found faster.
pub(crate) const ZSTD_BLOCK_BYTES: usize = 256 << 10;

const ENTRY_BYTES: usize = 24;

/// Some lines of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// Where it begins in the file.
    pub(crate) offset: u64,
    /// Its length there.
    pub(crate) stored_bytes: u32,
    pub(crate) row_count: u32,
    pub(crate) first_id: i64,
    /// Of the stored bytes.
    pub(crate) checksum: u64,
}

impl Block {
    /// The checksum of a block's stored bytes.
    pub(crate) fn checksum(stored: &[u8]) -> u64 {
        xxh3_64(stored)
    }
}

/// The table as bytes.
pub(crate) fn encode(blocks: &[Block]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(blocks.len() * ENTRY_BYTES);
    for block in blocks {
        bytes.extend_from_slice(&block.stored_bytes.to_le_bytes());
        bytes.extend_from_slice(&block.row_count.to_le_bytes());
        bytes.extend_from_slice(&block.first_id.to_le_bytes());
        bytes.extend_from_slice(&block.checksum.to_le_bytes());
    }
    bytes
}

/// The table in `bytes`; None if it is none.
pub(crate) fn decode(bytes: &[u8]) -> Option<Vec<Block>> {
    let (entries, rest) = bytes.as_chunks::<ENTRY_BYTES>();
    if !rest.is_empty() {
        return None;
    }
    let mut offset = 0;
    let mut blocks = Vec::new();
    // The bytes may be any file's.
    blocks.try_reserve_exact(entries.len()).ok()?;
    for entry in entries {
        let (stored, rest) = entry.split_first_chunk()?;
        let (rows, rest) = rest.split_first_chunk()?;
        let (first_id, rest) = rest.split_first_chunk()?;
        let (checksum, _) = rest.split_first_chunk()?;
        let stored_bytes = u32::from_le_bytes(*stored);
        blocks.push(Block {
            offset,
            stored_bytes,
            row_count: u32::from_le_bytes(*rows),
            first_id: i64::from_le_bytes(*first_id),
            checksum: u64::from_le_bytes(*checksum),
        });
        offset += u64::from(stored_bytes);
    }
    Some(blocks)
}

/// The frame at the end of a compressed file: the magic number of a skippable frame of zstd, its length, the table, and
/// a trailer by which it is found from the end.
pub(crate) mod trailer {
    use super::{Block, decode, encode, xxh3_64};

    /// zstd's magic numbers for frames that are skipped are 0x184D2A50 to 0x184D2A5F.
    const SKIPPABLE_MAGIC: u32 = 0x184D_2A5D;
    const HEADER_BYTES: usize = 8;
    /// Checksum of the table, length of the whole frame, magic.
    pub(crate) const TRAILER_BYTES: usize = 8 + 4 + 8;
    const MAGIC: &[u8; 8] = b"nrvblk01";

    /// The frame's bytes.
    pub(crate) fn frame(blocks: &[Block]) -> Vec<u8> {
        let table = encode(blocks);
        let content = u32::try_from(table.len() + TRAILER_BYTES).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(HEADER_BYTES + table.len() + TRAILER_BYTES);
        bytes.extend_from_slice(&SKIPPABLE_MAGIC.to_le_bytes());
        bytes.extend_from_slice(&content.to_le_bytes());
        bytes.extend_from_slice(&table);
        bytes.extend_from_slice(&xxh3_64(&table).to_le_bytes());
        bytes.extend_from_slice(&(content + HEADER_BYTES as u32).to_le_bytes());
        bytes.extend_from_slice(MAGIC);
        bytes
    }

    /// The length of the frame whose last bytes these are; None if it is no frame of ours.
    pub(crate) fn frame_bytes(end: &[u8; TRAILER_BYTES]) -> Option<u32> {
        let (rest, magic) = end.split_last_chunk::<8>()?;
        let (_, length) = rest.split_last_chunk::<4>()?;
        (magic == MAGIC).then(|| u32::from_le_bytes(*length))
    }

    /// The blocks in a frame; None if it is damaged.
    pub(crate) fn blocks(frame: &[u8]) -> Option<Vec<Block>> {
        let table = frame.get(HEADER_BYTES..frame.len().checked_sub(TRAILER_BYTES)?)?;
        let checksum = frame.get(HEADER_BYTES + table.len()..)?.first_chunk()?;
        (xxh3_64(table) == u64::from_le_bytes(*checksum)).then(|| decode(table)).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Vec<Block> {
        let block =
            |offset, stored_bytes, first_id| Block { offset, stored_bytes, row_count: 3, first_id, checksum: 9 };
        vec![block(0, 70, 1), block(70, 5, i64::MAX), block(75, u32::MAX, 0)]
    }

    #[test]
    fn tables_are_read_back() {
        for blocks in [vec![], table()] {
            assert_eq!(decode(&encode(&blocks)), Some(blocks.clone()));
            let frame = trailer::frame(&blocks);
            assert_eq!(trailer::frame_bytes(frame.last_chunk().unwrap()), u32::try_from(frame.len()).ok());
            assert_eq!(trailer::blocks(&frame), Some(blocks));
        }
        assert_eq!(decode(&[0; 25]), None);
    }

    #[test]
    fn every_damaged_byte_of_a_frame_is_noticed_or_harmless() {
        let frame = trailer::frame(&table());
        for at in 8..frame.len() {
            let mut damaged = frame.clone();
            damaged[at] ^= 1;
            let length = trailer::frame_bytes(damaged.last_chunk().unwrap());
            let found = length.filter(|length| *length as usize == frame.len()).and_then(|_| trailer::blocks(&damaged));
            assert_eq!(found, None, "byte {at}");
        }
        assert_eq!(trailer::blocks(&[]), None);
    }
}
