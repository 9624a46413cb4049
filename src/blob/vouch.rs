//! What this handle knows of blobs without reading them again: those whose bytes it wrote or verified itself, as long as
//! the file system says that nothing has touched them since. `docs/durability.md`, "Presence without reading".

use std::array;
use std::collections::HashMap;
use std::sync::{Mutex, TryLockError};

use rustix::fs::Stat;

use crate::base::digest::Digest;
use crate::blob::path;
use crate::durable;

/// How many blobs of one shard are remembered; then that shard is forgotten, so that memory stays bounded (24 MiB).
const MOST_PER_SHARD: usize = 1024;

/// Where the file system does not tell quick changes apart, a change may hide in the tick of the clock in which the last
/// one was made: ticks are 10 ms at most, 2 s where times have no fractions.
const TICK_NS: i128 = 20_000_000;
const TICK_WITHOUT_FRACTIONS_NS: i128 = 2_100_000_000;

/// What changes when a file changes or is replaced by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    pub(super) size: u64,
    /// When it was last written, in nanoseconds since the epoch.
    pub(super) modified_ns: i128,
    /// When it was last written, renamed, linked, or had its times set: what no program can set.
    changed_ns: i128,
}

impl Stamp {
    pub(super) fn of(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: stat.st_size.unsigned_abs(),
            modified_ns: nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
            changed_ns: nanoseconds(stat.st_ctime, stat.st_ctime_nsec),
        }
    }

    /// When its metadata last changed, in nanoseconds since the epoch.
    pub(super) fn changed_ns(&self) -> i128 {
        self.changed_ns
    }

    /// Whether both are of one file, with as many bytes.
    pub(super) fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode, self.size) == (other.device, other.inode, other.size)
    }
}

#[expect(clippy::cast_lossless, reason = "the types differ between systems")]
pub(super) fn nanoseconds(seconds: i64, fraction: u64) -> i128 {
    seconds as i128 * 1_000_000_000 + fraction as i128
}

/// The time, in nanoseconds since the epoch.
pub(super) fn now_ns() -> i128 {
    let now = durable::now();
    i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec)
}

/// How far a stamp is to be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// No change leaves it as it is.
    Whole,
    /// A change in the same tick of the clock might. The file held the blob's bytes at this time.
    Since(i128),
}

#[derive(Clone, Copy)]
struct Voucher {
    stamp: Stamp,
    synced: bool,
}

/// The blobs that are vouched for.
pub(super) struct Vouchers {
    shards: [Mutex<HashMap<Digest, Voucher>>; path::SHARDS],
}

impl Vouchers {
    pub(super) fn new() -> Self {
        Self { shards: array::from_fn(|_| Mutex::default()) }
    }

    /// Remembers that the file with this stamp held the blob's bytes at the time that `trust` tells of, and afterwards;
    /// and whether it and the way to it are synced.
    pub(super) fn vouch(&self, digest: &Digest, stamp: Stamp, trust: Trust, synced: bool) {
        if let Trust::Since(since_ns) = trust {
            let has_fractions = stamp.changed_ns % 1_000_000_000 != 0;
            let tick = if has_fractions { TICK_NS } else { TICK_WITHOUT_FRACTIONS_NS };
            if stamp.changed_ns > since_ns - tick {
                return;
            }
        }
        self.with_shard(digest, |vouchers| {
            if vouchers.len() >= MOST_PER_SHARD && !vouchers.contains_key(digest) {
                vouchers.clear();
            }
            vouchers.insert(*digest, Voucher { stamp, synced });
        });
    }

    /// Whether the file with this stamp is known to hold the blob's bytes, and if so, whether they are synced.
    pub(super) fn known(&self, digest: &Digest, stamp: &Stamp) -> Option<bool> {
        self.with_shard(digest, |vouchers| vouchers.get(digest).filter(|known| known.stamp == *stamp).copied())
            .flatten()
            .map(|known| known.synced)
    }

    /// Remembers that the file with this stamp, which is vouched for, is synced, and the way to it.
    pub(super) fn mark_synced(&self, digest: &Digest, stamp: &Stamp) {
        self.with_shard(digest, |vouchers| {
            if let Some(known) = vouchers.get_mut(digest).filter(|known| known.stamp == *stamp) {
                known.synced = true;
            }
        });
    }

    /// Forgets a blob.
    pub(super) fn forget(&self, digest: &Digest) {
        self.with_shard(digest, |vouchers| vouchers.remove(digest));
    }

    /// None if the lock is taken: in a forked child it may stay so for ever. To know less is always safe.
    fn with_shard<T>(&self, digest: &Digest, act: impl FnOnce(&mut HashMap<Digest, Voucher>) -> T) -> Option<T> {
        match self.shards[path::shard_number(digest)].try_lock() {
            Ok(mut vouchers) => Some(act(&mut vouchers)),
            Err(TryLockError::Poisoned(poisoned)) => Some(act(&mut poisoned.into_inner())),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Stamp = Stamp { device: 1, inode: 2, size: 3, modified_ns: 4, changed_ns: 5_000_000_001 };

    #[test]
    fn only_the_same_file_unchanged_is_known() {
        let digest = Digest::of(b"x");
        let vouchers = Vouchers::new();
        assert_eq!(vouchers.known(&digest, &OLD), None);
        vouchers.vouch(&digest, OLD, Trust::Whole, false);
        assert_eq!(vouchers.known(&digest, &OLD), Some(false));
        for other in [
            Stamp { device: 9, ..OLD },
            Stamp { inode: 9, ..OLD },
            Stamp { size: 9, ..OLD },
            Stamp { modified_ns: 9, ..OLD },
            Stamp { changed_ns: 9, ..OLD },
        ] {
            assert_eq!(vouchers.known(&digest, &other), None, "{other:?}");
        }
        assert_eq!(vouchers.known(&Digest::of(b"y"), &OLD), None);
        vouchers.forget(&digest);
        assert_eq!(vouchers.known(&digest, &OLD), None);
    }

    #[test]
    fn with_coarse_times_a_file_that_changed_just_now_is_not_vouched_for() {
        let digest = Digest::of(b"x");
        let vouchers = Vouchers::new();
        vouchers.vouch(&digest, OLD, Trust::Since(OLD.changed_ns + TICK_NS - 1), true);
        assert_eq!(vouchers.known(&digest, &OLD), None);
        vouchers.vouch(&digest, OLD, Trust::Since(OLD.changed_ns + TICK_NS), true);
        assert_eq!(vouchers.known(&digest, &OLD), Some(true));
        let whole = Stamp { changed_ns: 6_000_000_000, ..OLD };
        vouchers.vouch(&digest, whole, Trust::Since(whole.changed_ns + TICK_NS), true);
        assert_eq!(vouchers.known(&digest, &whole), None);
    }

    #[test]
    fn memory_is_bounded() {
        let vouchers = Vouchers::new();
        let shard = &vouchers.shards[path::shard_number(&Digest::of(b"x"))];
        let mut most = 0;
        for number in 0..u32::MAX {
            let digest = Digest::of(&number.to_le_bytes());
            if path::shard_number(&digest) == path::shard_number(&Digest::of(b"x")) {
                vouchers.vouch(&digest, OLD, Trust::Whole, true);
                let remembered = shard.lock().unwrap().len();
                if remembered < most {
                    break;
                }
                most = remembered;
            }
        }
        assert_eq!(most, MOST_PER_SHARD);
    }
}
