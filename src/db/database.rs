//! A handle on one database file: the writer, the readers, and who may still use them.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock, TryLockError};
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::types::Value;

use crate::base::error::{Error, Result};
use crate::base::fork::Generation;
use crate::base::interrupt::check_wait;
use crate::db::checkpoints::{CHECKPOINT_PAGES, Checkpoints};
use crate::db::failure::{Context, Located, read_only};
use crate::db::fork::Link;
use crate::db::held::HeldFiles;
use crate::db::readers::Readers;
use crate::db::schema::Derived;
use crate::db::sql::{self, NamedRows, SqlParams};
use crate::db::turn::{Turn, Turns};
use crate::db::wal::WalState;
use crate::db::writer::Writer;
use crate::db::{fork, open, vacuum};
use crate::durable::Durability;

/// Between two looks at the calls under way while the database closes.
const CLOSE_INTERVAL: Duration = Duration::from_millis(1);

/// How a database is opened.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// What a write survives unless the call says otherwise.
    pub durability: Durability,
    /// Refuse every write, create nothing.
    pub read_only: bool,
    /// How long to wait for another process's lock.
    pub busy_timeout: Duration,
    /// The tables that modules above keep beside the rows.
    pub derived: &'static [&'static Derived],
}

impl Default for Config {
    fn default() -> Self {
        Self { durability: Durability::Full, read_only: false, busy_timeout: Duration::from_secs(30), derived: &[] }
    }
}

/// An open database, shared between threads.
pub struct Database {
    path: PathBuf,
    config: Config,
    generation: Generation,
    /// A call that begins after this was set is refused.
    is_closed: AtomicBool,
    /// None once closed. Calls hold it shared, so that `close`, alone in writing to it, waits for them. No call waits for
    /// it.
    connections: RwLock<Option<Connections>>,
}

/// Closed in this order.
struct Connections {
    readers: Readers,
    /// For the users' own SQL: nothing of ours waits behind it, and it can do nothing but read.
    sql_readers: Readers,
    /// None in a read-only store.
    writing: Option<Writing>,
    files: Arc<HeldFiles>,
}

struct Writing {
    checkpoints: Checkpoints,
    /// The last to be closed, so that its close runs the final checkpoint.
    writer: Turns<Writer>,
}

impl Database {
    /// Opens the file at `path`, or creates it.
    pub fn open(path: &Path, config: Config) -> Result<Self> {
        fork::check_usable(path)?;
        fork::prepare();
        let generation = Generation::current();
        let path = open::resolve(path, !config.read_only)?;
        let context = Context { path: &path, operation: "open the database", busy_timeout: config.busy_timeout };
        let readers = Readers::default();
        let (writing, files) = if config.read_only {
            readers.keep(open::unprepared_reader(context, config.derived)?);
            (None, Arc::new(HeldFiles::of_reader(context)?))
        } else {
            let writer = open::writer(context, config.derived)?;
            let files = Arc::new(HeldFiles::of_writer(context)?);
            (Some(Writing::new(writer, WalState::new(Arc::clone(&files)), context)?), files)
        };
        let connections = Connections { readers, sql_readers: Readers::default(), writing, files };
        Ok(Self {
            path,
            config,
            generation,
            is_closed: AtomicBool::new(false),
            connections: RwLock::new(Some(connections)),
        })
    }

    /// The absolute path of the database file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How it was opened.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether `close` was called. Waits for nothing.
    pub fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// Whether this process is the one that opened it. A forked child waits for no lock of it: a thread of its parent may
    /// have held that.
    pub fn is_of_this_process(&self) -> bool {
        self.generation.is_current()
    }

    /// An error if it is closed, or if this process is a forked child.
    pub fn check_open(&self) -> Result<()> {
        self.connected(|_| Ok(()))
    }

    /// The same, and an error if it was opened read-only. Waits for no writer.
    pub fn check_writable(&self, operation: &'static str) -> Result<()> {
        self.with_writing(operation, |_, _| Ok(()))
    }

    /// Runs `body` in one read transaction: it sees one state of the database.
    pub fn read<T>(&self, operation: &'static str, body: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let open = |context: Context<'_>| match self.config.read_only {
            true => open::unprepared_reader(context, self.config.derived),
            false => open::reader(context),
        };
        self.connected(|connections| {
            let context = self.context(operation);
            connections.readers.with(context, &connections.files, open, body)
        })
    }

    /// Runs `body` in one write transaction, as durable as asked when this returns; an error changes nothing.
    pub fn write<T>(
        &self,
        operation: &'static str,
        durability: Option<Durability>,
        body: impl FnOnce(&Connection) -> Result<T>,
    ) -> Result<T> {
        let value = self.commit(operation, durability, body)?;
        self.checkpoint_if_due(CHECKPOINT_PAGES);
        Ok(value)
    }

    /// Like [`Self::write`], but leaves the checkpoint to the caller, who lets others go on first, or wants another.
    pub fn commit<T>(
        &self,
        operation: &'static str,
        durability: Option<Durability>,
        body: impl FnOnce(&Connection) -> Result<T>,
    ) -> Result<T> {
        let durability = durability.unwrap_or(self.config.durability);
        self.with_writer(operation, |mut writer, context| writer.transact(context, durability, body))
    }

    /// Carries the commits over from the write-ahead log to the database file if they are so many pages.
    pub fn checkpoint_if_due(&self, pages: u32) {
        // Its failures are told to the next write, and it has nothing to do in a closed store, whose close has done it.
        let _ = self.with_writing("checkpoint", |writing, context| {
            writing.checkpoints.run_if_due(context, &writing.writer, pages);
            Ok(())
        });
    }

    /// Does the same for all commits, before a close.
    pub fn checkpoint_at_close(&self) {
        let _ = self.with_writing("checkpoint", |writing, context| {
            writing.checkpoints.run_at_close(context, &writing.writer);
            Ok(())
        });
    }

    /// Returns all free space of the file to the file system; says whether the file has become shorter, which an open read
    /// of any process prevents.
    pub fn vacuum(&self) -> Result<bool> {
        self.with_writing("vacuum", |writing, context| vacuum::vacuum(context, &writing.checkpoints, &writing.writer))
    }

    /// An error if the file cannot be shortened in slices.
    pub fn check_incremental_vacuum(&self) -> Result<()> {
        let mode = self.read("vacuum", |connection| {
            Ok(connection.query_row("PRAGMA auto_vacuum", [], |row| row.get::<_, i64>(0))?)
        })?;
        if mode == open::INCREMENTAL {
            return Ok(());
        }
        let reason = "vacuum=\"incremental\" needs a database that was created for it; this one was not: vacuum it once in full, which makes it so";
        Err(Error::Value(format!("{}: {reason}", self.path.display())))
    }

    /// Returns all free space of the file to the file system, in slices between which others can write; says whether the
    /// file has become shorter.
    pub fn vacuum_incrementally(&self) -> Result<bool> {
        let mut any = false;
        while self.with_writer("vacuum", |mut writer, context| writer.vacuum_slice(context))? {
            any = true;
            // A thread that waits for the writer gets it.
            std::thread::sleep(Duration::from_micros(200));
        }
        if !any {
            return Ok(false);
        }
        // Only then does the file become shorter.
        self.with_writing("vacuum", |writing, context| {
            writing.checkpoints.run_whole(context, &writing.writer)?;
            vacuum::shorten(context, &writing.checkpoints, &writing.writer)
        })
    }

    /// The rows of one read-only SQL statement of the user's.
    pub fn sql(&self, query: &str, params: &SqlParams) -> Result<Vec<Vec<Value>>> {
        self.run_sql(|connection| sql::run(connection, query, params))
    }

    /// The same, with the names of the columns.
    pub fn sql_with_names(&self, query: &str, params: &SqlParams) -> Result<NamedRows> {
        self.run_sql(|connection| sql::run_named(connection, query, params))
    }

    fn run_sql<T>(&self, body: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let open = |context: Context<'_>| {
            let mut reader = match self.config.read_only {
                true => open::reader_of_read_only(context)?,
                false => open::reader(context)?,
            };
            reader.enlarge_cache().located(context, None)?;
            sql::restrict(&mut reader.connection).located(context, None)?;
            Ok(reader)
        };
        self.connected(|connections| {
            let context = self.context("run read-only SQL");
            connections.sql_readers.with(context, &connections.files, open, body)
        })
    }

    /// Refuses later calls with [`Error::Closed`], waits for those under way, and closes. When the wait is interrupted,
    /// another `close` goes on with it.
    pub fn close(&self) -> Result<()> {
        self.generation.check(&self.path)?;
        self.is_closed.store(true, Ordering::Release);
        loop {
            match self.connections.try_write() {
                Ok(mut connections) => {
                    drop(connections.take());
                    return Ok(());
                }
                Err(TryLockError::Poisoned(poisoned)) => {
                    drop(poisoned.into_inner().take());
                    return Ok(());
                }
                Err(TryLockError::WouldBlock) => {
                    check_wait()?;
                    std::thread::sleep(CLOSE_INTERVAL);
                }
            }
        }
    }

    fn with_writer<T>(
        &self,
        operation: &'static str,
        body: impl FnOnce(Turn<'_, Writer>, Context<'_>) -> Result<T>,
    ) -> Result<T> {
        self.with_writing(operation, |writing, context| body(writing.writer.take()?, context))
    }

    fn with_writing<T>(
        &self,
        operation: &'static str,
        body: impl FnOnce(&Writing, Context<'_>) -> Result<T>,
    ) -> Result<T> {
        self.connected(|connections| match &connections.writing {
            Some(writing) => body(writing, self.context(operation)),
            None => Err(read_only(&self.path, operation)),
        })
    }

    fn connected<T>(&self, body: impl FnOnce(&Connections) -> Result<T>) -> Result<T> {
        self.generation.check(&self.path)?;
        let closed = || Error::Closed { path: self.path.clone() };
        if self.is_closed() {
            return Err(closed());
        }
        let connections = match self.connections.try_read() {
            Ok(connections) => connections,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // Only a close makes it unavailable.
            Err(TryLockError::WouldBlock) => return Err(closed()),
        };
        let outcome = body(connections.as_ref().ok_or_else(closed)?);
        // A progress report in `body` may have forked, and this may be the child.
        match outcome {
            Err(Error::Cancelled) => outcome,
            _ => self.generation.check(&self.path).and(outcome),
        }
    }

    fn context(&self, operation: &'static str) -> Context<'_> {
        Context { path: &self.path, operation, busy_timeout: self.config.busy_timeout }
    }
}

impl Writing {
    fn new(writer: Link, wal: WalState, context: Context<'_>) -> Result<Self> {
        let wal = Arc::new(wal);
        let writer = Writer::new(writer, Arc::clone(&wal), context)?;
        Ok(Self { checkpoints: Checkpoints::new(wal), writer: Turns::new(writer) })
    }
}
