//! Bringing the manifest up to date with the directory: adopting files that it does not list, such as the predecessor's.

use std::collections::BTreeSet;
use std::time::Duration;

use roaring::RoaringTreemap;
use rusqlite::Connection;

use crate::archive::file::format;
use crate::archive::file::summary::{Part, Summary};
use crate::archive::job::publish::save_refs;
use crate::archive::job::throttle::Throttle;
use crate::archive::manifest::catalog::Archive;
use crate::archive::manifest::days::State;
use crate::archive::manifest::{days, refs};
use crate::base::error::{Error, Result};
use crate::base::progress::Progress;
use crate::base::time;
use crate::base::time::UtcDay;
use crate::durable;
use crate::durable::Durability;
use crate::index::build::sealer::Archived;

impl Archive {
    /// Resolves interrupted publications and adopts unlisted files; returns the ids in them. The caller holds the
    /// archive's lock.
    pub(crate) fn adopt(&self) -> Result<RoaringTreemap> {
        self.recover()?;
        let mut adopted = RoaringTreemap::new();
        let files = self.files()?;
        let unlisted =
            self.log.database().read("read the manifest", |connection| self.unlisted_files(connection, &files))?;
        for (index, (day, format)) in unlisted.iter().enumerate() {
            // Of two files of one day the first is adopted, and the job merges the other into it.
            let is_second = index.checked_sub(1).is_some_and(|before| unlisted[before].0 == *day);
            if is_second {
                continue;
            }
            match self.unlisted((*day, *format)) {
                Ok(Some(file)) => {
                    self.record(&file.summary, &file.refs)?;
                    adopted |= &file.summary.ids;
                }
                Ok(None) => {}
                // It stays unlisted: a read or a job that needs its rows gets the error, and `verify` names it.
                Err(Error::ArchiveCorrupt { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        if !unlisted.is_empty() {
            self.forget_unlisted();
        }
        Ok(adopted)
    }

    /// Builds the manifest anew from the files, and the log's index from the rows. A file that is damaged, or that lacks
    /// rows, is left to what the manifest says of it; what it says of a missing one is forgotten.
    pub fn reindex(&self, progress: &mut Progress<'_>) -> Result<()> {
        self.log.database().check_writable("rebuild the index")?;
        // What the files themselves say of rounds; what the old index says of theirs may be damaged.
        let mut read = RoaringTreemap::new();
        if !self.log.database().read("read the manifest", days::is_empty)? || !self.files()?.is_empty() {
            let _lock = self.lock(Duration::ZERO)?;
            self.log.database().write("write the manifest", None, days::forget_strays)?;
            let recovered = self.recover().and_then(|()| self.log.database().read("read the manifest", days::list));
            let known = match recovered {
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
                match self.unlisted((listed.day, listed.format)) {
                    Ok(Some(file)) if self.lacks_rows(&file.summary)? => {}
                    Ok(Some(file)) => {
                        self.record_anew(&file.summary, &file.refs)?;
                        read |= &file.summary.ids;
                    }
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
            self.forget_unlisted();
            read |= self.adopt()?;
        }
        let archived = Archived { ids: &read, each_round: &|connection, visit| refs::each_round(connection, visit) };
        self.log.reindex(&archived, refs::forget_rounds, progress)
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
            Ok(known.is_some_and(|known| !known.is_same_file(found) && !known.ids.is_subset(&found.ids)))
        })
    }

    /// Lists a file.
    fn record(&self, summary: &Summary, refs: &Part) -> Result<()> {
        self.sync(summary)?;
        save_refs(&self.log, &Throttle::default(), summary.day, refs)?;
        self.list(summary, refs, |_| Ok(()))
    }

    /// Lists a file in place of all that was known of its day, at once, since readers rely on it meanwhile.
    fn record_anew(&self, summary: &Summary, refs: &Part) -> Result<()> {
        self.sync(summary)?;
        self.list(summary, refs, |connection| {
            refs::forget(connection, summary.day)?;
            refs::save(connection, summary.day, refs.iter().map(|(ref_key, rows)| (&**ref_key, rows)))
        })
    }

    /// Nothing is known of how a file was written that is relied upon from now on.
    fn sync(&self, summary: &Summary) -> Result<()> {
        let path = format::path_of(self.directory(), summary.day, summary.format);
        if let Some(file) = durable::open_regular(&path)? {
            durable::sync_file(&file, &path)?;
        }
        durable::sync_parent(&path, Durability::Full)
    }

    fn list(&self, summary: &Summary, refs: &Part, first: impl FnOnce(&Connection) -> Result<()>) -> Result<()> {
        let has_rounds = refs.values().any(|rows| !rows.rounds.is_empty());
        let now = time::now()?;
        self.log.database().write("write the manifest", None, |connection| {
            first(connection)?;
            days::save(connection, summary, State::Current, now, has_rounds)
        })?;
        self.forget_file((summary.day, summary.format));
        Ok(())
    }
}
