//! Copying the blobs into another root. Each copy is read back before it gets its name; a damaged blob is not copied.

use std::path::Path;
use std::sync::Arc;

use crate::base::error::Result;
use crate::base::interrupt::check;
use crate::blob::list::{entries_of, open_shard};
use crate::blob::path;
use crate::blob::store::BlobStore;
use crate::durable::{self, Batch, Copied, Directory, Durability, digest_of, duplicate};

impl BlobStore {
    /// Copies the blobs that `root` does not have. A blob that is written or deleted meanwhile may or may not be copied.
    /// `advance` hears of bytes.
    pub fn copy_to(&self, root: &Path, advance: &mut dyn FnMut(u64) -> Result<()>) -> Result<Copied> {
        let mut copied = Copied::default();
        for shard_number in 0..path::SHARDS {
            check()?;
            let Some(shard) = open_shard(&self.root, shard_number)? else { continue };
            let entries = entries_of(&shard, shard_number)?;
            if entries.iter().any(|entry| entry.is_regular) {
                durable::create_directories(root, Durability::Full)?;
            }
            let Some(target) = Directory::open(root)? else { continue };
            let staging = Arc::new(target.make_directory(path::STAGING)?);
            let shard_name = path::shard_name(shard_number);
            let is_new = target.directory(&shard_name)?.is_none();
            let target_shard = Arc::new(target.make_directory(&shard_name)?);
            let mut batch = Batch::default();
            for entry in entries.into_iter().filter(|entry| entry.is_regular) {
                check()?;
                let name = path::Name::of(&entry.digest);
                // None: deleted since its name was read.
                let Some((source, stat)) = shard.open_regular(name.file())? else { continue };
                let size = stat.st_size.unsigned_abs();
                if target_shard.stat(name.file())?.is_some_and(|known| known.st_size == stat.st_size) {
                    copied.count += 1;
                    advance(size)?;
                    continue;
                }
                // No program writes to a blob in place.
                let (staged, sharing) = duplicate(&source, &staging, true)?;
                let found = digest_of(&staged)?;
                if found == entry.digest {
                    copied.take(sharing, size);
                    batch.add(staged, &target_shard, name.file())?;
                } else {
                    let reason = format!("its bytes have the sha256 {found}; it was not copied");
                    copied.problems.push((name.path(&self.root), reason));
                }
                advance(size)?;
            }
            batch.publish()?;
            if is_new {
                target.sync()?;
            }
        }
        Ok(copied)
    }
}
