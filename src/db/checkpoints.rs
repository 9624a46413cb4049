//! Checkpoints: carrying commits over from the write-ahead log to the database file, on a connection of their own, while
//! the writer goes on.
//!
//! Invariants: a checkpoint is run by the thread whose commit made it due, once it has let go of the writer; one runs at
//! a time; a failed flush in one poisons the writer ([`Flushes`]) and ends the checkpoints. They are run here and not by
//! SQLite's own hook, which ignores their errors. That a log begins anew beside a checkpoint needs SQLite 3.51.3, before
//! which a race between the two could lose commits (<https://sqlite.org/wal.html#walresetbug>).

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::base::error::{Error, Result};
use crate::db::failure::{Place, is_io_failure, system_errno};
use crate::db::open;
use crate::db::writer::Writer;
use crate::durable::Durability;

/// Pages of the write-ahead log that are carried over at once: 4 MiB, as SQLite's default.
pub const CHECKPOINT_PAGES: u32 = 1_000;

/// Pages from which on the log is too long, and the writer waits for the checkpoint. SQLite begins the log anew once all
/// of it has been carried over, which is never so while others commit without a pause.
const RESTART_PAGES: u32 = 4 * CHECKPOINT_PAGES;

/// How long at the most a checkpoint waits for another process's transaction: the caller's commit is done.
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// What is known of the write-ahead log and its flushes, by the writer and the checkpoints.
#[derive(Default)]
pub(super) struct Flushes {
    /// Told by SQLite.
    wal_pages: AtomicU32,
    failed: OnceLock<FailedFlush>,
}

struct FailedFlush {
    reason: String,
    errno: i32,
}

impl Flushes {
    /// Pages in the write-ahead log after the last commit.
    fn wal_pages(&self) -> u32 {
        self.wal_pages.load(Ordering::Relaxed)
    }

    /// Notes how many there are now.
    pub(super) fn set_wal_pages(&self, pages: u32) {
        self.wal_pages.store(pages, Ordering::Relaxed);
    }

    /// An error after a failed flush.
    pub(super) fn check(&self, place: Place<'_>) -> Result<()> {
        match self.failed.get() {
            None => Ok(()),
            Some(failed) => {
                Err(Error::Poisoned { path: place.path.to_owned(), reason: failed.reason.clone(), errno: failed.errno })
            }
        }
    }

    /// Whether one failed.
    pub(super) fn have_failed(&self) -> bool {
        self.failed.get().is_some()
    }

    /// Notes that `error`, on `connection`, may have been a failed flush. The first one counts.
    pub(super) fn fail(&self, error: &Error, connection: &Connection) {
        let errno = match system_errno(connection) {
            0 => libc::EIO,
            errno => errno,
        };
        let _ = self.failed.set(FailedFlush { reason: error.to_string(), errno });
    }
}

pub(super) struct Checkpoints {
    flushes: Arc<Flushes>,
    /// `wal_pages` when the last one began.
    at: AtomicU32,
    /// None until the first one is due.
    connection: Mutex<Option<Connection>>,
}

impl Checkpoints {
    pub(super) fn new(flushes: Arc<Flushes>) -> Self {
        Self { flushes, at: AtomicU32::new(0), connection: Mutex::new(None) }
    }

    /// Runs one if so many pages, at the least, have not been carried over yet, and nobody else runs one; waits for it
    /// if the log has become long.
    ///
    /// No failure is the caller's: its commit is durable without it. A lock is another process's checkpoint, a full
    /// disk leaves the log growing until the commits say so; only an I/O error, which may be a lost flush, ends the
    /// writing.
    pub(super) fn run_if_due(&self, place: Place<'_>, writer: &Mutex<Writer>, due_pages: u32) {
        let pages = self.flushes.wal_pages();
        if pages < self.at.load(Ordering::Relaxed) {
            // The log has begun anew.
            self.at.store(0, Ordering::Relaxed);
        }
        if pages.saturating_sub(self.at.load(Ordering::Relaxed)) < due_pages {
            return;
        }
        let connection = &mut *match self.connection.try_lock() {
            Ok(connection) => connection,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) if pages < RESTART_PAGES => return,
            // The commits are faster than the checkpoint under way.
            Err(TryLockError::WouldBlock) => self.connection.lock().unwrap_or_else(PoisonError::into_inner),
        };
        // Other processes run them, too.
        if let Outcome::Left(left) = self.run(place, connection, Mode::Look)
            && left < due_pages
        {
            self.at.store(self.flushes.wal_pages().saturating_sub(left), Ordering::Relaxed);
            return;
        }
        self.run(place, connection, Mode::Passive);
        if self.flushes.wal_pages() >= RESTART_PAGES {
            self.run_alone(place, connection, writer);
        }
    }

    /// Runs one after which the whole log is in the database file, unless a reader needs a part of it.
    pub(super) fn run_whole(&self, place: Place<'_>, writer: &Mutex<Writer>) -> Result<()> {
        let connection = &mut *self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        self.run(place, connection, Mode::Passive);
        self.run_alone(place, connection, writer);
        self.flushes.check(place)
    }

    /// None runs while this is held, and the writer is taken only afterwards.
    pub(super) fn hold(&self) -> impl Sized {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs one while nobody commits, not in another process either: of two that write, one would always be ahead.
    fn run_alone(&self, place: Place<'_>, connection: &mut Option<Connection>, writer: &Mutex<Writer>) {
        let deadline = Instant::now() + LONGEST_WAIT;
        let patient = Place { busy_timeout: place.busy_timeout.min(LONGEST_WAIT), ..place };
        let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
        // It commits nothing. Without the lock there is none; the next one tries again.
        let _ = writer.transact(patient, Durability::Normal, |_| {
            // Another process's is under way, and ends before the last commits.
            while self.run(place, connection, Mode::Passive) == Outcome::Busy && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(())
        });
    }

    fn run(&self, place: Place<'_>, connection: &mut Option<Connection>, mode: Mode) -> Outcome {
        if self.flushes.have_failed() {
            return Outcome::Left(0);
        }
        if connection.is_none() {
            *connection = open::checkpointer(place).ok();
        }
        let Some(connection) = connection else { return Outcome::Left(0) };
        let sql = match mode {
            Mode::Look => "PRAGMA wal_checkpoint(NOOP)",
            Mode::Passive => {
                self.at.store(self.flushes.wal_pages(), Ordering::Relaxed);
                "PRAGMA wal_checkpoint(PASSIVE)"
            }
        };
        let pages = connection
            .query_row(sql, [], |row| Ok((row.get::<_, bool>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)));
        match pages {
            Ok((true, ..)) => Outcome::Busy,
            Ok((false, all, done)) => Outcome::Left(u32::try_from(all - done).unwrap_or(0)),
            Err(error) => {
                let error = Error::from(error);
                if is_io_failure(&error) {
                    self.flushes.fail(&error, connection);
                }
                Outcome::Left(0)
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Another process runs one.
    Busy,
    /// So many pages have not been carried over. None, too, after a failure.
    Left(u32),
}

#[derive(Clone, Copy)]
enum Mode {
    /// Carries nothing over.
    Look,
    /// Carries over what no reader needs to find in the log, and waits for nobody.
    Passive,
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::db::{Config, Database};

    const PAGE: u64 = 4_096;

    fn opened(directory: &tempfile::TempDir) -> Database {
        Database::open(&directory.path().join("logs.db"), Config::default()).unwrap()
    }

    /// Commits that many pages, one in each transaction.
    fn fill(database: &Database, name: &str, pages: u32) {
        for page in 0..pages {
            database
                .write("test", Some(Durability::Normal), |connection| {
                    let value = "x".repeat(3_000);
                    connection.execute("INSERT INTO meta VALUES (?1, ?2)", (format!("{name}{page}"), value))?;
                    Ok(())
                })
                .unwrap();
        }
    }

    fn wal_bytes(database: &Database) -> u64 {
        database.path().with_extension("db-wal").metadata().unwrap().len()
    }

    fn pages_left(database: &Database) -> i64 {
        let look = Connection::open(database.path()).unwrap();
        look.query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| Ok(row.get::<_, i64>(1)? - row.get::<_, i64>(2)?))
            .unwrap()
    }

    #[test]
    fn sqlite_has_no_race_between_a_checkpoint_and_a_log_that_begins_anew() {
        assert!(rusqlite::version_number() >= 3_051_003);
    }

    #[test]
    fn the_log_stays_short() {
        let directory = tempfile::tempdir().unwrap();
        let database = opened(&directory);
        fill(&database, "alone", 3 * CHECKPOINT_PAGES);
        assert!(wal_bytes(&database) < 2 * u64::from(CHECKPOINT_PAGES) * PAGE, "{}", wal_bytes(&database));
        std::thread::scope(|scope| {
            for thread in ["a", "b", "c"] {
                let database = &database;
                scope.spawn(move || fill(database, thread, 4 * CHECKPOINT_PAGES));
            }
        });
        assert!(wal_bytes(&database) < 2 * u64::from(RESTART_PAGES) * PAGE, "{}", wal_bytes(&database));
        assert!(pages_left(&database) < 2 * i64::from(CHECKPOINT_PAGES));
    }

    #[test]
    fn the_log_stays_short_beside_another_process() {
        let directory = tempfile::tempdir().unwrap();
        let (first, second) = (opened(&directory), opened(&directory));
        std::thread::scope(|scope| {
            for (database, name) in [(&first, "a"), (&second, "b")] {
                scope.spawn(move || fill(database, name, 10 * CHECKPOINT_PAGES));
            }
        });
        assert!(wal_bytes(&first) < 2 * u64::from(RESTART_PAGES) * PAGE, "{}", wal_bytes(&first));
    }

    #[test]
    fn a_vacuum_shortens_the_files_beside_checkpoints() {
        let directory = tempfile::tempdir().unwrap();
        let database = &opened(&directory);
        fill(database, "a", 500);
        let is_done = &AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                while !is_done.load(Ordering::Relaxed) {
                    database.checkpoint_if_due(0);
                }
            });
            let left: Vec<_> = (0..5).map(|_| database.vacuum().map(|()| wal_bytes(database))).collect();
            is_done.store(true, Ordering::Relaxed);
            for left in left {
                assert_eq!(left.unwrap(), 0);
            }
        });
    }

    #[test]
    fn one_that_another_process_has_run_is_not_run_again() {
        let directory = tempfile::tempdir().unwrap();
        let (first, second) = (opened(&directory), opened(&directory));
        fill(&first, "a", 10);
        first.checkpoint_if_due(10);
        assert_eq!(pages_left(&first), 0);
        fill(&second, "b", 1);
        let left = pages_left(&second);
        assert!(left > 0);
        second.checkpoint_if_due(10);
        assert_eq!(pages_left(&second), left, "all but the last commit had been carried over");
    }

    #[test]
    fn a_failed_flush_poisons_the_writer_and_ends_the_checkpoints() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("logs.db");
        let place = Place { path: &path, operation: "test", busy_timeout: Duration::ZERO };
        opened(&directory).close().unwrap();
        let flushes = Arc::new(Flushes::default());
        let writer = Writer::new(open::writer(place, &[]).unwrap(), Arc::clone(&flushes), place).unwrap();
        let (writer, checkpoints) = (Mutex::new(writer), Checkpoints::new(Arc::clone(&flushes)));
        let put = |key: &str| {
            writer.lock().unwrap().transact(place, Durability::Normal, |connection| {
                connection.execute("INSERT INTO meta VALUES (?1, '')", [key])?;
                Ok(())
            })
        };
        put("before").unwrap();
        let failure =
            rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_FSYNC), None);
        flushes.fail(&failure.into(), &Connection::open_in_memory().unwrap());
        assert!(matches!(put("after"), Err(Error::Poisoned { errno: libc::EIO, .. })));
        checkpoints.run_if_due(place, &writer, 1);
        assert!(matches!(checkpoints.run_whole(place, &writer), Err(Error::Poisoned { .. })));
        drop((checkpoints, writer));
        let wal = path.with_extension("db-wal");
        assert!(wal.metadata().unwrap().len() > 0, "nothing was carried over, not even by the last close");
    }
}
