//! Removing. The shard's directory stays, however empty: writers rely on it.

use crate::base::digest::Digest;
use crate::base::error::Result;
use crate::blob::path::Name;
use crate::blob::store::BlobStore;
use crate::durable::Durability;

impl BlobStore {
    /// Removes the blob; says whether there was one.
    pub fn delete(&self, digest: &Digest) -> Result<bool> {
        self.check_writable("delete a blob")?;
        let name = Name::of(digest);
        let Some(root) = self.open_root()? else { return Ok(false) };
        if root.look(name.below())?.is_none() {
            return Ok(false);
        }
        let Some(shard) = root.directory(name.shard())? else { return Ok(false) };
        let was_there = {
            // Without the lock, `collect` might look at this blob and then remove the one that a writer put in its place.
            let _lock = shard.lock_shared()?;
            shard.remove(name.file())?
        };
        self.cache.remove(digest);
        if was_there && self.durability == Durability::Full {
            self.poison.watch(shard.sync())?;
        }
        Ok(was_there)
    }
}
