//! Flushing to the disk. A flush that fails is an [`Error::Flush`].

use std::fs::File;
use std::path::Path;

use super::durability::Durability;
use crate::base::error::{Error, Result};

const SYNC_FILE: &str = "sync a file";
pub(super) const SYNC_DIRECTORY: &str = "sync a directory";

/// Syncs the bytes of an open file, which is or will be published as `path`.
pub fn sync_file(file: &File, path: &Path) -> Result<()> {
    file.sync_all().map_err(|error| Error::flush(path, SYNC_FILE, &error))
}

/// Syncs the bytes of a staged file if so asked. On a full disk the error is [`Error::Full`]: the staged file is
/// discarded and the next attempt stages the bytes anew, so that no lost page is ever relied on.
pub(super) fn sync_staged(file: &File, path: &Path, durability: Durability) -> Result<()> {
    if durability == Durability::Normal {
        return Ok(());
    }
    match sync_file(file, path) {
        Err(Error::Flush { path, operation, errno: errno @ (libc::ENOSPC | libc::EDQUOT | libc::EFBIG), .. }) => {
            Err(Error::Full { path, operation, errno })
        }
        synced => synced,
    }
}

/// Makes the directory entry of `path` as durable as asked.
pub fn sync_parent(path: &Path, durability: Durability) -> Result<()> {
    if durability == Durability::Normal {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    sync_directory(parent)
}

/// Syncs the entries of a directory.
pub fn sync_directory(directory: &Path) -> Result<()> {
    let handle = File::open(directory).map_err(|error| Error::io(directory, "open a directory", &error))?;
    handle.sync_all().map_err(|error| Error::flush(directory, SYNC_DIRECTORY, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_flush_is_told_from_other_errors() {
        // procfs cannot sync; a directory that cannot be opened was not flushed at all.
        assert!(matches!(sync_directory(Path::new("/proc")), Err(Error::Flush { errno: libc::EINVAL, .. })));
        assert!(matches!(sync_directory(Path::new("/missing")), Err(Error::Io { errno: libc::ENOENT, .. })));
    }
}
