//! Archive jobs on a store, as a caller sees them.

use std::time::{Duration, Instant};

use crate::archive::{ARCHIVED_UP_TO, Format, JobOutcome, Options, Vacuum};
use crate::base::error::{Error, Result};
use crate::base::interrupt::{Pause, Scope};
use crate::durable::{self, Durability, Staged};
use crate::log;
use crate::row::{Filter, LogEntry, NewLogEntry};
use crate::store::{LogStore, StoreConfig};

const DAY: i64 = 86_400_000;

fn opened() -> (tempfile::TempDir, LogStore) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("logs.db");
    let store = LogStore::open(&path, StoreConfig::default(), &mut |_, _| Ok(())).unwrap();
    (directory, store)
}

fn live(store: &LogStore) -> Vec<LogEntry> {
    store.query(&Filter::default(), false).unwrap()
}

fn append(store: &LogStore, timestamps: impl IntoIterator<Item = i64>) {
    let rows: Vec<_> = timestamps
        .into_iter()
        .map(|timestamp| NewLogEntry {
            source: "s",
            kind: "t",
            ref_id: Some("run"),
            payload: None,
            timestamp: Some(timestamp),
        })
        .collect();
    store.log().append_many(&rows, None).unwrap();
}

fn options() -> Options {
    Options {
        boundary: 50 * DAY,
        max_days: None,
        format: Format::Plain,
        vacuum: Vacuum::No,
        dry_run: false,
        wait: Duration::ZERO,
    }
}

fn run(store: &LogStore) -> Result<JobOutcome> {
    store.archive_logs(options(), &mut |_, _| Ok(()))
}

fn archived(store: &LogStore) -> Vec<LogEntry> {
    let mut rows = Vec::new();
    for day in store.days().unwrap() {
        let mut file = store.read_day(day.day).unwrap();
        while let Some(row) = file.next_row().unwrap() {
            rows.push(row);
        }
    }
    rows
}

#[test]
fn late_rows_join_their_days_and_nothing_is_lost() {
    let (_directory, store) = opened();
    append(&store, (10..20).flat_map(|day| (0..1_500).map(move |row| day * DAY + row)));
    let mut all = live(&store);
    assert_eq!(run(&store).unwrap().days.len(), 10);
    append(&store, [10 * DAY, 0, 60 * DAY]);
    let late = live(&store);
    let outcome = run(&store).unwrap();
    let gained: Vec<_> = outcome.days.iter().map(|day| (day.day.to_string(), day.row_count, day.added_rows)).collect();
    assert_eq!(gained, [("1970-01-01".to_owned(), 1, 1), ("1970-01-11".to_owned(), 1_501, 1)]);
    assert_eq!(live(&store), late[2..]);
    all.extend_from_slice(&late[..2]);
    let mut found = archived(&store);
    found.sort_unstable_by_key(|row| row.id);
    assert_eq!(found, all);
    assert_eq!(log::get_meta(store.log().database(), ARCHIVED_UP_TO).unwrap().unwrap(), "1970-02-19");
}

#[test]
fn rows_of_an_active_run_stay_until_it_ends() {
    let (_directory, store) = opened();
    append(&store, [5 * DAY, 5 * DAY + 1]);
    let set = |status: &str| {
        store
            .log()
            .database()
            .write("test", None, |connection| {
                connection
                    .execute("INSERT OR REPLACE INTO workflow_runs VALUES ('run', 'w', ?1, 0, NULL)", [status])?;
                Ok(())
            })
            .unwrap();
    };
    for status in ["queued", "started", "unheard of"] {
        set(status);
        let outcome = run(&store).unwrap();
        assert_eq!((outcome.days.len(), outcome.pinned_rows), (0, 2), "{status}");
    }
    set("crashed");
    assert_eq!(run(&store).unwrap().days[0].row_count, 2);
}

#[test]
fn a_row_resumed_between_export_and_delete_stays() {
    let (_directory, store) = opened();
    append(&store, [5 * DAY]);
    let options = options();
    store
        .archive_logs(options, &mut |done, total| {
            if done == total {
                store.log().database().write("test", None, |connection| {
                    Ok(connection.execute_batch("INSERT INTO workflow_runs VALUES ('run', 'w', 'started', 0, NULL)")?)
                })?;
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(archived(&store), live(&store));
}

#[test]
fn a_damaged_or_foreign_file_stops_the_run_before_anything_is_deleted() {
    for content in [
        "{\"id\":1,\"source\":\"s\"",
        "{\"id\":1,\"source\":\"s\",\"type\":\"t\",\"refId\":\"run\",\"payload\":null,\"timestamp\":432000000}",
        "not a row\n",
        "{\"id\":1,\"source\":\"other\",\"type\":\"t\",\"refId\":\"run\",\"payload\":null,\"timestamp\":432000000}\n",
        "{\"id\":7,\"source\":\"s\",\"type\":\"t\",\"refId\":null,\"payload\":null,\"timestamp\":0}\n",
    ] {
        let (_directory, store) = opened();
        append(&store, [5 * DAY]);
        durable::create_directories(store.archive().directory(), Durability::Normal).unwrap();
        let path = store.archive().directory().join("1970-01-06.jsonl");
        let mut file = Staged::create(store.archive().directory()).unwrap();
        std::io::Write::write_all(&mut file, content.as_bytes()).unwrap();
        file.publish(&path, Durability::Normal).unwrap();
        let refused = run(&store);
        assert!(
            matches!(refused, Err(Error::ArchiveCorrupt { .. } | Error::Archive { .. } | Error::IdConflict { .. })),
            "{content}: {refused:?}"
        );
        assert_eq!(live(&store).len(), 1);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
        assert_eq!(std::fs::read_dir(store.archive().directory()).unwrap().count(), 1, "nothing staged is left");
    }
}

#[test]
fn a_second_run_at_once_is_refused_and_a_dry_run_changes_nothing() {
    let (directory, store) = opened();
    append(&store, [5 * DAY]);
    let options = Options { vacuum: Vacuum::Full, dry_run: true, ..options() };
    let told = store.archive_logs(options, &mut |_, _| Ok(())).unwrap();
    assert!(!told.vacuumed && !directory.path().join("archive").exists());
    let mut refused = Vec::new();
    let done = store
        .archive_logs(Options { dry_run: false, ..options }, &mut |_, _| {
            refused.push(run(&store));
            Ok(())
        })
        .unwrap();
    assert!(!refused.is_empty() && refused.iter().all(|refused| matches!(refused, Err(Error::ArchiveBusy { .. }))));
    assert_eq!(done.days, told.days);
}

/// The read is given up in the wait for a file that is being written, and goes on when that is whole.
#[test]
fn a_read_that_waits_for_a_file_passes_over_none_of_its_rows() {
    let (_directory, store) = opened();
    append(&store, (0..9_000).map(|row| 10 * DAY + row));
    let all = live(&store);
    run(&store).unwrap();
    let path = &store.days().unwrap()[0].path;
    let whole = std::fs::read(path).unwrap();
    for descending in [false, true] {
        let filter = Filter { descending, ..Filter::default() };
        // A machine may be so slow that the damage looks old, which is an error at once.
        let is_resumed = (0..100).any(|_| {
            let mut rows = store.iter(filter.clone(), true).unwrap();
            let mut found = vec![rows.next_row().unwrap().unwrap()];
            let mut damaged = whole.clone();
            damaged[whole.len() / 2] ^= 1;
            std::fs::write(path, damaged).unwrap();
            let pause = Pause { at: Instant::now(), only_waits: true, is_wanted: || true, waits_since: None };
            let scope = Scope { pause: Some(pause), ..Scope::default() };
            let outcome = scope.enter(|| {
                while let Some(row) = rows.next_row()? {
                    found.push(row);
                }
                Ok(())
            });
            std::fs::write(path, &whole).unwrap();
            if matches!(outcome, Err(Error::ArchiveCorrupt { .. })) {
                return false;
            }
            assert!(matches!(outcome, Err(Error::Paused)), "{outcome:?}");
            while let Some(row) = rows.next_row().unwrap() {
                found.push(row);
            }
            if descending {
                found.reverse();
            }
            assert_eq!(found.len(), all.len());
            assert_eq!(found, all);
            true
        });
        assert!(is_resumed);
    }
}
