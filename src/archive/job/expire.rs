//! Deleting the files of old days, and what the manifest keeps of them. `docs/durability.md` goes through the steps.

use std::time::Duration;

use rusqlite::Connection;

use crate::archive::file::format::{Format, path_of};
use crate::archive::job::plan::active_runs;
use crate::archive::job::throttle::Throttle;
use crate::archive::manifest::catalog::Archive;
use crate::archive::manifest::days::State;
use crate::archive::manifest::seen::Examined;
use crate::archive::manifest::{days, expired, refs};
use crate::archive::read::day::ArchivedDay;
use crate::base::error::Result;
use crate::base::interrupt::{check, finishing};
use crate::base::time::UtcDay;
use crate::durable;
use crate::durable::Durability;
use crate::row::index_key;

impl Archive {
    /// Deletes the files of the days before `before`, but for days in which an active run has rows; returns the days.
    pub fn expire(&self, before: UtcDay, dry_run: bool) -> Result<Vec<ArchivedDay>> {
        if dry_run {
            let mut days = Vec::new();
            for day in self.days()?.into_iter().filter(|day| day.day < before) {
                if !self.is_held(day.day)? {
                    days.push(day);
                }
            }
            return Ok(days);
        }
        self.log.database().check_writable("expire the archive")?;
        self.check_owner()?;
        let _lock = self.lock(Duration::ZERO)?;
        self.adopt()?;
        let listed = self.log.database().read("read the manifest", days::list)?;
        let mut done = Vec::new();
        for listed in listed.into_iter().filter(|listed| listed.day < before) {
            check()?;
            let day = listed.day;
            let is_expired = self.log.database().write("expire a day", Some(Durability::Full), |connection| {
                // Looked at here, so that no run becomes active in between.
                if holds_active_run(connection, day)? {
                    return Ok(false);
                }
                let ids = days::load(connection, day, State::Current)?.map(|summary| summary.ids).unwrap_or_default();
                expired::expire(connection, day, &ids)?;
                Ok(true)
            })?;
            if is_expired {
                finishing(|| self.remove_expired(day))?;
                done.push(self.listed_day(listed));
            }
        }
        Ok(done)
    }

    /// Whether an active run has rows in the day's file.
    fn is_held(&self, day: UtcDay) -> Result<bool> {
        if self.log.database().read("read the manifest", |connection| holds_active_run(connection, day))? {
            return Ok(true);
        }
        // A file that a job would adopt first.
        let files = self.files()?;
        for file in self.unlisted_files(&self.described()?, &files)?.into_iter().filter(|file| file.0 == day) {
            if let Some(Examined::Whole(unlisted)) = self.examine(file)?.as_deref() {
                let runs = self.log.database().read("read the runs", active_runs)?;
                if runs.iter().any(|run_id| unlisted.refs.contains_key(&*index_key(run_id))) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Removes the files of an expired day, and what the manifest still says of its references.
    pub(crate) fn remove_expired(&self, day: UtcDay) -> Result<()> {
        for format in Format::ALL {
            durable::remove(&path_of(self.directory(), day, format), Durability::Full)?;
        }
        self.forget_seen();
        let most = Throttle::default().steps().refs;
        let normal = Some(Durability::Normal);
        while self
            .log
            .database()
            .write("write the manifest", normal, |connection| expired::forget_refs(connection, day, most))?
        {}
        self.log.database().write("write the manifest", normal, |connection| expired::settle(connection, day))
    }
}

/// Whether an active run has rows in the day's file, in the caller's transaction.
fn holds_active_run(connection: &Connection, day: UtcDay) -> Result<bool> {
    for run_id in active_runs(connection)? {
        if !refs::ids(connection, day, &index_key(&run_id))?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}
