//! How long the write-ahead log becomes, and what a failed flush leaves of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::base::error::Error;
use crate::base::interrupt::{INTERVAL, Pause, Scope};
use crate::db::checkpoints::{CHECKPOINT_PAGES, Checkpoints, PATIENCE, RESTART_PAGES};
use crate::db::failure::Context;
use crate::db::held::HeldFiles;
use crate::db::turn::Turns;
use crate::db::wal::WalState;
use crate::db::writer::Writer;
use crate::db::{Config, Database, open};
use crate::durable::Durability;

const PAGE: u64 = 4_096;

/// What docs/durability.md promises of the log.
const CAP: u64 = 16 << 20;

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
    look.query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| Ok(row.get::<_, i64>(1)? - row.get::<_, i64>(2)?)).unwrap()
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
    assert!(wal_bytes(&database) < CAP, "{}", wal_bytes(&database));
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
    assert!(wal_bytes(&first) < CAP, "{}", wal_bytes(&first));
}

/// Reads so that at each moment one is open, each of them for so long.
fn read_without_a_pause(database: &Database, each: Duration, is_done: &AtomicBool) {
    while !is_done.load(Ordering::Relaxed) {
        database
            .read("test", |connection| {
                connection.query_row("SELECT count(*) FROM meta", [], |row| row.get::<_, i64>(0))?;
                std::thread::sleep(each);
                Ok(())
            })
            .unwrap();
    }
}

#[test]
fn the_log_stays_short_beside_reads_without_a_pause() {
    let directory = tempfile::tempdir().unwrap();
    let databases = [opened(&directory), opened(&directory), opened(&directory)];
    let is_done = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        for milliseconds in [20, 31, 43, 57] {
            let database = &databases[2];
            scope.spawn(move || read_without_a_pause(database, Duration::from_millis(milliseconds), is_done));
        }
        let writers = [(&databases[0], "a"), (&databases[0], "b"), (&databases[1], "c")]
            .map(|(database, name)| scope.spawn(move || fill(database, name, 4 * CHECKPOINT_PAGES)));
        let outcomes = writers.map(std::thread::ScopedJoinHandle::join);
        is_done.store(true, Ordering::Relaxed);
        assert!(outcomes.iter().all(Result::is_ok));
    });
    // On a machine so busy that reads of 57 ms last for half a second it doubles, and then begins anew.
    assert!(wal_bytes(&databases[0]) < 4 * CAP, "{}", wal_bytes(&databases[0]));
}

#[test]
fn a_read_that_lasts_holds_commits_up_once_and_then_for_moments() {
    let directory = tempfile::tempdir().unwrap();
    let database = &opened(&directory);
    let longest = AtomicU64::new(0);
    let commit = |number: u32| {
        let began = Instant::now();
        fill(database, &format!("{number}-"), 50);
        longest.fetch_max(u64::try_from(began.elapsed().as_millis()).unwrap(), Ordering::Relaxed);
    };
    database
        .read("test", |connection| {
            connection.query_row("SELECT count(*) FROM meta", [], |row| row.get::<_, i64>(0))?;
            let began = Instant::now();
            (0..200).for_each(commit);
            assert!(began.elapsed() < Duration::from_secs(20));
            Ok(())
        })
        .unwrap();
    assert!(longest.load(Ordering::Relaxed) >= PATIENCE.as_millis().try_into().unwrap());
    assert!(wal_bytes(database) > CAP);
    (200..210).for_each(commit);
    assert!(wal_bytes(database) <= CAP, "it gives its space back: {}", wal_bytes(database));
}

#[test]
fn a_call_that_pauses_waits_for_a_moment_only() {
    let directory = tempfile::tempdir().unwrap();
    let database = &opened(&directory);
    database
        .read("test", |connection| {
            connection.query_row("SELECT count(*) FROM meta", [], |row| row.get::<_, i64>(0))?;
            fill(database, "a", RESTART_PAGES - 100);
            for number in 0..150 {
                let pause =
                    Pause { at: Instant::now() + INTERVAL, only_waits: true, is_wanted: || true, waits_since: None };
                let began = Instant::now();
                Scope { pause: Some(pause), ..Scope::default() }.enter(|| fill(database, &format!("b{number}-"), 1));
                assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
            }
            Ok(())
        })
        .unwrap();
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
        let left: Vec<_> = (0..5).map(|_| database.vacuum().map(|_| wal_bytes(database))).collect();
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
    let context = Context { path: &path, operation: "test", busy_timeout: Duration::ZERO };
    opened(&directory).close().unwrap();
    let connection = open::writer(context, &[]).unwrap();
    let wal = Arc::new(WalState::new(Arc::new(HeldFiles::of_writer(context).unwrap())));
    let writer = Writer::new(connection, Arc::clone(&wal), context).unwrap();
    let (writer, checkpoints) = (Turns::new(writer), Checkpoints::new(Arc::clone(&wal)));
    let put = |key: &str| {
        writer.take().unwrap().transact(context, Durability::Normal, |connection| {
            connection.execute("INSERT INTO meta VALUES (?1, '')", [key])?;
            Ok(())
        })
    };
    put("before").unwrap();
    let failure = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_FSYNC), None);
    wal.failed(failure.into(), context, &Connection::open_in_memory().unwrap());
    assert!(matches!(put("after"), Err(Error::Poisoned { errno: libc::EIO, .. })));
    checkpoints.run_if_due(context, &writer, 1);
    assert!(matches!(checkpoints.run_whole(context, &writer), Err(Error::Poisoned { .. })));
    drop((checkpoints, writer));
    let wal = path.with_extension("db-wal");
    assert!(wal.metadata().unwrap().len() > 0, "nothing was carried over, not even by the last close");
}
