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

    /// What was done with the file or directory at `path`; None if it cannot be read, which is noted. Any other error stops
    /// the copy.
    pub fn unless_unreadable<T>(&mut self, path: &Path, outcome: Result<T>) -> Result<Option<T>> {
        match outcome {
            Err(error) if error.is_unreadable_at(path) => {
                self.problems.push((path.to_owned(), format!("{error}; it was not copied")));
                Ok(None)
            }
            outcome => outcome.map(Some),
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

/// A file that is duplicated.
#[derive(Clone, Copy)]
pub struct Original<'a> {
    /// The open file.
    pub file: &'a File,
    /// What errors call it.
    pub path: &'a Path,
}

/// A staged duplicate.
pub struct Duplicate {
    /// The duplicate.
    pub staged: Staged,
    /// What it has in common with the original.
    pub sharing: Sharing,
    /// The digest of its bytes, which were read back.
    pub digest: Digest,
}

/// Stages a duplicate of `original` in `directory`, with its time of last write. `may_link`: it may be another name of the
/// same file, for files that no program writes to in place. An error has the path of the file that failed.
pub fn duplicate(original: Original<'_>, directory: &Arc<Directory>, may_link: bool) -> Result<Duplicate> {
    let mut staged = Staged::beneath(directory, false)?;
    let sharing = if system::clone_blocks(staged.file(), original.file) {
        copy_time(original, &staged)?;
        Sharing::Blocks
    } else if may_link && let Ok(linked) = Staged::of_file(original.file, directory) {
        staged = linked;
        Sharing::Name
    } else {
        copy_bytes(original, &mut staged)?;
        copy_time(original, &staged)?;
        Sharing::Nothing
    };
    // Bytes that both share are those of the original.
    let path = if sharing == Sharing::Nothing { &staged.path() } else { original.path };
    let digest = digest_of(Original { file: staged.file(), path })?;
    Ok(Duplicate { staged, sharing, digest })
}

fn copy_bytes(original: Original<'_>, staged: &mut Staged) -> Result<()> {
    let mut source = original.file;
    let fault = |error: &std::io::Error| Error::io(original.path, COPY, error);
    source.rewind().map_err(|error| fault(&error))?;
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        check()?;
        match source.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                staged.write_all(&chunk[..count]).map_err(|error| Error::io(&staged.path(), COPY, &error))?;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(fault(&error)),
        }
    }
}

fn copy_time(original: Original<'_>, staged: &Staged) -> Result<()> {
    let metadata = original.file.metadata().map_err(|error| Error::io(original.path, LOOK, &error))?;
    let modified = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
    rustix::fs::futimens(staged.file(), &modified_at(modified))
        .map_err(|errno| failed(&staged.path(), "touch a file", errno))
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

/// The digest of the bytes of a file.
pub fn digest_of(original: Original<'_>) -> Result<Digest> {
    let mut hasher = Hasher::new();
    let (mut chunk, mut offset) = (vec![0; CHUNK_BYTES], 0);
    loop {
        check()?;
        match original.file.read_at(&mut chunk, offset) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(count) => {
                hasher.update(&chunk[..count]);
                offset += count as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io(original.path, COPY, &error)),
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
        let original = Original { file: &source, path: &path };
        let Duplicate { staged, sharing, digest } = duplicate(original, &directory, may_link).unwrap();
        assert_eq!(digest, Digest::of(&std::fs::read(&path).unwrap()));
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
        let original = Original { file: &File::open(&path).unwrap(), path: &path };
        for count in [1, MANY_FILES - 1, MANY_FILES, MOST_STAGED + 1] {
            let mut batch = Batch::default();
            for number in 0..count {
                let staged = duplicate(original, &directory, false).unwrap().staged;
                batch.add(staged, &directory, &format!("{count}-{number}")).unwrap();
            }
            batch.publish().unwrap();
            let is_whole = |number| std::fs::read(place.path().join(format!("{count}-{number}"))).unwrap() == b"bytes";
            assert!((0..count).all(is_whole));
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_file_that_cannot_be_read_is_named() {
        let place = tempfile::tempdir().unwrap();
        let directory = Arc::new(Directory::open(place.path()).unwrap().unwrap());
        // Nothing is mapped at its beginning.
        let unreadable = File::open("/proc/self/mem").unwrap();
        let path = Path::new("/store/original");
        for may_link in [false, true] {
            let found = duplicate(Original { file: &unreadable, path }, &directory, may_link);
            let mut copied = Copied::default();
            assert!(copied.unless_unreadable(path, found).unwrap().is_none());
            assert_eq!(copied.problems.len(), 1);
            assert_eq!(copied.problems[0].0, path);
            let found = duplicate(Original { file: &unreadable, path }, &directory, may_link);
            assert!(copied.unless_unreadable(Path::new("/store/another"), found).is_err());
            assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn what_is_not_published_leaves_nothing() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("original");
        std::fs::write(&path, b"bytes").unwrap();
        let directory = Arc::new(Directory::open(place.path()).unwrap().unwrap());
        let original = Original { file: &File::open(&path).unwrap(), path: &path };
        for may_link in [false, true] {
            drop(duplicate(original, &directory, may_link).unwrap());
            assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 1);
        }
    }
}
