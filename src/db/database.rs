//! A handle on one database file: the writer, the readers, and who may still use them.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::types::Value;

use crate::base::error::{Error, Result};
use crate::db::checkpoints::{CHECKPOINT_PAGES, Checkpoints, Flushes};
use crate::db::failure::{Located, Place, read_only};
use crate::db::fork::Generation;
use crate::db::open;
use crate::db::readers::Readers;
use crate::db::schema::Derived;
use crate::db::sql::{self, SqlParams};
use crate::db::writer::Writer;
use crate::durable::Durability;

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
    /// None once closed. Calls hold it shared, so that `close` waits for them.
    connections: RwLock<Option<Connections>>,
}

/// Closed in this order.
struct Connections {
    readers: Readers,
    /// For the users' own SQL: nothing of ours waits behind it, and it can do nothing but read.
    sql_readers: Readers,
    /// None in a read-only store.
    writing: Option<Writing>,
}

struct Writing {
    checkpoints: Checkpoints,
    /// The last to be closed, so that its close runs the final checkpoint.
    writer: Mutex<Writer>,
}

impl Database {
    /// Opens the file at `path`, or creates it.
    pub fn open(path: &Path, config: Config) -> Result<Self> {
        let generation = Generation::current();
        let path = open::resolve(path, !config.read_only)?;
        let place = Place { path: &path, operation: "open the database", busy_timeout: config.busy_timeout };
        let readers = Readers::default();
        let writing = if config.read_only {
            readers.keep(open::unprepared_reader(place, config.derived)?);
            None
        } else {
            Some(Writing::open(place, config.derived)?)
        };
        let connections = Connections { readers, sql_readers: Readers::default(), writing };
        Ok(Self { path, config, generation, connections: RwLock::new(Some(connections)) })
    }

    /// The absolute path of the database file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How it was opened.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether `close` was called.
    pub fn is_closed(&self) -> bool {
        // A forked child must not wait for a lock that a thread of its parent held.
        self.generation.is_current() && self.connections.read().unwrap_or_else(PoisonError::into_inner).is_none()
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
        let open = |place: Place<'_>| match self.config.read_only {
            true => open::unprepared_reader(place, self.config.derived),
            false => open::reader(place),
        };
        self.connected(|connections| connections.readers.with(self.place(operation), open, body))
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
        self.with_writer(operation, |mut writer, place| writer.transact(place, durability, body))
    }

    /// Carries the commits over from the write-ahead log to the database file if they are so many pages.
    pub fn checkpoint_if_due(&self, pages: u32) {
        // Its failures are told to the next write, and it has nothing to do in a closed store, whose close has done it.
        let _ = self.with_writing("checkpoint", |writing, place| {
            writing.checkpoints.run_if_due(place, &writing.writer, pages);
            Ok(())
        });
    }

    /// Returns all free space of the file to the file system.
    pub fn vacuum(&self) -> Result<()> {
        self.with_writing("vacuum", |writing, place| {
            // The files do not become shorter beside a checkpoint.
            let _held = writing.checkpoints.hold();
            writing.writer.lock().unwrap_or_else(PoisonError::into_inner).vacuum(place)
        })
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

    /// Returns all free space of the file to the file system, in slices between which others can write; says whether
    /// there was any.
    pub fn vacuum_incrementally(&self) -> Result<bool> {
        let mut any = false;
        while self.with_writer("vacuum", |mut writer, place| writer.vacuum_slice(place))? {
            any = true;
            // Whoever waits for the writer gets it.
            std::thread::sleep(Duration::from_micros(200));
        }
        if any {
            // Only then does the file become shorter.
            self.with_writing("vacuum", |writing, place| writing.checkpoints.run_whole(place, &writing.writer))?;
        }
        Ok(any)
    }

    /// The rows of one read-only SQL statement of the user's.
    pub fn sql(&self, query: &str, params: &SqlParams) -> Result<Vec<Vec<Value>>> {
        let open = |place: Place<'_>| {
            let mut connection = open::reader(place)?;
            sql::restrict(&mut connection).located(place, None)?;
            Ok(connection)
        };
        self.connected(|connections| {
            let place = self.place("run read-only SQL");
            connections.sql_readers.with(place, open, |connection| sql::run(connection, query, params))
        })
    }

    /// Waits for the calls under way and closes; later calls get [`Error::Closed`].
    pub fn close(&self) -> Result<()> {
        self.generation.check(&self.path)?;
        let connections = self.connections.write().unwrap_or_else(PoisonError::into_inner).take();
        drop(connections);
        Ok(())
    }

    fn with_writer<T>(
        &self,
        operation: &'static str,
        body: impl FnOnce(MutexGuard<'_, Writer>, Place<'_>) -> Result<T>,
    ) -> Result<T> {
        self.with_writing(operation, |writing, place| {
            body(writing.writer.lock().unwrap_or_else(PoisonError::into_inner), place)
        })
    }

    fn with_writing<T>(
        &self,
        operation: &'static str,
        body: impl FnOnce(&Writing, Place<'_>) -> Result<T>,
    ) -> Result<T> {
        self.connected(|connections| match &connections.writing {
            Some(writing) => body(writing, self.place(operation)),
            None => Err(read_only(&self.path, operation)),
        })
    }

    fn connected<T>(&self, body: impl FnOnce(&Connections) -> Result<T>) -> Result<T> {
        self.generation.check(&self.path)?;
        let connections = self.connections.read().unwrap_or_else(PoisonError::into_inner);
        body(connections.as_ref().ok_or_else(|| Error::Closed { path: self.path.clone() })?)
    }

    fn place(&self, operation: &'static str) -> Place<'_> {
        Place { path: &self.path, operation, busy_timeout: self.config.busy_timeout }
    }
}

impl Writing {
    fn open(place: Place<'_>, derived: &[&Derived]) -> Result<Self> {
        let flushes = Arc::new(Flushes::default());
        let writer = Writer::new(open::writer(place, derived)?, Arc::clone(&flushes), place)?;
        Ok(Self { checkpoints: Checkpoints::new(flushes), writer: Mutex::new(writer) })
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let Some(connections) = self.connections.get_mut().unwrap_or_else(PoisonError::into_inner).take() else {
            return;
        };
        if !self.generation.is_current() {
            std::mem::forget(connections.writing);
            connections.readers.forget();
            connections.sql_readers.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::SCHEMA_VERSION;
    use std::os::unix::fs::PermissionsExt;

    fn opened(path: &Path) -> Database {
        Database::open(path, Config::default()).unwrap()
    }

    fn put(database: &Database, key: &str) -> Result<()> {
        database.write("test", None, |connection| {
            connection.execute("INSERT INTO meta VALUES (?1, '')", [key])?;
            Ok(())
        })
    }

    fn count(database: &Database) -> i64 {
        database
            .read("test", |connection| Ok(connection.query_row("SELECT count(*) FROM meta", [], |row| row.get(0))?))
            .unwrap()
    }

    #[test]
    fn a_new_database_is_private_and_marked() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/logs.db");
        let database = opened(&path);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let version: i32 = database
            .read("test", |connection| Ok(connection.query_row("PRAGMA user_version", [], |row| row.get(0))?))
            .unwrap();
        assert_eq!(version, SCHEMA_VERSION);
    }

    #[test]
    fn a_failed_transaction_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let database = opened(&directory.path().join("logs.db"));
        put(&database, "kept").unwrap();
        let failed: Result<()> = database.write("test", None, |connection| {
            connection.execute("INSERT INTO meta VALUES ('gone', '')", [])?;
            Err(Error::Cancelled)
        });
        assert!(matches!(failed, Err(Error::Cancelled)));
        assert!(put(&database, "kept").is_err(), "the key is there already");
        assert_eq!(count(&database), 1);
    }

    #[test]
    fn a_panic_in_a_transaction_does_not_end_the_writing() {
        let directory = tempfile::tempdir().unwrap();
        let database = opened(&directory.path().join("logs.db"));
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _: Result<()> = database.write("test", None, |connection| {
                connection.execute("INSERT INTO meta VALUES ('gone', '')", [])?;
                panic!("on purpose");
            });
        }));
        assert!(panicked.is_err());
        put(&database, "kept").unwrap();
        assert_eq!(count(&database), 1);
    }

    #[test]
    fn a_read_sees_one_state_while_others_write() {
        let directory = tempfile::tempdir().unwrap();
        let database = opened(&directory.path().join("logs.db"));
        let seen = database.read("test", |connection| {
            let count = || connection.query_row("SELECT count(*) FROM meta", [], |row| row.get::<_, i64>(0));
            let before = count()?;
            put(&database, "new")?;
            Ok((before, count()?))
        });
        assert_eq!(seen.unwrap(), (0, 0));
        assert_eq!(count(&database), 1);
    }

    #[test]
    fn a_locked_database_is_busy_and_unharmed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("logs.db");
        let config = Config { busy_timeout: Duration::from_millis(20), ..Config::default() };
        let (first, second) = (opened(&path), Database::open(&path, config).unwrap());
        let refused = first.write("test", None, |_| Ok(put(&second, "x"))).unwrap();
        assert!(matches!(refused, Err(Error::Busy { .. })), "{refused:?}");
        put(&second, "x").unwrap();
    }

    #[test]
    fn closed_and_read_only_handles_refuse() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("logs.db");
        let database = opened(&path);
        put(&database, "x").unwrap();
        let reader = Database::open(&path, Config { read_only: true, ..Config::default() }).unwrap();
        assert_eq!(count(&reader), 1);
        assert!(matches!(put(&reader, "y"), Err(Error::Io { errno: libc::EROFS, .. })));
        database.close().unwrap();
        database.close().unwrap();
        assert!(matches!(put(&database, "y"), Err(Error::Closed { .. })));
        assert_eq!(count(&reader), 1);
    }

    #[test]
    fn foreign_files_are_refused_untouched() {
        let directory = tempfile::tempdir().unwrap();
        let newer = directory.path().join("newer.db");
        opened(&newer)
            .write("test", None, |connection| Ok(connection.execute_batch("PRAGMA user_version = 1000")?))
            .unwrap();
        let stranger = directory.path().join("stranger.db");
        Connection::open(&stranger).unwrap().execute_batch("CREATE TABLE logs (other)").unwrap();
        for path in [newer, stranger] {
            let before = std::fs::read(&path).unwrap();
            assert!(matches!(Database::open(&path, Config::default()), Err(Error::SchemaVersion { .. })), "{path:?}");
            assert_eq!(std::fs::read(&path).unwrap(), before);
        }
    }
}
