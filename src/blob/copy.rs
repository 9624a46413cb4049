//! Copying the blobs into another root. Each copy is read back before it gets its name. What is damaged, cannot be read or is
//! no regular file is reported, and not copied.
//!
//! A blob that is there already, by its size and the time of its last write, is passed over. Where only the times differ, both
//! are read: a blob that is written once more has a new time.

use std::path::Path;
use std::sync::Arc;

use crate::base::digest::Digest;
use crate::base::error::Result;
use crate::base::interrupt::check;
use crate::blob::list::{Entry, entries_of, open_shard};
use crate::blob::path;
use crate::blob::stamp::Stamp;
use crate::blob::store::BlobStore;
use crate::durable::{self, Batch, Copied, Directory, Duplicate, Durability, Original, digest_of, duplicate};

/// To what the coarsest file systems round the times that they are told to set.
const COARSEST_NS: u128 = 2_000_000_000;

impl BlobStore {
    /// Copies the blobs that `root` does not have. A blob that is written or deleted meanwhile may or may not be copied.
    /// `advance` hears of bytes.
    pub fn copy_to(&self, root: &Path, advance: &mut dyn FnMut(u64) -> Result<()>) -> Result<Copied> {
        let mut copied = Copied::default();
        if copied.unless_unreadable(&self.root, Directory::open(&self.root))?.flatten().is_none() {
            return Ok(copied);
        }
        for shard_number in 0..path::SHARDS {
            check()?;
            let shard_name = path::shard_name(shard_number);
            let opened = open_shard(&self.root, shard_number)
                .and_then(|shard| shard.map(|shard| Ok((entries_of(&shard, shard_number)?, shard))).transpose());
            let opened = copied.unless_unreadable(&self.root.join(&shard_name), opened)?.flatten();
            let Some((entries, source)) = opened.filter(|(entries, _)| !entries.is_empty()) else { continue };
            durable::create_directories(root, Durability::Full)?;
            let Some(target_root) = Directory::open(root)? else { continue };
            let is_new = target_root.directory(&shard_name)?.is_none();
            let mut shard = Shard {
                source,
                target: Arc::new(target_root.make_directory(&shard_name)?),
                staging: Arc::new(target_root.make_directory(path::STAGING)?),
                batch: Batch::default(),
            };
            for Entry { digest, .. } in entries {
                check()?;
                let blob = path::Name::of(&digest).path(&self.root);
                let outcome = shard.copy(&digest, &blob, &mut copied, advance);
                copied.unless_unreadable(&blob, outcome)?;
            }
            shard.batch.publish()?;
            if is_new {
                target_root.sync()?;
            }
        }
        Ok(copied)
    }
}

/// A shard that is copied.
struct Shard {
    source: Directory,
    target: Arc<Directory>,
    staging: Arc<Directory>,
    batch: Batch,
}

impl Shard {
    /// Copies the blob that lies at `blob`.
    fn copy(
        &mut self,
        digest: &Digest,
        blob: &Path,
        copied: &mut Copied,
        advance: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        let name = path::Name::of(digest);
        // None: deleted since its name was read.
        let Some((file, stat)) = self.source.open_regular(name.file())? else { return Ok(()) };
        let (original, stamp) = (Original { file: &file, path: blob }, Stamp::of(&stat));
        if self.has(digest, original, &stamp)? {
            copied.count += 1;
            return advance(stamp.size);
        }
        // No program writes to a blob in place.
        let Duplicate { staged, sharing, digest: found } = duplicate(original, &self.staging, true)?;
        if found == *digest {
            copied.take(sharing, stamp.size);
            self.batch.add(staged, &self.target, name.file())?;
        } else {
            let reason = format!("its bytes have the sha256 {found}; it was not copied");
            copied.problems.push((blob.to_owned(), reason));
        }
        advance(stamp.size)
    }

    /// Whether there is a copy already, by its size and time; where only the times differ, both are read.
    fn has(&self, digest: &Digest, original: Original<'_>, stamp: &Stamp) -> Result<bool> {
        let name = path::Name::of(digest);
        let there = self.target.stat(name.file())?.map(|stat| Stamp::of(&stat));
        let Some(there) = there.filter(|there| there.size == stamp.size) else { return Ok(false) };
        if there.modified_ns.abs_diff(stamp.modified_ns) < COARSEST_NS {
            return Ok(true);
        }
        if digest_of(original)? != *digest {
            return Ok(false);
        }
        // One that cannot be read is made anew.
        let Ok(Some((copy, _))) = self.target.open_regular(name.file()) else { return Ok(false) };
        let path = self.target.path().join(name.file());
        let is_whole = digest_of(Original { file: &copy, path: &path }).is_ok_and(|found| found == *digest);
        if is_whole {
            // Where it is not allowed, the next backup reads them again.
            let _ = self.target.touch(name.file(), stamp.modified_ns);
        }
        Ok(is_whole)
    }
}
