//! Whether the files that SQLite has open are those at the store's path, and whether this process's locks on them are
//! still there.
//!
//! SQLite writes to the files that it opened, wherever they have gone since: rows that go to a removed or moved file are
//! not there when the store is opened again. Locks go by process and file, and end when *any* descriptor of the file is
//! closed in the process, also one that SQLite knows nothing of. Another process then takes itself for the last user, and
//! removes the write-ahead log under this one.
//!
//! Both are looked for before a commit, so that it does not go astray, and after it, before it is acknowledged.
#![expect(unsafe_code, reason = "locks of a process are asked for by `fcntl` alone")]

use std::ffi::CString;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::base::error::{Error, Result};
use crate::db::failure::Context;
use crate::db::system::{self, FileId};

/// The files of one database, as they were when it was opened.
#[derive(Clone, Debug)]
pub(super) struct HeldFiles {
    database: Held,
    /// None in a read-only store, whose log other processes may begin and remove.
    wal: Option<Held>,
    marks: Vec<Mark>,
}

#[derive(Clone, Debug)]
struct Held {
    path: CString,
    id: FileId,
}

/// A lock on a byte that no other process locks, on a file on which SQLite has locks: both end together.
#[derive(Clone, Debug)]
#[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "other systems have no way to ask"))]
struct Mark {
    /// SQLite's, and open for as long as any of its connections.
    fd: RawFd,
    byte: libc::off_t,
}

/// How a file is told from the one that was opened.
enum Seen {
    Same,
    Missing,
    Other,
    /// The same, with other names besides.
    Linked(u64),
}

impl HeldFiles {
    /// The files of the writer that this thread has just opened.
    pub(super) fn of_writer(context: Context<'_>) -> Result<Self> {
        let mut held = Self::of_reader(context)?;
        if let Some(id) = system::last_wal() {
            let wal = Held { path: c_path(&suffixed(context.path, "-wal"))?, id };
            held.marks = marks(held.database.id, context.path);
            held.wal = Some(wal);
        }
        held.check(context)?;
        Ok(held)
    }

    /// The database file alone.
    pub(super) fn of_reader(context: Context<'_>) -> Result<Self> {
        let path = c_path(context.path)?;
        let (id, names) = look_at(&path).ok_or_else(|| moved(context, context.path, &Seen::Missing))?;
        check_links(context, names)?;
        Ok(Self { database: Held { path, id }, wal: None, marks: Vec::new() })
    }

    /// An error if what is at the path is not what is open, or if the locks are gone.
    pub(super) fn check(&self, context: Context<'_>) -> Result<()> {
        self.check_places(context)?;
        self.check_locks(context)
    }

    /// An error if the database at the path is not the one that is open.
    pub(super) fn check_database(&self, context: Context<'_>) -> Result<()> {
        match self.database.look() {
            Seen::Same => Ok(()),
            Seen::Linked(names) => check_links(context, names),
            seen => Err(moved(context, context.path, &seen)),
        }
    }

    /// The same, and for its write-ahead log.
    pub(super) fn check_places(&self, context: Context<'_>) -> Result<()> {
        self.check_database(context)?;
        if let Some(wal) = &self.wal {
            match wal.look() {
                Seen::Same | Seen::Linked(_) => {}
                seen => return Err(moved(context, &suffixed(context.path, "-wal"), &seen)),
            }
        }
        Ok(())
    }

    /// Whether another file has taken the place of one of these. Its own users would lose it if this process, at its
    /// last close, removed it.
    pub(super) fn are_replaced(&self) -> bool {
        [Some(&self.database), self.wal.as_ref()].into_iter().flatten().any(|held| matches!(held.look(), Seen::Other))
    }

    #[cfg(target_os = "linux")]
    fn check_locks(&self, context: Context<'_>) -> Result<()> {
        if self.marks.iter().all(Mark::is_there) {
            return Ok(());
        }
        let reason = "this process's locks on the database are gone, because something else in it opened and closed the file (Python's sqlite3, a plain open()): close the store and open it again; use LogStore.sql() to look at it";
        Err(Error::errno(context.path, context.operation, libc::ENOLCK, reason.into()))
    }

    #[cfg(not(target_os = "linux"))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "as on Linux")]
    fn check_locks(&self, _: Context<'_>) -> Result<()> {
        Ok(())
    }
}

impl Held {
    fn look(&self) -> Seen {
        match look_at(&self.path) {
            None => Seen::Missing,
            Some((id, _)) if id != self.id => Seen::Other,
            Some((_, 1)) => Seen::Same,
            Some((_, names)) => Seen::Linked(names),
        }
    }
}

#[cfg(target_os = "linux")]
impl Mark {
    /// Sets it.
    fn set(fd: RawFd) -> Option<Self> {
        let mut random = [0; 7];
        // SAFETY: the buffer is of that length. Without random bytes the mark is at a byte that others may share.
        unsafe { libc::getrandom(random.as_mut_ptr().cast(), random.len(), libc::GRND_NONBLOCK) };
        let [a, b, c, d, e, f, g] = random;
        // Far beyond SQLite's own locks, and beyond any database.
        let byte = (1 << 60) | libc::off_t::from_ne_bytes([a, b, c, d, e, f, g, 0]);
        let mut lock = lock(libc::F_RDLCK, byte);
        // SAFETY: the descriptor is SQLite's, and open; the call reads the struct.
        let outcome = unsafe { libc::fcntl(fd, libc::F_SETLK, &raw mut lock) };
        (outcome == 0).then_some(Self { fd, byte })
    }

    /// Asks for a lock of the descriptor's own, with which one of this process conflicts.
    fn is_there(&self) -> bool {
        let mut lock = lock(libc::F_WRLCK, self.byte);
        // SAFETY: the descriptor is SQLite's, and open for as long as its connections; the call writes the struct.
        let outcome = unsafe { libc::fcntl(self.fd, libc::F_OFD_GETLK, &raw mut lock) };
        outcome != 0 || i32::from(lock.l_type) != libc::F_UNLCK
    }
}

#[cfg(target_os = "linux")]
fn lock(kind: i32, byte: libc::off_t) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: byte,
        l_len: 1,
        l_pid: 0,
    }
}

/// Marks on the database and on the index of its write-ahead log, as far as they can be set.
#[cfg(target_os = "linux")]
fn marks(database: FileId, path: &Path) -> Vec<Mark> {
    let index = c_path(&suffixed(path, "-shm")).ok().and_then(|path| look_at(&path)).map(|(id, _)| id);
    [Some(database), index].into_iter().flatten().filter_map(system::descriptor_of).filter_map(Mark::set).collect()
}

#[cfg(not(target_os = "linux"))]
fn marks(_: FileId, _: &Path) -> Vec<Mark> {
    Vec::new()
}

/// Which file is at `path`, and how many names it has; None if it cannot be told.
///
/// Without its times: from Linux 6.13 on, a look at them makes the next write change them, however soon it comes. Then
/// each `fdatasync` of a commit writes the file's inode besides the commit.
#[cfg(target_os = "linux")]
fn look_at(path: &CString) -> Option<(FileId, u64)> {
    use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

    match statx(CWD, path, AtFlags::empty(), StatxFlags::INO | StatxFlags::NLINK) {
        Ok(found) => Some((FileId::of_statx(&found), found.stx_nlink.into())),
        // An old sandbox may not know the call.
        Err(rustix::io::Errno::NOSYS) => look_at_all_of(path),
        Err(_) => None,
    }
}

#[cfg(not(target_os = "linux"))]
fn look_at(path: &CString) -> Option<(FileId, u64)> {
    look_at_all_of(path)
}

#[cfg_attr(target_os = "linux", expect(clippy::useless_conversion, reason = "elsewhere it is narrower"))]
fn look_at_all_of(path: &CString) -> Option<(FileId, u64)> {
    let mut stat = std::mem::MaybeUninit::uninit();
    // SAFETY: the path is a string, the buffer as large as what is written, and it is read only if it was.
    let stat: libc::stat = unsafe { (libc::stat(path.as_ptr(), stat.as_mut_ptr()) == 0).then(|| stat.assume_init())? };
    Some((FileId::of(&stat), stat.st_nlink.into()))
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

fn c_path(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Error::Value("a path holds no NUL".into()))
}

/// SQLite names the write-ahead log and the locks after the name by which a file was opened: with two names there are two
/// of them, and each side overwrites what the other commits.
pub(super) fn check_links(context: Context<'_>, names: u64) -> Result<()> {
    match names {
        0 => Err(moved(context, context.path, &Seen::Missing)),
        1 => Ok(()),
        _ => {
            let reason = format!(
                "the file has {names} names (hard links), through which it would be written to as {names} databases: \
                 remove the other names"
            );
            Err(Error::errno(context.path, context.operation, libc::EMLINK, reason))
        }
    }
}

fn moved(context: Context<'_>, path: &Path, seen: &Seen) -> Error {
    let what = match seen {
        Seen::Missing => "is no longer there",
        _ => "is another file than the one that is open",
    };
    Error::Moved { path: path.to_owned(), operation: context.operation, what }
}

#[cfg(all(test, target_os = "linux"))]
#[expect(clippy::disallowed_methods, reason = "a test makes files as other programs do")]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::os::unix::fs::MetadataExt;
    use std::time::Duration;

    use rustix::time::{ClockId, clock_gettime};

    use super::*;

    #[test]
    fn a_write_after_a_look_changes_the_times_no_sooner_than_without_it() {
        let directory = tempfile::tempdir().unwrap();
        let tick = || {
            let time = clock_gettime(ClockId::RealtimeCoarse);
            (time.tv_sec, time.tv_nsec)
        };
        // A program that looks at a file of its own makes the kernel's clock of files run ahead of the tick.
        let is_at_the_tick = (0..1_000).any(|number| {
            std::thread::sleep(Duration::from_millis(1));
            let path = directory.path().join(number.to_string());
            let before = tick();
            let mut file = File::create(&path).unwrap();
            file.write_all(b"commit").unwrap();
            assert!(look_at(&c_path(&path).unwrap()).is_some_and(|(_, names)| names == 1));
            file.write_all(b"commit").unwrap();
            let found = file.metadata().unwrap();
            before == tick() && before == (found.mtime(), found.mtime_nsec())
        });
        assert!(is_at_the_tick);
    }
}
