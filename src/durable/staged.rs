//! Files that are written under a name of their own, or under none, and then published.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;

use super::directory::{Directory, LOOK, failed, modified_at};
use super::durability::Durability;
use super::sync::sync_staged;
use super::system::{self, begin_sync};
use crate::base::error::{Error, Result};
use crate::base::fork::{Generation, PrivateFd};
use crate::base::time::now_ns;

/// How staged files are named. The names must not contain `.jsonl`, which readers of the archive match by pattern.
pub(super) const STAGING_PREFIX: &str = ".stage-";

/// Bytes of a staged file after which the system is asked to begin writing them to the disk.
const BEGIN_EVERY: u64 = 1 << 20;

const PUBLISH: &str = "publish a file";
const CREATE: &str = "create a staging file";

/// Coarse clocks tick once a millisecond, or less often.
const SHORTEST_TICK: Duration = Duration::from_millis(1);
const MOST_TRIES: usize = 8;

/// Makes the names of staged files differ within a process.
static STAGED_COUNT: AtomicU64 = AtomicU64::new(0);

/// A file that is being written, to be published in a directory of the same file system. It has a name of its own, or none
/// at all: then it ends with its writer, and one directory less is written to. Dropped unpublished, it leaves nothing.
pub struct Staged {
    file: PrivateFd<File>,
    directory: Arc<Directory>,
    /// Its name as long as it lies in the staging directory.
    name: Option<String>,
    /// The process that goes on with the file: a forked child leaves it to its parent.
    generation: Generation,
    /// Bytes written by way of [`Write`], and how many of them the system was asked to begin writing to the disk.
    written: u64,
    begun: u64,
}

impl Staged {
    /// An empty staged file in `directory`, mode 0600, to be published there.
    pub fn create(directory: &Path) -> Result<Self> {
        let opened = Directory::open(directory)?.ok_or_else(|| failed(directory, CREATE, Errno::NOENT))?;
        Self::beneath(&Arc::new(opened), false)
    }

    /// An empty staged file in `directory`, mode 0600. `is_nameless`: one without a name, which [`Staged::first`] must have
    /// found possible.
    pub fn beneath(directory: &Arc<Directory>, is_nameless: bool) -> Result<Self> {
        let mode = Mode::RUSR | Mode::WUSR;
        let fault = |errno| failed(directory.path(), CREATE, errno);
        let made = |file: OwnedFd, name| Self {
            file: PrivateFd::new(file.into()),
            directory: Arc::clone(directory),
            name,
            generation: Generation::current(),
            written: 0,
            begun: 0,
        };
        if is_nameless {
            return system::create_nameless(&directory.handle, mode).map(|file| made(file, None)).map_err(fault);
        }
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        loop {
            let name = new_name();
            match rustix::fs::openat(&directory.handle, name.as_str(), flags, mode) {
                Ok(file) => return Ok(made(file, Some(name))),
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(fault(errno)),
            }
        }
    }

    /// The first file that is staged in `directory`, and whether others may do without a name: files without names can be
    /// made, and be given one later on, not on every file system.
    pub fn first(directory: &Arc<Directory>) -> Result<(Self, bool)> {
        match Self::beneath(directory, true).and_then(|mut staged| staged.give_name().map(|_| staged)) {
            Ok(staged) => Ok((staged, true)),
            Err(_) => Self::beneath(directory, false).map(|staged| (staged, false)),
        }
    }

    /// A further name of an open file, to be published like one that was written here. An error where the file system or
    /// its rules allow none.
    pub(super) fn of_file(file: &File, directory: &Arc<Directory>) -> Result<Self> {
        let file = file.try_clone().map_err(|error| Error::io(directory.path(), CREATE, &error))?;
        let mut staged = Self {
            file: PrivateFd::new(file),
            directory: Arc::clone(directory),
            name: None,
            generation: Generation::current(),
            written: 0,
            begun: 0,
        };
        staged.give_name()?;
        Ok(staged)
    }

    /// The file.
    pub fn file(&self) -> &File {
        self.file.get()
    }

    /// What the system says of it.
    pub fn stat(&self) -> Result<Stat> {
        rustix::fs::fstat(&self.file).map_err(|errno| failed(&self.path(), LOOK, errno))
    }

    /// Where it lies until it is published.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join(self.name.as_deref().unwrap_or_default())
    }

    /// Asks the system to begin with writing the bytes to the disk; promises nothing.
    pub fn begin_sync(&self, offset: u64, size: u64) {
        begin_sync(self.file(), offset, size);
    }

    /// Syncs the bytes if so asked.
    pub fn sync(&self, durability: Durability) -> Result<()> {
        sync_staged(self.file(), &self.path(), durability)
    }

    /// Sets when it was last written to now.
    pub fn touch(&self) -> Result<()> {
        rustix::fs::futimens(&self.file, &modified_at(now_ns()))
            .map_err(|errno| failed(&self.path(), "touch a file", errno))
    }

    /// Syncs the file if so asked, publishes it as `path`, over whatever file is there, and makes the entry as durable.
    pub fn publish(mut self, path: &Path, durability: Durability) -> Result<()> {
        let (target, name) = self.target(path)?;
        self.sync(durability)?;
        self.publish_over(&target, &name)?;
        sync_entries(&target, durability)
    }

    /// The same unless something is there already; says whether it did.
    pub fn publish_unless_there(mut self, path: &Path, durability: Durability) -> Result<bool> {
        let (target, name) = self.target(path)?;
        self.sync(durability)?;
        let is_published = self.publish_new(&target, &name)?;
        if is_published {
            sync_entries(&target, durability)?;
        }
        Ok(is_published)
    }

    /// The directory that it was staged in, and its name there.
    fn target(&self, path: &Path) -> Result<(Arc<Directory>, OsString)> {
        let name = path.file_name();
        let name = name.ok_or_else(|| Error::Value(format!("no path of a file: {}", path.display())))?;
        Ok((Arc::clone(&self.directory), name.to_owned()))
    }

    /// Publishes it as `name` in `target` unless something is there; says whether it did. The entry is not synced yet.
    pub fn publish_new(&mut self, target: &Directory, name: impl AsRef<OsStr>) -> Result<bool> {
        let name = name.as_ref();
        self.generation.check(&target.path().join(name))?;
        let published = match &self.name {
            None => system::link_nameless(self.file(), &target.handle, name),
            Some(staged) => {
                let (from, staged) = (&self.directory.handle, staged.as_str());
                match rustix::fs::renameat_with(from, staged, &target.handle, name, RenameFlags::NOREPLACE) {
                    // Network file systems have no such renaming, but links.
                    Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                        rustix::fs::linkat(from, staged, &target.handle, name, AtFlags::empty())
                            .inspect(|()| drop(self.directory.remove(staged)))
                    }
                    renamed => renamed,
                }
            }
        };
        match published {
            Ok(()) => {
                self.name = None;
                Ok(true)
            }
            Err(Errno::EXIST) => Ok(false),
            Err(errno) => Err(failed(&target.path().join(name), PUBLISH, errno)),
        }
    }

    /// Publishes it as `name` in `target`, over whatever file is there. The entry is not synced yet.
    pub fn publish_over(&mut self, target: &Directory, name: impl AsRef<OsStr>) -> Result<()> {
        let name = name.as_ref();
        self.generation.check(&target.path().join(name))?;
        let fault = |errno| failed(&target.path().join(name), PUBLISH, errno);
        let staged = self.give_name()?;
        rustix::fs::renameat(&self.directory.handle, staged, &target.handle, name).map_err(fault)?;
        self.name = None;
        Ok(())
    }

    /// Its name, which it is given if it has none.
    fn give_name(&mut self) -> Result<String> {
        if let Some(name) = &self.name {
            return Ok(name.clone());
        }
        let name = new_name();
        system::link_nameless(self.file(), &self.directory.handle, name.as_ref())
            .map_err(|errno| failed(&self.directory.path().join(&name), PUBLISH, errno))?;
        self.name = Some(name.clone());
        Ok(name)
    }

    /// Whether the file system gives two changes in quick succession different times, if the first one was looked at in between.
    /// Where it does not, a file that was changed just now cannot be told from one that is changed again in the same
    /// tick of the clock. The file is empty afterwards.
    pub fn tells_changes_apart(&self) -> io::Result<bool> {
        let mut times = [(0, 0); 4];
        // On a busy machine it may take so long that even a coarse clock ticks between any two of them: then once more.
        for _ in 0..MOST_TRIES {
            let started = Instant::now();
            for time in &mut times {
                rustix::io::pwrite(&self.file, b"?", 0)?;
                let stat = rustix::fs::fstat(&self.file)?;
                *time = (stat.st_ctime, stat.st_ctime_nsec);
            }
            if started.elapsed() < SHORTEST_TICK * 2 {
                self.file().set_len(0)?;
                return Ok(times.windows(2).all(|pair| pair[0] != pair[1]));
            }
        }
        self.file().set_len(0).map(|()| false)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some(name) = self.name.as_deref().filter(|_| self.generation.is_current()) {
            let _ = self.directory.remove(name);
        }
    }
}

impl Write for Staged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file().write(bytes)?;
        self.written += count as u64;
        if self.written - self.begun >= BEGIN_EVERY {
            begin_sync(self.file(), self.begun, self.written - self.begun);
            self.begun = self.written;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn sync_entries(directory: &Directory, durability: Durability) -> Result<()> {
    match durability {
        Durability::Full => directory.sync(),
        Durability::Normal => Ok(()),
    }
}

/// Publishes an empty file, mode 0600, as `path` unless something is there; says whether it did. Where the file system
/// allows it, the file has no name before that: a process that is killed meanwhile leaves nothing.
pub fn create_empty(path: &Path, durability: Durability) -> Result<bool> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let opened = Directory::open(directory)?.ok_or_else(|| failed(directory, CREATE, Errno::NOENT))?;
    let opened = Arc::new(opened);
    let nameless = Staged::beneath(&opened, true);
    match nameless.and_then(|staged| staged.publish_unless_there(path, durability)) {
        // Neither is possible on every file system.
        Err(Error::Io { .. }) => Staged::beneath(&opened, false)?.publish_unless_there(path, durability),
        outcome => outcome,
    }
}

fn new_name() -> String {
    let count = STAGED_COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{STAGING_PREFIX}{:x}-{count:x}-{:x}", process::id(), now_ns() % 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn directories() -> (tempfile::TempDir, Arc<Directory>, Directory) {
        let root = tempfile::tempdir().unwrap();
        let opened = Directory::open(root.path()).unwrap().unwrap();
        let staging = Arc::new(opened.make_directory("staging").unwrap());
        let target = opened.make_directory("target").unwrap();
        (root, staging, target)
    }

    #[test]
    fn with_and_without_names_files_are_published_new_or_over_others() {
        let (root, staging, target) = directories();
        let published = root.path().join("target/name");
        let staged_count = || std::fs::read_dir(root.path().join("staging")).unwrap().count();
        for is_nameless in [false, true] {
            if is_nameless && !Staged::first(&staging).unwrap().1 {
                continue;
            }
            let stage = |content: &[u8]| {
                let staged = Staged::beneath(&staging, is_nameless).unwrap();
                staged.file().write_all(content).unwrap();
                staged
            };
            assert!(stage(b"one").publish_new(&target, "name").unwrap());
            let mut refused = stage(b"two");
            assert!(!refused.publish_new(&target, "name").unwrap());
            assert_eq!(std::fs::read(&published).unwrap(), b"one");
            refused.publish_over(&target, "name").unwrap();
            drop(refused);
            assert_eq!(std::fs::read(&published).unwrap(), b"two");
            drop(stage(b"dropped"));
            assert!(target.remove("name").unwrap());
            stage(b"three").publish_over(&target, "name").unwrap();
            assert_eq!(std::fs::read(&published).unwrap(), b"three");
            assert!(target.remove("name").unwrap());
            assert_eq!(staged_count(), 0);
        }
    }

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
        assert!(!Staged::create(directory.path()).unwrap().publish_unless_there(&path, Durability::Full).unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_staged_file_that_cannot_be_created_says_the_error_number() {
        let created = Staged::create(Path::new("/missing"));
        assert!(matches!(created, Err(Error::Io { errno: libc::ENOENT, .. })));
    }

    #[test]
    fn an_empty_file_is_created_once_and_nothing_else_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("logs.db");
        assert!(create_empty(&path, Durability::Full).unwrap());
        std::fs::write(&path, b"used").unwrap();
        assert!(!create_empty(&path, Durability::Full).unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), b"used");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        assert!(matches!(
            create_empty(Path::new("/missing/x"), Durability::Full),
            Err(Error::Io { errno: libc::ENOENT, .. })
        ));
    }
}
