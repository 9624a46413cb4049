//! Checkpoints: carrying commits over from the write-ahead log to the database file, on a connection of their own, while
//! the writer goes on.
//!
//! Invariants: a checkpoint is run by the thread whose commit made it due, once it has let go of the writer; one runs at
//! a time; a failed flush in one poisons the writer ([`WalState`]) and ends the checkpoints. They are run here and not by
//! SQLite's own hook, which ignores their errors. That a log begins anew beside a checkpoint needs SQLite 3.51.3, before
//! which a race between the two could lose commits (<https://sqlite.org/wal.html#walresetbug>).

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use crate::base::error::Result;
use crate::base::interrupt::check_wait;
use crate::db::failure::Context;
use crate::db::fork::Link;
use crate::db::open;
use crate::db::turn::Turns;
use crate::db::wal::WalState;
use crate::db::writer::Writer;
use crate::durable::Durability;

/// Pages of the write-ahead log that are carried over at once: 4 MiB, as SQLite's default.
pub const CHECKPOINT_PAGES: u32 = 1_000;

/// Pages from which on the log is too long, and the writer waits for the checkpoint. SQLite begins the log anew once all
/// of it has been carried over, which is never so while others commit without a pause.
pub(super) const RESTART_PAGES: u32 = 4 * CHECKPOINT_PAGES;

/// How long at the most a checkpoint waits for another process's transaction: the caller's commit is done.
const LONGEST_WAIT: Duration = Duration::from_millis(500);

pub(super) struct Checkpoints {
    wal: Arc<WalState>,
    /// `wal_pages` when the last one began.
    at: AtomicU32,
    /// None until the first one is due.
    connection: Mutex<Option<Link>>,
}

impl Checkpoints {
    pub(super) fn new(wal: Arc<WalState>) -> Self {
        Self { wal, at: AtomicU32::new(0), connection: Mutex::new(None) }
    }

    /// Runs one if so many pages, at the least, have not been carried over yet, and no other thread runs one; waits for it
    /// if the log has become long.
    ///
    /// No failure is the caller's: its commit is durable without it. A lock is another process's checkpoint, a full
    /// disk leaves the log growing until the commits say so; only an I/O error, which may be a lost flush, ends the
    /// writing.
    pub(super) fn run_if_due(&self, context: Context<'_>, writer: &Turns<Writer>, due_pages: u32) {
        let pages = self.wal.pages();
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
        if let Outcome::Left(left) = self.run(context, connection, Mode::Look)
            && left < due_pages
        {
            self.at.store(self.wal.pages().saturating_sub(left), Ordering::Relaxed);
            return;
        }
        self.run(context, connection, Mode::Passive);
        if self.wal.pages() >= RESTART_PAGES {
            self.run_alone(context, connection, writer);
        }
    }

    /// Runs one before the database is closed, if there are commits of this process in the log: other processes may go on,
    /// and then no last close runs one. A connection of its own is not worth while any more.
    pub(super) fn run_at_close(&self, context: Context<'_>, writer: &Turns<Writer>) {
        if self.wal.pages() == 0 {
            return;
        }
        let connection = match self.connection.try_lock() {
            Ok(connection) => connection,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return self.run_if_due(context, writer, 1),
        };
        if connection.is_some() {
            drop(connection);
            return self.run_if_due(context, writer, 1);
        }
        if self.wal.poison.is_set() || self.wal.files.check(context).is_err() {
            return;
        }
        if let Ok(writer) = writer.take() {
            writer.checkpoint(context);
        }
    }

    /// Runs one after which the whole log is in the database file, unless a reader needs a part of it.
    pub(super) fn run_whole(&self, context: Context<'_>, writer: &Turns<Writer>) -> Result<()> {
        let connection = &mut *self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        self.run(context, connection, Mode::Passive);
        self.run_alone(context, connection, writer);
        self.wal.poison.check(context.path)
    }

    /// None runs while this is held, and the writer is taken only afterwards.
    pub(super) fn hold(&self) -> impl Sized {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs one while no process commits: otherwise the writers would always be ahead of it.
    fn run_alone(&self, context: Context<'_>, connection: &mut Option<Link>, writer: &Turns<Writer>) {
        let deadline = Instant::now() + LONGEST_WAIT;
        let patient = Context { busy_timeout: context.busy_timeout.min(LONGEST_WAIT), ..context };
        let Ok(mut writer) = writer.take() else { return };
        // It commits nothing. Without the lock there is none; the next one tries again.
        let _ = writer.transact(patient, Durability::Normal, |_| {
            // Another process's is under way, and ends before the last commits.
            while self.run(context, connection, Mode::Passive) == Outcome::Busy && Instant::now() < deadline {
                check_wait()?;
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(())
        });
    }

    fn run(&self, context: Context<'_>, connection: &mut Option<Link>, mode: Mode) -> Outcome {
        // A connection that is opened now would be one of the files that are at the path now.
        if self.wal.poison.is_set() || self.wal.files.check(context).is_err() {
            return Outcome::Left(0);
        }
        if connection.is_none() {
            *connection = open::checkpointer(context).ok();
        }
        let Some(connection) = connection else { return Outcome::Left(0) };
        let sql = match mode {
            Mode::Look => "PRAGMA wal_checkpoint(NOOP)",
            Mode::Passive => {
                self.at.store(self.wal.pages(), Ordering::Relaxed);
                "PRAGMA wal_checkpoint(PASSIVE)"
            }
        };
        let pages = connection
            .query_row(sql, [], |row| Ok((row.get::<_, bool>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)));
        match pages {
            Ok((true, ..)) => Outcome::Busy,
            Ok((false, all, done)) => Outcome::Left(u32::try_from(all - done).unwrap_or(0)),
            Err(error) => {
                let _ = self.wal.failed(error.into(), context, connection);
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
    /// Carries over what no reader needs to find in the log, and waits for no lock.
    Passive,
}
