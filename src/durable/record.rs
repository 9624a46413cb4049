//! A small record in a file of its own that is rewritten in place, whole at every instant: two slots are written in turns,
//! each with a checksum, and the newer of those that are whole counts.
//!
//! The processes that use the record hold an advisory lock on it, so that one of them can tell whether it is alone.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use xxhash_rust::xxh3::xxh3_64;

use super::durability::Durability;
use super::files::remove;
use super::staged::create_empty;
use super::sync::sync_file;
use crate::base::error::{Error, Result};
use crate::base::fork::PrivateFd;

/// Bytes of a slot that are the caller's.
pub const RECORD_BYTES: usize = 32;
/// Generation, record, checksum.
const SLOT_BYTES: usize = 8 + RECORD_BYTES + 8;
/// Where the slots begin: sectors of their own, so that a torn write spoils one of them at the most.
const SLOT_OFFSETS: [u64; 2] = [0, 512];

const READ: &str = "read a record";
const WRITE: &str = "write a record";
const LOCK: &str = "lock a record";

/// How long a lock that others hold for microseconds is waited for.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// An open record.
pub struct Record {
    path: PathBuf,
    /// In a forked child it leads nowhere: the lock on it is its parent's.
    file: PrivateFd<File>,
}

/// What a record says, and in which slot and generation.
struct Slot {
    index: usize,
    generation: u64,
    record: [u8; RECORD_BYTES],
}

impl Record {
    /// Opens the record at `path` to read it; None if there is none. A symbolic link is not followed.
    pub fn open(path: &Path) -> Result<Option<Self>> {
        match Self::open_to(path, true) {
            // Network file systems give an exclusive lock only to those who may write.
            Err(Error::Io { errno: libc::EROFS | libc::EACCES | libc::EPERM, .. }) => Self::open_to(path, false),
            opened => opened,
        }
    }

    fn open_to(path: &Path, write: bool) -> Result<Option<Self>> {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
        match OpenOptions::new().read(true).write(write).custom_flags(flags).open(path) {
            Ok(file) => Ok(Some(Self { path: path.to_owned(), file: PrivateFd::new(file) })),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(path, "open a record", &error)),
        }
    }

    /// Opens the record at `path`, or creates an empty one, synced with its directory.
    fn open_or_create(path: &Path) -> Result<Self> {
        loop {
            if let Some(record) = Self::open_to(path, true)? {
                return Ok(record);
            }
            create_empty(path, Durability::Full)?;
        }
    }

    /// What the record says; None if it says nothing, or nothing that can be relied upon.
    pub fn read(&self) -> Result<Option<[u8; RECORD_BYTES]>> {
        Ok(self.newest()?.map(|slot| slot.record))
    }

    /// Makes the record say this; synced, so that it survives power loss, unless it is enough that it survives the kill of
    /// the process.
    pub fn write(&self, record: &[u8; RECORD_BYTES], durability: Durability) -> Result<()> {
        let (index, generation) = match self.newest()? {
            Some(slot) => (1 - slot.index, slot.generation.wrapping_add(1)),
            None => (0, 1),
        };
        let mut bytes = Vec::with_capacity(SLOT_BYTES);
        bytes.extend_from_slice(&generation.to_le_bytes());
        bytes.extend_from_slice(record);
        bytes.extend_from_slice(&xxh3_64(&bytes).to_le_bytes());
        self.file
            .get()
            .write_all_at(&bytes, SLOT_OFFSETS[index])
            .map_err(|error| Error::io(&self.path, WRITE, &error))?;
        match durability {
            Durability::Full => sync_file(self.file.get(), &self.path),
            Durability::Normal => Ok(()),
        }
    }

    /// Opens the record at `path`, or creates an empty one, and takes the lock that any number of processes share. It is
    /// held until the record is dropped.
    pub fn share(path: &Path) -> Result<Self> {
        loop {
            let record = Self::open_or_create(path)?;
            record.lock_shared()?;
            // The last process to let go of a record removes it.
            if record.is_at_its_path()? {
                return Ok(record);
            }
        }
    }

    /// Removes the record, which this process alone holds locked.
    pub fn remove(self) -> Result<()> {
        remove(&self.path, Durability::Normal).map(drop)
    }

    fn is_at_its_path(&self) -> Result<bool> {
        let failed = |error: &io::Error| Error::io(&self.path, READ, error);
        let held = self.file.get().metadata().map_err(|error| failed(&error))?;
        match std::fs::symlink_metadata(&self.path) {
            Ok(found) => Ok((found.dev(), found.ino()) == (held.dev(), held.ino())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed(&error)),
        }
    }

    /// Waits for the lock that any number of processes share.
    fn lock_shared(&self) -> Result<()> {
        let began = Instant::now();
        loop {
            match flock(&self.file, FlockOperation::NonBlockingLockShared) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) if began.elapsed() < LONGEST_WAIT => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                // Where the file system has no locks, no process is ever told that it is alone.
                Err(Errno::NOLCK | Errno::NOTSUP | Errno::NOSYS) => return Ok(()),
                Err(errno) => return Err(Error::io(&self.path, LOCK, &io::Error::from(errno))),
            }
        }
    }

    /// Takes the lock that no other holds; false if another process holds one.
    pub fn try_lock_exclusive(&self) -> Result<bool> {
        match flock(&self.file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK | Errno::INTR | Errno::NOLCK | Errno::NOTSUP | Errno::NOSYS) => Ok(false),
            Err(errno) => Err(Error::io(&self.path, LOCK, &io::Error::from(errno))),
        }
    }

    fn newest(&self) -> Result<Option<Slot>> {
        let mut newest: Option<Slot> = None;
        for (index, offset) in SLOT_OFFSETS.into_iter().enumerate() {
            let mut bytes = [0; SLOT_BYTES];
            match self.file.get().read_exact_at(&mut bytes, offset) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => continue,
                Err(error) => return Err(Error::io(&self.path, READ, &error)),
            }
            let Some(slot) = Slot::parse(index, &bytes) else { continue };
            if newest.as_ref().is_none_or(|known| slot.generation > known.generation) {
                newest = Some(slot);
            }
        }
        Ok(newest)
    }
}

impl Slot {
    /// The slot in these bytes; None if they are damaged, or none were ever written.
    fn parse(index: usize, bytes: &[u8; SLOT_BYTES]) -> Option<Self> {
        let (generation, rest) = bytes.split_first_chunk()?;
        let (record, rest) = rest.split_first_chunk()?;
        let checksum = u64::from_le_bytes(*rest.first_chunk()?);
        let is_whole = xxh3_64(&bytes[..SLOT_BYTES - 8]) == checksum;
        is_whole.then_some(Self { index, generation: u64::from_le_bytes(*generation), record: *record })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(number: u8) -> [u8; RECORD_BYTES] {
        [number; RECORD_BYTES]
    }

    #[test]
    fn the_newest_whole_slot_counts() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("record");
        assert!(Record::open(&path).unwrap().is_none());
        let file = Record::open_or_create(&path).unwrap();
        assert_eq!(file.read().unwrap(), None);
        for number in 1..6 {
            file.write(&record(number), Durability::Full).unwrap();
            assert_eq!(Record::open(&path).unwrap().unwrap().read().unwrap(), Some(record(number)));
        }
        // 5 is in the first slot, 4 in the second.
        for at in 0..SLOT_BYTES {
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[at] ^= 0x10;
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(file.read().unwrap(), Some(record(4)), "byte {at}");
            bytes[at] ^= 0x10;
            std::fs::write(&path, &bytes).unwrap();
        }
        std::fs::write(&path, b"torn").unwrap();
        assert_eq!(file.read().unwrap(), None);
    }

    #[test]
    fn a_process_that_holds_a_lock_tells_others_that_they_are_not_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("record");
        let (one, other) = (Record::share(&path).unwrap(), Record::share(&path).unwrap());
        assert!(!one.try_lock_exclusive().unwrap());
        drop(other);
        assert!(one.try_lock_exclusive().unwrap());
        one.remove().unwrap();
        assert!(Record::open(&path).unwrap().is_none());
    }
}
