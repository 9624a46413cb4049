//! Bringing the manifest up to date with the directory: adopting files that it does not list, such as the predecessor's,
//! and naming those that cannot be.

use std::collections::{BTreeSet, HashSet};

use rusqlite::Connection;

use crate::archive::file::format;
use crate::archive::file::summary::{Part, Summary};
use crate::archive::job::publish::save_refs;
use crate::archive::job::throttle::Throttle;
use crate::archive::manifest::catalog::Archive;
use crate::archive::manifest::days::State;
use crate::archive::manifest::seen::{DayFile, Examined};
use crate::archive::manifest::{days, refs, remote};
use crate::archive::problem::Problem;
use crate::base::error::{Error, Result};
use crate::base::time;
use crate::base::time::UtcDay;
use crate::durable;
use crate::durable::Durability;
use crate::log;

impl Archive {
    /// Resolves interrupted publications and adopts the files of days that the manifest does not list; returns the files
    /// that cannot be adopted, or are not what the manifest says. The caller holds the archive's lock.
    pub(crate) fn adopt(&self) -> Result<Vec<Problem>> {
        self.recover()?;
        self.relist_objects()?;
        let (files, described) = (self.files()?, self.described()?);
        let days: HashSet<UtcDay> = described.iter().map(|described| described.file.0).collect();
        let mut adopted = HashSet::new();
        let mut problems = Vec::new();
        for file in self.unlisted_files(&described, &files)? {
            // Of two files of one day one is adopted, and the job merges the other into it.
            if adopted.contains(&file.0) || days.contains(&file.0) && !self.is_compressed_since(file.0)? {
                continue;
            }
            match self.examine(file)?.as_deref() {
                Some(Examined::Whole(unlisted)) => {
                    self.record(&unlisted.summary, &unlisted.refs)?;
                    adopted.insert(file.0);
                }
                // It stays unlisted: a read or a job that needs its rows gets the error.
                Some(Examined::Damaged(damaged)) => problems.push(self.problem(file, damaged.error.clone())),
                None => {}
            }
        }
        if !adopted.is_empty() {
            self.forget_seen();
        }
        for file in self.changed_files(described.iter())? {
            match self.examine(file)?.as_deref() {
                Some(Examined::Whole(unlisted)) if self.open_grown(file.0)?.is_some() => {
                    self.record(&unlisted.summary, &unlisted.refs)?;
                }
                _ => problems.push(self.problem(file, self.why_changed(file)?)),
            }
        }
        Ok(problems)
    }

    /// Lists the days in an object store that the manifest does not describe any more.
    fn relist_objects(&self) -> Result<()> {
        let lost = self.log.database().read("read the manifest", remote::undescribed)?;
        if lost.is_empty() {
            return Ok(());
        }
        let files = self.files()?;
        for object in lost {
            if !object.has_file(&files)
                && let Some(Examined::Whole(file)) = self.examine_object(&object)?.as_deref()
            {
                self.list(&file.summary, &file.refs, |connection| {
                    refs::forget(connection, object.day)?;
                    refs::save(connection, object.day, file.refs.iter().map(|(ref_key, rows)| (&**ref_key, rows)))
                })?;
            }
        }
        Ok(())
    }

    /// Whether a compressed file has taken the place of the plain one that the manifest lists.
    fn is_compressed_since(&self, day: UtcDay) -> Result<bool> {
        let listed =
            self.log.database().read("read the manifest", |connection| days::load(connection, day, State::Current))?;
        listed.map_or(Ok(false), |listed| Ok(self.compressed_since(&listed)?.is_some()))
    }

    /// The files that the manifest describes.
    pub(crate) fn described(&self) -> Result<Vec<days::Described>> {
        self.log.database().read("read the manifest", days::described)
    }

    /// The days that have a file of each format.
    pub(crate) fn days_with_two_files(&self) -> Result<BTreeSet<UtcDay>> {
        let files = self.files()?;
        Ok(files.windows(2).filter(|pair| pair[0].0 == pair[1].0).map(|pair| pair[0].0).collect())
    }

    /// Lists a file in the manifest as it was found.
    pub(crate) fn record(&self, summary: &Summary, refs: &Part) -> Result<()> {
        self.sync(summary)?;
        save_refs(&self.log, &Throttle::default(), summary.day, refs)?;
        self.list(summary, refs, |_| Ok(()))
    }

    /// Lists a file in place of all that was known of its day, at once, since readers rely on it meanwhile.
    pub(crate) fn record_anew(&self, summary: &Summary, refs: &Part) -> Result<()> {
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
            log::raise_last_given_id(connection, summary.id_span().map_or(0, |span| span.last))?;
            days::save(connection, summary, State::Current, now, has_rounds)
        })?;
        self.forget_file((summary.day, summary.format));
        Ok(())
    }

    /// What is wrong with a file that is not what the manifest says.
    pub(crate) fn why_changed(&self, file: DayFile) -> Result<Error> {
        let states = self.log.database().read("read the manifest", |connection| {
            Ok([State::Pending, State::Current].map(|state| days::load(connection, file.0, state)))
        })?;
        let listed: Vec<Summary> = states.into_iter().filter_map(|state| state.ok().flatten()).collect();
        Ok(match self.examine(file)?.as_deref() {
            Some(Examined::Whole(unlisted)) => self.replaced(&unlisted.summary, listed.last()),
            Some(Examined::Damaged(damaged)) => damaged.error.clone(),
            None => self.not_as_listed(file.0, &listed),
        })
    }

    pub(crate) fn problem(&self, (day, format): DayFile, error: Error) -> Problem {
        let (path, reason) = match error {
            Error::ArchiveCorrupt { path, reason }
            | Error::Archive { path, reason }
            | Error::Io { path, reason, .. } => (path, reason),
            error => (format::path_of(self.directory(), day, format), error.to_string()),
        };
        Problem { path, day: Some(day), ids: None, reason }
    }
}
