//! The root as it was met: what is kept open of it, and what is known of it. All of that is forgotten once another
//! directory is found in its place.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use crate::base::error::{Error, Result};
use crate::blob::vouch::Trust;
use crate::blob::{BlobStore, path};
use crate::durable;
use crate::durable::{Directory, Durability, StagedBeneath};

/// An open root.
pub(super) struct Root {
    directory: Directory,
    staging: OnceLock<Staging>,
    /// The shards whose entry in the root this handle knows to be synced. An earlier writer may have made the directory
    /// and died. That it stays true rests on nobody removing shards.
    synced_shards: [AtomicBool; path::SHARDS],
    /// The same of the root's own entry.
    synced_entry: AtomicBool,
}

/// The staging directory, and what was found out about the file system with its help.
struct Staging {
    directory: Arc<Directory>,
    can_be_nameless: bool,
    tells_changes_apart: bool,
}

impl Deref for Root {
    type Target = Directory;

    fn deref(&self) -> &Directory {
        &self.directory
    }
}

impl Root {
    fn new(directory: Directory) -> Self {
        Self {
            directory,
            staging: OnceLock::new(),
            synced_shards: [const { AtomicBool::new(false) }; path::SHARDS],
            synced_entry: AtomicBool::new(false),
        }
    }

    /// An empty staged file.
    pub(super) fn stage(&self) -> Result<StagedBeneath> {
        if let Some(kept) = self.staging.get() {
            match kept.directory.stage(kept.can_be_nameless) {
                // It was removed.
                Err(Error::Io { errno: libc::ENOENT | libc::EPERM, .. }) => {}
                staged => return staged,
            }
        }
        let directory = Arc::new(self.make_directory(path::STAGING)?);
        let (staged, can_be_nameless) = StagedBeneath::first(&directory)?;
        self.staging.get_or_init(|| Staging {
            can_be_nameless,
            tells_changes_apart: staged.tells_changes_apart().unwrap_or(false),
            directory,
        });
        Ok(staged)
    }

    /// How far the stamp of a file is to be trusted that held the blob's bytes at `since_ns`.
    pub(super) fn trust(&self, since_ns: i128) -> Trust {
        match self.staging.get() {
            Some(staging) if staging.tells_changes_apart => Trust::Whole,
            _ => Trust::Since(since_ns),
        }
    }

    /// The shard, which is made if it is missing.
    pub(super) fn make_shard(&self, shard_number: usize, name: &str) -> Result<Directory> {
        if let Some(shard) = self.directory(name)? {
            return Ok(shard);
        }
        let shard = self.make_directory(name)?;
        self.synced_shards[shard_number].store(false, Ordering::Release);
        Ok(shard)
    }
}

impl BlobStore {
    /// The root as it is now; None if there is none.
    pub(super) fn open_root(&self) -> Result<Option<Arc<Root>>> {
        if let Some(kept) = self.kept_root().filter(|kept| kept.is_at_its_path()) {
            return Ok(Some(kept));
        }
        let Some(root) = Directory::open(&self.root)?.map(|directory| Arc::new(Root::new(directory))) else {
            return Ok(None);
        };
        // In a forked child the lock may stay taken for ever.
        if let Ok(mut kept) = self.kept.try_write() {
            *kept = Some(Arc::clone(&root));
        }
        Ok(Some(root))
    }

    /// The root as it was last met.
    pub(super) fn kept_root(&self) -> Option<Arc<Root>> {
        self.kept.try_read().ok()?.clone()
    }

    /// The root, which is made if it is missing.
    pub(super) fn root_to_write(&self, operation: &'static str) -> Result<Arc<Root>> {
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
        if let Ok(mut kept) = self.kept.try_write() {
            *kept = None;
        }
    }

    /// Syncs the entries that lead to these shards, as far as this handle has not seen to it before.
    pub(super) fn sync_ways(&self, root: &Root, shards: impl Iterator<Item = usize> + Clone) -> Result<()> {
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
    pub(super) fn sync_shard(&self, root: &Root, shard_number: usize) -> Result<()> {
        match root.directory(&path::shard_name(shard_number))? {
            Some(shard) => self.poison.watch(shard.sync()),
            None => Ok(()),
        }
    }
}
