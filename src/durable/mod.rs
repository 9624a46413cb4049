//! Stage, sync, publish, sync the directory: the only place that creates, renames, locks or removes files.
//!
//! The order is the invariant: nothing is published under its name before its bytes are where the caller asked them to
//! be, and nothing counts as published before its directory entry is there too. `docs/durability.md` says what each
//! step is for.
#![expect(clippy::disallowed_methods, reason = "this is the one place that may")]

mod beneath;
mod poison;
mod record;
mod staging;

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

pub use beneath::{Directory, Locked, now};
pub use poison::Poison;
pub use record::{RECORD_BYTES, Record};
pub use staging::StagedBeneath;

use rustix::fs::FlockOperation;

use crate::base::error::{Error, Result};
use crate::base::fork::{Generation, PrivateFd};

/// What a returned call survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Durability {
    /// The kill of the process; a power loss may drop what is newest.
    Normal,
    /// Power loss.
    #[default]
    Full,
}

/// How staged files are named. The names must not contain `.jsonl`, which readers of the archive match by pattern.
const STAGING_PREFIX: &str = ".stage-";

/// Bytes of a staged file after which the system is asked to begin writing them to the disk.
const BEGIN_EVERY: u64 = 1 << 20;

const SYNC_FILE: &str = "sync a file";
const SYNC_DIRECTORY: &str = "sync a directory";

/// A file that is being written under a name of its own, in the directory where it will be published.
pub struct Staged {
    /// None once it is published.
    file: Option<tempfile::NamedTempFile<PrivateFd<File>>>,
    generation: Generation,
    /// Bytes written, and how many of them the system was asked to begin writing to the disk.
    written: u64,
    begun: u64,
}

impl Staged {
    /// An empty staged file, mode 0600, in `directory`; it is removed again if it is dropped unpublished.
    pub fn create(directory: &Path) -> Result<Self> {
        // `tempfile_in` would wrap the system's error in one that hides its number, and with it a full disk.
        let file = tempfile::Builder::new()
            .prefix(STAGING_PREFIX)
            .make_in(directory, |path| {
                let mut options = OpenOptions::new();
                let options = options.read(true).write(true).create_new(true).mode(0o600).custom_flags(libc::O_CLOEXEC);
                options.open(path).map(PrivateFd::new)
            })
            .map_err(|error| Error::io(directory, "create a staging file", &error))?;
        Ok(Self { file: Some(file), generation: Generation::current(), written: 0, begun: 0 })
    }

    /// Publishes the file as `path`, over whatever is there.
    pub fn publish(self, path: &Path, durability: Durability) -> Result<()> {
        let file = self.finish(path, durability)?;
        file.persist(path).map_err(|error| Error::io(path, "publish a file", &error.error))?;
        sync_parent(path, durability)
    }

    /// Publishes the file as `path` unless something is there already; says whether it did.
    pub fn publish_new(self, path: &Path, durability: Durability) -> Result<bool> {
        let file = self.finish(path, durability)?;
        match file.persist_noclobber(path) {
            Ok(_) => sync_parent(path, durability).map(|()| true),
            Err(error) if error.error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(Error::io(path, "publish a file", &error.error)),
        }
    }

    fn finish(mut self, path: &Path, durability: Durability) -> Result<tempfile::NamedTempFile<PrivateFd<File>>> {
        self.generation.check(path)?;
        let file = self.file.take().ok_or(Error::Internal)?;
        sync_staged(file.as_file().get(), path, durability)?;
        Ok(file)
    }
}

impl Write for Staged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(file) = &self.file else { return Err(ErrorKind::NotFound.into()) };
        let mut file = file.as_file().get();
        let count = file.write(bytes)?;
        self.written += count as u64;
        if self.written - self.begun >= BEGIN_EVERY {
            begin_sync(file, self.begun, self.written - self.begun);
            self.begun = self.written;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // In a forked child the name is the parent's, which goes on with the file.
        if let Some(file) = self.file.as_mut().filter(|_| !self.generation.is_current()) {
            file.disable_cleanup(true);
        }
    }
}

/// Removes the staged files that a killed process left in `directory`. The caller holds the lock under which files are
/// staged there, so that none of them is alive.
pub fn sweep_staged(directory: &Path) -> Result<()> {
    let failed = |error: io::Error| Error::io(directory, "list a directory", &error);
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_name().as_encoded_bytes().starts_with(STAGING_PREFIX.as_bytes()) {
            remove(&entry.path(), Durability::Normal)?;
        }
    }
    Ok(())
}

/// Creates `directory` and what is missing above it, each with mode 0700 and, when full, synced into its parent.
pub fn create_directories(directory: &Path, durability: Durability) -> Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    if let Some(parent) = directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        create_directories(parent, durability)?;
    }
    match DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => sync_parent(directory, durability),
        // Another process was faster; or it is no directory, which is the caller's error.
        Err(error) if error.kind() == ErrorKind::AlreadyExists && directory.is_dir() => Ok(()),
        Err(error) => Err(Error::io(directory, "create a directory", &error)),
    }
}

/// Syncs the bytes of an open file, which is or will be published as `path`.
pub fn sync_file(file: &File, path: &Path) -> Result<()> {
    file.sync_all().map_err(|error| Error::flush(path, SYNC_FILE, &error))
}

/// Syncs the bytes of a staged file if so asked. On a full disk the error is [`Error::Full`]: the staged file is
/// discarded and the next attempt stages the bytes anew, so that no lost page is ever relied on.
fn sync_staged(file: &File, path: &Path, durability: Durability) -> Result<()> {
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

/// Asks the system to begin with writing the bytes to the disk, so that a later sync has less to wait for, and others'
/// syncs do not wait behind all of it at once. Promises nothing.
fn begin_sync(file: &File, offset: u64, size: u64) {
    #[cfg(target_os = "linux")]
    if let (Ok(offset), Ok(size)) = (i64::try_from(offset), i64::try_from(size)) {
        // SAFETY: the call takes no memory, and the descriptor is open.
        unsafe { libc::sync_file_range(file.as_raw_fd(), offset, size, libc::SYNC_FILE_RANGE_WRITE) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (file, offset, size);
}

/// Syncs the entries of a directory.
pub fn sync_directory(directory: &Path) -> Result<()> {
    let handle = File::open(directory).map_err(|error| Error::io(directory, "open a directory", &error))?;
    handle.sync_all().map_err(|error| Error::flush(directory, SYNC_DIRECTORY, &error))
}

/// Removes a file; says whether there was one.
pub fn remove(path: &Path, durability: Durability) -> Result<bool> {
    match std::fs::remove_file(path) {
        Ok(()) => sync_parent(path, durability).map(|()| true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io(path, "remove a file", &error)),
    }
}

/// Opens a regular file for reading; None if there is nothing. A symbolic link is not followed, and anything but a
/// regular file is an error (opening a fifo does not block).
pub fn open_regular(path: &Path) -> Result<Option<File>> {
    let opened =
        OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC).open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            return Err(Error::errno(
                path,
                "open a file",
                libc::ELOOP,
                "it is a symbolic link, which is not followed".into(),
            ));
        }
        Err(error) => return Err(Error::io(path, "open a file", &error)),
    };
    let kind = file.metadata().map_err(|error| Error::io(path, "look at a file", &error))?.file_type();
    if kind.is_file() {
        return Ok(Some(file));
    }
    let errno = if kind.is_dir() { libc::EISDIR } else { libc::EINVAL };
    Err(Error::errno(path, "open a file", errno, format!("it is {}, not a regular file", kind_name(kind))))
}

/// What kind of file it is, for a message.
pub fn kind_name(kind: std::fs::FileType) -> &'static str {
    if kind.is_dir() {
        "a directory"
    } else if kind.is_symlink() {
        "a symbolic link"
    } else if kind.is_file() {
        "a regular file"
    } else {
        "a special file"
    }
}

/// An advisory lock on a directory, held until it is dropped or the process ends, whatever children it has forked.
pub struct DirectoryLock(PrivateFd<File>);

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // Explicitly, for a child that is forked between the end of the registration and the close.
        let _ = rustix::fs::flock(&self.0, FlockOperation::Unlock);
    }
}

impl DirectoryLock {
    /// Takes the lock; None if someone else holds it.
    pub fn try_exclusive(directory: &Path) -> Result<Option<Self>> {
        let failed = |error: &io::Error| Error::io(directory, "lock a directory", error);
        let handle = PrivateFd::new(File::open(directory).map_err(|error| failed(&error))?);
        match rustix::fs::flock(&handle, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self(handle))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(failed(&error.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn publishes_over_a_file_and_leaves_nothing_staged() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("day");
        for content in [b"one".as_slice(), b"two"] {
            let mut staged = Staged::create(directory.path()).unwrap();
            staged.write_all(content).unwrap();
            staged.publish(&path, Durability::Full).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), content);
        }
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!Staged::create(directory.path()).unwrap().publish_new(&path, Durability::Full).unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_staged_file_that_cannot_be_created_says_the_error_number() {
        let created = Staged::create(Path::new("/missing"));
        assert!(matches!(created, Err(Error::Io { errno: libc::ENOENT, .. })));
    }

    #[test]
    fn the_sweep_takes_staged_files_alone() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(".stage-abc"), b"torn").unwrap();
        std::fs::write(directory.path().join("2026-01-01.jsonl"), b"").unwrap();
        sweep_staged(directory.path()).unwrap();
        let left: Vec<_> =
            std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["2026-01-01.jsonl"]);
    }

    #[test]
    fn one_lock_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let held = DirectoryLock::try_exclusive(directory.path()).unwrap().unwrap();
        assert!(DirectoryLock::try_exclusive(directory.path()).unwrap().is_none());
        drop(held);
        assert!(DirectoryLock::try_exclusive(directory.path()).unwrap().is_some());
    }

    #[test]
    fn directories_are_private() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("a/b");
        create_directories(&deep, Durability::Full).unwrap();
        create_directories(&deep, Durability::Full).unwrap();
        assert_eq!(std::fs::metadata(&deep).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_failed_flush_is_told_from_other_errors() {
        // procfs cannot sync; a directory that cannot be opened was not flushed at all.
        assert!(matches!(sync_directory(Path::new("/proc")), Err(Error::Flush { errno: libc::EINVAL, .. })));
        assert!(matches!(sync_directory(Path::new("/missing")), Err(Error::Io { errno: libc::ENOENT, .. })));
    }

    #[test]
    fn only_regular_files_are_opened() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("file"), b"").unwrap();
        symlink(path("file"), path("link")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, path("fifo"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(open_regular(&path("file")).unwrap().is_some());
        assert!(open_regular(&path("missing")).unwrap().is_none());
        for name in ["link", "fifo", "."] {
            assert!(matches!(open_regular(&path(name)), Err(Error::Io { .. })), "{name}");
        }
    }
}
