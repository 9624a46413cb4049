//! The files in the directory: which there are, which are not what the manifest describes, and what those hold, which are
//! read whole once and described in memory until a job or `reindex` adopts them.

use std::collections::HashSet;
use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::AtFlags;

use crate::archive::file::block::Block;
use crate::archive::file::format;
use crate::archive::file::reader::DayReader;
use crate::archive::file::remains::Remains;
use crate::archive::file::scan::{Watch, scan};
use crate::archive::file::summary::{Part, Summary};
use crate::archive::manifest::catalog::Archive;
use crate::archive::manifest::days::{Described, State};
use crate::archive::manifest::seen::{DamagedFile, DayFile, Examined, Files, Stamp, Unlisted};
use crate::archive::manifest::{days, expired};
use crate::base::error::{Error, Result};
use crate::base::interrupt::check_wait;
use crate::log;
use crate::row::is_round_entry;

/// A directory that changed less than this ago may change again without its time telling.
const SETTLED: Duration = Duration::from_secs(2);

/// A file that changed less than this ago may be in the middle of being written, as the predecessor does in place.
const REWRITTEN: Duration = Duration::from_millis(300);
/// Between two looks at such a file, and how long they go on.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

impl Archive {
    /// The files in the directory.
    pub(in crate::archive) fn files(&self) -> Result<Files> {
        let modified = match std::fs::metadata(self.directory()) {
            Ok(metadata) => metadata.modified(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Arc::new([])),
            Err(error) => Err(error),
        };
        let modified = modified.map_err(|error| Error::io(self.directory(), "list the archive", &error))?;
        if let Some((at, files)) = &self.seen().listing
            && *at == modified
        {
            return Ok(Arc::clone(files));
        }
        let files: Files = format::list(self.directory())?.into();
        let is_settled = modified.elapsed().is_ok_and(|elapsed| elapsed > SETTLED);
        self.seen().listing = is_settled.then(|| (modified, Arc::clone(&files)));
        Ok(files)
    }

    /// The files that the manifest does not describe: of days that it does not list, and second ones of days that it
    /// does. `described` is what one transaction told; what a job has published since is looked up.
    pub(in crate::archive) fn unlisted_files(
        &self,
        described: &[Described],
        files: &[DayFile],
    ) -> Result<Vec<DayFile>> {
        let unlisted = without(files, described);
        if unlisted.is_empty() {
            return Ok(unlisted);
        }
        let (described, expired) = self.log.database().read("read the manifest", |connection| {
            Ok((days::described(connection)?, expired::pending(connection)?))
        })?;
        let mut unlisted = without(&unlisted, &described);
        unlisted.retain(|file| !expired.contains(&file.0));
        Ok(unlisted)
    }

    /// Those of the described files that are there, and are not what the manifest says. One that was changed a moment ago is
    /// looked at again for a while.
    pub(in crate::archive) fn changed_files<'a>(
        &self,
        described: impl Iterator<Item = &'a Described>,
    ) -> Result<Vec<DayFile>> {
        let mut changed = Vec::new();
        // Each look is then one short step.
        let directory = match File::open(self.directory()) {
            Ok(directory) => directory,
            // Each file is then missed when it is opened.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(changed),
            Err(error) => return Err(Error::io(self.directory(), "look at the archive", &error)),
        };
        for file in described.filter(|described| described.state == State::Current) {
            if let Some(stamp) = look(&directory, file.file)
                && file.is_untouched(stamp)
            {
                continue;
            }
            let mut began = None;
            while let Some(stamp) = self.stamp(file.file)?
                && !file.is_untouched(stamp)
                && !self.is_as_listed(file.file)?
            {
                let began = *began.get_or_insert_with(Instant::now);
                if !is_recent(stamp.modified) || began.elapsed() > LONGEST_WAIT {
                    changed.push(file.file);
                    break;
                }
                check_wait()?;
                std::thread::sleep(LOOK_AGAIN);
            }
        }
        Ok(changed)
    }

    /// The state of a file; None if there is none.
    pub(in crate::archive) fn stamp(&self, (day, format): DayFile) -> Result<Option<Stamp>> {
        let path = format::path_of(self.directory(), day, format);
        match std::fs::symlink_metadata(&path) {
            Ok(metadata) => Ok(Some(Stamp::of(&metadata))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(&path, "look at an archive file", &error)),
        }
    }

    /// Whether a file that has another size, or was changed later, than one state of the manifest says is nevertheless one
    /// that the manifest describes: a job may have published it since, and a copy of the directory has times of its own.
    fn is_as_listed(&self, file: DayFile) -> Result<bool> {
        let known = self.seen().unchanged.get(&file).copied();
        let mut tried = None;
        loop {
            let states = self.log.database().read("read the manifest", |connection| {
                Ok([State::Pending, State::Current].map(|state| days::load(connection, file.0, state)))
            })?;
            // What is damaged in the manifest describes nothing.
            let states: Vec<Summary> = states.into_iter().filter_map(|state| state.ok().flatten()).collect();
            for summary in &states {
                if summary.format != file.1 {
                    // The file is about to be removed, or to be put in the place of the other one.
                    if self.stamp((file.0, summary.format))?.is_some_and(|other| other.size == summary.size) {
                        return Ok(true);
                    }
                    continue;
                }
                let Some(stamp) = self.stamp(file)? else { return Ok(true) };
                if stamp.size != summary.size {
                    continue;
                }
                if known == Some((stamp, summary.sha256)) || self.has_same_ends(file, summary) {
                    self.seen().unchanged.insert(file, (stamp, summary.sha256));
                    return Ok(true);
                }
            }
            let digests: Vec<_> = states.iter().map(|summary| summary.sha256).collect();
            // A job may have published another file since; then the manifest has changed as well.
            if tried.as_ref() == Some(&digests) {
                return Ok(false);
            }
            tried = Some(digests);
        }
    }

    /// Whether the first and the last block of the file are what the manifest says: a file that was written anew with
    /// other rows differs there, and damage between them is found when the block is read.
    fn has_same_ends(&self, (day, format): DayFile, summary: &Summary) -> bool {
        let Ok(Some(reader)) = DayReader::open(self.directory(), day, format) else { return false };
        let blocks: Vec<Block> =
            [summary.blocks.first(), summary.blocks.last()].into_iter().flatten().copied().collect();
        reader.with_blocks(blocks).check_blocks().is_ok()
    }

    /// What is in a file that the manifest does not describe; None if it is gone. One that is damaged and was changed a
    /// moment ago is looked at again for a while.
    pub(in crate::archive) fn examine(&self, file: DayFile) -> Result<Option<Arc<Examined>>> {
        let began = Instant::now();
        loop {
            let Some(stamp) = self.stamp(file)? else { return Ok(None) };
            let known =
                self.seen().examined.get(&file).filter(|known| known.0 == stamp).map(|known| Arc::clone(&known.1));
            let examined = match known {
                Some(known) => known,
                None => {
                    let examined = self.read_whole(file)?;
                    let Some(examined) = examined.map(Arc::new) else { return Ok(None) };
                    self.seen().examined.insert(file, (stamp, Arc::clone(&examined)));
                    examined
                }
            };
            let is_damaged = matches!(*examined, Examined::Damaged(_));
            if is_damaged && is_recent(stamp.modified) && began.elapsed() < LONGEST_WAIT {
                check_wait()?;
                std::thread::sleep(LOOK_AGAIN);
                continue;
            }
            return Ok(Some(examined));
        }
    }

    fn read_whole(&self, (day, format): DayFile) -> Result<Option<Examined>> {
        self.read_opened(&|| DayReader::open(self.directory(), day, format))
    }

    /// What is in a file, which is read from end to end; None if it is gone.
    pub(in crate::archive) fn read_opened(
        &self,
        open: &dyn Fn() -> Result<Option<DayReader>>,
    ) -> Result<Option<Examined>> {
        let mut refs = Part::new();
        let mut take_part = |part: Part| {
            for (ref_id, rows) in part {
                let known = refs.entry(ref_id).or_default();
                known.ids.extend(rows.ids);
                known.rounds.extend(rows.rounds);
            }
            Ok(())
        };
        let watch = Watch { take_part: &mut take_part, is_round: &is_round_entry };
        let scanned = match open() {
            Ok(Some(reader)) => scan(reader, watch),
            Ok(None) => return Ok(None),
            Err(error) => Err(error),
        };
        let error = match scanned {
            Ok(summary) => return Ok(Some(Examined::Whole(Arc::new(Unlisted { summary, refs })))),
            Err(error) if is_of_the_file(&error) => error,
            Err(error) => return Err(error),
        };
        let remains = match open() {
            Ok(Some(reader)) => Remains::read(reader),
            Ok(None) => return Ok(None),
            Err(_) => Remains::dark(),
        };
        let bound = self.log.database().read("read the manifest", log::last_given_id)?;
        Ok(Some(Examined::Damaged(Box::new(DamagedFile { error, remains, bound }))))
    }

    /// What is in a file that was there a moment ago, or in the one by which a job has replaced it since.
    pub(in crate::archive) fn examine_or_replaced(&self, (day, format): DayFile) -> Result<Option<Arc<Examined>>> {
        match self.examine((day, format))? {
            Some(examined) => Ok(Some(examined)),
            None => self.examine((day, format.other())),
        }
    }

    /// What is in a file that must be whole; None if it is gone.
    pub(in crate::archive) fn unlisted(&self, file: DayFile) -> Result<Option<Arc<Unlisted>>> {
        let Some(examined) = self.examine(file)? else { return Ok(None) };
        match &*examined {
            Examined::Whole(unlisted) => Ok(Some(Arc::clone(unlisted))),
            Examined::Damaged(damaged) => Err(damaged.error.clone()),
        }
    }
}

/// The state of a file in an open directory, if it can be told.
fn look(directory: &File, (day, format): DayFile) -> Option<Stamp> {
    let name = format!("{day}.{format}");
    let stat = rustix::fs::statat(directory, name.as_str(), AtFlags::SYMLINK_NOFOLLOW).ok()?;
    Some(Stamp::of_stat(&stat))
}

/// Whether an error says that this file cannot be read, and not that nothing can.
pub(in crate::archive) fn is_of_the_file(error: &Error) -> bool {
    matches!(error, Error::ArchiveCorrupt { .. }) || error.is_unreadable()
}

/// Whether a file that was changed then may be in the middle of being written.
fn is_recent(modified: SystemTime) -> bool {
    modified.elapsed().is_ok_and(|elapsed| elapsed < REWRITTEN)
}

/// Repeats what fails because a file is damaged, for as long as the file may be in the middle of being written.
pub(in crate::archive) fn patiently<T>(mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let began = Instant::now();
    loop {
        match attempt() {
            Err(Error::ArchiveCorrupt { path, reason }) => {
                let modified = std::fs::symlink_metadata(&path).and_then(|metadata| metadata.modified());
                if !modified.is_ok_and(is_recent) || began.elapsed() > LONGEST_WAIT {
                    return Err(Error::ArchiveCorrupt { path, reason });
                }
                check_wait()?;
                std::thread::sleep(LOOK_AGAIN);
            }
            outcome => return outcome,
        }
    }
}

fn without(files: &[DayFile], described: &[Described]) -> Vec<DayFile> {
    let described: HashSet<DayFile> = described.iter().map(|described| described.file).collect();
    files.iter().filter(|file| !described.contains(file)).copied().collect()
}
