//! An archive job, step by step. `docs/durability.md`, "Archive", says what each step is for.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::time::{Duration, Instant};

use roaring::RoaringTreemap;

use crate::archive::file::format::{Format, path_of};
use crate::archive::file::summary::{Part, TakePart};
use crate::archive::job::export::{Order, Written, has_rows, write_day};
use crate::archive::job::plan::{Archivable, Picker, active_runs, archivable};
use crate::archive::job::publish::{save_refs, set_watermark};
use crate::archive::job::throttle::Throttle;
use crate::archive::manifest::catalog::Archive;
use crate::archive::manifest::days::State;
use crate::archive::manifest::overlap::described;
use crate::archive::manifest::{days, expired};
use crate::archive::problem::Problem;
use crate::archive::read::day::ArchivedDay;
use crate::base::error::{Error, Result};
use crate::base::interrupt::{check_wait, finishing};
use crate::base::parallel;
use crate::base::parallel::Started;
use crate::base::progress::Progress;
use crate::base::scope::scope;
use crate::base::time::UtcDay;
use crate::durable;
use crate::durable::{DirectoryLock, Durability, Staged};
use crate::index::doubt;
use crate::index::lookup::restored;
use crate::log::prune_keys;
use crate::row::Filter;

/// Between two attempts to lock the archive.
const LOCK_INTERVAL: Duration = Duration::from_millis(20);

/// What becomes of the space that archived rows leave in the database file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Vacuum {
    /// New rows use it first.
    #[default]
    No,
    /// The file is rewritten without it, in one go.
    Full,
    /// It is returned in slices, between which others write.
    Incremental,
}

/// What an archive job is asked to do.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Days that end before this instant go, in milliseconds.
    pub boundary: i64,
    /// At most so many days gain rows.
    pub max_days: Option<usize>,
    /// The format of new files, and of plain ones that gain rows. A compressed file stays compressed.
    pub format: Format,
    /// The space that is left.
    pub vacuum: Vacuum,
    /// Only tell what would be done.
    pub dry_run: bool,
    /// How long to wait for another job to end.
    pub wait: Duration,
}

/// What an archive job did.
#[derive(Debug, Default)]
pub struct JobOutcome {
    /// The days that gained rows, oldest first.
    pub days: Vec<ArchivedDay>,
    /// Whether the database file has become shorter.
    pub vacuumed: bool,
    /// Rows that stay because their run is active.
    pub pinned_rows: u64,
    /// Rows that stay because they have no day.
    pub unarchivable_rows: u64,
    /// Files that could not be adopted, or are not what the manifest says, and that no row needed.
    pub problems: Vec<Problem>,
}

impl Archive {
    /// Moves the rows of every day that ended before the boundary to that day's file.
    pub fn move_days(&self, options: Options, progress: &mut Progress<'_>) -> Result<JobOutcome> {
        let last_day = match UtcDay::last_before(options.boundary) {
            Ok(day) => day,
            // The retention reaches back beyond 1970: nothing is that old.
            Err(_) => return Ok(JobOutcome::default()),
        };
        let throttle = &Throttle::default();
        if options.dry_run {
            // It writes nothing, not even the lock.
            let mut job = Job::plan(self, options, last_day, throttle, progress)?;
            job.each_day(|job, day, ids| job.write(day, ids, &mut std::io::sink(), &mut |_| Ok(())).map(drop))?;
            job.check_conflicts()?;
            return Ok(job.outcome);
        }
        self.log.database().check_writable("archive")?;
        if options.vacuum == Vacuum::Incremental {
            self.log.database().check_incremental_vacuum()?;
        }
        self.check_owner()?;
        let _lock = self.lock(options.wait)?;
        let problems = self.adopt()?;
        let mut job = Job::plan(self, options, last_day, throttle, progress)?;
        job.outcome.problems = problems;
        if job.total > 0 {
            // Rounds are numbered when their rows are sealed, which they can only be while they are here.
            self.log.write("index the log", Some(Durability::Normal), |transaction| transaction.seal())?;
        }
        let is_complete = job.move_all()?;
        self.log.database().write("archive", Some(Durability::Normal), |connection| {
            restored::forget_gone(connection)?;
            doubt::settle(connection)
        })?;
        let known = self.log.database().read("read the manifest", days::list)?;
        let expired = self.log.database().read("read the manifest", expired::ids)?;
        self.log.prune(Some(&(self.archived_ids(&known, &[])? | expired)))?;
        prune_keys(&self.log)?;
        job.check_conflicts()?;
        if is_complete && job.has_moved {
            set_watermark(&self.log, last_day, Durability::Full)?;
        }
        let mut outcome = job.outcome;
        match options.vacuum {
            Vacuum::No => {}
            Vacuum::Full => outcome.vacuumed = self.log.database().vacuum()?,
            Vacuum::Incremental => outcome.vacuumed = self.log.database().vacuum_incrementally()?,
        }
        Ok(outcome)
    }

    /// Takes the archive's lock, and removes what killed jobs left staged.
    pub(crate) fn lock(&self, wait: Duration) -> Result<DirectoryLock> {
        durable::create_directories(self.directory(), Durability::Full)?;
        let deadline = Instant::now() + wait;
        let lock = loop {
            match DirectoryLock::try_exclusive(self.directory())? {
                Some(lock) => break lock,
                None if Instant::now() < deadline => {
                    check_wait()?;
                    std::thread::sleep(LOCK_INTERVAL);
                }
                None => return Err(Error::ArchiveBusy { path: self.directory().to_owned() }),
            }
        };
        durable::sweep_staged(self.directory())?;
        Ok(lock)
    }
}

/// A job under way.
struct Job<'a> {
    archive: &'a Archive,
    options: Options,
    /// Days up to this one go.
    last_day: UtcDay,
    /// The ids among which are the rows of each day.
    days: BTreeMap<UtcDay, RoaringTreemap>,
    /// Those whose two files are to be merged.
    with_two_files: BTreeSet<UtcDay>,
    throttle: &'a Throttle,
    progress: &'a mut Progress<'a>,
    /// Rows done, and rows to do.
    done: u64,
    total: u64,
    outcome: JobOutcome,
    /// Whether a row was moved, now or by an interrupted job before.
    has_moved: bool,
    /// The ids in all files.
    archived: RoaringTreemap,
    /// Rows of the log with ids of rows in files of other days.
    conflicts: RoaringTreemap,
    /// The first day that was left out because its file has other rows under ids of the log.
    conflict: Option<Error>,
}

impl<'a> Job<'a> {
    fn plan(
        archive: &'a Archive,
        options: Options,
        last_day: UtcDay,
        throttle: &'a Throttle,
        progress: &'a mut Progress<'a>,
    ) -> Result<Self> {
        let Archivable { mut days, unarchivable } = archivable(archive.log.database(), last_day.last_timestamp())?;
        let with_two_files = archive.days_with_two_files()?;
        for day in &with_two_files {
            days.entry(*day).or_default();
        }
        let total = days.values().map(RoaringTreemap::len).sum();
        let archived = if total > 0 {
            let listed = archive.log.database().read("read the manifest", days::list)?;
            archive.archived_ids(&listed, &[])?
        } else {
            RoaringTreemap::new()
        };
        progress(0, total)?;
        let outcome = JobOutcome { unarchivable_rows: unarchivable, ..JobOutcome::default() };
        Ok(Self {
            archive,
            options,
            last_day,
            days,
            with_two_files,
            throttle,
            progress,
            done: 0,
            total,
            outcome,
            has_moved: false,
            archived,
            conflicts: RoaringTreemap::new(),
            conflict: None,
        })
    }

    /// Writes, publishes and deletes day after day; false if some are left because of `max_days`.
    fn move_all(&mut self) -> Result<bool> {
        let (archive, throttle) = (self.archive, self.throttle);
        scope(|scope| {
            // While a day is published and deleted, the next one is written; unless others need the processors.
            let mut publishing: Option<Started<()>> = None;
            let is_complete = self.each_day(|job, day, ids| {
                let mut staged = Staged::create(archive.directory())?;
                // The references go to the manifest at once: too many do no harm.
                let mut take_part = |part: Part| save_refs(&archive.log, throttle, day, &part);
                let written = job.write(day, ids, &mut staged, &mut take_part)?;
                if written.summary.row_count() == 0 {
                    // The runs of all its rows have become active since it was looked at.
                    return Ok(());
                }
                job.has_moved |= !written.exported.is_empty();
                join(publishing.take())?;
                let publish = move |(staged, written): (Staged, Written)| {
                    // A file that is published has its rows deleted, too, before the job is stopped.
                    finishing(|| archive.publish(throttle, staged, &written))
                };
                match parallel::start(scope, (staged, written), publish) {
                    Ok(thread) => publishing = Some(thread),
                    Err(finished) => publish(finished)?,
                }
                if throttle.is_throttled() { join(publishing.take()) } else { Ok(()) }
            })?;
            join(publishing)?;
            Ok(is_complete)
        })
    }

    /// Calls `each` with every day that gains rows or has two files to merge, and counts what stays of the others; false
    /// if some are left because of `max_days`.
    fn each_day(&mut self, mut each: impl FnMut(&mut Self, UtcDay, &RoaringTreemap) -> Result<()>) -> Result<bool> {
        for (day, ids) in std::mem::take(&mut self.days) {
            let foreign = self.foreign(day, &ids)?;
            let mut picker = Picker::new(day, &foreign);
            let has_work =
                has_rows(self.archive.log.database(), &ids, &mut picker)? || self.with_two_files.contains(&day);
            if !has_work {
                self.count_staying(picker);
                self.advance(ids.len())?;
            } else if self.options.max_days.is_some_and(|most| self.outcome.days.len() >= most) {
                self.outcome.pinned_rows += self.pinned_from(day)?;
                return Ok(false);
            } else {
                match each(self, day, &ids) {
                    // The other days are moved nevertheless.
                    Err(error @ Error::IdConflict { .. }) => self.conflict = self.conflict.take().or(Some(error)),
                    outcome => outcome?,
                }
            }
        }
        Ok(true)
    }

    /// Writes the day's file to `sink`.
    fn write(
        &mut self,
        day: UtcDay,
        ids: &RoaringTreemap,
        sink: &mut (dyn Write + Send),
        take_part: &mut TakePart<'_>,
    ) -> Result<Written> {
        let order = self.order(day, ids)?;
        let (database, throttle) = (self.archive.log.database(), self.throttle);
        let foreign = self.foreign(day, ids)?;
        let mut picker = Picker::new(day, &foreign);
        let written =
            write_day(database, order, &mut picker, sink, take_part, throttle, &mut |rows| self.advance(rows))?;
        self.count_staying(picker);
        if written.added_rows > 0 {
            let day = self.archive.archived_day(&written.summary);
            self.outcome.days.push(ArchivedDay { added_rows: written.added_rows, ..day });
        }
        Ok(written)
    }

    fn order<'b>(&self, day: UtcDay, ids: &'b RoaringTreemap) -> Result<Order<'b>> {
        let archive = self.archive;
        let (is_known, has_rounds) = archive.log.database().read("read the manifest", |connection| {
            Ok((days::is_listed(connection, day)?, days::has_rounds(connection, day)?))
        })?;
        let mut existing = Vec::new();
        let mut known_format = None;
        if is_known {
            let known = archive.open_known(day)?;
            known_format = Some(known.summary.format);
            existing.push(known);
        }
        // What the manifest does not know: the other file of the day, which an interrupted job left, or, in a dry run,
        // files that a job would adopt first.
        for format in Format::ALL.into_iter().filter(|format| Some(*format) != known_format) {
            existing.extend(archive.open_unlisted((day, format))?);
        }
        let is_compressed = existing.iter().any(|file| file.summary.format == Format::Zstd);
        let format = if is_compressed { Format::Zstd } else { self.options.format };
        let has_rounds = has_rounds || existing.len() > usize::from(is_known);
        Ok(Order { day, format, path: path_of(archive.directory(), day, format), ids, existing, has_rounds })
    }

    fn advance(&mut self, rows: u64) -> Result<()> {
        self.done += rows;
        (self.progress)(self.done, self.total)
    }

    /// Those of the ids that files of other days hold.
    fn foreign(&self, day: UtcDay, ids: &RoaringTreemap) -> Result<RoaringTreemap> {
        let shared = ids & &self.archived;
        if shared.is_empty() {
            return Ok(shared);
        }
        let archive = self.archive;
        let listed = archive
            .log
            .database()
            .read("read the manifest", |connection| days::load(connection, day, State::Current))?;
        Ok(shared - listed.map(|listed| listed.ids).unwrap_or_default())
    }

    /// An error if rows were left out because their ids are those of archived rows.
    fn check_conflicts(&mut self) -> Result<()> {
        if let Some(error) = self.conflict.take() {
            return Err(error);
        }
        if self.conflicts.is_empty() {
            return Ok(());
        }
        let path = self.archive.directory().to_owned();
        Err(Error::IdConflict { path, reason: described(&self.conflicts) })
    }

    fn count_staying(&mut self, picker: Picker<'_>) {
        self.conflicts |= picker.conflicts;
        self.outcome.pinned_rows += picker.pinned;
        self.outcome.unarchivable_rows += picker.unarchivable;
    }

    /// How many rows of this day and later ones stay because their run is active.
    fn pinned_from(&self, day: UtcDay) -> Result<u64> {
        let (since, until) = (Some(day.first_timestamp()), Some(self.last_day.last_timestamp()));
        self.archive.log.read("count the rows of active runs", |snapshot| {
            let mut count = 0;
            for run_id in active_runs(snapshot.connection())? {
                // Rows without a positive id are not archivable, whatever their run.
                let filter = Filter { ref_id: Some(run_id), since, until, after_id: Some(0), ..Filter::default() };
                count += snapshot.count(&filter)?;
            }
            Ok(count)
        })
    }
}

fn join(publishing: Option<Started<()>>) -> Result<()> {
    publishing.map_or(Ok(()), Started::join)
}
