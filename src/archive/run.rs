//! An archive run, step by step. `docs/durability.md`, "Archive", says what each step is for.

use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use roaring::RoaringTreemap;

use super::catalog::Archive;
use super::days::ArchivedDay;
use super::export::{Order, Written, has_rows, write_day};
use super::finish::{save_refs, set_watermark};
use super::format::{Format, path_of};
use super::manifest::{self, State};
use super::pace::Pace;
use super::summary::Part;
use crate::durable::{self, DirectoryLock, Durability, Staged};
use crate::error::{Error, Result};
use crate::log::Log;
use crate::log::index::{Archivable, Picker, archivable, restored};
use crate::time::UtcDay;

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

/// What an archive run is asked to do.
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
    /// How long to wait for another run to end.
    pub wait: Duration,
}

/// What an archive run did.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The days that gained rows, oldest first.
    pub days: Vec<ArchivedDay>,
    /// Whether the database file was rewritten or shortened.
    pub vacuumed: bool,
    /// Rows that stay because their run is active.
    pub pinned_rows: u64,
    /// Rows that stay because they have no day.
    pub unarchivable_rows: u64,
}

impl Outcome {
    fn take(&mut self, picker: &Picker) {
        self.pinned_rows += picker.pinned;
        self.unarchivable_rows += picker.unarchivable;
    }
}

/// Called with (rows done, rows to do), outside of any transaction; an error stops the run between two steps.
pub type Progress<'a> = dyn FnMut(u64, u64) -> Result<()> + 'a;

impl Archive {
    /// Moves the rows of every day that ended before the boundary to that day's file.
    pub fn run(&self, log: &Log, options: Options, progress: &mut Progress<'_>) -> Result<Outcome> {
        let last_day = match UtcDay::last_before(options.boundary) {
            Ok(day) => day,
            // The retention reaches back beyond 1970: nothing is that old.
            Err(_) => return Ok(Outcome::default()),
        };
        if options.dry_run {
            return self.dry_run(log, last_day, options, progress);
        }
        log.database().check_writable("archive")?;
        if options.vacuum == Vacuum::Incremental {
            log.database().check_incremental_vacuum()?;
        }
        let _lock = self.lock(options.wait)?;
        let pace = &Pace::default();
        self.take_in(log, &mut |_| Ok(()))?;
        let Archivable { mut days, unarchivable } = archivable(log.database(), last_day.last_timestamp())?;
        if !days.is_empty() {
            // Rounds are numbered when their rows are sealed, which they can only be while they are here.
            log.write("index the log", Some(Durability::Normal), |transaction| transaction.seal())?;
        }
        let any = !days.is_empty();
        for day in self.days_with_two_files()? {
            days.entry(day).or_default();
        }
        let mut outcome = Outcome { unarchivable_rows: unarchivable, ..Outcome::default() };
        let total = days.values().map(RoaringTreemap::len).sum();
        progress(0, total)?;
        let mut done = 0;
        let mut advance = |rows| {
            done += rows;
            progress(done, total)
        };
        let is_complete = std::thread::scope(|scope| {
            // While a day is published and deleted, the next one is written.
            let mut finishing: Option<ScopedJoinHandle<'_, Result<()>>> = None;
            for (day, ids) in days {
                if options.max_days.is_some_and(|most| outcome.days.len() >= most) {
                    join(finishing)?;
                    return Ok(false);
                }
                if !self.has_work(log, day, &ids, &mut outcome)? {
                    advance(ids.len())?;
                    continue;
                }
                let (staged, written) = self.write(log, day, &ids, options.format, &mut outcome, pace, &mut advance)?;
                if written.added_rows > 0 {
                    outcome
                        .days
                        .push(ArchivedDay { added_rows: written.added_rows, ..self.archived_day(&written.summary) });
                }
                join(finishing.take())?;
                finishing = Some(scope.spawn(move || self.finish(log, pace, staged, &written)));
                if pace.is_gentle() {
                    join(finishing.take())?;
                }
            }
            join(finishing)?;
            Ok::<bool, Error>(true)
        })?;
        log.database().write("archive", Some(Durability::Normal), restored::forget_gone)?;
        let known = log.database().read("read the manifest", manifest::list)?;
        log.prune(Some(&self.archived_ids(log, &known, &[])?))?;
        if any && is_complete {
            set_watermark(log, last_day, Durability::Full)?;
        }
        match options.vacuum {
            Vacuum::No => {}
            Vacuum::Full => {
                log.database().vacuum()?;
                outcome.vacuumed = true;
            }
            Vacuum::Incremental => outcome.vacuumed = log.database().vacuum_incrementally()?,
        }
        Ok(outcome)
    }

    /// Tells what a run would do, and writes nothing, not even the lock.
    fn dry_run(&self, log: &Log, last_day: UtcDay, options: Options, progress: &mut Progress<'_>) -> Result<Outcome> {
        let Archivable { days, unarchivable } = archivable(log.database(), last_day.last_timestamp())?;
        let mut outcome = Outcome { unarchivable_rows: unarchivable, ..Outcome::default() };
        let total = days.values().map(RoaringTreemap::len).sum();
        let mut done = 0;
        progress(done, total)?;
        for (day, ids) in days {
            if options.max_days.is_some_and(|most| outcome.days.len() >= most) {
                break;
            }
            let mut advance = |rows| {
                done += rows;
                progress(done, total)
            };
            if !self.has_work(log, day, &ids, &mut outcome)? {
                advance(ids.len())?;
                continue;
            }
            let order = self.order(log, day, &ids, options.format)?;
            let mut picker = Picker::new(day);
            let sink = &mut std::io::sink();
            let written =
                write_day(log.database(), order, &mut picker, sink, &mut |_| Ok(()), &Pace::default(), &mut advance)?;
            outcome.take(&picker);
            if written.added_rows > 0 {
                outcome
                    .days
                    .push(ArchivedDay { added_rows: written.added_rows, ..self.archived_day(&written.summary) });
            }
        }
        Ok(outcome)
    }

    /// Whether a day gains rows, or has two files to merge; what stays of one that does not is counted here.
    fn has_work(&self, log: &Log, day: UtcDay, ids: &RoaringTreemap, outcome: &mut Outcome) -> Result<bool> {
        let mut picker = Picker::new(day);
        if has_rows(log.database(), ids, &mut picker)? || self.days_with_two_files()?.contains(&day) {
            return Ok(true);
        }
        outcome.take(&picker);
        Ok(false)
    }

    /// Stages the day's file. The references go to the manifest at once: too many do no harm.
    fn write(
        &self,
        log: &Log,
        day: UtcDay,
        ids: &RoaringTreemap,
        format: Format,
        outcome: &mut Outcome,
        pace: &Pace,
        advance: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<(Staged, Written)> {
        let order = self.order(log, day, ids, format)?;
        let mut staged = Staged::create(self.directory())?;
        let mut take_part = |part: Part| save_refs(log, pace, day, &part);
        let mut picker = Picker::new(day);
        let written = write_day(log.database(), order, &mut picker, &mut staged, &mut take_part, pace, advance)?;
        outcome.take(&picker);
        Ok((staged, written))
    }

    fn order<'a>(&self, log: &Log, day: UtcDay, ids: &'a RoaringTreemap, format: Format) -> Result<Order<'a>> {
        let (is_known, has_rounds) = log.database().read("read the manifest", |connection| {
            Ok((manifest::load(connection, day, State::Current)?.is_some(), manifest::has_rounds(connection, day)?))
        })?;
        let mut existing = Vec::new();
        let mut known_format = None;
        if is_known {
            let known = self.open_known(log, day)?;
            known_format = Some(known.summary.format);
            existing.push(known);
        }
        // What the manifest does not know: the other file of the day, which an interrupted run left, or, in a dry run,
        // files that a run would take in first.
        for format in Format::ALL.into_iter().filter(|format| Some(*format) != known_format) {
            existing.extend(self.open_unknown(day, format)?);
        }
        let is_compressed = existing.iter().any(|file| file.summary.format == Format::Zstd);
        let format = if is_compressed { Format::Zstd } else { format };
        let has_rounds = has_rounds || existing.len() > usize::from(is_known);
        Ok(Order { day, format, path: path_of(self.directory(), day, format), ids, existing, has_rounds })
    }

    /// Takes the archive's lock, and removes what killed runs left staged.
    pub(super) fn lock(&self, wait: Duration) -> Result<DirectoryLock> {
        durable::create_directories(self.directory(), Durability::Full)?;
        let deadline = Instant::now() + wait;
        let lock = loop {
            match DirectoryLock::try_exclusive(self.directory())? {
                Some(lock) => break lock,
                None if Instant::now() < deadline => std::thread::sleep(LOCK_INTERVAL),
                None => return Err(Error::ArchiveBusy { path: self.directory().to_owned() }),
            }
        };
        durable::sweep_staged(self.directory())?;
        Ok(lock)
    }
}

fn join(finishing: Option<ScopedJoinHandle<'_, Result<()>>>) -> Result<()> {
    match finishing {
        Some(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::ARCHIVED_UP_TO;
    use crate::log::{self, Filter, LogConfig, LogEntry, NewLogEntry, append_many, query};

    const DAY: i64 = 86_400_000;

    fn opened() -> (tempfile::TempDir, Log, Archive) {
        let directory = tempfile::tempdir().unwrap();
        let log = Log::open(&directory.path().join("logs.db"), LogConfig::default(), &mut |_, _| Ok(())).unwrap();
        let archive = Archive::new(directory.path().join("archive/logs"));
        (directory, log, archive)
    }

    fn append(log: &Log, timestamps: impl IntoIterator<Item = i64>) {
        let rows: Vec<_> = timestamps
            .into_iter()
            .map(|timestamp| NewLogEntry {
                source: "s",
                kind: "t",
                ref_id: Some("run"),
                payload: None,
                timestamp: Some(timestamp),
            })
            .collect();
        append_many(log, &rows, None).unwrap();
    }

    fn options() -> Options {
        Options {
            boundary: 50 * DAY,
            max_days: None,
            format: Format::Plain,
            vacuum: Vacuum::No,
            dry_run: false,
            wait: Duration::ZERO,
        }
    }

    fn run(log: &Log, archive: &Archive) -> Result<Outcome> {
        let options = options();
        archive.run(log, options, &mut |_, _| Ok(()))
    }

    fn archived(log: &Log, archive: &Archive) -> Vec<LogEntry> {
        let mut rows = Vec::new();
        for day in archive.days(log).unwrap() {
            let mut file = archive.read(log, day.day).unwrap();
            while let Some(row) = file.next_row().unwrap() {
                rows.push(row);
            }
        }
        rows
    }

    #[test]
    fn late_rows_join_their_days_and_nothing_is_lost() {
        let (_directory, log, archive) = opened();
        append(&log, (10..20).flat_map(|day| (0..1_500).map(move |row| day * DAY + row)));
        let mut all = query(&log, &Filter::default()).unwrap();
        assert_eq!(run(&log, &archive).unwrap().days.len(), 10);
        append(&log, [10 * DAY, 0, 60 * DAY]);
        let late = query(&log, &Filter::default()).unwrap();
        let outcome = run(&log, &archive).unwrap();
        let gained: Vec<_> =
            outcome.days.iter().map(|day| (day.day.to_string(), day.row_count, day.added_rows)).collect();
        assert_eq!(gained, [("1970-01-01".to_owned(), 1, 1), ("1970-01-11".to_owned(), 1_501, 1)]);
        assert_eq!(query(&log, &Filter::default()).unwrap(), late[2..]);
        all.extend_from_slice(&late[..2]);
        let mut found = archived(&log, &archive);
        found.sort_unstable_by_key(|row| row.id);
        assert_eq!(found, all);
        assert_eq!(log::get_meta(log.database(), ARCHIVED_UP_TO).unwrap().unwrap(), "1970-02-19");
    }

    #[test]
    fn rows_of_an_active_run_stay_until_it_ends() {
        let (_directory, log, archive) = opened();
        append(&log, [5 * DAY, 5 * DAY + 1]);
        let set = |status: &str| {
            log.database()
                .write("test", None, |connection| {
                    connection
                        .execute("INSERT OR REPLACE INTO workflow_runs VALUES ('run', 'w', ?1, 0, NULL)", [status])?;
                    Ok(())
                })
                .unwrap();
        };
        for status in ["queued", "started", "unheard of"] {
            set(status);
            let outcome = run(&log, &archive).unwrap();
            assert_eq!((outcome.days.len(), outcome.pinned_rows), (0, 2), "{status}");
        }
        set("crashed");
        assert_eq!(run(&log, &archive).unwrap().days[0].row_count, 2);
    }

    #[test]
    fn a_row_resumed_between_export_and_delete_stays() {
        let (_directory, log, archive) = opened();
        append(&log, [5 * DAY]);
        let options = options();
        archive
            .run(&log, options, &mut |done, total| {
                if done == total {
                    log.database().write("test", None, |connection| {
                        Ok(connection
                            .execute_batch("INSERT INTO workflow_runs VALUES ('run', 'w', 'started', 0, NULL)")?)
                    })?;
                }
                Ok(())
            })
            .unwrap();
        assert_eq!(archived(&log, &archive), query(&log, &Filter::default()).unwrap());
    }

    #[test]
    fn a_damaged_or_foreign_file_stops_the_run_before_anything_is_deleted() {
        for content in [
            "{\"id\":1,\"source\":\"s\"",
            "{\"id\":1,\"source\":\"s\",\"type\":\"t\",\"refId\":\"run\",\"payload\":null,\"timestamp\":432000000}",
            "not a row\n",
            "{\"id\":1,\"source\":\"other\",\"type\":\"t\",\"refId\":\"run\",\"payload\":null,\"timestamp\":432000000}\n",
            "{\"id\":7,\"source\":\"s\",\"type\":\"t\",\"refId\":null,\"payload\":null,\"timestamp\":0}\n",
        ] {
            let (_directory, log, archive) = opened();
            append(&log, [5 * DAY]);
            durable::create_directories(archive.directory(), Durability::Normal).unwrap();
            let path = archive.directory().join("1970-01-06.jsonl");
            let mut file = Staged::create(archive.directory()).unwrap();
            std::io::Write::write_all(&mut file, content.as_bytes()).unwrap();
            file.publish(&path, Durability::Normal).unwrap();
            let refused = run(&log, &archive);
            assert!(
                matches!(refused, Err(Error::ArchiveCorrupt { .. } | Error::Archive { .. })),
                "{content}: {refused:?}"
            );
            assert_eq!(query(&log, &Filter::default()).unwrap().len(), 1);
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
            assert_eq!(std::fs::read_dir(archive.directory()).unwrap().count(), 1, "nothing staged is left");
        }
    }

    #[test]
    fn a_second_run_at_once_is_refused_and_a_dry_run_changes_nothing() {
        let (directory, log, archive) = opened();
        append(&log, [5 * DAY]);
        let options = Options { vacuum: Vacuum::Full, dry_run: true, ..options() };
        let told = archive.run(&log, options, &mut |_, _| Ok(())).unwrap();
        assert!(!told.vacuumed && !directory.path().join("archive").exists());
        let mut refused = Vec::new();
        let done = archive
            .run(&log, Options { dry_run: false, ..options }, &mut |_, _| {
                refused.push(run(&log, &archive));
                Ok(())
            })
            .unwrap();
        assert!(!refused.is_empty() && refused.iter().all(|refused| matches!(refused, Err(Error::ArchiveBusy { .. }))));
        assert_eq!(done.days, told.days);
    }
}
