//! Copying the day files into the archive of a backup.
//!
//! A file is read whole and compared with the manifest before it gets its name in the backup, and never takes the place of a
//! good one if it is damaged. What cannot be read is reported and passed over. Files that are there already, by size and
//! time of last write, are passed over. Nothing is deleted but the file of a day that has one of the other format since.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::archive::file::format::{Format, list, path_of};
use crate::archive::file::reader::DayReader;
use crate::archive::manifest::catalog::Archive;
use crate::archive::manifest::days::{self, State};
use crate::archive::manifest::open::hash;
use crate::archive::manifest::owner::MARK;
use crate::archive::manifest::remote;
use crate::archive::manifest::seen::{DayFile, Stamp};
use crate::base::digest::Digest;
use crate::base::error::{Error, Result};
use crate::base::interrupt::check;
use crate::durable::{self, Batch, Copied, Directory, Duplicate, Durability, Original, duplicate};

const OPERATION: &str = "copy an archive file";

/// How long a file that changes while it is copied is looked at again, and how often.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

impl Archive {
    /// Bytes of the day files.
    pub fn size(&self) -> Result<u64> {
        let size = |(day, format)| {
            std::fs::metadata(path_of(self.directory(), day, format)).map_or(0, |metadata| metadata.len())
        };
        // A copy reports that it cannot be listed.
        let files = list(self.directory()).unwrap_or_default();
        let objects = self.current_objects()?;
        let elsewhere: u64 = objects.iter().filter(|object| !object.has_file(&files)).map(|object| object.size).sum();
        Ok(files.iter().copied().map(size).sum::<u64>() + elsewhere)
    }

    /// Copies what is new into `target`. To be called after the database was copied: a file only ever gains rows, so that
    /// each row that the copy of the database lacks is in a file. Returns also the files that there were. `advance` hears of
    /// bytes.
    pub(crate) fn copy_to(
        &self,
        target: &Path,
        advance: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<(Copied, Vec<DayFile>)> {
        let mut copied = Copied::default();
        let listed = copied.unless_unreadable(self.directory(), list(self.directory()))?;
        let Some(files) = listed else { return Ok((copied, Vec::new())) };
        for object in self.log.database().read(OPERATION, remote::undescribed)? {
            if !object.has_file(&files) {
                copied.problems.push((object.url().into(), remote::LOST.to_owned()));
            }
        }
        if files.is_empty() && self.listed_files()?.is_empty() {
            return Ok((copied, files));
        }
        durable::create_directories(target, Durability::Full)?;
        let Some(opened) = Directory::open(target)? else { return Ok((copied, files)) };
        let opened = Arc::new(opened);
        let copied_mark = self.copy_mark(&opened, target);
        copied.unless_unreadable(&self.directory().join(MARK), copied_mark)?;
        let mut batch = Batch::default();
        for &file in &files {
            check()?;
            let outcome = self.copy_file(file, &opened, &mut batch, &mut copied, advance);
            copied.unless_unreadable(&path_of(self.directory(), file.0, file.1), outcome)?;
        }
        for (day, format) in self.listed_files()? {
            let path = path_of(self.directory(), day, format);
            if is_missing(&path) && is_missing(&path_of(self.directory(), day, format.other())) {
                if self.copy_object((day, format), &opened, &mut batch, &mut copied, advance)? {
                    continue;
                }
                let reason = "it is missing: restore it, or call reindex(), which forgets the day".to_owned();
                copied.problems.push((path, reason));
            }
        }
        batch.publish()?;
        Ok((copied, files))
    }

    /// Whether a day that a copy of the database lists has lost rows since, because it expired or was forgotten: its file may
    /// not be what the copy says of it.
    pub fn has_lost_rows_of(&self, copy: &Connection) -> Result<bool> {
        let listed = self.log.database().read(OPERATION, days::list)?;
        for known in days::list(copy)? {
            let now = listed.iter().find(|now| now.day == known.day);
            if now.is_some_and(|now| now.sha256 == known.sha256) {
                continue;
            }
            let Some(before) = days::load(copy, known.day, State::Current)? else { continue };
            let now =
                self.log.database().read(OPERATION, |connection| days::load(connection, known.day, State::Current))?;
            if !now.is_some_and(|now| before.ids.is_subset(&now.ids)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Removes the files from `target` whose days have one of the other format since, as those that were compressed; `copied`
    /// are the files that there were when they were copied. To be called when the database that knows of it has been
    /// published.
    pub(crate) fn remove_replaced(&self, target: &Path, copied: &[DayFile]) -> Result<()> {
        let here = match list(self.directory()) {
            Err(error) if error.is_unreadable() => return Ok(()),
            listed => listed?,
        };
        let there = list(target)?;
        for &(day, format) in &there {
            // A day may have expired since it was copied.
            let now = if here.iter().any(|file| file.0 == day) { &here[..] } else { copied };
            let other = (day, format.other());
            if there.contains(&other) && now.contains(&other) && !now.contains(&(day, format)) {
                durable::remove(&path_of(target, day, format), Durability::Full)?;
            }
        }
        Ok(())
    }

    /// The files that the manifest lists.
    fn listed_files(&self) -> Result<Vec<DayFile>> {
        let listed = self.log.database().read(OPERATION, days::described)?;
        Ok(listed.iter().filter(|file| file.state == State::Current).map(|file| file.file).collect())
    }

    /// The mark says whose archive it is, to other databases too.
    fn copy_mark(&self, target: &Arc<Directory>, path: &Path) -> Result<()> {
        if path.join(MARK).exists() {
            return Ok(());
        }
        let mark = self.directory().join(MARK);
        let Some(source) = durable::open_regular(&mark)? else { return Ok(()) };
        let duplicate = duplicate(Original { file: &source, path: &mark }, target, false)?;
        duplicate.staged.publish(&path.join(MARK), Durability::Full)
    }

    fn copy_file(
        &self,
        file: DayFile,
        target: &Arc<Directory>,
        batch: &mut Batch,
        copied: &mut Copied,
        advance: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        let path = path_of(self.directory(), file.0, file.1);
        let place = path_of(target.path(), file.0, file.1);
        let began = Instant::now();
        loop {
            // A job has replaced it by one of the other format, or removed it.
            let Some(source) = durable::open_regular(&path)? else { return Ok(()) };
            let metadata = source.metadata().map_err(|error| Error::io(&path, OPERATION, &error))?;
            if let Ok(known) = std::fs::symlink_metadata(&place)
                && (known.len(), known.mtime(), known.mtime_nsec())
                    == (metadata.len(), metadata.mtime(), metadata.mtime_nsec())
            {
                copied.count += 1;
                return advance(metadata.len());
            }
            // The predecessor writes to a plain file in place, which would change the backup as well.
            let original = Original { file: &source, path: &path };
            let Duplicate { staged, sharing, digest } = duplicate(original, target, file.1 == Format::Zstd)?;
            let expected = self.expected_digests(file)?;
            let is_same = is_still(&path, &metadata);
            if expected.contains(&digest) || is_same && (expected.is_empty() || self.has_grown_to(file, digest)?) {
                copied.take(sharing, metadata.len());
                let name = format!("{}.{}", file.0, file.1);
                batch.add(staged, target, &name)?;
                return advance(metadata.len());
            }
            if is_same || began.elapsed() > LONGEST_WAIT {
                copied.problems.push((path, not_as_expected(digest, &expected)));
                return advance(metadata.len());
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Copies a file that lies in an object store; false if none does.
    fn copy_object(
        &self,
        (day, format): DayFile,
        target: &Arc<Directory>,
        batch: &mut Batch,
        copied: &mut Copied,
        advance: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<bool> {
        let listed = self.log.database().read(OPERATION, |connection| days::load(connection, day, State::Current))?;
        let Some(listed) = listed.filter(|listed| listed.format == format) else { return Ok(false) };
        let Some(object) = self.object_of(day, listed.sha256)? else { return Ok(false) };
        if let Some(known) = DayReader::open(target.path(), day, format)?
            && known.size() == object.size
            && hash(&known)? == object.sha256
        {
            copied.count += 1;
            advance(object.size)?;
            return Ok(true);
        }
        let url = PathBuf::from(object.url());
        let fetched = self
            .fetch_object(&object)
            .and_then(|source| duplicate(Original { file: &source, path: &url }, target, format == Format::Zstd));
        match fetched {
            Ok(Duplicate { staged, sharing, digest }) if digest == object.sha256 => {
                copied.take(sharing, object.size);
                batch.add(staged, target, &format!("{day}.{format}"))?;
            }
            Ok(Duplicate { digest, .. }) => copied.problems.push((url, not_as_expected(digest, &[object.sha256]))),
            Err(Error::ArchiveCorrupt { path, reason }) => copied.problems.push((path, reason)),
            Err(error) => {
                copied.unless_unreadable(&url, Err::<(), _>(error))?;
            }
        }
        advance(object.size)?;
        Ok(true)
    }

    /// Whether the file has all rows that the manifest knows and others besides, as when the database is an older copy.
    fn has_grown_to(&self, (day, _): DayFile, digest: Digest) -> Result<bool> {
        match self.open_grown(day) {
            Ok(grown) => Ok(grown.is_some_and(|open| open.summary.sha256 == digest)),
            Err(Error::ArchiveCorrupt { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The digests that the file may have by what the manifest says now; none if it does not know the file.
    fn expected_digests(&self, (day, format): DayFile) -> Result<Vec<Digest>> {
        let found = self.log.database().read(OPERATION, |connection| {
            [State::Current, State::Pending].into_iter().map(|state| days::load(connection, day, state)).collect()
        });
        let found: Vec<_> = match found {
            Ok(found) => found,
            // A manifest that cannot be read knows nothing.
            Err(Error::Corrupt { .. }) => Vec::new(),
            Err(error) => return Err(error),
        };
        Ok(found.into_iter().flatten().filter(|file| file.format == format).map(|file| file.sha256).collect())
    }
}

fn not_as_expected(found: Digest, expected: &[Digest]) -> String {
    let expected = expected.iter().map(Digest::to_string).collect::<Vec<_>>().join(" or ");
    format!("its sha256 is {found} and should be {expected}; it was not copied")
}

fn is_missing(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

/// Whether the file at `path` is the one that was opened, and was not written to since.
fn is_still(path: &Path, opened: &std::fs::Metadata) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|found| Stamp::of(&found) == Stamp::of(opened))
}
