//! The writer: transactions at the durability asked for, and what happens when a flush fails.
//!
//! Invariant: a failed flush is never tried again, because the kernel may have dropped the pages that it could not
//! write and then report success. The writer is poisoned instead: it refuses further writes until it is opened again,
//! and its close runs no checkpoint.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use crate::base::error::{Error, Result};
use crate::base::interrupt::{check_wait, shielded, waits_since};
use crate::db::failure::{Context, Located, is_busy, is_flush_failure};
use crate::db::fork::Link;
use crate::db::frames::{Frames, together};
use crate::db::wait::wait_for_locks;
use crate::db::wal::WalState;
use crate::durable::Durability;

/// How long a transaction waits at the least, and at the most, before it looks for another process's lock again.
const SHORTEST_PAUSE: Duration = Duration::from_micros(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(1);

/// Pages that a slice of an incremental vacuum moves: 1 MiB.
const VACUUM_PAGES: u32 = 256;

pub(super) struct Writer {
    connection: Link,
    /// What the connection's `synchronous` is set to.
    synchronous: Option<Durability>,
    frames: Frames,
    wal: Arc<WalState>,
}

impl Writer {
    pub(super) fn new(mut connection: Link, wal: Arc<WalState>, context: Context<'_>) -> Result<Self> {
        let told = Arc::clone(&wal);
        let hook = move |_: &mut rusqlite::hooks::Wal, pages: std::ffi::c_int| {
            told.set_pages(pages.cast_unsigned());
            Ok(())
        };
        connection.wal_hook(Some(hook)).located(context, None)?;
        Ok(Self { connection, synchronous: None, frames: Frames::default(), wal })
    }

    /// Runs `body` in one transaction that is as durable as asked when this returns; an error changes nothing.
    pub(super) fn transact<T>(
        &mut self,
        context: Context<'_>,
        durability: Durability,
        body: impl FnOnce(&Connection) -> Result<T>,
    ) -> Result<T> {
        self.ready(context)?;
        self.set_synchronous(durability).located(context, Some(&self.connection))?;
        self.begin(context).located(context, Some(&self.connection))?;
        let value = match body(&self.connection) {
            Ok(value) => value,
            Err(error) => {
                // A transaction larger than the cache, when it begins the write-ahead log anew, flushes before its end.
                let error = match is_flush_failure(&error) {
                    true => self.wal.flush_failed(&error, context, &self.connection),
                    false => context.locate(error, Some(&self.connection)),
                };
                self.roll_back();
                return Err(error);
            }
        };
        // So that it does not go astray; all else is looked at afterwards.
        if let Err(error) = self.wal.files.check_database(context) {
            self.roll_back();
            return Err(error);
        }
        // An interrupted commit would not say whether it was one.
        let committed = together(&mut self.frames, || shielded(|| run(&self.connection, "COMMIT")));
        if let Err(error) = committed {
            let error = self.wal.failed(error.into(), context, &self.connection);
            self.roll_back();
            return Err(error);
        }
        // What happened to the files meanwhile may have taken this commit with them.
        self.wal.files.check(context)?;
        Ok(value)
    }

    /// Carries over what no reader needs to find in the log, and waits for no lock. A failed flush is remembered.
    pub(super) fn checkpoint(&self, context: Context<'_>) {
        let run = self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        let _ = run.map_err(|error| self.wal.failed(error.into(), context, &self.connection));
    }

    /// Carries the whole write-ahead log over and empties it, which shortens the database file to its pages; false if a
    /// read or another process's commit was in the way for the whole `busy_timeout`.
    pub(super) fn empty_the_log(&mut self, context: Context<'_>) -> Result<bool> {
        self.ready(context)?;
        self.wal.files.check(context)?;
        self.set_synchronous(Durability::Full).located(context, Some(&self.connection))?;
        let emptied = self.with_timeout(context, |connection| {
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0))
        });
        match emptied {
            Ok(is_busy) => Ok(is_busy == 0),
            Err(error) if is_busy(&error) => Ok(false),
            Err(error) => Err(self.wal.failed(error.into(), context, &self.connection)),
        }
    }

    /// Rewrites the database without its free pages, into the write-ahead log. In between, the pages are in a temporary
    /// file in `directory`, in memory that does not grow with them.
    pub(super) fn rebuild(&mut self, context: Context<'_>, directory: Option<&str>) -> Result<()> {
        self.ready(context)?;
        self.wal.files.check(context)?;
        self.set_synchronous(Durability::Full).located(context, Some(&self.connection))?;
        let rebuilt = self.with_timeout(context, |connection| {
            // It is the library's, for all connections; no others make temporary files. A vacuum of another store at the
            // same moment may choose the place for both, which is as good: the file has no name once it is open.
            if let Some(directory) = directory {
                let quoted = directory.replace('\'', "''");
                connection.execute_batch(&format!("PRAGMA temp_store_directory = '{quoted}'"))?;
            }
            // Full vacuums are the only way to change the mode of an existing file.
            connection.execute_batch("PRAGMA temp_store = FILE; PRAGMA auto_vacuum = INCREMENTAL; VACUUM")
        });
        let restored = self.connection.execute_batch("PRAGMA temp_store = MEMORY");
        rebuilt.and(restored).map_err(|error| self.wal.failed(error.into(), context, &self.connection))?;
        self.wal.files.check(context)
    }

    /// Runs `body` with the context's timeout in place of the connection's own.
    fn with_timeout<T>(
        &self,
        context: Context<'_>,
        body: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        self.connection.busy_timeout(context.busy_timeout)?;
        body(&self.connection)
    }

    /// Shortens the file by a few pages; says whether there was anything to do.
    pub(super) fn vacuum_slice(&mut self, context: Context<'_>) -> Result<bool> {
        self.transact(context, Durability::Normal, |connection| {
            let free: i64 = connection.query_row("PRAGMA freelist_count", [], |row| row.get(0))?;
            if free == 0 {
                return Ok(false);
            }
            // It moves one page a step.
            let mut statement = connection.prepare_cached(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
            let mut rows = statement.query([])?;
            while rows.next()?.is_some() {}
            Ok(true)
        })
    }

    /// Refuses work after a failed flush, and clears what a panic in an earlier transaction left open.
    fn ready(&self, context: Context<'_>) -> Result<()> {
        self.wal.poison.check(context.path)?;
        self.roll_back();
        Ok(())
    }

    /// Begins, and waits for another process's transaction to end. SQLite's own waiting sleeps up to 100 ms at a time,
    /// and beside a process that writes without a pause it would find the lock free once in many seconds.
    fn begin(&self, context: Context<'_>) -> Result<()> {
        wait_for_locks(&self.connection, Duration::ZERO);
        let mut began = None;
        let outcome = loop {
            match run(&self.connection, "BEGIN IMMEDIATE") {
                Err(error) if is_busy(&error) => {
                    let waited = began.get_or_insert_with(waits_since).elapsed();
                    if waited >= context.busy_timeout {
                        break Err(error.into());
                    }
                    if let Err(interrupted) = check_wait() {
                        break Err(interrupted);
                    }
                    // Most transactions are short, and looking costs next to nothing beside what was waited already.
                    std::thread::sleep((waited / 8).clamp(SHORTEST_PAUSE, LONGEST_PAUSE));
                }
                outcome => break outcome.map_err(Error::from),
            }
        };
        wait_for_locks(&self.connection, context.busy_timeout);
        outcome
    }

    fn set_synchronous(&mut self, durability: Durability) -> rusqlite::Result<()> {
        if self.synchronous == Some(durability) {
            return Ok(());
        }
        self.synchronous = None;
        run(
            &self.connection,
            match durability {
                Durability::Full => "PRAGMA synchronous = FULL",
                Durability::Normal => "PRAGMA synchronous = NORMAL",
            },
        )?;
        self.synchronous = Some(durability);
        Ok(())
    }

    fn roll_back(&self) {
        if !self.connection.is_autocommit() {
            // Only an open transaction can be rolled back, and nothing else can fail: SQLite does it itself on errors.
            let _ = run(&self.connection, "ROLLBACK");
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.wal.poison.is_set() || self.wal.files.are_replaced() {
            // The checkpoint of a last close would flush again, or remove another database's log.
            let _ = self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        }
    }
}

fn run(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(drop)
}
