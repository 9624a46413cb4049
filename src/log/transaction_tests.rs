use rusqlite::Connection;

use crate::base::error::{Error, Result};
use crate::db::Database;
use crate::log::{Log, LogConfig, Transaction};
use crate::row::{Filter, LogEntry, NewLogEntry, OwnedEntry};

fn row(payload: &str) -> OwnedEntry {
    (&NewLogEntry { source: "s", kind: "t", ref_id: None, payload: Some(payload), timestamp: Some(1) }).into()
}

fn open(directory: &tempfile::TempDir, segment_rows: u64) -> Log {
    let config = LogConfig { segment_rows: Some(segment_rows), ..LogConfig::default() };
    Log::open(&directory.path().join("logs.db"), config, &mut |_, _| Ok(())).unwrap()
}

fn write<T>(log: &Log, body: impl FnOnce(&mut Transaction<'_>) -> Result<T>) -> Result<T> {
    log.core().write("test", None, body)
}

fn rows(log: &Log) -> Vec<(i64, String)> {
    let mut rows = Vec::new();
    let take = |entry: LogEntry| rows.push((entry.id, entry.payload().unwrap().to_owned()));
    log.core().read("test", |snapshot| snapshot.search(&Filter::default(), take)).unwrap();
    rows
}

#[test]
fn rows_that_wait_have_the_ids_that_were_told_whatever_comes_between() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(&directory, 7);
    let mut told = Vec::new();
    for number in 0..3 {
        write(&log, |transaction| {
            for step in 0..300 {
                let payload = format!("{number} {step}");
                if step % 50 == 49 {
                    // As few as join those that wait, and as many as do not.
                    let several: Vec<_> = (0..step / 10).map(|part| format!("{payload} {part}")).collect();
                    let entries: Vec<_> = several.iter().map(|payload| row(payload)).collect();
                    let borrowed: Vec<_> = entries.iter().map(OwnedEntry::borrow).collect();
                    let last = transaction.insert(&borrowed)?;
                    told.extend((last + 1 - several.len() as i64..).zip(several));
                }
                let id = transaction.insert_soon(&row(&payload))?;
                if step > 0 {
                    assert_eq!(transaction.waiting(id).unwrap().payload, Some(&*payload));
                }
                assert!(transaction.waiting(id + 1).is_none());
                told.push((id, payload));
            }
            Ok(())
        })
        .unwrap();
    }
    assert_eq!(rows(&log), told);
}

#[test]
fn what_is_refused_takes_its_own_rows_with_it_and_no_others() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(&directory, 7);
    let told = write(&log, |transaction| {
        let mut told = Vec::new();
        for payload in ["a", "b", "c"] {
            told.push((transaction.insert_soon(&row(payload))?, payload.to_owned()));
            let refused = transaction.alone(true, |transaction| {
                for _ in 0..300 {
                    transaction.insert_soon(&row("refused"))?;
                }
                Err::<(), _>(Error::Value("refused".into()))
            })?;
            assert!(refused.is_err());
        }
        Ok(told)
    })
    .unwrap();
    assert_eq!(rows(&log), told);
    // One that may not write before it is refused fails the transaction, also if its row only waits.
    let failed = write(&log, |transaction| {
        transaction.insert_soon(&row("d"))?;
        transaction.alone(false, |transaction| {
            transaction.insert_soon(&row("e"))?;
            Err::<(), _>(Error::Value("too late".into()))
        })
    });
    assert!(failed.is_err());
    assert_eq!(rows(&log), told);
}

#[test]
fn a_trigger_of_another_program_may_insert_rows_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(&directory, 7);
    let trigger = "CREATE TRIGGER other AFTER INSERT ON logs WHEN new.payload <> 'theirs' BEGIN
        INSERT INTO logs (source, type, payload, timestamp) VALUES ('s', 't', 'theirs', 1); END";
    let create = |connection: &Connection| Ok(connection.execute_batch(trigger)?);
    Database::write(log.core().database(), "test", None, create).unwrap();
    drop(log);
    let log = open(&directory, 7);
    let told = write(&log, |transaction| {
        let mut told = Vec::new();
        for payload in ["a", "b", "c"] {
            told.push((transaction.insert_soon(&row(payload))?, payload.to_owned()));
        }
        Ok(told)
    })
    .unwrap();
    let found = rows(&log);
    assert_eq!(found.len(), 6);
    assert!(told.iter().all(|row| found.contains(row)));
}
