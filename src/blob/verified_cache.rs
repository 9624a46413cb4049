//! The blobs whose bytes this handle wrote or verified itself. They need not be read again as long as the file system
//! says that nothing has touched them since. `docs/durability.md`, "Presence without reading".

use std::collections::HashMap;
use std::sync::{Mutex, TryLockError};

use crate::base::digest::Digest;
use crate::blob::path;
use crate::blob::stamp::Stamp;

/// How many blobs of one shard are remembered; then that shard is forgotten, so that memory stays bounded (24 MiB).
const MOST_PER_SHARD: usize = 1024;

/// Where the file system does not tell quick changes apart, a change may hide in the tick of the clock in which the last
/// one was made: ticks are 10 ms at most, 2 s where times have no fractions.
const TICK_NS: i128 = 20_000_000;
const TICK_WITHOUT_FRACTIONS_NS: i128 = 2_100_000_000;

/// How far a stamp is to be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// A change may leave it as it is at any time.
    None,
    /// No change leaves it as it is.
    Whole,
    /// A change in the same tick of the clock might. The file held the blob's bytes at this time.
    Since(i128),
}

#[derive(Clone, Copy)]
struct Verification {
    stamp: Stamp,
    synced: bool,
}

/// The verified blobs of a handle.
pub(super) struct VerifiedCache {
    /// As many as there are shards. On the heap: as an array, it would pass through the stacks of small threads.
    shards: Box<[Mutex<HashMap<Digest, Verification>>]>,
}

impl VerifiedCache {
    pub(super) fn new() -> Self {
        Self { shards: (0..path::SHARDS).map(|_| Mutex::default()).collect() }
    }

    /// Remembers that the file with this stamp held the blob's bytes at the time that `trust` tells of, and afterwards;
    /// and whether it and the way to it are synced.
    pub(super) fn insert(&self, digest: &Digest, stamp: Stamp, trust: Trust, synced: bool) {
        if trust == Trust::None {
            return;
        }
        if let Trust::Since(since_ns) = trust {
            let has_fractions = stamp.changed_ns % 1_000_000_000 != 0;
            let tick = if has_fractions { TICK_NS } else { TICK_WITHOUT_FRACTIONS_NS };
            if stamp.changed_ns > since_ns - tick {
                return;
            }
        }
        self.with_shard(digest, |shard| {
            if shard.len() >= MOST_PER_SHARD && !shard.contains_key(digest) {
                shard.clear();
            }
            shard.insert(*digest, Verification { stamp, synced });
        });
    }

    /// Whether the file with this stamp is known to hold the blob's bytes, and if so, whether they are synced.
    pub(super) fn lookup(&self, digest: &Digest, stamp: &Stamp) -> Option<bool> {
        self.with_shard(digest, |shard| shard.get(digest).filter(|known| known.stamp == *stamp).copied())
            .flatten()
            .map(|known| known.synced)
    }

    /// Remembers that the file with this stamp is synced, and the way to it, if the blob is in the cache.
    pub(super) fn mark_synced(&self, digest: &Digest, stamp: &Stamp) {
        self.with_shard(digest, |shard| {
            if let Some(known) = shard.get_mut(digest).filter(|known| known.stamp == *stamp) {
                known.synced = true;
            }
        });
    }

    /// Forgets a blob.
    pub(super) fn remove(&self, digest: &Digest) {
        self.with_shard(digest, |shard| shard.remove(digest));
    }

    /// None if the lock is taken: in a forked child it may stay so for ever. To know less is always safe.
    fn with_shard<T>(&self, digest: &Digest, act: impl FnOnce(&mut HashMap<Digest, Verification>) -> T) -> Option<T> {
        match self.shards[path::shard_number(digest)].try_lock() {
            Ok(mut shard) => Some(act(&mut shard)),
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
        let cache = VerifiedCache::new();
        assert_eq!(cache.lookup(&digest, &OLD), None);
        cache.insert(&digest, OLD, Trust::Whole, false);
        assert_eq!(cache.lookup(&digest, &OLD), Some(false));
        for other in [
            Stamp { device: 9, ..OLD },
            Stamp { inode: 9, ..OLD },
            Stamp { size: 9, ..OLD },
            Stamp { modified_ns: 9, ..OLD },
            Stamp { changed_ns: 9, ..OLD },
        ] {
            assert_eq!(cache.lookup(&digest, &other), None, "{other:?}");
        }
        assert_eq!(cache.lookup(&Digest::of(b"y"), &OLD), None);
        cache.remove(&digest);
        assert_eq!(cache.lookup(&digest, &OLD), None);
    }

    #[test]
    fn with_coarse_times_a_file_that_changed_just_now_is_not_cached() {
        let digest = Digest::of(b"x");
        let cache = VerifiedCache::new();
        cache.insert(&digest, OLD, Trust::Since(OLD.changed_ns + TICK_NS - 1), true);
        assert_eq!(cache.lookup(&digest, &OLD), None);
        cache.insert(&digest, OLD, Trust::Since(OLD.changed_ns + TICK_NS), true);
        assert_eq!(cache.lookup(&digest, &OLD), Some(true));
        let whole = Stamp { changed_ns: 6_000_000_000, ..OLD };
        cache.insert(&digest, whole, Trust::Since(whole.changed_ns + TICK_NS), true);
        assert_eq!(cache.lookup(&digest, &whole), None);
    }

    #[test]
    fn what_is_not_to_be_trusted_is_not_cached() {
        let (digest, cache) = (Digest::of(b"x"), VerifiedCache::new());
        cache.insert(&digest, OLD, Trust::None, true);
        assert_eq!(cache.lookup(&digest, &OLD), None);
    }

    #[test]
    fn memory_is_bounded() {
        let cache = VerifiedCache::new();
        let shard = &cache.shards[path::shard_number(&Digest::of(b"x"))];
        let mut most = 0;
        for number in 0..u32::MAX {
            let digest = Digest::of(&number.to_le_bytes());
            if path::shard_number(&digest) == path::shard_number(&Digest::of(b"x")) {
                cache.insert(&digest, OLD, Trust::Whole, true);
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
