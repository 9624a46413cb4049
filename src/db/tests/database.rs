//! A database from outside: what a handle refuses, and what a transaction leaves.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

use crate::base::error::{Error, Result};
use crate::db::{Config, Database, SCHEMA_VERSION};

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

#[test]
fn a_read_that_pauses_goes_on_with_the_connection_that_it_had() {
    let directory = tempfile::tempdir().unwrap();
    let database = opened(&directory.path().join("logs.db"));
    let cache_size = |connection: &Connection| -> Result<i64> {
        Ok(connection.query_row("PRAGMA cache_size", [], |row| row.get(0))?)
    };
    for (outcome, is_kept) in [(Error::Paused, true), (Error::Internal, false)] {
        // It belongs to the connection, so that it tells whether it is the same one.
        let mark = |connection: &Connection| -> Result<()> {
            connection.execute_batch("PRAGMA cache_size = 77")?;
            Err(outcome.clone())
        };
        assert!(database.read("test", mark).is_err());
        assert_eq!(database.read("test", cache_size).unwrap() == 77, is_kept);
        put(&database, &is_kept.to_string()).unwrap();
        assert_eq!(count(&database), if is_kept { 1 } else { 2 }, "no transaction was left open");
    }
}
