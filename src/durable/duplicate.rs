//! Duplicates of files, which share bytes with the original where the file system has a way to.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use super::directory::{Directory, LOOK, failed, modified_at};
use super::durability::Durability;
use super::staged::Staged;
use super::system;
use crate::base::digest::{Digest, Hasher};
use crate::base::error::{Error, Result};
use crate::base::interrupt::check;

/// Files that are staged at a time: each is an open descriptor, of which a process may have few.
const MOST_STAGED: usize = 64;

/// From so many files on, one flush of the file system costs less than one of each.
const MANY_FILES: usize = 8;

const CHUNK_BYTES: usize = 1 << 20;

const COPY: &str = "copy a file";

/// How a duplicate came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// A file of its own whose bytes are shared until one of the two changes.
    Blocks,
    /// Another name of the same file.
    Name,
    /// A file of its own with bytes of its own.
    Nothing,
}

/// What a copy of many files did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Files that are in the copy now.
    pub count: u64,
    /// Those of them that were not before.
    pub new_count: u64,
    /// Bytes of these that were written.
    pub copied_bytes: u64,
    /// Bytes of these that are shared with the original.
    pub shared_bytes: u64,
    /// Files that were not copied, and why.
    pub problems: Vec<(PathBuf, String)>,
}

impl Copied {
    /// Counts a file that is new.
    pub fn take(&mut self, sharing: Sharing, size: u64) {
        self.count += 1;
        self.new_count += 1;
        match sharing {
            Sharing::Nothing => self.copied_bytes += size,
            Sharing::Blocks | Sharing::Name => self.shared_bytes += size,
        }
    }

    /// This copy and a later one to the same place.
    #[must_use]
    pub fn and_then(self, later: Self) -> Self {
        Self {
            new_count: self.new_count + later.new_count,
            copied_bytes: self.copied_bytes + later.copied_bytes,
            shared_bytes: self.shared_bytes + later.shared_bytes,
            ..later
        }
    }
}

/// Stages a duplicate of `source` in `directory`, with its time of last write. `may_link`: it may be another name of the
/// same file, for files that no program writes to in place.
pub fn duplicate(source: &File, directory: &Arc<Directory>, may_link: bool) -> Result<(Staged, Sharing)> {
    let staged = Staged::beneath(directory, false)?;
    if system::clone_blocks(staged.file(), source) {
        return copy_time(source, staged).map(|staged| (staged, Sharing::Blocks));
    }
    if may_link && let Ok(linked) = Staged::of_file(source, directory) {
        return Ok((linked, Sharing::Name));
    }
    copy_time(source, copy_bytes(source, staged)?).map(|staged| (staged, Sharing::Nothing))
}

fn copy_bytes(source: &File, mut staged: Staged) -> Result<Staged> {
    let path = staged.path();
    let mut source = source;
    let fault = |error: &std::io::Error| Error::io(&path, COPY, error);
    source.rewind().map_err(|error| fault(&error))?;
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        check()?;
        match source.read(&mut chunk) {
            Ok(0) => return Ok(staged),
            Ok(count) => staged.write_all(&chunk[..count]).map_err(|error| fault(&error))?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(fault(&error)),
        }
    }
}

fn copy_time(source: &File, staged: Staged) -> Result<Staged> {
    let metadata = source.metadata().map_err(|error| Error::io(&staged.path(), LOOK, &error))?;
    let modified = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
    rustix::fs::futimens(staged.file(), &modified_at(modified))
        .map_err(|errno| failed(&staged.path(), "touch a file", errno))?;
    Ok(staged)
}

/// Files that are published together: their bytes are flushed before the first of them gets its name, and their directories
/// afterwards.
#[derive(Default)]
pub struct Batch {
    staged: Vec<(Staged, Arc<Directory>, String)>,
}

impl Batch {
    /// Takes in a file that is to be `name` in `directory`, and publishes those taken in if they are many.
    pub fn add(&mut self, staged: Staged, directory: &Arc<Directory>, name: &str) -> Result<()> {
        self.staged.push((staged, Arc::clone(directory), name.to_owned()));
        if self.staged.len() < MOST_STAGED { Ok(()) } else { self.publish() }
    }

    /// Publishes those taken in, over whatever files are there.
    pub fn publish(&mut self) -> Result<()> {
        let staged = std::mem::take(&mut self.staged);
        let Some((_, directory, _)) = staged.first() else { return Ok(()) };
        let at_once = if staged.len() < MANY_FILES { None } else { system::sync_file_system(&directory.handle) };
        match at_once {
            Some(synced) => {
                let fault = |errno: Errno| Error::flush(directory.path(), "sync a file system", &errno.into());
                synced.map_err(fault)?;
            }
            None => staged.iter().try_for_each(|(file, ..)| file.sync(Durability::Full))?,
        }
        let mut directories: BTreeMap<PathBuf, Arc<Directory>> = BTreeMap::new();
        for (mut file, directory, name) in staged {
            file.publish_over(&directory, &name)?;
            directories.insert(directory.path().to_owned(), directory);
        }
        directories.values().try_for_each(|directory| directory.sync())
    }
}

/// The digest of the bytes of a staged file, read back.
pub fn digest_of(staged: &Staged) -> Result<Digest> {
    let (file, mut hasher) = (staged.file(), Hasher::new());
    let (mut chunk, mut offset) = (vec![0; CHUNK_BYTES], 0);
    loop {
        check()?;
        match file.read_at(&mut chunk, offset) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(count) => {
                hasher.update(&chunk[..count]);
                offset += count as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io(&staged.path(), COPY, &error)),
        }
    }
}

/// Whether two paths lead to one file, or one directory; false where either leads nowhere.
pub fn is_same_file(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| std::fs::metadata(path).map(|found| (found.dev(), found.ino()));
    matches!((identity(one), identity(other)), (Ok(one), Ok(other)) if one == other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn duplicated(may_link: bool) -> (tempfile::TempDir, Sharing, std::fs::Metadata, std::fs::Metadata) {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("original");
        std::fs::write(&path, vec![7; CHUNK_BYTES + 5]).unwrap();
        let source = File::open(&path).unwrap();
        source
            .set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_nanos(1_234_567_890_123_456_789))
            .unwrap();
        let directory = Arc::new(Directory::open(place.path()).unwrap().unwrap());
        let (staged, sharing) = duplicate(&source, &directory, may_link).unwrap();
        let mut batch = Batch::default();
        batch.add(staged, &directory, "duplicate").unwrap();
        assert!(!place.path().join("duplicate").exists(), "published before its bytes are on the disk");
        batch.publish().unwrap();
        assert_eq!(std::fs::read(place.path().join("duplicate")).unwrap(), std::fs::read(&path).unwrap());
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 2);
        let of = |name| std::fs::metadata(place.path().join(name)).unwrap();
        let (original, duplicate) = (of("original"), of("duplicate"));
        (place, sharing, original, duplicate)
    }

    #[test]
    fn a_duplicate_of_its_own_has_the_time_of_the_original() {
        let (_place, sharing, original, duplicate) = duplicated(false);
        assert_ne!(sharing, Sharing::Name);
        assert_ne!(original.ino(), duplicate.ino());
        assert_eq!(original.modified().unwrap(), duplicate.modified().unwrap());
        assert_eq!(duplicate.mode() & 0o777, 0o600);
    }

    #[test]
    fn a_duplicate_that_may_be_a_link_costs_no_bytes() {
        let (_place, sharing, original, duplicate) = duplicated(true);
        // Elsewhere no open file can be given another name.
        if cfg!(all(target_os = "linux", not(feature = "portable"))) {
            assert_ne!(sharing, Sharing::Nothing);
        }
        assert_eq!(sharing == Sharing::Name, original.ino() == duplicate.ino());
    }

    #[test]
    fn many_files_are_published_as_well() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("original");
        std::fs::write(&path, b"bytes").unwrap();
        let directory = Arc::new(Directory::open(place.path()).unwrap().unwrap());
        for count in [1, MANY_FILES - 1, MANY_FILES, MOST_STAGED + 1] {
            let mut batch = Batch::default();
            for number in 0..count {
                let (staged, _) = duplicate(&File::open(&path).unwrap(), &directory, false).unwrap();
                batch.add(staged, &directory, &format!("{count}-{number}")).unwrap();
            }
            batch.publish().unwrap();
            let is_whole = |number| std::fs::read(place.path().join(format!("{count}-{number}"))).unwrap() == b"bytes";
            assert!((0..count).all(is_whole));
        }
    }

    #[test]
    fn what_is_not_published_leaves_nothing() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("original");
        std::fs::write(&path, b"bytes").unwrap();
        let directory = Arc::new(Directory::open(place.path()).unwrap().unwrap());
        for may_link in [false, true] {
            drop(duplicate(&File::open(&path).unwrap(), &directory, may_link).unwrap());
            assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 1);
        }
    }
}
