//! What every POSIX system has: the way is walked component by component, and staged files have names.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, Stat};
use rustix::io::Errno;

/// How a directory is opened that is only gone through. It must be readable.
pub(in crate::durable) const FOLDER: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Device and inode. Another mount of the same directory is not told from it.
pub(in crate::durable) type Identity = (i128, u64);

/// Never in one step.
pub(in crate::durable) fn open_beneath(_: impl AsFd, _: &str, _: OFlags) -> Option<Result<OwnedFd, Errno>> {
    None
}

/// Never in one step.
pub(in crate::durable) fn stat_beneath(_: impl AsFd, _: &str) -> Option<Result<Stat, Errno>> {
    None
}

/// Never: it takes the steps of a careful opening.
pub(in crate::durable) fn open_quickly(_: impl AsFd, _: &str) -> Option<(OwnedFd, u64)> {
    None
}

/// What tells an open directory from others; None if that cannot be told.
pub(in crate::durable) fn identity(directory: impl AsFd) -> Option<Identity> {
    rustix::fs::fstat(directory).ok().map(|stat| (stat.st_dev.into(), stat.st_ino))
}

/// The same of the directory at `path`.
pub(in crate::durable) fn identity_at(path: &Path) -> Option<Identity> {
    rustix::fs::stat(path).ok().map(|stat| (stat.st_dev.into(), stat.st_ino))
}

/// There are none.
pub(in crate::durable) fn create_nameless(_: impl AsFd, _: Mode) -> Result<OwnedFd, Errno> {
    Err(Errno::OPNOTSUPP)
}

/// No open file can be given a name.
pub(in crate::durable) fn link_nameless(_: &File, _: impl AsFd, _: &OsStr) -> Result<(), Errno> {
    Err(Errno::OPNOTSUPP)
}

/// Promises nothing, and does nothing.
pub(in crate::durable) fn begin_sync(_: &File, _: u64, _: u64) {}

/// Syncs the entries of a directory. On macOS a plain `fsync` leaves them in the cache of the drive.
#[cfg(target_vendor = "apple")]
pub(in crate::durable) fn sync_entries(directory: impl AsFd) -> Result<(), Errno> {
    match rustix::fs::fcntl_fullfsync(directory.as_fd()) {
        // A network file system, whose server decides.
        Err(Errno::INVAL | Errno::NOTSUP | Errno::NOTTY) => rustix::fs::fsync(directory),
        synced => synced,
    }
}

/// Syncs the entries of a directory.
#[cfg(not(target_vendor = "apple"))]
pub(in crate::durable) fn sync_entries(directory: impl AsFd) -> Result<(), Errno> {
    rustix::fs::fsync(directory)
}

/// There is no such call: `sync` neither waits on every system nor says what failed.
pub(in crate::durable) fn sync_file_system(_: impl AsFd) -> Option<Result<(), Errno>> {
    None
}

/// Bytes are never shared.
pub(in crate::durable) fn clone_blocks(_: &File, _: &File) -> bool {
    false
}
