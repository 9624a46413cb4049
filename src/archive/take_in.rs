//! Bringing the manifest up to date with the directory: settling what an interrupted run left, and taking in files that
//! it does not know, such as the predecessor's.

use super::catalog::Archive;
use super::format::{self, Format};
use super::manifest::{self, State};
use super::run::save_refs;
use super::summary::{Part, Summary};
use crate::durable::{self, Durability};
use crate::error::{Error, Result};
use crate::log::Log;
use crate::time::{self, UtcDay};

impl Archive {
    /// Settles interrupted publications and takes unknown files in. The caller holds the archive's lock. `advance` hears
    /// of the rows that were read.
    pub(super) fn take_in(&self, log: &Log, advance: &mut dyn FnMut(u64) -> Result<()>) -> Result<()> {
        self.settle(log)?;
        let files = self.files()?;
        let unknown = log.database().read("read the manifest", |connection| self.unknown_files(connection, &files))?;
        for (index, (day, format)) in unknown.iter().enumerate() {
            // Of two files of one day the first is taken in, and the run merges the other into it.
            let is_second = index.checked_sub(1).is_some_and(|before| unknown[before].0 == *day);
            if is_second {
                continue;
            }
            let Some(file) = self.unknown((*day, *format))? else { continue };
            self.save_unknown(log, &file.summary, &file.refs)?;
            advance(file.summary.row_count())?;
        }
        if !unknown.is_empty() {
            self.forget_unknown();
        }
        Ok(())
    }

    /// The days that have a file of each format.
    pub(super) fn days_with_two_files(&self) -> Result<Vec<UtcDay>> {
        let files = self.files()?;
        Ok(files.windows(2).filter(|pair| pair[0].0 == pair[1].0).map(|pair| pair[0].0).collect())
    }

    fn save_unknown(&self, log: &Log, summary: &Summary, refs: &Part) -> Result<()> {
        // Nothing is known of how it was written; from now on it is relied upon.
        let path = format::path_of(self.directory(), summary.day, summary.format);
        if let Some(file) = durable::open_regular(&path)? {
            durable::sync_file(&file, &path)?;
        }
        durable::sync_parent(&path, Durability::Full)?;
        save_refs(log, summary.day, refs)?;
        let has_rounds = refs.values().any(|rows| !rows.rounds.is_empty());
        let now = time::now()?;
        log.database().write("write the manifest", None, |connection| {
            manifest::save(connection, summary, State::Current, now, has_rounds)
        })
    }

    /// A publication that was interrupted has either happened or not.
    fn settle(&self, log: &Log) -> Result<()> {
        for day in log.database().read("read the manifest", manifest::pending)? {
            let found = match self.open_known(log, day) {
                Ok(found) => Some(found.summary),
                // A day that had no file before, and has none.
                Err(Error::ArchiveCorrupt { .. } | Error::Archive { .. }) => None,
                Err(error) => return Err(error),
            };
            let path = format::path_of(self.directory(), day, Format::Plain);
            // The entry may not have been synced when the run was killed.
            durable::sync_parent(&path, Durability::Full)?;
            log.database().write("write the manifest", None, |connection| {
                let pending = manifest::load(connection, day, State::Pending)?;
                if found.zip(pending).is_some_and(|(found, pending)| found.is_same_file(&pending)) {
                    manifest::promote(connection, day)
                } else {
                    manifest::forget(connection, day, State::Pending)
                }
            })?;
        }
        Ok(())
    }
}
