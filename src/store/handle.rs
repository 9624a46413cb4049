//! An open log with its archive.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::archive::{self, ARCHIVED_UP_TO, Archive, ArchivedDay, JobOutcome, Options, Problem, Reindexed, Verified};
use crate::base::error::{Error, Result};
use crate::base::ids::IdSpan;
use crate::base::progress::Progress;
use crate::base::time::UtcDay;
use crate::db::{Config, Derived};
use crate::index;
use crate::log::{self, Log, LogConfig, LogStats, Pages};
use crate::row::{Filter, LogEntry};
use crate::store::follow::Follower;
use crate::store::query::Query;
use crate::store::rows::Rows;
use crate::store::tables;

/// The derived tables of a log with its archive.
static DERIVED: &[&Derived] = &[&index::schema::DERIVED, &archive::DERIVED];

/// How a store is opened.
#[derive(Clone, Debug, Default)]
pub struct StoreConfig {
    /// The database; its `derived` tables are the store's affair.
    pub database: Config,
    /// Rows of a segment of the index; None: the default.
    pub segment_rows: Option<u64>,
    /// Where the day files are; None: `archive/logs` beside the database.
    pub archive_directory: Option<PathBuf>,
}

/// An open log with its archive, shared between threads.
pub struct LogStore {
    log: Log,
    archive: Arc<Archive>,
}

impl LogStore {
    /// Opens the log at `path`, or creates it. A database without an index, such as the predecessor's, gets one now, and
    /// `progress` hears of the rows.
    pub fn open(path: &Path, config: StoreConfig, progress: &mut Progress<'_>) -> Result<Self> {
        let StoreConfig { database, segment_rows, archive_directory } = config;
        let log =
            Log::open(path, LogConfig { database: Config { derived: DERIVED, ..database }, segment_rows }, progress)?;
        let beside = || log.database().path().parent().unwrap_or(Path::new("/")).join("archive/logs");
        let directory = archive_directory.unwrap_or_else(beside);
        let archive = Arc::new(Archive::new(Arc::clone(log.core()), directory));
        archive.prepare()?;
        Ok(Self { log, archive })
    }

    /// The log alone.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The archive.
    pub fn archive(&self) -> &Arc<Archive> {
        &self.archive
    }

    /// Every row that matches, in the filter's order; `archived`: those of the archive as well.
    pub fn query(&self, filter: &Filter, archived: bool) -> Result<Vec<LogEntry>> {
        let mut query = Query::new(filter.clone(), archived);
        self.go_on(&mut query)?;
        Ok(query.into_rows())
    }

    /// Reads what is still to come of a query. After an interruption it can be called again.
    pub fn go_on(&self, query: &mut Query) -> Result<()> {
        if !query.is_of_archive() {
            return query.read(|filter, visit| log::each(&self.log, filter, visit));
        }
        self.archive.check_owner()?;
        query.read(|filter, visit| self.archive.each(filter, visit))
    }

    /// How many rows [`LogStore::query`] would return.
    pub fn count(&self, filter: &Filter, archived: bool) -> Result<u64> {
        if !archived {
            return log::count(&self.log, filter);
        }
        self.archive.check_owner()?;
        self.archive.count(filter)
    }

    /// The rows of [`LogStore::query`], page by page; no transaction is open between pages.
    pub fn iter(&self, filter: Filter, archived: bool) -> Result<Rows> {
        if archived {
            self.archive.check_owner()?;
        }
        Ok(match archived {
            true => Rows::of_both(archive::UnionPages::open(Arc::clone(&self.archive), filter)?),
            false => Rows::of_log(Pages::open(Arc::clone(self.log.core()), filter)?),
        })
    }

    /// The rows of [`LogStore::iter`] whose ids are in a span.
    pub(super) fn iter_ids(&self, filter: Filter, archived: bool, ids: IdSpan) -> Result<Rows> {
        match archived {
            true => self.iter(filter.within(ids), true),
            false => Ok(Rows::of_log(Pages::within(Arc::clone(self.log.core()), filter, ids))),
        }
    }

    /// From the least id to the greatest of the rows of [`LogStore::iter`], and about how many there are; None if these are
    /// fewer than `least` ids, or if most files have rows of about the same ids.
    pub(super) fn extent(&self, filter: &Filter, archived: bool, least: u64) -> Result<Option<(IdSpan, u64)>> {
        match archived {
            true => self.archive.extent(filter, least),
            false => log::extent(&self.log, filter, least),
        }
    }

    /// The rows that match, as they are appended by any process; `archived`: also those that leave for the archive before
    /// they are read. Where commits of other processes may go untold, they are looked for once an `interval`.
    pub fn follow(&self, filter: Filter, archived: bool, interval: Duration) -> Result<Follower> {
        if archived {
            self.archive.check_owner()?;
        }
        let archive = archived.then(|| Arc::clone(&self.archive));
        Follower::open(Arc::clone(self.log.core()), archive, filter, interval)
    }

    /// The rows in the file of `day`, in the order of ids; an `Archive` error if there is no such day.
    pub fn read_day(&self, day: UtcDay) -> Result<Rows> {
        self.log.database().check_open()?;
        Ok(Rows::of_day(Arc::clone(self.log.core()), self.archive.read(day)?))
    }

    /// The days that have a file, or should have one, oldest first.
    pub fn days(&self) -> Result<Vec<ArchivedDay>> {
        self.log.database().check_open()?;
        self.archive.days()
    }

    /// Moves the rows of every day that ended before the boundary to that day's file.
    pub fn archive_logs(&self, options: Options, progress: &mut Progress<'_>) -> Result<JobOutcome> {
        self.archive.move_days(options, progress)
    }

    /// Deletes the files of the days before `before`, but for days in which an active run has rows; returns the days.
    pub fn expire_archive(&self, before: UtcDay, dry_run: bool) -> Result<Vec<ArchivedDay>> {
        self.archive.expire(before, dry_run)
    }

    /// Puts the rows of `day` back under their ids; returns how many were not in the log.
    pub fn restore(&self, day: UtcDay, progress: &mut Progress<'_>) -> Result<u64> {
        self.archive.restore(day, progress)
    }

    /// Checks the database, the index, the runs and every file.
    pub fn verify(&self, progress: &mut Progress<'_>) -> Result<Verified> {
        let mut verified = self.archive.verify(progress)?;
        match tables::check(self.log.core()) {
            Ok(problems) => verified.problems.extend(problems),
            Err(Error::Corrupt { path, reason }) => {
                verified.problems.push(Problem { path, day: None, ids: None, reason });
            }
            Err(error) => return Err(error),
        }
        Ok(verified)
    }

    /// Builds the index and the manifest anew, from the rows and the files.
    pub fn reindex(&self, progress: &mut Progress<'_>) -> Result<Reindexed> {
        self.archive.reindex(progress)
    }

    /// How many rounds the run has, archived ones included.
    pub fn round_count(&self, run_id: &str) -> Result<u64> {
        self.archive.round_count(run_id)
    }

    /// The numbers and rows of the run's rounds numbered below `before` (0: any), the `limit` highest, newest first.
    pub(crate) fn round_rows(&self, run_id: &str, before: u64, limit: u64) -> Result<Vec<(u64, LogEntry)>> {
        self.archive.round_rows(run_id, before, limit)
    }

    /// Calls `visit` with every row of the log and the archive that matches, in the filter's order, and `unreadable` with
    /// the id of each row that cannot be read.
    pub(crate) fn each_readable(
        &self,
        filter: &Filter,
        visit: &mut dyn FnMut(LogEntry),
        unreadable: &mut dyn FnMut(i64, Error),
    ) -> Result<()> {
        self.archive.each_readable(filter, visit, unreadable)
    }

    /// Figures of the database, and the newest day that an archive job has finished; `exact`: each row is looked at.
    pub fn stats(&self, exact: bool) -> Result<(LogStats, Option<UtcDay>)> {
        let stats = log::stats(&self.log, exact)?;
        let watermark = log::get_meta(self.log.database(), ARCHIVED_UP_TO)?;
        Ok((stats, watermark.and_then(|day| day.parse().ok())))
    }

    /// The meta values whose keys begin with `prefix`, by key.
    pub fn list_meta(&self, prefix: &str) -> Result<BTreeMap<String, String>> {
        log::list_meta(self.log.database(), prefix)
    }

    /// Waits for the calls under way and closes; later calls get [`crate::Error::Closed`].
    pub fn close(&self) -> Result<()> {
        self.log.close()
    }
}

/// An error of the caller's if the key of meta is not the users' to change.
pub fn check_meta_key(key: &str) -> Result<()> {
    if key == ARCHIVED_UP_TO {
        return Err(Error::Value(format!("meta {ARCHIVED_UP_TO:?} is the archive's; archive_logs keeps it")));
    }
    Ok(())
}
