//! Listing, one shard's names in memory at a time.

use std::fs::{DirEntry, read_dir};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::vec;

use super::{BlobStore, path};
use crate::digest::Digest;
use crate::error::{Error, Result};

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
    root: PathBuf,
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
        BlobDigests { root: self.root.clone(), next_shard: 0, digests: Vec::new().into_iter() }
    }

    /// Counts the blobs and their bytes; looks at every file.
    pub fn stats(&self) -> Result<BlobStats> {
        let mut stats = BlobStats::default();
        for digest in self.digests() {
            // None: deleted since its name was read.
            if let Some(size) = self.size(&digest?)? {
                stats.blob_count += 1;
                stats.size += size;
            }
        }
        Ok(stats)
    }
}

/// The digests in one shard, in order. What is no regular file or has another name is no blob and is passed over.
fn digests_in(root: &Path, shard_number: usize) -> Result<Vec<Digest>> {
    let shard = path::shard(root, shard_number);
    let failed = |error: io::Error| Error::io(&shard, "list blobs", &error);
    let entries = match read_dir(&shard) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut digests = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if let Some(digest) = path::digest(shard_number, &entry.file_name())
            && is_regular(&entry).map_err(failed)?
        {
            digests.push(digest);
        }
    }
    digests.sort_unstable();
    Ok(digests)
}

fn is_regular(entry: &DirEntry) -> io::Result<bool> {
    match entry.file_type() {
        Ok(kind) => Ok(kind.is_file()),
        // Deleted since its name was read.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
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
            (0..600_u32).map(|number| store.write(&number.to_le_bytes()).unwrap()).collect();
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
