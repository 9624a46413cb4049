//! Files that are staged and published below a directory, without following a symbolic link.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;

use crate::base::error::Result;
use crate::base::fork::PrivateFd;
use crate::durable::beneath::{Directory, LOOK, failed, now};
use crate::durable::{Durability, STAGING_PREFIX, sync_staged};

const PUBLISH: &str = "publish a file";
const CREATE: &str = "create a staging file";

/// Coarse clocks tick once a millisecond, or less often.
const SHORTEST_TICK: Duration = Duration::from_millis(1);
const MOST_TRIES: usize = 8;

/// Makes the names of staged files differ within a process.
static STAGED_COUNT: AtomicU64 = AtomicU64::new(0);

/// A file that is being written, to be published in another directory of the same file system. It has a name of its own,
/// or none at all: then its writer's end is its own, too, and one directory less is written to.
pub struct StagedBeneath {
    file: PrivateFd<File>,
    directory: Arc<Directory>,
    /// Its name as long as it lies in the staging directory.
    name: Option<String>,
    /// Whose name it is: a forked child that lets go of it leaves it to its parent.
    process_id: u32,
}

impl StagedBeneath {
    pub(super) fn create(directory: &Arc<Directory>, is_nameless: bool) -> Result<Self> {
        let mode = Mode::RUSR | Mode::WUSR;
        let fault = |errno| failed(directory.path(), CREATE, errno);
        let made = |file: OwnedFd, name, process_id| Self {
            file: PrivateFd::new(file.into()),
            directory: Arc::clone(directory),
            name,
            process_id,
        };
        if is_nameless {
            let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
            return rustix::fs::openat(&directory.handle, ".", flags, mode)
                .map(|file| made(file, None, 0))
                .map_err(fault);
        }
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        loop {
            let name = new_name();
            match rustix::fs::openat(&directory.handle, name.as_str(), flags, mode) {
                Ok(file) => return Ok(made(file, Some(name), process::id())),
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(fault(errno)),
            }
        }
    }

    /// The first file that is staged in `directory`, and whether others may do without a name: files without names can be
    /// made, and be given one later on, not on every file system.
    pub fn first(directory: &Arc<Directory>) -> Result<(Self, bool)> {
        match Self::create(directory, true).and_then(|mut staged| staged.give_name().map(|_| staged)) {
            Ok(staged) => Ok((staged, true)),
            Err(_) => Self::create(directory, false).map(|staged| (staged, false)),
        }
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
        super::begin_sync(self.file(), offset, size);
    }

    /// Syncs the bytes if so asked.
    pub fn sync(&self, durability: Durability) -> Result<()> {
        sync_staged(self.file(), &self.path(), durability)
    }

    /// Sets when it was last written to now.
    pub fn touch(&self) -> Result<()> {
        let kept = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
        rustix::fs::futimens(&self.file, &Timestamps { last_access: kept, last_modification: now() })
            .map_err(|errno| failed(&self.path(), "touch a file", errno))
    }

    /// Publishes it as `name` in `target` unless something is there; says whether it did. The entry is not synced yet.
    pub fn publish_new(&mut self, target: &Directory, name: &str) -> Result<bool> {
        let published = match &self.name {
            None => self.link(target, name),
            Some(staged) => {
                let (from, staged) = (&self.directory.handle, staged.as_str());
                match rustix::fs::renameat_with(from, staged, &target.handle, name, RenameFlags::NOREPLACE) {
                    // Network file systems have no such renaming, but links.
                    Err(Errno::INVAL | Errno::NOSYS) => {
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
    pub fn publish_over(&mut self, target: &Directory, name: &str) -> Result<()> {
        let fault = |errno| failed(&target.path().join(name), PUBLISH, errno);
        let staged = self.give_name()?;
        rustix::fs::renameat(&self.directory.handle, staged, &target.handle, name).map_err(fault)?;
        self.name = None;
        Ok(())
    }

    /// Gives a file without a name one.
    fn link(&self, target: &Directory, name: &str) -> std::result::Result<(), Errno> {
        match rustix::fs::linkat(&self.file, "", &target.handle, name, AtFlags::EMPTY_PATH) {
            // Before Linux 6.10 it takes a privilege, which may also have been given up since the last one.
            Err(Errno::NOENT) => {
                let file = format!("/proc/self/fd/{}", self.file().as_raw_fd());
                rustix::fs::linkat(rustix::fs::CWD, file, &target.handle, name, AtFlags::SYMLINK_FOLLOW)
            }
            linked => linked,
        }
    }

    /// Its name, which it is given if it has none.
    fn give_name(&mut self) -> Result<String> {
        if let Some(name) = &self.name {
            return Ok(name.clone());
        }
        let name = new_name();
        self.link(&self.directory, &name)
            .map_err(|errno| failed(&self.directory.path().join(&name), PUBLISH, errno))?;
        self.name = Some(name.clone());
        self.process_id = process::id();
        Ok(name)
    }

    /// Whether the file system gives two changes in quick succession different times, if somebody looked in between.
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

impl Drop for StagedBeneath {
    fn drop(&mut self) {
        if let Some(name) = self.name.as_deref().filter(|_| self.process_id == process::id()) {
            let _ = self.directory.remove(name);
        }
    }
}

fn new_name() -> String {
    let count = STAGED_COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{STAGING_PREFIX}{:x}-{count:x}-{:x}", process::id(), now().tv_nsec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

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
            if is_nameless && !StagedBeneath::first(&staging).unwrap().1 {
                continue;
            }
            let stage = |content: &[u8]| {
                let staged = staging.stage(is_nameless).unwrap();
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
}
