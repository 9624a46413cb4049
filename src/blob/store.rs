//! The handle on a blob store: its root, and what it may do there.

use std::io::{self, ErrorKind};
use std::path::{Path, absolute};
use std::sync::atomic::Ordering;
use std::sync::{Arc, RwLock};

use crate::base::error::{Error, Result};
use crate::blob::path;
use crate::blob::root::OpenRoot;
use crate::blob::verified_cache::VerifiedCache;
use crate::durable;
use crate::durable::{Directory, Durability, Poison};

/// How much is read, hashed and written at a time.
pub const CHUNK_BYTES: usize = 256 * 1024;

/// The blobs under one directory. Any number of threads and processes may use the same one; between calls it holds
/// no lock, and nothing open but two directories, so that a forked child may go on with its parent's. It need not be
/// closed: that only lets go of the directories, and the next call opens them again.
pub struct BlobStore {
    pub(super) root: Arc<Path>,
    pub(super) durability: Durability,
    read_only: bool,
    pub(super) poison: Poison,
    pub(super) cache: VerifiedCache,
    /// The root as it was last opened, to save the way there. Each use makes sure that it is still at its path.
    last_root: RwLock<Option<Arc<OpenRoot>>>,
}

impl BlobStore {
    /// The store under `root`, which the first write creates. A relative `root` keeps its meaning when the process
    /// changes its directory.
    pub fn new(root: &Path, durability: Durability, read_only: bool) -> Result<Self> {
        let failed = |error: io::Error| match error.kind() {
            ErrorKind::InvalidInput => Error::Value(format!("no path of a blob store: {root:?}: {error}")),
            _ => Error::io(root, "open a blob store", &error),
        };
        let root: Arc<Path> = absolute(root).map_err(failed)?.into();
        match root.metadata() {
            Ok(metadata) if !metadata.is_dir() => {
                let reason = format!("it is {}, not a directory", durable::kind_name(metadata.file_type()));
                return Err(Error::errno(&root, "open a blob store", libc::ENOTDIR, reason));
            }
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        if !read_only {
            // A failure is of no consequence: the next handle tries again.
            let _ = durable::sweep_orphaned(&root.join(path::STAGING));
        }
        Ok(Self {
            root,
            durability,
            read_only,
            poison: Poison::new(),
            cache: VerifiedCache::new(),
            last_root: RwLock::new(None),
        })
    }

    /// The directory, absolute.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Refuses what would change anything where nothing may be changed.
    pub(super) fn check_writable(&self, operation: &'static str) -> Result<()> {
        if self.read_only {
            return Err(Error::errno(&self.root, operation, libc::EROFS, "the store was opened with read_only".into()));
        }
        self.poison.check(&self.root)
    }
}

impl BlobStore {
    /// The root as it is now; None if there is none.
    pub(super) fn open_root(&self) -> Result<Option<Arc<OpenRoot>>> {
        if let Some(kept) = self.last_root().filter(|kept| kept.is_at_its_path()) {
            return Ok(Some(kept));
        }
        let Some(root) = Directory::open(&self.root)?.map(|directory| Arc::new(OpenRoot::new(directory))) else {
            return Ok(None);
        };
        // In a forked child the lock may stay taken for ever.
        if let Ok(mut last) = self.last_root.try_write() {
            *last = Some(Arc::clone(&root));
        }
        Ok(Some(root))
    }

    /// The root as it was last opened.
    pub(super) fn last_root(&self) -> Option<Arc<OpenRoot>> {
        self.last_root.try_read().ok()?.clone()
    }

    /// The root, which is made if it is missing.
    pub(super) fn root_to_write(&self, operation: &'static str) -> Result<Arc<OpenRoot>> {
        self.check_writable(operation)?;
        if let Some(root) = self.open_root()? {
            return Ok(root);
        }
        self.poison.watch(durable::create_directories(&self.root, self.durability))?;
        self.open_root()?
            .ok_or_else(|| Error::errno(&self.root, operation, libc::ENOENT, "it vanished meanwhile".into()))
    }

    /// Lets go of the directories that are kept open. The next call opens them again.
    pub fn close(&self) {
        if let Ok(mut last) = self.last_root.try_write() {
            *last = None;
        }
    }

    /// Syncs the entries that lead to these shards, as far as this handle has not seen to it before.
    pub(super) fn sync_ways(&self, root: &OpenRoot, shards: impl Iterator<Item = usize> + Clone) -> Result<()> {
        if self.durability == Durability::Normal {
            return Ok(());
        }
        // One flush of the root serves them all.
        let is_known = |shard: usize| root.synced_shards[shard].load(Ordering::Acquire);
        if !shards.clone().all(is_known) {
            self.poison.watch(root.sync())?;
            shards.for_each(|shard| root.synced_shards[shard].store(true, Ordering::Release));
        }
        if !root.synced_entry.load(Ordering::Acquire) {
            self.poison.watch(durable::sync_parent(&self.root, Durability::Full))?;
            root.synced_entry.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Syncs the entries of a shard.
    pub(super) fn sync_shard(&self, root: &OpenRoot, shard_number: usize) -> Result<()> {
        match root.directory(&path::shard_name(shard_number))? {
            Some(shard) => self.poison.watch(shard.sync()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests do to the files what others might")]
mod tests {
    use super::*;
    use crate::base::digest::Digest;

    #[test]
    fn a_root_that_is_a_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, b"").unwrap();
        for root in [file.clone(), file.join("below")] {
            let refused = BlobStore::new(&root, Durability::Full, false);
            assert!(matches!(refused, Err(Error::Io { errno: libc::ENOTDIR, .. })), "{root:?}");
        }
        assert!(matches!(BlobStore::new(Path::new(""), Durability::Full, false), Err(Error::Value(_))));
    }

    #[test]
    fn a_read_only_store_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("blobs");
        let store = BlobStore::new(&root, Durability::Full, true).unwrap();
        let digest = Digest::of(b"x");
        assert!(matches!(store.write(b"x", false), Err(Error::Io { errno: libc::EROFS, .. })));
        assert!(matches!(store.writer().err(), Some(Error::Io { errno: libc::EROFS, .. })));
        assert!(matches!(store.delete(&digest), Err(Error::Io { errno: libc::EROFS, .. })));
        assert!(store.read(&digest).unwrap().is_none());
        assert!(!root.exists());
    }

    #[test]
    fn a_failed_flush_poisons_the_handle_for_writing_alone() {
        let directory = tempfile::tempdir().unwrap();
        let store = BlobStore::new(directory.path(), Durability::Full, false).unwrap();
        let digest = store.write(b"x", false).unwrap();
        store.poison.watch(durable::sync_directory(Path::new("/proc"))).unwrap_err();
        assert!(matches!(store.write(b"y", false), Err(Error::Poisoned { errno: libc::EINVAL, .. })));
        assert!(matches!(store.delete(&digest), Err(Error::Poisoned { .. })));
        assert_eq!(store.read(&digest).unwrap().unwrap(), b"x");
    }
}
