//! Files that are staged and published below a directory, without following a symbolic link.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::Stat;

use super::beneath::{Directory, LOOK, failed};
use super::{Durability, sync_file};
use crate::error::Result;

const PUBLISH: &str = "publish a file";

/// A file that is being written under a name of its own, to be published in another directory of the same file system.
pub struct StagedBeneath {
    file: File,
    directory: Arc<Directory>,
    name: String,
    is_published: bool,
}

impl StagedBeneath {
    pub(super) fn new(file: File, directory: Arc<Directory>, name: String) -> Self {
        Self { file, directory, name, is_published: false }
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// What the system says of it.
    pub fn stat(&self) -> Result<Stat> {
        rustix::fs::fstat(&self.file).map_err(|errno| failed(&self.path(), LOOK, errno))
    }

    /// Where it lies until it is published.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join(&self.name)
    }

    /// Asks the system to begin with writing the bytes to the disk; promises nothing.
    pub fn begin_sync(&self, offset: u64, size: u64) {
        let (Ok(offset), Ok(size)) = (i64::try_from(offset), i64::try_from(size)) else { return };
        // SAFETY: the call takes no memory, and the descriptor is open.
        unsafe { libc::sync_file_range(self.file.as_raw_fd(), offset, size, libc::SYNC_FILE_RANGE_WRITE) };
    }

    /// Syncs the bytes if so asked.
    pub fn sync(&self, durability: Durability) -> Result<()> {
        match durability {
            Durability::Full => sync_file(&self.file, &self.path()),
            Durability::Normal => Ok(()),
        }
    }

    /// Publishes it as `name` in `target`, over whatever file is there. The entry is not synced yet.
    pub fn publish(&mut self, target: &Directory, name: &str) -> Result<()> {
        rustix::fs::renameat(&self.directory.handle, self.name.as_str(), &target.handle, name)
            .map_err(|errno| failed(&target.path().join(name), PUBLISH, errno))?;
        self.is_published = true;
        Ok(())
    }

    /// Whether the file system gives two changes in quick succession different times, if somebody looked in between.
    /// Where it does not, a file that was changed just now cannot be told from one that is changed again in the same
    /// tick of the clock. The file is empty afterwards.
    pub fn tells_changes_apart(&self) -> io::Result<bool> {
        let mut last = None;
        for _ in 0..4 {
            rustix::io::pwrite(&self.file, b"?", 0)?;
            let stat = rustix::fs::fstat(&self.file)?;
            if last.replace((stat.st_ctime, stat.st_ctime_nsec)) == last {
                return Ok(false);
            }
        }
        self.file.set_len(0).map(|()| true)
    }
}

impl Drop for StagedBeneath {
    fn drop(&mut self) {
        if !self.is_published {
            let _ = self.directory.remove(&self.name);
        }
    }
}
