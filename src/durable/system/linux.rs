//! `openat2`, `O_TMPFILE`, `O_PATH`, `statx` and `sync_file_range`.
#![expect(unsafe_code, reason = "`sync_file_range`, which has no safe wrapper")]

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, StatxFlags};
use rustix::io::Errno;

/// What kernels before 5.6 and some sandboxes lack; then the way is walked component by component.
static OPENAT2_IS_MISSING: AtomicBool = AtomicBool::new(false);

/// How a directory is opened that is only gone through. It need not be readable.
pub(in crate::durable) const FOLDER: OFlags =
    OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Device, inode and mount.
pub(in crate::durable) type Identity = (u32, u32, u64, u64);

/// Opens what is at `below` in one step, without following a link anywhere. None if it takes more care: a link, or a
/// kernel or sandbox without the call.
pub(in crate::durable) fn open_beneath(from: impl AsFd, below: &str, flags: OFlags) -> Option<Result<OwnedFd, Errno>> {
    if OPENAT2_IS_MISSING.load(Ordering::Relaxed) {
        return None;
    }
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    match rustix::fs::openat2(from, below, flags, Mode::empty(), resolve) {
        Ok(handle) => Some(Ok(handle)),
        Err(Errno::NOENT) => Some(Err(Errno::NOENT)),
        Err(errno) => {
            if errno == Errno::NOSYS {
                OPENAT2_IS_MISSING.store(true, Ordering::Relaxed);
            }
            None
        }
    }
}

/// The same, and says what the system says of it without opening it. A link at the end is told of itself.
pub(in crate::durable) fn stat_beneath(from: impl AsFd, below: &str) -> Option<Result<Stat, Errno>> {
    let opened = open_beneath(from, below, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC)?;
    Some(opened.and_then(rustix::fs::fstat))
}

/// Opens the regular file at `below` for reading in as few steps as there can be, and says how many bytes it had.
pub(in crate::durable) fn open_quickly(from: impl AsFd, below: &str) -> Option<(OwnedFd, u64)> {
    if OPENAT2_IS_MISSING.load(Ordering::Relaxed) {
        return None;
    }
    let wanted = StatxFlags::TYPE | StatxFlags::SIZE;
    let seen = rustix::fs::statx(from.as_fd(), below, AtFlags::SYMLINK_NOFOLLOW, wanted).ok()?;
    if FileType::from_raw_mode(seen.stx_mode.into()) != FileType::RegularFile {
        return None;
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let handle = open_beneath(from, below, flags)?.ok()?;
    Some((handle, seen.stx_size))
}

/// What tells an open directory from others; None if that cannot be told.
pub(in crate::durable) fn identity(directory: impl AsFd) -> Option<Identity> {
    seen(directory, Path::new(""), AtFlags::EMPTY_PATH)
}

/// The same of the directory at `path`.
pub(in crate::durable) fn identity_at(path: &Path) -> Option<Identity> {
    seen(rustix::fs::CWD, path, AtFlags::empty())
}

fn seen(from: impl AsFd, path: &Path, flags: AtFlags) -> Option<Identity> {
    let wanted = StatxFlags::INO | StatxFlags::MNT_ID;
    let stat = rustix::fs::statx(from, path, flags, wanted).ok()?;
    let has_mount = stat.stx_mask & StatxFlags::MNT_ID.bits() != 0;
    has_mount.then_some((stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino, stat.stx_mnt_id))
}

/// A file without a name in `directory`, which ends with its writer. Not possible on every file system.
pub(in crate::durable) fn create_nameless(directory: impl AsFd, mode: Mode) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(directory, ".", OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC, mode)
}

/// Gives an open file a name, unless that is taken.
pub(in crate::durable) fn link_nameless(file: &File, target: impl AsFd, name: &OsStr) -> Result<(), Errno> {
    match rustix::fs::linkat(file, "", target.as_fd(), name, AtFlags::EMPTY_PATH) {
        // Before Linux 6.10 it takes a privilege, which may also have been given up since the last one.
        Err(Errno::NOENT) => {
            let file = format!("/proc/self/fd/{}", file.as_raw_fd());
            rustix::fs::linkat(rustix::fs::CWD, file, target, name, AtFlags::SYMLINK_FOLLOW)
        }
        linked => linked,
    }
}

/// Asks the system to begin with writing the bytes to the disk, so that a later sync has less to wait for, and others'
/// syncs do not wait behind all of it at once. Promises nothing.
pub(in crate::durable) fn begin_sync(file: &File, offset: u64, size: u64) {
    if let (Ok(offset), Ok(size)) = (i64::try_from(offset), i64::try_from(size)) {
        // SAFETY: the call takes no memory, and the descriptor is open.
        unsafe { libc::sync_file_range(file.as_raw_fd(), offset, size, libc::SYNC_FILE_RANGE_WRITE) };
    }
}

/// Syncs the entries of a directory.
pub(in crate::durable) fn sync_entries(directory: impl AsFd) -> Result<(), Errno> {
    rustix::fs::fsync(directory)
}

/// Syncs all of the file system at once, and says whether that failed. None where there is no such call.
pub(in crate::durable) fn sync_file_system(directory: impl AsFd) -> Option<Result<(), Errno>> {
    Some(rustix::fs::syncfs(directory))
}

/// Makes `target` a file with the bytes of `source`, which they share until one of the two changes; says whether it did.
pub(in crate::durable) fn clone_blocks(target: &File, source: &File) -> bool {
    rustix::fs::ioctl_ficlone(target, source).is_ok()
}
