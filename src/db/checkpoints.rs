//! Checkpoints: carrying commits over from the write-ahead log to the database file, on a connection of their own, while
//! the writer goes on.
//!
//! Invariants: a checkpoint is run by the thread whose commit made it due, once it has let go of the writer; one runs at
//! a time; a failed flush in one poisons the writer ([`WalState`]) and ends the checkpoints. They are run here and not by
//! SQLite's own hook, which ignores their errors. That a log begins anew beside a checkpoint needs SQLite 3.51.3, before
//! which a race between the two could lose commits (<https://sqlite.org/wal.html#walresetbug>).
//!
//! SQLite begins the log anew with the first commit that finds all of it carried over and no read transaction that needs
//! it. Where several threads or processes commit and read without a pause, that moment never comes. So from
//! [`RESTART_PAGES`] on it is made: writers are kept out until the log is carried over and the reads that need it have
//! ended. A commit that finds the log so long waits for that, which is what bounds the log for any number of writers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::base::error::Result;
use crate::base::interrupt::{afterwards, check_wait};
use crate::db::failure::Context;
use crate::db::fork::Link;
use crate::db::open;
use crate::db::turn::Turns;
use crate::db::wait::wait_for_locks;
use crate::db::wal::WalState;
use crate::db::writer::Writer;

/// Pages of the write-ahead log that are carried over at once: 4 MiB, as SQLite's default.
pub const CHECKPOINT_PAGES: u32 = 1_000;

/// Pages from which on the log is made to begin anew. Commits that are under way meanwhile stay below 16 MiB.
pub(super) const RESTART_PAGES: u32 = 3 * CHECKPOINT_PAGES;

/// How long commits wait at the most for a log to begin anew: reads that the library itself makes are shorter.
pub(super) const PATIENCE: Duration = Duration::from_millis(500);

/// Thereafter a read is in the way that lasts. The log grows meanwhile, and each time by so many pages (1 MiB) a commit
/// waits for a moment. Whenever the log has doubled, commits wait for [`PATIENCE`] again: it may have been a busy machine
/// that was in the way, and moments are shorter than the reads that follow one another.
const RETRY_PAGES: u32 = CHECKPOINT_PAGES / 4;
const MOMENT: Duration = Duration::from_millis(10);

/// Between two looks whether another process's checkpoint has ended.
const PAUSE: Duration = Duration::from_millis(1);

pub(super) struct Checkpoints {
    wal: Arc<WalState>,
    /// `wal_pages` when the last one began.
    at: AtomicU32,
    /// `wal_pages` from which on the log is to begin anew.
    restart_at: AtomicU32,
    runner: Turns<Runner>,
}

#[derive(Default)]
struct Runner {
    /// None until the first one is due.
    connection: Option<Link>,
    /// How long commits have waited for this log to begin anew, since it was last given up.
    waited: Duration,
    /// `wal_pages` from which on they wait for as long again.
    patient_at: u32,
}

impl Checkpoints {
    pub(super) fn new(wal: Arc<WalState>) -> Self {
        let (at, restart_at) = (AtomicU32::new(0), AtomicU32::new(RESTART_PAGES));
        Self { wal, at, restart_at, runner: Turns::new(Runner::default()) }
    }

    /// Runs one if so many pages, at the least, have not been carried over yet, and no other thread runs one; waits for it
    /// if the log has become long.
    ///
    /// No failure is the caller's: its commit is durable without it. A lock is another process's checkpoint, a full
    /// disk leaves the log growing until the commits say so; only an I/O error, which may be a lost flush, ends the
    /// writing.
    pub(super) fn run_if_due(&self, context: Context<'_>, writer: &Turns<Writer>, due_pages: u32) {
        if self.is_due(due_pages) {
            // An interruption, too, is not the caller's, and the next commit goes on with it.
            let _ = afterwards(Instant::now() + PATIENCE, || self.run_now(context, writer, due_pages));
        }
    }

    fn run_now(&self, context: Context<'_>, writer: &Turns<Writer>, due_pages: u32) -> Result<()> {
        let runner = &mut *match self.runner.try_take() {
            Some(runner) => runner,
            None if !self.is_long() => return Ok(()),
            // The commits are faster than the checkpoint under way.
            None => self.runner.take()?,
        };
        if !self.is_due(due_pages) {
            return Ok(());
        }
        // Other processes run them, too.
        match self.run(context, &mut runner.connection, Mode::Look) {
            Outcome::Left(left) if left < due_pages => {
                self.at.store(self.wal.pages().saturating_sub(left), Ordering::Relaxed);
            }
            _ => drop(self.run(context, &mut runner.connection, Mode::Passive)),
        }
        if self.is_long() {
            self.restart(context, runner, writer);
        }
        Ok(())
    }

    /// Runs one before the database is closed: other processes may go on, and then no last close runs one. A connection of
    /// its own is not worth while any more.
    pub(super) fn run_at_close(&self, context: Context<'_>, writer: &Turns<Writer>) {
        let runner = self.runner.try_take();
        if self.is_long() || runner.as_ref().is_none_or(|runner| runner.connection.is_some()) {
            drop(runner);
            return self.run_if_due(context, writer, 1);
        }
        let can_run = || !self.wal.poison.is_set() && self.wal.files.check(context).is_ok();
        if self.is_due(1) && can_run() {
            let _ = afterwards(Instant::now() + PATIENCE, || writer.take().map(|writer| writer.checkpoint(context)));
        }
    }

    /// Runs one after which the whole log is in the database file, unless a reader needs a part of it.
    pub(super) fn run_whole(&self, context: Context<'_>, writer: &Turns<Writer>) -> Result<()> {
        let runner = &mut *self.runner.take()?;
        self.run(context, &mut runner.connection, Mode::Passive);
        self.restart(context, runner, writer);
        self.wal.poison.check(context.path)
    }

    /// None runs while this is held, and the writer is taken only afterwards.
    pub(super) fn hold(&self) -> Result<impl Sized> {
        self.runner.take()
    }

    fn is_due(&self, due_pages: u32) -> bool {
        let pages = self.wal.pages();
        if pages < self.at.load(Ordering::Relaxed) {
            // The log has begun anew.
            self.at.store(0, Ordering::Relaxed);
            self.restart_at.store(RESTART_PAGES, Ordering::Relaxed);
        }
        pages.saturating_sub(self.at.load(Ordering::Relaxed)) >= due_pages || self.is_long()
    }

    fn is_long(&self) -> bool {
        self.wal.pages() >= self.restart_at.load(Ordering::Relaxed)
    }

    /// Makes the next commit of any process begin the log anew.
    fn restart(&self, context: Context<'_>, runner: &mut Runner, writer: &Turns<Writer>) {
        if self.restart_at.load(Ordering::Relaxed) <= RESTART_PAGES || self.wal.pages() >= runner.patient_at {
            runner.waited = Duration::ZERO;
        }
        let began = Instant::now();
        let patience = PATIENCE.saturating_sub(runner.waited).max(MOMENT).min(context.busy_timeout);
        let is_done = afterwards(began + patience, || -> Result<bool> {
            // Threads of this process wait for their turn, and those of others for SQLite's lock.
            let _writer = writer.take()?;
            if let Some(connection) = &runner.connection {
                wait_for_locks(connection, patience);
            }
            loop {
                match self.run(context, &mut runner.connection, Mode::Restart) {
                    Outcome::Left(_) => return Ok(true),
                    // Another process's checkpoint is under way, or the time is over.
                    Outcome::Busy => check_wait()?,
                    Outcome::Failed => return Ok(false),
                }
                std::thread::sleep(PAUSE);
            }
        });
        let pages = self.wal.pages();
        if runner.waited.is_zero() {
            runner.patient_at = pages.saturating_mul(2);
        }
        runner.waited += began.elapsed();
        let more = match is_done {
            Ok(true) => {
                runner.waited = Duration::ZERO;
                1
            }
            _ if runner.waited < PATIENCE => 1,
            _ => RETRY_PAGES,
        };
        self.restart_at.store(pages + more, Ordering::Relaxed);
    }

    fn run(&self, context: Context<'_>, connection: &mut Option<Link>, mode: Mode) -> Outcome {
        // A connection that is opened now would be one of the files that are at the path now.
        if self.wal.poison.is_set() || self.wal.files.check(context).is_err() {
            return Outcome::Failed;
        }
        if connection.is_none() {
            *connection = open::checkpointer(context).ok();
        }
        let Some(connection) = connection else { return Outcome::Failed };
        let sql = match mode {
            Mode::Look => "PRAGMA wal_checkpoint(NOOP)",
            Mode::Passive => "PRAGMA wal_checkpoint(PASSIVE)",
            Mode::Restart => "PRAGMA wal_checkpoint(RESTART)",
        };
        if !matches!(mode, Mode::Look) {
            self.at.store(self.wal.pages(), Ordering::Relaxed);
        }
        let pages = connection
            .query_row(sql, [], |row| Ok((row.get::<_, bool>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)));
        match pages {
            Ok((true, ..)) => Outcome::Busy,
            Ok((false, all, done)) => Outcome::Left(u32::try_from(all - done).unwrap_or(0)),
            Err(error) => {
                let _ = self.wal.failed(error.into(), context, connection);
                Outcome::Failed
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Another process runs one, or is in the way.
    Busy,
    /// So many pages have not been carried over.
    Left(u32),
    Failed,
}

#[derive(Clone, Copy)]
enum Mode {
    /// Carries nothing over.
    Look,
    /// Carries over what no reader needs to find in the log, and waits for no lock.
    Passive,
    /// Carries everything over and waits for the readers of the log, while no process commits. Waits for no checkpoint of
    /// another process.
    Restart,
}
