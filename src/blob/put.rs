//! Writing: stage, publish under the digest, and make the way there durable.

use std::borrow::Borrow;
use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::path::{self, Name};
use super::presence::Found;
use super::vouch::Stamp;
use super::{BlobStore, CHUNK_BYTES, get, read_full};
use crate::digest::{Digest, Hasher};
use crate::durable::{self, Directory, Durability, StagedBeneath};
use crate::error::{Error, Result};

pub(super) const WRITE: &str = "write a blob";

/// After so many bytes the system is asked to begin with writing them to the disk, so that the flush finds little left.
const WRITE_BEHIND_BYTES: u64 = 8 * 1024 * 1024;

/// A blob whose bytes come piece by piece. Each piece is staged and hashed as it comes, so that the name is that of the
/// bytes which were written, whatever the caller's memory does meanwhile. Dropped unfinished, it leaves nothing.
pub struct BlobWriter<S: Borrow<BlobStore>> {
    store: S,
    root: Arc<Directory>,
    staged: StagedBeneath,
    hasher: Hasher,
    size: u64,
    begun: u64,
}

impl<S: Borrow<BlobStore>> BlobWriter<S> {
    /// Begins a blob.
    pub fn new(store: S) -> Result<Self> {
        let root = store.borrow().root_to_write(WRITE)?;
        let staged = store.borrow().stage(&root)?;
        Ok(Self { store, root, staged, hasher: Hasher::new(), size: 0, begun: 0 })
    }

    /// How many bytes it has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        self.stage(bytes)
    }

    /// Adds bytes that somebody else hashes.
    pub(super) fn stage(&mut self, bytes: &[u8]) -> Result<()> {
        fill(&self.staged, bytes)?;
        self.size += bytes.len() as u64;
        if self.store.borrow().durability == Durability::Full && self.size - self.begun >= WRITE_BEHIND_BYTES {
            self.staged.begin_sync(self.begun, self.size - self.begun);
            self.begun = self.size;
        }
        Ok(())
    }

    /// Publishes the blob, unless it is there already, and returns its digest. `verify`: reads what is there, whatever
    /// the store knows of it.
    pub fn finish(self, verify: bool) -> Result<Digest> {
        let digest = self.hasher.clone().finish();
        self.finish_as(digest, verify)
    }

    /// The same with the digest that somebody else made of the bytes.
    pub(super) fn finish_as(mut self, digest: Digest, verify: bool) -> Result<Digest> {
        let store = self.store.borrow();
        store.check_writable(WRITE)?;
        let name = Name::of(&digest);
        let found = store.find(&self.root, &digest, &name, self.size, verify, |file| has_digest(file, &digest))?;
        let placed = match found {
            Found::Whole { stamp, synced } => store.keep(&self.root, &name, stamp, synced)?,
            found => store.publish(&self.root, &mut self.staged, &name, found)?,
        };
        store.settle(&self.root, &digest, &placed)?;
        Ok(digest)
    }
}

/// What a write left in the blob's place: the bytes, as durable as asked, but not yet the way to them.
pub(super) struct Placed {
    /// None: the file changed while it was looked at, and nobody vouches for it.
    pub(super) stamp: Option<Stamp>,
    /// Whether the way is known to be synced.
    pub(super) synced: bool,
}

impl BlobStore {
    /// Stores `bytes`, unless they are there already, and returns their digest. A copy that differs is replaced.
    /// `verify`: reads what is there, whatever the store knows of it.
    pub fn write(&self, bytes: &[u8], verify: bool) -> Result<Digest> {
        let root = self.root_to_write(WRITE)?;
        let digest = Digest::of(bytes);
        let placed = self.place(&root, &digest, bytes, verify)?;
        self.settle(&root, &digest, &placed)?;
        Ok(digest)
    }

    /// Begins a blob whose bytes come piece by piece.
    pub fn writer(&self) -> Result<BlobWriter<&Self>> {
        BlobWriter::new(self)
    }

    /// Sees to it that the bytes are there.
    pub(super) fn place(&self, root: &Arc<Directory>, digest: &Digest, bytes: &[u8], verify: bool) -> Result<Placed> {
        let name = Name::of(digest);
        match self.find(root, digest, &name, bytes.len() as u64, verify, |file| holds(file, bytes))? {
            Found::Whole { stamp, synced } => self.keep(root, &name, stamp, synced),
            found => {
                let mut staged = self.stage(root)?;
                fill(&staged, bytes)?;
                self.publish(root, &mut staged, &name, found)
            }
        }
    }

    /// The root, which is made if it is missing.
    pub(super) fn root_to_write(&self, operation: &'static str) -> Result<Arc<Directory>> {
        self.check_writable(operation)?;
        if let Some(root) = self.open_root()? {
            return Ok(root);
        }
        self.watch(durable::create_directories(&self.root, self.durability))?;
        self.open_root()?
            .ok_or_else(|| Error::errno(&self.root, operation, libc::ENOENT, "it vanished meanwhile".into()))
    }

    /// An empty staged file.
    fn stage(&self, root: &Arc<Directory>) -> Result<StagedBeneath> {
        let is_kept = self.kept_root.get().is_some_and(|kept| Arc::ptr_eq(kept, root));
        if let Some(kept) = self.kept_staging.get().filter(|_| is_kept) {
            match kept.stage() {
                // It was removed.
                Err(Error::Io { errno: libc::ENOENT, .. }) => {}
                staged => return staged,
            }
        }
        let staging = Arc::new(root.make_directory(path::STAGING)?);
        let staged = staging.stage()?;
        self.vouchers.try_times(&staged);
        if is_kept {
            let _ = self.kept_staging.set(staging);
        }
        Ok(staged)
    }

    fn publish(&self, root: &Directory, staged: &mut StagedBeneath, name: &Name, found: Found) -> Result<Placed> {
        match staged.sync(self.durability) {
            // The staged bytes are gone and the next attempt stages new ones, so that a full disk poisons nothing.
            Err(error @ Error::Full { .. }) => return Err(error),
            synced => self.watch(synced)?,
        }
        let shard = match root.directory(name.shard())? {
            Some(shard) => shard,
            None => {
                let shard = root.make_directory(name.shard())?;
                self.synced_shards[name.shard_number()].store(false, Ordering::Release);
                shard
            }
        };
        // Whoever removes or moves what is there does so under the exclusive lock, and never what is new.
        let _lock = if matches!(found, Found::Damaged) { Some(shard.lock_shared()?) } else { None };
        let before = Stamp::of(&staged.stat()?);
        staged.publish(&shard, name.file())?;
        let after = Stamp::of(&staged.stat()?);
        let unchanged = (before.size, before.modified_ns) == (after.size, after.modified_ns);
        Ok(Placed { stamp: unchanged.then_some(after), synced: false })
    }

    /// Vouches for a copy that is there already: its writer may have died before it synced, or never meant to.
    fn keep(&self, root: &Directory, name: &Name, stamp: Stamp, synced: bool) -> Result<Placed> {
        if self.durability == Durability::Full && !synced {
            let (file, _) = root
                .open_regular(name.shard(), name.file())?
                .ok_or_else(|| Error::errno(&name.path(&self.root), WRITE, libc::ENOENT, "it was deleted".into()))?;
            self.watch(durable::sync_file(&file, &name.path(&self.root)))?;
        }
        Ok(Placed { stamp: Some(stamp), synced })
    }

    /// Makes the way to the blob as durable as asked, and remembers the blob.
    fn settle(&self, root: &Directory, digest: &Digest, placed: &Placed) -> Result<()> {
        if self.durability == Durability::Full && !placed.synced {
            self.sync_shard(root, path::shard_number(digest))?;
        }
        self.sync_way(root, path::shard_number(digest))?;
        self.remember(digest, placed);
        Ok(())
    }

    /// Remembers a blob, the way to which is as durable as asked.
    pub(super) fn remember(&self, digest: &Digest, placed: &Placed) {
        let Some(stamp) = placed.stamp else { return };
        let synced = placed.synced || self.durability == Durability::Full;
        match self.vouchers.known(digest, &stamp) {
            None => self.vouchers.vouch(digest, stamp, stamp.changed_ns(), synced),
            Some(false) if synced => self.vouchers.mark_synced(digest, &stamp),
            Some(_) => {}
        }
    }

    /// Syncs the entries of a shard.
    pub(super) fn sync_shard(&self, root: &Directory, shard_number: usize) -> Result<()> {
        match root.directory(&path::shard_name(shard_number))? {
            Some(shard) => self.watch(shard.sync()),
            None => Ok(()),
        }
    }

    /// Syncs the entries that lead to the shard, unless this handle has seen to it before.
    pub(super) fn sync_way(&self, root: &Directory, shard_number: usize) -> Result<()> {
        if self.durability == Durability::Normal {
            return Ok(());
        }
        let synced_shard = &self.synced_shards[shard_number];
        if !synced_shard.load(Ordering::Acquire) {
            self.watch(root.sync())?;
            synced_shard.store(true, Ordering::Release);
        }
        if !self.synced_root.load(Ordering::Acquire) {
            self.watch(durable::sync_parent(&self.root, Durability::Full))?;
            self.synced_root.store(true, Ordering::Release);
        }
        Ok(())
    }
}

fn fill(staged: &StagedBeneath, bytes: &[u8]) -> Result<()> {
    staged.file().write_all(bytes).map_err(|error| Error::io(&staged.path(), WRITE, &error))
}

/// Whether `file` holds exactly `bytes`. One that cannot be read does not: it is replaced.
fn holds(mut file: &File, bytes: &[u8]) -> bool {
    let mut found = vec![0; bytes.len().min(CHUNK_BYTES)];
    bytes.chunks(CHUNK_BYTES).all(|expected| {
        let found = &mut found[..expected.len()];
        read_full(&mut file, found).is_ok() && found == expected
    })
}

/// Whether `file` has the digest. One that cannot be read does not: it is replaced.
fn has_digest(file: &File, digest: &Digest) -> bool {
    get::digest_of(file).is_ok_and(|actual| actual == *digest)
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
        writer.finish(false).unwrap()
    }

    fn staged_count(store: &BlobStore) -> usize {
        std::fs::read_dir(store.root().join(path::STAGING)).unwrap().count()
    }

    #[test]
    fn whole_or_in_pieces_makes_the_same_private_file() {
        for bytes in [vec![], b"plan".to_vec(), vec![7; CHUNK_BYTES + 1]] {
            let (_directory, store) = new_store();
            let digest = store.write(&bytes, false).unwrap();
            assert_eq!(digest, Digest::of(&bytes));
            let (file, shard) = (store.path_of(&digest), store.path_of(&digest).parent().unwrap().to_owned());
            let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&file), mode(&shard), mode(&store.root)), (0o600, 0o700, 0o700));
            assert_eq!(std::fs::read(&file).unwrap(), bytes);

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
        let digest = store.write(&bytes, false).unwrap();
        let file = store.path_of(&digest);
        let inode = || std::fs::metadata(&file).unwrap().ino();
        let first = inode();
        assert_eq!(store.write(&bytes, false).unwrap(), digest);
        assert_eq!(write_in_pieces(&store, &bytes), digest);
        assert_eq!(inode(), first);

        let mut flipped = bytes.clone();
        flipped[CHUNK_BYTES] ^= 1;
        let longer = [bytes.as_slice(), b"x"].concat();
        for damaged in [flipped.as_slice(), &bytes[1..], &longer, b""] {
            for repair in [|store: &BlobStore, bytes: &[u8]| store.write(bytes, false).unwrap(), write_in_pieces] {
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
        let digest = store.write(b"x", false).unwrap();
        std::fs::remove_dir_all(store.root()).unwrap();
        assert_eq!(store.write(b"x", false).unwrap(), digest);
        assert!(store.exists(&digest, true).unwrap());
    }
}
