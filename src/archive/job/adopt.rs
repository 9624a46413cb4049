//! Bringing the manifest up to date with the directory: settling what an interrupted run left, and taking in files that
//! it does not know, such as the predecessor's.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::archive::file::format;
use crate::archive::file::format::Format;
use crate::archive::file::summary::{Part, Summary};
use crate::archive::job::publish::save_refs;
use crate::archive::job::throttle::Pace;
use crate::archive::manifest::catalog::Archive;
use crate::archive::manifest::days::State;
use crate::archive::manifest::{days, refs};
use crate::base::error::{Error, Result};
use crate::base::progress::Progress;
use crate::base::time;
use crate::base::time::UtcDay;
use crate::durable;
use crate::durable::Durability;

impl Archive {
    /// Settles interrupted publications and takes unknown files in. The caller holds the archive's lock.
    pub(crate) fn take_in(&self) -> Result<()> {
        self.settle()?;
        let files = self.files()?;
        let unknown =
            self.log.database().read("read the manifest", |connection| self.unknown_files(connection, &files))?;
        for (index, (day, format)) in unknown.iter().enumerate() {
            // Of two files of one day the first is taken in, and the run merges the other into it.
            let is_second = index.checked_sub(1).is_some_and(|before| unknown[before].0 == *day);
            if is_second {
                continue;
            }
            match self.unknown((*day, *format)) {
                Ok(Some(file)) => self.save_unknown(&file.summary, &file.refs)?,
                Ok(None) => {}
                // It stays unknown: whoever needs its rows, or is to add some, gets the error, and `verify` names it.
                Err(Error::ArchiveCorrupt { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        if !unknown.is_empty() {
            self.forget_unknown();
        }
        Ok(())
    }

    /// Builds the manifest anew from the files, and the log's index from the rows. A file that is damaged, or that lacks
    /// rows, is left to what the manifest says of it; what it says of a missing one is forgotten.
    pub fn reindex(&self, progress: &mut Progress<'_>) -> Result<()> {
        self.log.database().check_writable("rebuild the index")?;
        if !self.log.database().read("read the manifest", days::is_empty)? || !self.files()?.is_empty() {
            let _lock = self.lock(Duration::ZERO)?;
            let settled = self.settle().and_then(|()| self.log.database().read("read the manifest", days::list));
            let known = match settled {
                Ok(known) => known,
                // It is damaged, and the files say everything anew.
                Err(Error::Corrupt { .. }) => {
                    self.log.database().write("write the manifest", None, days::forget_all)?;
                    Vec::new()
                }
                Err(error) => return Err(error),
            };
            let total = known.iter().map(|listed| listed.row_count).sum();
            let mut done = 0;
            for listed in &known {
                match self.unknown((listed.day, listed.format)) {
                    Ok(Some(file)) if self.lacks_rows(&file.summary)? => {}
                    Ok(Some(file)) => self.save_unknown(&file.summary, &file.refs)?,
                    Ok(None) => self
                        .log
                        .database()
                        .write("write the manifest", None, |connection| days::forget_day(connection, listed.day))?,
                    Err(Error::ArchiveCorrupt { .. }) => {}
                    Err(error) => return Err(error),
                }
                done += listed.row_count;
                progress(done, total)?;
            }
            self.forget_unknown();
            self.take_in()?;
        }
        self.log.reindex(&|connection, visit| refs::each_round(connection, visit), refs::forget_rounds, progress)
    }

    /// The days that have a file of each format.
    pub(crate) fn days_with_two_files(&self) -> Result<BTreeSet<UtcDay>> {
        let files = self.files()?;
        Ok(files.windows(2).filter(|pair| pair[0].0 == pair[1].0).map(|pair| pair[0].0).collect())
    }

    /// Whether rows are missing in the day's file: an empty file looks whole, and is not.
    fn lacks_rows(&self, found: &Summary) -> Result<bool> {
        self.log.database().read("read the manifest", |connection| {
            // What the manifest says may be damaged as well; then the file counts.
            let known = days::load(connection, found.day, State::Current).ok().flatten();
            Ok(known.is_some_and(|known| !known.ids.is_subset(&found.ids)))
        })
    }

    fn save_unknown(&self, summary: &Summary, refs: &Part) -> Result<()> {
        // Nothing is known of how it was written; from now on it is relied upon.
        let path = format::path_of(self.directory(), summary.day, summary.format);
        if let Some(file) = durable::open_regular(&path)? {
            durable::sync_file(&file, &path)?;
        }
        durable::sync_parent(&path, Durability::Full)?;
        save_refs(&self.log, &Pace::default(), summary.day, refs)?;
        let has_rounds = refs.values().any(|rows| !rows.rounds.is_empty());
        let now = time::now()?;
        self.log.database().write("write the manifest", None, |connection| {
            days::save(connection, summary, State::Current, now, has_rounds)
        })?;
        self.forget_file((summary.day, summary.format));
        Ok(())
    }

    /// A publication that was interrupted has either happened or not.
    fn settle(&self) -> Result<()> {
        for day in self.log.database().read("read the manifest", days::pending)? {
            let found = match self.open_known(day) {
                Ok(found) => Some(found.summary),
                // A day that had no file before, and has none.
                Err(Error::ArchiveCorrupt { .. } | Error::Archive { .. }) => None,
                Err(error) => return Err(error),
            };
            let path = format::path_of(self.directory(), day, Format::Plain);
            // The entry may not have been synced when the run was killed.
            durable::sync_parent(&path, Durability::Full)?;
            let [pending, replaced] = self.log.database().read("read the manifest", |connection| {
                Ok([State::Pending, State::Current].map(|state| days::load(connection, day, state)))
            })?;
            let (pending, replaced) = (pending?, replaced?);
            let is_published = found.zip(pending.as_ref()).is_some_and(|(found, pending)| found.is_same_file(pending));
            if let (true, Some(pending), Some(replaced)) = (is_published, pending, replaced)
                && pending.format != replaced.format
            {
                durable::remove(&format::path_of(self.directory(), day, replaced.format), Durability::Full)?;
            }
            self.log.database().write("write the manifest", None, |connection| match is_published {
                true => days::promote(connection, day),
                false => days::forget(connection, day, State::Pending),
            })?;
        }
        Ok(())
    }
}
