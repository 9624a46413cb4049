//! Listing, one shard's names in memory at a time.

use std::path::Path;
use std::sync::Arc;
use std::vec;

use rustix::fs::FileType;

use crate::base::digest::Digest;
use crate::base::error::{Error, Result};
use crate::blob::path;
use crate::blob::store::BlobStore;
use crate::durable::Directory;

/// Figures of a blob store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlobStats {
    /// How many blobs there are.
    pub blob_count: u64,
    /// Bytes of all blobs together.
    pub size: u64,
}

/// The digests of all blobs, in order; a blob written or deleted meanwhile may or may not come up. A shard that cannot
/// be read is an error, after which the next shard follows.
pub struct BlobDigests {
    root: Arc<Path>,
    next_shard: usize,
    digests: vec::IntoIter<Digest>,
}

impl Iterator for BlobDigests {
    type Item = Result<Digest>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(digest) = self.digests.next() {
                return Some(Ok(digest));
            }
            if self.next_shard == path::SHARDS {
                return None;
            }
            let shard_number = self.next_shard;
            self.next_shard += 1;
            match digests_in(&self.root, shard_number) {
                Ok(digests) => self.digests = digests.into_iter(),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl BlobStore {
    /// The digests of all blobs.
    pub fn digests(&self) -> BlobDigests {
        BlobDigests { root: Arc::clone(&self.root), next_shard: 0, digests: Vec::new().into_iter() }
    }

    /// Counts the blobs and their bytes; looks at every file.
    pub fn stats(&self) -> Result<BlobStats> {
        let mut stats = BlobStats::default();
        for shard_number in 0..path::SHARDS {
            let shard = self.stats_of(shard_number)?;
            stats.blob_count += shard.blob_count;
            stats.size += shard.size;
        }
        Ok(stats)
    }

    /// Bytes of the blobs, for a total that progress is measured by. What cannot be read counts as nothing.
    pub(crate) fn readable_size(&self) -> u64 {
        (0..path::SHARDS).map(|shard_number| self.stats_of(shard_number).unwrap_or_default().size).sum()
    }

    fn stats_of(&self, shard_number: usize) -> Result<BlobStats> {
        let mut stats = BlobStats::default();
        let Some(shard) = open_shard(&self.root, shard_number)? else { return Ok(stats) };
        for entry in entries_of(&shard, shard_number)?.into_iter().filter(|entry| entry.is_regular) {
            // None: deleted since its name was read.
            if let Some(stat) = shard.stat(path::Name::of(&entry.digest).file())? {
                stats.blob_count += 1;
                stats.size += stat.st_size.unsigned_abs();
            }
        }
        Ok(stats)
    }
}

/// What has a blob's name.
pub(super) struct Entry {
    pub(super) digest: Digest,
    /// Whether it is a regular file, as a blob is.
    pub(super) is_regular: bool,
}

/// The directory of a shard; None if there is none. Another file in its place holds no blobs either, but a symbolic link
/// is an error: it was meant to be followed, and it is not.
pub(super) fn open_shard(root: &Path, shard_number: usize) -> Result<Option<Directory>> {
    let Some(root) = Directory::open(root)? else { return Ok(None) };
    match root.directory(&path::shard_name(shard_number)) {
        Err(Error::Io { errno: libc::ENOTDIR, .. }) => Ok(None),
        opened => opened,
    }
}

/// What is named like a blob of this shard, in order.
pub(super) fn entries_of(shard: &Directory, shard_number: usize) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for (name, kind) in shard.entries()? {
        let Some(digest) = path::digest(shard_number, name.to_bytes()) else { continue };
        let is_regular = match kind {
            FileType::RegularFile => true,
            FileType::Unknown => shard
                .stat(path::Name::of(&digest).file())?
                .is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile),
            _ => false,
        };
        entries.push(Entry { digest, is_regular });
    }
    entries.sort_unstable_by_key(|entry| entry.digest);
    Ok(entries)
}

/// The digests in one shard, in order. What is no regular file or has another name is no blob and is passed over.
fn digests_in(root: &Path, shard_number: usize) -> Result<Vec<Digest>> {
    let Some(shard) = open_shard(root, shard_number)? else { return Ok(Vec::new()) };
    let entries = entries_of(&shard, shard_number)?;
    Ok(entries.into_iter().filter(|entry| entry.is_regular).map(|entry| entry.digest).collect())
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests do to the files what others might")]
mod tests {
    use super::*;
    use crate::durable::Durability;

    #[test]
    fn lists_blobs_in_order_and_passes_over_strangers() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let store = BlobStore::new(root, Durability::Normal, false).unwrap();
        assert_eq!(store.digests().count(), 0);
        let mut expected: Vec<Digest> =
            (0..600_u32).map(|number| store.write(&number.to_le_bytes(), false).unwrap()).collect();
        expected.sort_unstable();

        let hex = Digest::of(b"a stranger").to_string();
        std::fs::write(root.join("ab"), b"no shard").or_else(|_| std::fs::write(root.join("ab/x"), b"")).unwrap();
        std::fs::create_dir_all(root.join(&hex[..2]).join(&hex[2..])).unwrap();
        std::fs::write(root.join("00").join(hex[2..].to_uppercase()), b"").unwrap();
        std::fs::write(root.join("00/.stage-x"), b"").unwrap();
        std::fs::write(root.join("00").join(&hex), b"").unwrap();
        std::fs::create_dir_all(root.join("AB")).unwrap();
        std::fs::write(root.join("AB").join(&hex[2..]), b"").unwrap();

        let found: Vec<Digest> = store.digests().map(|digest| digest.unwrap()).collect();
        assert_eq!(found, expected);
        assert_eq!(store.stats().unwrap(), BlobStats { blob_count: 600, size: 2400 });
    }
}
