//! An archive run, step by step.

use std::path::{Path, PathBuf};

use roaring::RoaringTreemap;

use super::day_file::{self, ArchivedDay, DayFile, path_of};
use super::export::{Written, write_day};
use crate::durable::{self, DirectoryLock, Durability, Staged};
use crate::error::{Error, Result};
use crate::log::index::{Archivable, archivable};
use crate::log::{self, Log, LogEntry};
use crate::time::UtcDay;

/// The meta key of the watermark: the newest day that an archive run has finished.
pub const ARCHIVED_UP_TO: &str = "archived_up_to";

/// Rows that one delete transaction takes, so that appends wait only for moments.
const DELETE_ROWS: usize = 1_000;

/// The archive of one database.
pub struct Archive {
    directory: PathBuf,
}

/// What an archive run is asked to do.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Days that end before this instant go, in milliseconds.
    pub boundary: i64,
    /// At most so many days gain rows.
    pub max_days: Option<usize>,
    /// Shrink the database file afterwards.
    pub vacuum: bool,
    /// Only tell what would be done.
    pub dry_run: bool,
}

/// What an archive run did.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The days that gained rows, oldest first.
    pub days: Vec<ArchivedDay>,
    /// Whether the database file was rewritten.
    pub vacuumed: bool,
    /// Rows that stay because their run is active.
    pub pinned_rows: u64,
    /// Rows that stay because they have no day.
    pub unarchivable_rows: u64,
}

/// Called with (rows done, rows to do), outside of any transaction; an error stops the run between two steps.
pub type Progress<'a> = dyn FnMut(u64, u64) -> Result<()> + 'a;

impl Archive {
    /// The archive in `directory`, which the first run creates.
    pub fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Where the day files are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The days that have a file, oldest first, each counted and hashed.
    pub fn days(&self) -> Result<Vec<ArchivedDay>> {
        day_file::list(&self.directory)?.into_iter().map(|day| day_file::describe(&self.directory, day)).collect()
    }

    /// The rows of `day`, one at a time.
    pub fn read(&self, day: UtcDay) -> Result<ArchivedRows> {
        DayFile::open(&self.directory, day).map(ArchivedRows)
    }

    /// Moves the rows of every day that ended before the boundary to that day's file.
    pub fn run(&self, log: &Log, options: Options, progress: &mut Progress<'_>) -> Result<Outcome> {
        let last_day = match UtcDay::last_before(options.boundary) {
            Ok(day) => day,
            // The retention reaches back beyond 1970: nothing is that old.
            Err(_) => return Ok(Outcome::default()),
        };
        // Held to the end. A dry run writes nothing, not even the lock.
        let _lock = if options.dry_run {
            None
        } else {
            log.database().check_writable("archive")?;
            Some(self.lock()?)
        };
        let Archivable { days, pinned, unarchivable } = archivable(log.database(), last_day.last_timestamp())?;
        if !options.dry_run && !days.is_empty() {
            // Rounds are numbered when their rows are sealed, which they can only be while they are here.
            log.write("index the log", Some(Durability::Normal), |transaction| transaction.seal())?;
        }
        let mut outcome = Outcome { pinned_rows: pinned, unarchivable_rows: unarchivable, ..Outcome::default() };
        let total = days.values().map(RoaringTreemap::len).sum();
        let mut done = 0;
        let mut cut_short = false;
        progress(done, total)?;
        let any = !days.is_empty();
        for (day, ids) in days {
            if options.max_days.is_some_and(|most| outcome.days.len() >= most) {
                cut_short = true;
                break;
            }
            let mut advance = |rows| {
                done += rows;
                progress(done, total)
            };
            let written = if options.dry_run {
                write_day(log.database(), &self.directory, day, &ids, &mut std::io::sink(), &mut advance)?
            } else {
                self.archive_day(log, day, &ids, &mut advance)?
            };
            if written.added_rows > 0 {
                outcome.days.push(ArchivedDay {
                    day,
                    row_count: written.row_count,
                    path: path_of(&self.directory, day),
                    size: written.size,
                    sha256: written.sha256,
                    added_rows: written.added_rows,
                });
            }
        }
        if options.dry_run {
            return Ok(outcome);
        }
        if any && !cut_short {
            set_watermark(log, last_day)?;
        }
        if options.vacuum {
            log.database().vacuum()?;
            outcome.vacuumed = true;
        }
        Ok(outcome)
    }

    /// One day: stage, write, sync, publish, sync the directory, read back and compare, and only then delete exactly
    /// the rows that are in the file.
    fn archive_day(
        &self,
        log: &Log,
        day: UtcDay,
        ids: &RoaringTreemap,
        advance: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Written> {
        let mut staged = Staged::create(&self.directory)?;
        let written = write_day(log.database(), &self.directory, day, ids, &mut staged, advance)?;
        // Also when nothing was added: an earlier run may have been killed between publishing the file and syncing the
        // directory, and its rows are deleted below.
        staged.publish(&path_of(&self.directory, day), Durability::Full)?;
        let published = day_file::describe(&self.directory, day)?;
        if (published.sha256, published.size, published.row_count) != (written.sha256, written.size, written.row_count)
        {
            let reason = "the file reads back differently from what was written; its rows were kept in the database";
            return Err(Error::ArchiveCorrupt { path: published.path, reason: reason.into() });
        }
        delete_rows(log, &written.exported)?;
        set_watermark(log, day)?;
        Ok(written)
    }

    fn lock(&self) -> Result<DirectoryLock> {
        durable::create_directories(&self.directory, Durability::Full)?;
        let lock = DirectoryLock::try_exclusive(&self.directory)?
            .ok_or_else(|| Error::ArchiveBusy { path: self.directory.clone() })?;
        durable::sweep_staged(&self.directory)?;
        Ok(lock)
    }
}

/// The rows in a day's file, read as they are asked for.
pub struct ArchivedRows(DayFile);

impl ArchivedRows {
    /// The next row; None at the end.
    pub fn next_row(&mut self) -> Result<Option<LogEntry>> {
        Ok(self.0.next_row()?.map(|(entry, _)| entry))
    }
}

/// Deletes the rows with `ids`, except those whose run was resumed meanwhile. The files that hold them are synced, so
/// a power loss that undoes a delete leaves a row in both places, which the next run settles.
fn delete_rows(log: &Log, ids: &RoaringTreemap) -> Result<()> {
    let mut ids = ids.iter().peekable();
    while ids.peek().is_some() {
        log.write("delete archived rows", Some(Durability::Normal), |transaction| {
            let mut left = DELETE_ROWS;
            while left > 0 {
                let Some(first) = ids.next() else { break };
                let mut last = first;
                left -= 1;
                while left > 0 && ids.next_if(|id| *id == last + 1).is_some() {
                    last += 1;
                    left -= 1;
                }
                log::index::delete_unpinned(transaction.connection(), first.cast_signed(), last.cast_signed())?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Moves the watermark on to `day`; never back.
fn set_watermark(log: &Log, day: UtcDay) -> Result<()> {
    log.database().write("write the watermark", None, |connection| {
        let known = log::read_meta(connection, ARCHIVED_UP_TO)?.and_then(|known| known.parse::<UtcDay>().ok());
        if known.is_some_and(|known| known >= day) {
            return Ok(());
        }
        log::write_meta(connection, ARCHIVED_UP_TO, &day.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Filter, LogConfig, NewLogEntry, append_many, query};

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

    fn run(log: &Log, archive: &Archive) -> Result<Outcome> {
        let options = Options { boundary: 50 * DAY, max_days: None, vacuum: false, dry_run: false };
        archive.run(log, options, &mut |_, _| Ok(()))
    }

    fn archived(archive: &Archive) -> Vec<LogEntry> {
        let mut rows = Vec::new();
        for day in archive.days().unwrap() {
            let mut file = archive.read(day.day).unwrap();
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
        let mut found = archived(&archive);
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
        let options = Options { boundary: 50 * DAY, max_days: None, vacuum: false, dry_run: false };
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
        assert_eq!(archived(&archive), query(&log, &Filter::default()).unwrap());
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
        let options = Options { boundary: 50 * DAY, max_days: None, vacuum: true, dry_run: true };
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
