//! An open root directory, and what the handle has found out about it. All of it is forgotten once another directory is
//! found at its path.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use crate::base::error::{Error, Result};
use crate::blob::path;
use crate::blob::verified_cache::Trust;
use crate::durable::{Directory, Staged};

/// An open root.
pub(super) struct OpenRoot {
    directory: Directory,
    /// Of a store in memory a change may leave no trace.
    shows_mapped_writes: bool,
    staging: OnceLock<Staging>,
    /// The shards whose entry in the root this handle knows to be synced. An earlier writer may have made the directory
    /// and died. It stays true because shards are never removed.
    pub(super) synced_shards: [AtomicBool; path::SHARDS],
    /// The same of the root's own entry.
    pub(super) synced_entry: AtomicBool,
}

/// The staging directory, and what was found out about the file system with its help.
struct Staging {
    directory: Arc<Directory>,
    can_be_nameless: bool,
    tells_changes_apart: bool,
}

impl Deref for OpenRoot {
    type Target = Directory;

    fn deref(&self) -> &Directory {
        &self.directory
    }
}

impl OpenRoot {
    pub(super) fn new(directory: Directory) -> Self {
        Self {
            shows_mapped_writes: directory.shows_mapped_writes(),
            directory,
            staging: OnceLock::new(),
            synced_shards: [const { AtomicBool::new(false) }; path::SHARDS],
            synced_entry: AtomicBool::new(false),
        }
    }

    /// An empty staged file.
    pub(super) fn stage(&self) -> Result<Staged> {
        if let Some(kept) = self.staging.get() {
            match Staged::beneath(&kept.directory, kept.can_be_nameless) {
                // It was removed.
                Err(Error::Io { errno: libc::ENOENT | libc::EPERM, .. }) => {}
                staged => return staged,
            }
        }
        let directory = Arc::new(self.make_directory(path::STAGING)?);
        let (staged, can_be_nameless) = Staged::first(&directory)?;
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
            _ if !self.shows_mapped_writes => Trust::None,
            Some(staging) if staging.tells_changes_apart => Trust::Whole,
            _ => Trust::Since(since_ns),
        }
    }

    /// The same of a file whose time of last write this handle has set, which no other program sets to the same.
    pub(super) fn trust_in_own_time(&self) -> Trust {
        if self.shows_mapped_writes { Trust::Whole } else { Trust::None }
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
