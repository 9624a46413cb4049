//! Files below a directory, reached without following a symbolic link on the way: each step is taken from a handle on
//! the directory before it. `docs/durability.md`, "Safe paths".

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, RenameFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;

use super::sync::SYNC_DIRECTORY;
use super::system::{self, Identity};
use crate::base::error::{Error, Result};
use crate::base::fork::DirectoryFd;

const OPEN: &str = "open a file";
const LOCK: &str = "lock a directory";
pub(super) const LOOK: &str = "look at a file";

/// Locks are held for microseconds. A process that holds one for so long is stopped, or hangs on a dead disk.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
const SHORTEST_PAUSE: Duration = Duration::from_micros(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(5);

/// The types of `tmpfs`, `ramfs` and `hugetlbfs` (`linux/magic.h`).
#[cfg(target_os = "linux")]
const MEMORY_FILE_SYSTEMS: [u32; 3] = [0x0102_1994, 0x8584_58f6, 0x9584_58f6];

/// An open directory.
pub struct Directory {
    pub(super) handle: DirectoryFd,
    path: PathBuf,
    /// Only of one that was opened by its whole path.
    identity: Option<Identity>,
}

impl Directory {
    /// Opens the directory at `path`, which may lead through symbolic links: where a store lies is its owner's affair.
    /// None if there is nothing.
    pub fn open(path: &Path) -> Result<Option<Self>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(handle) => {
                let identity = system::identity(&handle);
                Ok(Some(Self { handle: DirectoryFd::new(handle), path: path.to_owned(), identity }))
            }
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(failed(path, "open a directory", errno)),
        }
    }

    /// Whether its path still leads to it: neither moved, nor replaced, nor under another mount. False if that cannot be
    /// told.
    pub fn is_at_its_path(&self) -> bool {
        self.identity.is_some() && self.identity == system::identity_at(&self.path)
    }

    /// Whether every write through mapped memory sets the times of a file here, as POSIX wants it. In memory file systems it
    /// sets none where a read has mapped the page. False if that cannot be told.
    pub fn shows_mapped_writes(&self) -> bool {
        #[cfg(target_os = "linux")]
        return rustix::fs::fstatfs(&self.handle).is_ok_and(|found| {
            // The upper half is the sign of a type that some systems make wider.
            let kind = found.f_type as u32;
            !MEMORY_FILE_SYSTEMS.contains(&kind)
        });
        #[cfg(not(target_os = "linux"))]
        true
    }

    /// Opens the directory `name` in this one; None if there is nothing.
    pub fn directory(&self, name: &str) -> Result<Option<Self>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.handle, name, flags, Mode::empty()) {
            Ok(handle) => {
                Ok(Some(Self { handle: DirectoryFd::new(handle), path: self.path.join(name), identity: None }))
            }
            Err(Errno::NOENT) => Ok(None),
            Err(errno @ (Errno::NOTDIR | Errno::LOOP)) => Err(self.no_directory(name, errno)),
            Err(errno) => Err(failed(&self.path.join(name), "open a directory", errno)),
        }
    }

    /// The same, and makes it, mode 0700, if there is nothing.
    pub fn make_directory(&self, name: &str) -> Result<Self> {
        loop {
            if let Some(found) = self.directory(name)? {
                return Ok(found);
            }
            match rustix::fs::mkdirat(&self.handle, name, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(failed(&self.path.join(name), "create a directory", errno)),
            }
        }
    }

    /// The way to it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the system says of the file at `below`, a folder and a name in it; None if there is none. Anything but a regular
    /// file is an error.
    pub fn look(&self, below: &str) -> Result<Option<Stat>> {
        let seen = match system::stat_beneath(&self.handle, below) {
            Some(seen) => seen,
            None => {
                let Some((folder, name)) = self.folder(below)? else { return Ok(None) };
                rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)
            }
        };
        match seen {
            Ok(stat) => self.require_regular(below, &stat).map(|()| Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(failed(&self.path.join(below), LOOK, errno)),
        }
    }

    /// Opens the regular file at `below`, a folder and a name in it, for reading. What is anything else is not opened, because
    /// opening a special file has effects of its own.
    pub fn open_regular(&self, below: &str) -> Result<Option<(File, Stat)>> {
        // Most often a regular file lies there, and this one look suffices. It may be led astray by a link in the place of
        // the folder, but nothing is opened on its word that the careful look, or the opening itself, would refuse.
        let seen = rustix::fs::statat(&self.handle, below, AtFlags::SYMLINK_NOFOLLOW);
        let is_regular = seen.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
        if !is_regular && self.look(below)?.is_none() {
            return Ok(None);
        }
        // Should it be replaced in between, opening does not wait, and the second look finds it.
        let Some(handle) = self.enter(below, OFlags::RDONLY | OFlags::NONBLOCK)? else { return Ok(None) };
        let stat = rustix::fs::fstat(&handle).map_err(|errno| failed(&self.path.join(below), LOOK, errno))?;
        self.require_regular(below, &stat)?;
        Ok(Some((File::from(handle), stat)))
    }

    /// Opens the file at `below` for reading in as few steps as there can be, if a regular file lies there, and says how many
    /// bytes it had. A caller that finds anything else in it than expected opens it again, carefully: it may have been
    /// replaced in between. None if it takes more care to say what is there.
    pub fn open_quickly(&self, below: &str) -> Option<(File, u64)> {
        system::open_quickly(&self.handle, below).map(|(handle, size)| (File::from(handle), size))
    }

    /// Opens what is at `below`; a link is refused.
    fn enter(&self, below: &str, flags: OFlags) -> Result<Option<OwnedFd>> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = match system::open_beneath(&self.handle, below, flags) {
            Some(opened) => opened,
            // Step by step, which also tells what the link is, and where.
            None => {
                let Some((folder, name)) = self.folder(below)? else { return Ok(None) };
                rustix::fs::openat(&folder, name, flags, Mode::empty())
            }
        };
        match opened {
            Ok(handle) => Ok(Some(handle)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(failed(&self.path.join(below), OPEN, errno)),
        }
    }

    /// A handle on the folder of `below`, and the name in it; None if there is no such folder.
    fn folder<'a>(&self, below: &'a str) -> Result<Option<(OwnedFd, &'a str)>> {
        let (folder, name) = below.split_once('/').unwrap_or((".", below));
        match rustix::fs::openat(&self.handle, folder, system::FOLDER, Mode::empty()) {
            Ok(handle) => Ok(Some((handle, name))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno @ (Errno::NOTDIR | Errno::LOOP)) => Err(self.no_directory(folder, errno)),
            Err(errno) => Err(failed(&self.path.join(folder), "open a directory", errno)),
        }
    }

    fn require_regular(&self, below: &str, stat: &Stat) -> Result<()> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::RegularFile {
            return Ok(());
        }
        let errno = match kind {
            FileType::Directory => libc::EISDIR,
            FileType::Symlink => libc::ELOOP,
            _ => libc::EINVAL,
        };
        Err(Error::errno(&self.path.join(below), LOOK, errno, format!("it is {}, not a regular file", name_of(kind))))
    }

    fn no_directory(&self, name: &str, errno: Errno) -> Error {
        let kind = rustix::fs::statat(&self.handle, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode));
        let errno = if kind == FileType::Symlink { libc::ELOOP } else { errno.raw_os_error() };
        let reason = format!("it is {}, not a directory", name_of(kind));
        Error::errno(&self.path.join(name), "open a directory", errno, reason)
    }

    /// The names in it and what each is, as far as the directory tells (`Unknown` where it does not).
    pub fn entries(&self) -> Result<Vec<(std::ffi::CString, FileType)>> {
        let fault = |errno| failed(&self.path, "list a directory", errno);
        let mut entries = Vec::new();
        for entry in Dir::read_from(&self.handle).map_err(fault)? {
            let entry = entry.map_err(fault)?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                entries.push((entry.file_name().to_owned(), entry.file_type()));
            }
        }
        Ok(entries)
    }

    /// What the system says of `name` itself, whatever it is; None if there is nothing.
    pub fn stat(&self, name: &str) -> Result<Option<Stat>> {
        match rustix::fs::statat(&self.handle, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(failed(&self.path.join(name), LOOK, errno)),
        }
    }

    /// Removes a file; says whether there was one.
    pub fn remove(&self, name: &str) -> Result<bool> {
        match rustix::fs::unlinkat(&self.handle, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(failed(&self.path.join(name), "remove a file", errno)),
        }
    }

    /// Moves a file into another directory of the file system; says whether it did, which it does not if the new name
    /// is taken.
    pub fn move_to(&self, name: &str, target: &Self, new_name: &str) -> Result<bool> {
        match rustix::fs::renameat_with(&self.handle, name, &target.handle, new_name, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(errno) => Err(failed(&self.path.join(name), "move a file", errno)),
        }
    }

    /// Sets when `name` was last written, in nanoseconds since the epoch.
    pub fn touch(&self, name: &str, modified_ns: i128) -> Result<()> {
        rustix::fs::utimensat(&self.handle, name, &modified_at(modified_ns), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| failed(&self.path.join(name), "touch a file", errno))
    }

    /// Syncs its entries.
    pub fn sync(&self) -> Result<()> {
        system::sync_entries(&self.handle).map_err(|errno| Error::flush(&self.path, SYNC_DIRECTORY, &errno.into()))
    }

    /// Waits for an advisory lock, which any number may share. Where the file system has no locks, there is none. One
    /// that is not to be had within seconds is an error.
    pub fn lock_shared(&self) -> Result<Locked<'_>> {
        self.lock(FlockOperation::NonBlockingLockShared)
    }

    /// Waits for the lock that is not shared.
    pub fn lock_exclusive(&self) -> Result<Locked<'_>> {
        self.lock(FlockOperation::NonBlockingLockExclusive)
    }

    fn lock(&self, operation: FlockOperation) -> Result<Locked<'_>> {
        let is_shared = operation == FlockOperation::NonBlockingLockShared;
        let started = Instant::now();
        let mut pause = SHORTEST_PAUSE;
        loop {
            match rustix::fs::flock(&self.handle, operation) {
                Ok(()) => return Ok(Locked(self)),
                Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) if started.elapsed() < LONGEST_WAIT => {
                    thread::sleep(pause);
                    pause = LONGEST_PAUSE.min(pause * 2);
                }
                Err(Errno::WOULDBLOCK) => {
                    let reason = format!("another process has held the lock for {LONGEST_WAIT:?}; is one stopped?");
                    return Err(Error::errno(&self.path, LOCK, libc::ETIMEDOUT, reason));
                }
                // Then no process gets it exclusively either, and none deletes anything.
                Err(Errno::NOLCK | Errno::NOTSUP | Errno::NOSYS) if is_shared => return Ok(Locked(self)),
                Err(errno) => return Err(failed(&self.path, LOCK, errno)),
            }
        }
    }
}

/// A lock on a directory, given back when it is dropped. In a child that was forked meanwhile there is none.
pub struct Locked<'a>(&'a Directory);

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let _ = rustix::fs::flock(&self.0.handle, FlockOperation::Unlock);
    }
}

/// The time of the last write to be set, in nanoseconds since the epoch; the other time stays.
pub(super) fn modified_at(modified_ns: i128) -> Timestamps {
    const SECOND: i128 = 1_000_000_000;
    let seconds = i64::try_from(modified_ns.div_euclid(SECOND)).unwrap_or(i64::MAX);
    let last_modification = Timespec { tv_sec: seconds, tv_nsec: modified_ns.rem_euclid(SECOND) as i64 };
    Timestamps { last_access: Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT }, last_modification }
}

pub(super) fn failed(path: &Path, operation: &'static str, errno: Errno) -> Error {
    Error::io(path, operation, &errno.into())
}

fn name_of(kind: FileType) -> &'static str {
    match kind {
        FileType::Directory => "a directory",
        FileType::Symlink => "a symbolic link",
        FileType::RegularFile => "a regular file",
        _ => "a special file",
    }
}
