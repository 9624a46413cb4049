//! Writing: stage, publish under the digest, and make the way there durable.

use std::fs::File;
use std::io::Write;
use std::sync::atomic::Ordering;

use super::path::{self, Place};
use super::{BlobStore, CHUNK_BYTES, get, read_full};
use crate::digest::{Digest, Hasher};
use crate::durable::{self, Durability, Staged};
use crate::error::{Error, Result};

const WRITE: &str = "write a blob";

/// A blob whose bytes come piece by piece. Each piece is staged and hashed as it comes, so that the name is that of the
/// bytes which were written, whatever the caller's memory does meanwhile. Dropped unfinished, it leaves nothing.
pub struct BlobWriter<'store> {
    store: &'store BlobStore,
    staged: Staged,
    hasher: Hasher,
    size: u64,
}

impl BlobWriter<'_> {
    /// Adds bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        self.store.fill(&mut self.staged, bytes)
    }

    /// Publishes the blob, unless it is there already, and returns its digest.
    pub fn finish(self) -> Result<Digest> {
        let digest = self.hasher.finish();
        let place = Place::of(&self.store.root, &digest);
        match durable::open_regular(&place.file)? {
            Some(file) if has_digest(&file, self.size, &digest) => self.store.keep(&place, &file)?,
            _ => self.store.publish(self.staged, &place)?,
        }
        Ok(digest)
    }
}

impl BlobStore {
    /// Stores `bytes`, unless they are there already, and returns their digest. A copy that differs is replaced.
    pub fn write(&self, bytes: &[u8]) -> Result<Digest> {
        self.check_writable(WRITE)?;
        let digest = Digest::of(bytes);
        let place = Place::of(&self.root, &digest);
        match durable::open_regular(&place.file)? {
            Some(file) if holds(&file, bytes) => self.keep(&place, &file)?,
            _ => {
                let mut staged = self.stage()?;
                self.fill(&mut staged, bytes)?;
                self.publish(staged, &place)?;
            }
        }
        Ok(digest)
    }

    /// Begins a blob whose bytes come piece by piece.
    pub fn writer(&self) -> Result<BlobWriter<'_>> {
        self.check_writable(WRITE)?;
        Ok(BlobWriter { store: self, staged: self.stage()?, hasher: Hasher::new(), size: 0 })
    }

    /// An empty staged file; creates the directories when they are missing.
    fn stage(&self) -> Result<Staged> {
        let staging = path::staging(&self.root);
        match Staged::create(&staging) {
            Err(Error::Io { errno: libc::ENOENT, .. }) => {}
            created => return created,
        }
        self.watch(durable::create_directories(&self.root, self.durability))?;
        durable::create_directories(&staging, Durability::Normal)?;
        Staged::create(&staging)
    }

    fn fill(&self, staged: &mut Staged, bytes: &[u8]) -> Result<()> {
        staged.write_all(bytes).map_err(|error| Error::io(&path::staging(&self.root), WRITE, &error))
    }

    fn publish(&self, staged: Staged, place: &Place) -> Result<()> {
        if !place.shard.is_dir() {
            self.synced_shards[place.shard_number].store(false, Ordering::Release);
            durable::create_directories(&place.shard, Durability::Normal)?;
        }
        match staged.publish(&place.file, self.durability) {
            // The staged bytes are gone and the next attempt stages new ones, so that a full disk poisons nothing.
            Err(error @ Error::Full { .. }) => return Err(error),
            published => self.watch(published)?,
        }
        self.sync_way(place)
    }

    /// Vouches for a copy that is there already: its writer may have died before it synced, or never meant to.
    fn keep(&self, place: &Place, file: &File) -> Result<()> {
        if self.durability == Durability::Full {
            self.watch(durable::sync_file(file, &place.file))?;
            self.watch(durable::sync_directory(&place.shard))?;
        }
        self.sync_way(place)
    }

    /// Syncs the entries that lead to the shard, unless this handle has seen to it before.
    fn sync_way(&self, place: &Place) -> Result<()> {
        if self.durability == Durability::Normal {
            return Ok(());
        }
        let synced_shard = &self.synced_shards[place.shard_number];
        if !synced_shard.load(Ordering::Acquire) {
            self.watch(durable::sync_directory(&self.root))?;
            synced_shard.store(true, Ordering::Release);
        }
        if !self.synced_root.load(Ordering::Acquire) {
            self.watch(durable::sync_parent(&self.root, Durability::Full))?;
            self.synced_root.store(true, Ordering::Release);
        }
        Ok(())
    }
}

/// Whether `file` holds exactly `bytes`. One that cannot be read does not: it is replaced.
fn holds(mut file: &File, bytes: &[u8]) -> bool {
    if !has_size(file, bytes.len() as u64) {
        return false;
    }
    let mut found = vec![0; bytes.len().min(CHUNK_BYTES)];
    bytes.chunks(CHUNK_BYTES).all(|expected| {
        let found = &mut found[..expected.len()];
        read_full(&mut file, found).is_ok() && found == expected
    })
}

/// Whether `file` holds `size` bytes that have the digest. One that cannot be read does not: it is replaced.
fn has_digest(file: &File, size: u64, digest: &Digest) -> bool {
    has_size(file, size) && get::digest_of(file).is_ok_and(|actual| actual == *digest)
}

fn has_size(file: &File, size: u64) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.len() == size)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests do to the files what others might")]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    fn new_store() -> (tempfile::TempDir, BlobStore) {
        let directory = tempfile::tempdir().unwrap();
        let store = BlobStore::new(&directory.path().join("data/blobs"), Durability::Full, false).unwrap();
        (directory, store)
    }

    fn write_in_pieces(store: &BlobStore, bytes: &[u8]) -> Digest {
        let mut writer = store.writer().unwrap();
        bytes.chunks(100_000).for_each(|piece| writer.write(piece).unwrap());
        writer.finish().unwrap()
    }

    fn staged_count(store: &BlobStore) -> usize {
        std::fs::read_dir(path::staging(store.root())).unwrap().count()
    }

    #[test]
    fn whole_or_in_pieces_makes_the_same_private_file() {
        for bytes in [vec![], b"plan".to_vec(), vec![7; CHUNK_BYTES + 1]] {
            let (_directory, store) = new_store();
            let digest = store.write(&bytes).unwrap();
            assert_eq!(digest, Digest::of(&bytes));
            let place = Place::of(store.root(), &digest);
            let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&place.file), mode(&place.shard), mode(&store.root)), (0o600, 0o700, 0o700));
            assert_eq!(std::fs::read(&place.file).unwrap(), bytes);

            let (_directory, store) = new_store();
            assert_eq!(write_in_pieces(&store, &bytes), digest);
            assert_eq!(store.read(&digest).unwrap().unwrap(), bytes);
            assert_eq!(staged_count(&store), 0);
        }
    }

    #[test]
    fn a_copy_that_matches_is_kept_and_one_that_does_not_is_replaced() {
        let bytes = vec![7; 2 * CHUNK_BYTES + 1];
        let (_directory, store) = new_store();
        let digest = store.write(&bytes).unwrap();
        let file = Place::of(store.root(), &digest).file;
        let inode = || std::fs::metadata(&file).unwrap().ino();
        let first = inode();
        assert_eq!(store.write(&bytes).unwrap(), digest);
        assert_eq!(write_in_pieces(&store, &bytes), digest);
        assert_eq!(inode(), first);

        let mut flipped = bytes.clone();
        flipped[CHUNK_BYTES] ^= 1;
        let longer = [bytes.as_slice(), b"x"].concat();
        for damaged in [flipped.as_slice(), &bytes[1..], &longer, b""] {
            for repair in [|store: &BlobStore, bytes: &[u8]| store.write(bytes).unwrap(), write_in_pieces] {
                std::fs::write(&file, damaged).unwrap();
                assert_eq!(repair(&store, &bytes), digest);
                assert_eq!(store.read(&digest).unwrap().as_deref(), Some(bytes.as_slice()));
            }
        }
        assert_eq!(staged_count(&store), 0);
    }

    #[test]
    fn an_unfinished_blob_leaves_nothing() {
        let (_directory, store) = new_store();
        store.writer().unwrap().write(b"torn").unwrap();
        assert_eq!(staged_count(&store), 0);
        assert_eq!(store.digests().count(), 0);
    }

    #[test]
    fn directories_that_vanish_come_back() {
        let (_directory, store) = new_store();
        let digest = store.write(b"x").unwrap();
        std::fs::remove_dir_all(store.root()).unwrap();
        assert_eq!(store.write(b"x").unwrap(), digest);
        assert!(store.exists(&digest, true).unwrap());
    }
}
