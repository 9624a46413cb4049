//! Sharing commits, from several threads and without any.

use crate::db::{Config, Database};
use crate::log::group_commit::*;
use crate::log::{Log, LogConfig, query};
use crate::row::{Filter, NewLogEntry};
use std::sync::mpsc;

fn opened() -> (tempfile::TempDir, Arc<Log>) {
    let directory = tempfile::tempdir().unwrap();
    let config = LogConfig { segment_rows: Some(50), ..LogConfig::default() };
    let log = Log::open(&directory.path().join("logs.db"), config, &mut |_, _| Ok(())).unwrap();
    (directory, Arc::new(log))
}

fn row(payload: &str) -> NewLogEntry<'_> {
    NewLogEntry { source: "s", kind: "t", ref_id: Some("r"), payload: Some(payload), timestamp: Some(1) }
}

/// Submits one row; the outcome is sent on with `token`.
fn send(log: &Arc<Log>, payload: &str, token: u64, sender: &mpsc::Sender<(u64, Result<i64>)>) -> Result<()> {
    let sender = sender.clone();
    let waiter = move |outcome: Result<Vec<Result<Done>>>| {
        let id = outcome.map(|done| match done.into_iter().next().unwrap().unwrap() {
            Done::Rows { first_id, .. } => first_id,
            Done::Answer(_) => panic!("a row has an id"),
        });
        sender.send((token, id)).unwrap();
    };
    let works = vec![Work::Rows(vec![OwnedEntry::from(&row(payload))])];
    log.submit(works, Durability::Full, Box::new(waiter)).map(|leads| assert!(!leads))
}

#[test]
fn every_caller_gets_the_ids_of_its_own_rows() {
    let (_directory, log) = opened();
    let (sender, receiver) = mpsc::channel();
    let told: Vec<(i64, String)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                let (log, sender) = (&log, sender.clone());
                scope.spawn(move || {
                    let mut told = Vec::new();
                    for round in 0..40 {
                        let payloads: Vec<String> = (0..=round % 3).map(|n| format!("{thread}/{round}/{n}")).collect();
                        let rows: Vec<_> = payloads.iter().map(|payload| row(payload)).collect();
                        let durability = if round % 2 == 0 { Durability::Full } else { Durability::Normal };
                        let first = log.append_many(&rows, Some(durability)).unwrap();
                        told.extend((first..).zip(payloads));
                        let token = thread * 1_000 + round;
                        send(log, &format!("token {token}"), token, &sender).unwrap();
                    }
                    told
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let mut expected = told;
    for _ in 0..8 * 40 {
        let (token, id) = receiver.recv_timeout(std::time::Duration::from_secs(20)).unwrap();
        expected.push((id.unwrap(), format!("token {token}")));
    }
    expected.sort_unstable();
    let found = query(&log, &Filter::default()).unwrap();
    let found: Vec<_> = found.into_iter().map(|entry| (entry.id, entry.payload().unwrap().to_owned())).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_failed_commit_fails_all_who_shared_it_and_nobody_after() {
    let (_directory, log) = opened();
    // As another program does it, on a connection of its own.
    let stranger = Database::open(log.database().path(), Config::default()).unwrap();
    stranger.write("test", None, |connection| {
        Ok(connection.execute_batch("CREATE TRIGGER refuse BEFORE INSERT ON logs WHEN new.payload = 'bad' BEGIN SELECT raise(ABORT, 'no'); END")?)
    }).unwrap();
    std::thread::scope(|scope| {
        for payload in ["bad", "good", "good", "bad", "good"] {
            let log = &log;
            scope.spawn(move || drop(log.append_many(&[row(payload)], None)));
        }
    });
    assert!(log.append_many(&[row("bad")], None).is_err());
    log.append_many(&[row("good")], None).unwrap();
    assert!(query(&log, &Filter::default()).unwrap().iter().all(|entry| entry.payload() == Some("good")));
}

#[test]
fn a_closed_log_refuses_and_its_committer_ends() {
    let (_directory, log) = opened();
    let (sender, receiver) = mpsc::channel();
    send(&log, "x", 7, &sender).unwrap();
    assert_eq!(receiver.recv().unwrap().0, 7);
    log.close().unwrap();
    assert!(matches!(send(&log, "x", 8, &sender), Err(Error::Closed { .. })));
    let weak = Arc::downgrade(&log);
    drop(log);
    for _ in 0..1_000 {
        if weak.strong_count() == 0 {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    panic!("the committer still holds the log");
}
