//! Many blobs at once: hashed on all cores, their flushes overlapped, their directories flushed once.
//! `docs/durability.md`, "A batch of blobs".

use crate::base::digest::Digest;
use crate::base::error::Result;
use crate::base::parallel;
use crate::blob::path;
use crate::blob::put::{WRITE, Written};
use crate::blob::store::BlobStore;
use crate::durable::Durability;

/// How many files are flushed at once. The system merges flushes that are under way together; beyond this many, measured,
/// nothing is gained.
const FLUSHES_AT_ONCE: usize = 32;

/// Blobs that become durable together.
pub struct Batch<'store> {
    store: &'store BlobStore,
    written: Vec<(Digest, Written)>,
    verify: bool,
}

impl<'store> Batch<'store> {
    /// No blobs yet. `verify`: reads those that are there, whatever the store knows of them.
    pub fn new(store: &'store BlobStore, verify: bool) -> Self {
        Self { store, written: Vec::new(), verify }
    }

    /// Publishes blobs whose directory entries are not durable before [`Batch::finish`].
    pub fn add(&mut self, items: &[&[u8]]) -> Result<()> {
        let store = self.store;
        let root = store.root_to_write(WRITE)?;
        let threads = match store.durability {
            Durability::Full => FLUSHES_AT_ONCE,
            Durability::Normal => parallel::cores(),
        };
        let written = parallel::map(items, threads, |bytes| {
            store.check_writable(WRITE)?;
            let digest = Digest::of(bytes);
            Ok((digest, store.place_bytes(&root, &digest, bytes, self.verify)?))
        })?;
        self.written.extend(written);
        Ok(())
    }

    /// Makes all of them as durable as asked; returns their digests, in the order in which they were added.
    pub fn finish(self) -> Result<Vec<Digest>> {
        let store = self.store;
        if self.written.is_empty() {
            return Ok(Vec::new());
        }
        let root = store.root_to_write(WRITE)?;
        if store.durability == Durability::Full {
            let mut is_new = [false; path::SHARDS];
            let mut is_used = [false; path::SHARDS];
            for (digest, written) in &self.written {
                is_used[path::shard_number(digest)] = true;
                is_new[path::shard_number(digest)] |= !written.synced;
            }
            let new: Vec<usize> = (0..path::SHARDS).filter(|shard| is_new[*shard]).collect();
            parallel::map(&new, FLUSHES_AT_ONCE, |shard| store.sync_shard(&root, *shard))?;
            store.sync_ways(&root, (0..path::SHARDS).filter(|shard| is_used[*shard]))?;
        }
        self.written.iter().for_each(|(digest, written)| store.remember(&root, digest, written));
        Ok(self.written.into_iter().map(|(digest, _)| digest).collect())
    }
}
