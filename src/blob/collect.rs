//! Removing the blobs that are needed no longer. `docs/durability.md`, "Collecting blobs".

use std::collections::HashSet;

use crate::base::digest::Digest;
use crate::base::error::Result;
use crate::base::time::now_ns;
use crate::blob::list;
use crate::blob::path;
use crate::blob::path::Name;
use crate::blob::presence::RENEW_AFTER_NS;
use crate::blob::stamp::Stamp;
use crate::blob::store::BlobStore;
use crate::durable::{Directory, Durability};

/// What [`BlobStore::collect`] did, or would have done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// How many blobs were deleted, and their bytes.
    pub deleted_count: u64,
    /// Their bytes.
    pub deleted_size: u64,
    /// How many were kept because they are in `keep`.
    pub kept_count: u64,
    /// How many were kept because they were written or renewed lately.
    pub young_count: u64,
    /// What was to be kept and is not there, in order.
    pub missing: Vec<Digest>,
}

impl BlobStore {
    /// Deletes the blobs that are not in `keep` and were neither written nor renewed for `grace_ns`. `progress` is told
    /// of shards done, and of how many there are.
    pub fn collect(
        &self,
        mut keep: HashSet<Digest>,
        grace_ns: i128,
        dry_run: bool,
        progress: &mut dyn FnMut(u64, u64) -> Result<()>,
    ) -> Result<Collected> {
        if !dry_run {
            self.check_writable("collect blobs")?;
        }
        // A writer that finds a young blob leaves its time as it is. With no grace there is nothing to renew.
        let least_age_ns = if grace_ns == 0 { i128::MIN } else { grace_ns + RENEW_AFTER_NS };
        let mut collected = Collected::default();
        for shard_number in 0..path::SHARDS {
            progress(shard_number as u64, path::SHARDS as u64)?;
            let Some(shard) = list::open_shard(&self.root, shard_number)? else { continue };
            let before = collected.deleted_count;
            let swept = self.collect_shard(&shard, shard_number, &mut keep, least_age_ns, dry_run, &mut collected);
            if collected.deleted_count > before && !dry_run && self.durability == Durability::Full {
                self.poison.watch(shard.sync())?;
            }
            swept?;
        }
        progress(path::SHARDS as u64, path::SHARDS as u64)?;
        collected.missing = keep.into_iter().collect();
        collected.missing.sort_unstable();
        Ok(collected)
    }

    fn collect_shard(
        &self,
        shard: &Directory,
        shard_number: usize,
        keep: &mut HashSet<Digest>,
        least_age_ns: i128,
        dry_run: bool,
        collected: &mut Collected,
    ) -> Result<()> {
        for entry in list::entries_of(shard, shard_number)?.into_iter().filter(|entry| entry.is_regular) {
            if keep.remove(&entry.digest) {
                collected.kept_count += 1;
                continue;
            }
            let name = Name::of(&entry.digest);
            let is_old = |stamp: &Stamp| now_ns() - stamp.modified_ns >= least_age_ns;
            // None: deleted since its name was read.
            let Some(stat) = shard.stat(name.file())? else { continue };
            if !is_old(&Stamp::of(&stat)) {
                collected.young_count += 1;
                continue;
            }
            if !dry_run {
                // Looked at again under the lock: between this look and the removal no writer renews or replaces it.
                let _lock = shard.lock_exclusive()?;
                let Some(stat) = shard.stat(name.file())? else { continue };
                if !is_old(&Stamp::of(&stat)) {
                    collected.young_count += 1;
                    continue;
                }
                if !shard.remove(name.file())? {
                    continue;
                }
                self.cache.remove(&entry.digest);
            }
            collected.deleted_count += 1;
            collected.deleted_size += stat.st_size.unsigned_abs();
        }
        Ok(())
    }
}
