//! Writing: stage, publish under the digest, and make the way there durable.

use std::borrow::Borrow;
use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use crate::base::digest::{Digest, Hasher};
use crate::base::error::{Error, Result};
use crate::base::fork::Generation;
use crate::base::io::read_full;
use crate::base::time::now_ns;
use crate::blob::get;
use crate::blob::path;
use crate::blob::path::Name;
use crate::blob::presence::{Blob, Presence, RENEW_AFTER_NS};
use crate::blob::root::OpenRoot;
use crate::blob::stamp::Stamp;
use crate::blob::store::{BlobStore, CHUNK_BYTES};
use crate::durable;
use crate::durable::{Durability, Staged};

pub(super) const WRITE: &str = "write a blob";

/// After so many bytes the system is asked to begin with writing them to the disk, so that the flush finds little left.
const WRITE_BEHIND_BYTES: u64 = 8 * 1024 * 1024;

/// A blob whose bytes come piece by piece. Each piece is staged and hashed as it comes, so that the name is that of the
/// bytes which were written, whatever the caller's memory does meanwhile. Dropped unfinished, it leaves nothing.
pub struct BlobWriter<S: Borrow<BlobStore>> {
    store: S,
    root: Arc<OpenRoot>,
    staged: Staged,
    hasher: Hasher,
    size: u64,
    begun: u64,
    /// A write failed, and how much of it is in the file is unknown.
    is_torn: bool,
    /// The process that writes it: in a forked child the file leads nowhere.
    generation: Generation,
}

impl<S: Borrow<BlobStore>> BlobWriter<S> {
    /// Begins a blob.
    pub fn new(store: S) -> Result<Self> {
        let root = store.borrow().root_to_write(WRITE)?;
        let staged = root.stage()?;
        let generation = Generation::current();
        Ok(Self { store, root, staged, hasher: Hasher::new(), size: 0, begun: 0, is_torn: false, generation })
    }

    /// How many bytes it has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.stage(bytes)?;
        self.hasher.update(bytes);
        Ok(())
    }

    fn check(&self) -> Result<()> {
        if self.is_torn {
            return Err(Error::Value("an earlier write to this blob failed: begin it anew".into()));
        }
        self.generation.check(&self.store.borrow().root)
    }

    /// Adds bytes that another thread hashes.
    pub(super) fn stage(&mut self, bytes: &[u8]) -> Result<()> {
        self.check()?;
        self.is_torn = true;
        fill(&self.staged, bytes)?;
        self.is_torn = false;
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

    /// The same with the digest that another thread made of the bytes.
    pub(super) fn finish_as(self, digest: Digest, verify: bool) -> Result<Digest> {
        self.check()?;
        let store = self.store.borrow();
        store.check_writable(WRITE)?;
        let blob = Blob { digest: &digest, name: &Name::of(&digest), size: self.size };
        let holds = |file: &File| has_digest(file, &digest);
        let written = store.place(&self.root, &blob, verify, holds, || Ok(self.staged))?;
        store.make_durable(&self.root, &digest, &written)?;
        Ok(digest)
    }
}

/// What a write left in the blob's place: the bytes, as durable as asked, but not yet the way to them.
pub(super) struct Written {
    /// None: the file changed while it was looked at, and is not taken for verified.
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
        let written = self.place_bytes(&root, &digest, bytes, verify)?;
        self.make_durable(&root, &digest, &written)?;
        Ok(digest)
    }

    /// Begins a blob whose bytes come piece by piece.
    pub fn writer(&self) -> Result<BlobWriter<&Self>> {
        BlobWriter::new(self)
    }

    /// Sees to it that the bytes are there.
    pub(super) fn place_bytes(&self, root: &OpenRoot, digest: &Digest, bytes: &[u8], verify: bool) -> Result<Written> {
        let blob = Blob { digest, name: &Name::of(digest), size: bytes.len() as u64 };
        let stage = || {
            let staged = root.stage()?;
            fill(&staged, bytes).map(|()| staged)
        };
        self.place(root, &blob, verify, |file| holds(file, bytes), stage)
    }

    /// Sees to it that the blob is there: finds it, or publishes what `stage` makes.
    fn place(
        &self,
        root: &OpenRoot,
        blob: &Blob<'_>,
        verify: bool,
        holds: impl Fn(&File) -> bool,
        stage: impl FnOnce() -> Result<Staged>,
    ) -> Result<Written> {
        let (mut stage, mut staged) = (Some(stage), None);
        // More than once only if another writer's comes into its place meanwhile.
        loop {
            let replaces = match self.find(root, blob, verify, &holds)? {
                Presence::Missing => false,
                Presence::Damaged => true,
                Presence::Intact { stamp, synced } => match self.reuse(root, blob.name, stamp, synced)? {
                    Some(written) => return Ok(written),
                    None => true,
                },
            };
            if let Some(stage) = stage.take() {
                let made = stage()?;
                self.poison.watch(made.sync(self.durability))?;
                staged = Some(made);
            }
            if let Some(staged) = &mut staged
                && let Some(written) = self.publish(root, staged, blob.name, replaces)?
            {
                return Ok(written);
            }
        }
    }

    /// Publishes a staged file that is as durable as asked, over what is there if it `replaces`, or else only if there is
    /// nothing: None if there is something.
    fn publish(&self, root: &OpenRoot, staged: &mut Staged, name: &Name, replaces: bool) -> Result<Option<Written>> {
        let shard = root.make_shard(name.shard_number(), name.shard())?;
        let mut before = Stamp::of(&staged.stat()?);
        if now_ns() - before.modified_ns > RENEW_AFTER_NS {
            // Its grace begins now, not with the last byte of a slow writer.
            staged.touch()?;
            before = Stamp::of(&staged.stat()?);
        }
        if replaces {
            // What is there is removed or moved only under the exclusive lock, after a look at it.
            let _lock = shard.lock_shared()?;
            staged.publish_over(&shard, name.file())?;
        } else if !staged.publish_new(&shard, name.file())? {
            // Without the lock nothing is replaced: it might be what a collector has looked at and is about to remove.
            return Ok(None);
        }
        let after = Stamp::of(&staged.stat()?);
        let unchanged = (before.size, before.modified_ns) == (after.size, after.modified_ns);
        Ok(Some(Written { stamp: unchanged.then_some(after), synced: false }))
    }

    /// Takes a copy that is there already for written, and syncs it: its writer may have died before it synced, or never
    /// meant to. None if it is to be replaced: it was deleted meanwhile, or could not be synced. A flush that failed is never tried again, by
    /// any handle: the next would succeed without writing what was lost.
    fn reuse(&self, root: &OpenRoot, name: &Name, stamp: Stamp, synced: bool) -> Result<Option<Written>> {
        if self.durability == Durability::Full && !synced {
            let Some((file, _)) = root.open_regular(name.below())? else { return Ok(None) };
            if durable::sync_file(&file, &name.path(&self.root)).is_err() {
                return Ok(None);
            }
        }
        Ok(Some(Written { stamp: Some(stamp), synced }))
    }

    /// Makes the way to the blob as durable as asked, and remembers the blob.
    fn make_durable(&self, root: &OpenRoot, digest: &Digest, written: &Written) -> Result<()> {
        if self.durability == Durability::Full {
            let shard_number = path::shard_number(digest);
            if !written.synced {
                self.sync_shard(root, shard_number)?;
            }
            self.sync_ways(root, std::iter::once(shard_number))?;
        }
        self.remember(root, digest, written);
        Ok(())
    }

    /// Remembers a blob, the way to which is as durable as asked.
    pub(super) fn remember(&self, root: &OpenRoot, digest: &Digest, written: &Written) {
        let Some(stamp) = written.stamp else { return };
        let synced = written.synced || self.durability == Durability::Full;
        match self.cache.lookup(digest, &stamp) {
            None => self.cache.insert(digest, stamp, root.trust(stamp.changed_ns), synced),
            Some(false) if synced => self.cache.mark_synced(digest, &stamp),
            Some(_) => {}
        }
    }
}

fn fill(staged: &Staged, bytes: &[u8]) -> Result<()> {
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
    use std::path::Path;

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
            let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
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
    fn a_new_blob_replaces_nothing_that_came_meanwhile() {
        let (_directory, store) = new_store();
        store.write(b"first", false).unwrap();
        let root = store.root_to_write(WRITE).unwrap();
        for _ in 0..2 {
            let digest = Digest::of(b"x");
            let mut staged = root.stage().unwrap();
            fill(&staged, b"x").unwrap();
            std::fs::create_dir_all(store.path_of(&digest).parent().unwrap()).unwrap();
            std::fs::write(store.path_of(&digest), b"another's").unwrap();
            assert!(store.publish(&root, &mut staged, &Name::of(&digest), false).unwrap().is_none());
            assert_eq!(std::fs::read(store.path_of(&digest)).unwrap(), b"another's");
            assert!(store.publish(&root, &mut staged, &Name::of(&digest), true).unwrap().is_some());
            assert_eq!(store.read(&digest).unwrap().unwrap(), b"x");
            std::fs::remove_file(store.path_of(&digest)).unwrap();
        }
        assert_eq!(staged_count(&store), 0);
    }

    #[test]
    fn a_copy_that_was_deleted_before_it_was_synced_is_written_anew() {
        let (_directory, store) = new_store();
        let root = store.root_to_write(WRITE).unwrap();
        let digest = Digest::of(b"x");
        for durability in [Durability::Full, Durability::Normal] {
            BlobStore::new(store.root(), durability, false).unwrap().write(b"x", false).unwrap();
            let stamp = Stamp::of(&root.look(Name::of(&digest).below()).unwrap().unwrap());
            assert!(store.reuse(&root, &Name::of(&digest), stamp, false).unwrap().is_some());
            std::fs::remove_file(store.path_of(&digest)).unwrap();
            assert!(store.reuse(&root, &Name::of(&digest), stamp, false).unwrap().is_none());
        }
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
