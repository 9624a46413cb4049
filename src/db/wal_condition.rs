//! Looking at a write-ahead log that no process has open: whether it is what a killed process leaves.
//!
//! SQLite recovers the frames up to the first one whose checksum is wrong, without a word, because the last write of a
//! killed process may be torn. Frames of the same log behind that one show that the log was damaged, and that commits are
//! lost. The format is <https://sqlite.org/fileformat2.html#walformat>.

use std::io::{BufReader, Read};
use std::path::Path;

use crate::base::error::{Error, Result};
use crate::base::io::read_full;
use crate::durable;

/// What a write-ahead log looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalCondition {
    /// There is none.
    Missing,
    /// It holds nothing.
    Empty,
    /// Whole, but perhaps for its last write.
    Whole,
    /// Commits in it are lost.
    Damaged,
}

const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;
/// The magic number of a log whose checksums are of little-endian words; that of big-endian ones is one more.
const LITTLE_ENDIAN: u32 = 0x377f_0682;

/// What the write-ahead log of the database at `database` looks like.
pub fn wal_condition(database: &Path) -> Result<WalCondition> {
    let mut path = database.as_os_str().to_owned();
    path.push("-wal");
    let path = Path::new(&path);
    let Some(file) = durable::open_regular(path)? else { return Ok(WalCondition::Missing) };
    look(BufReader::with_capacity(1 << 20, file))
        .map_err(|error| Error::io(path, "look at the write-ahead log", &error))
}

fn look(mut log: impl Read) -> std::io::Result<WalCondition> {
    let mut header = [0; HEADER_BYTES];
    match read_full(&mut log, &mut header)? {
        0 => return Ok(WalCondition::Empty),
        // The first write of all, torn.
        HEADER_BYTES => {}
        _ => return Ok(WalCondition::Whole),
    }
    let word = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let is_little_endian = word(0) == LITTLE_ENDIAN;
    let mut sum = checksum(is_little_endian, (0, 0), &header[..24]);
    let page_bytes = word(8) as usize;
    let is_header = word(0) & !1 == LITTLE_ENDIAN & !1
        && sum == (word(24), word(28))
        && (512..=65_536).contains(&page_bytes)
        && page_bytes.is_power_of_two();
    if !is_header {
        return Ok(WalCondition::Damaged);
    }
    let salts = &header[16..24];
    let mut frame = vec![0; FRAME_HEADER_BYTES + page_bytes];
    let mut is_torn = false;
    while read_full(&mut log, &mut frame)? == frame.len() {
        let is_of_this_log = &frame[8..16] == salts;
        if is_torn {
            if is_of_this_log {
                return Ok(WalCondition::Damaged);
            }
            continue;
        }
        let next = checksum(is_little_endian, sum, &frame[..8]);
        let next = checksum(is_little_endian, next, &frame[FRAME_HEADER_BYTES..]);
        let stored = |at: usize| u32::from_be_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]);
        if is_of_this_log && next == (stored(16), stored(20)) {
            sum = next;
        } else {
            is_torn = true;
        }
    }
    Ok(WalCondition::Whole)
}

/// The checksum of a write-ahead log, continued over `bytes`.
pub(crate) fn checksum(is_little_endian: bool, (mut first, mut second): (u32, u32), bytes: &[u8]) -> (u32, u32) {
    let (pairs, _) = bytes.as_chunks::<8>();
    for [a, b, c, d, e, f, g, h] in pairs {
        let (one, two) = ([*a, *b, *c, *d], [*e, *f, *g, *h]);
        let word = if is_little_endian { u32::from_le_bytes } else { u32::from_be_bytes };
        first = first.wrapping_add(word(one)).wrapping_add(second);
        second = second.wrapping_add(word(two)).wrapping_add(first);
    }
    (first, second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::{Config, Database};
    use crate::durable::Durability;

    /// A log of SQLite's own, in its bytes, with some commits of one page each.
    fn log(commits: u32) -> Vec<u8> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("logs.db");
        let database = Database::open(&path, Config::default()).unwrap();
        for commit in 0..commits {
            database
                .commit("test", Some(Durability::Normal), |connection| {
                    connection.execute("INSERT INTO meta VALUES (?1, '')", [commit])?;
                    Ok(())
                })
                .unwrap();
        }
        let bytes = std::fs::read(directory.path().join("logs.db-wal")).unwrap();
        assert_eq!(wal_condition(&path).unwrap(), WalCondition::Whole);
        assert_eq!(wal_condition(&directory.path().join("other.db")).unwrap(), WalCondition::Missing);
        bytes
    }

    #[test]
    fn what_a_killed_process_leaves_is_whole_and_damage_before_the_end_is_not() {
        let bytes = log(10);
        let frame = FRAME_HEADER_BYTES + 4_096;
        assert_eq!(look(&b""[..]).unwrap(), WalCondition::Empty);
        for length in (1..bytes.len()).step_by(997) {
            assert_eq!(look(&bytes[..length]).unwrap(), WalCondition::Whole, "cut at {length}");
        }
        for at in (0..bytes.len() - frame).step_by(331) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(look(&damaged[..]).unwrap(), WalCondition::Damaged, "byte {at}");
        }
        let mut torn = bytes.clone();
        *torn.last_mut().unwrap() ^= 1;
        assert_eq!(look(&torn[..]).unwrap(), WalCondition::Whole, "the last write may be torn");
        // Frames of an earlier log, which SQLite writes over.
        let mut old = bytes[bytes.len() - frame..].to_vec();
        old[8] ^= 1;
        assert_eq!(look(&[&bytes[..], &old[..]].concat()[..]).unwrap(), WalCondition::Whole);
    }
}
