//! Records that are taken from pages, beside what statements return in the same transaction.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use rusqlite::Connection;

use crate::base::error::{Error, Result};
use crate::base::ids::IdSpan;
use crate::base::interrupt::Scope;
use crate::db::table::{Reached, each_record};

const COLUMNS: &str = "id, payload";

fn writer(directory: &tempfile::TempDir, pragmas: &str) -> Connection {
    let connection = Connection::open(directory.path().join("logs.db")).unwrap();
    connection.execute_batch(pragmas).unwrap();
    // A checkpoint that a reader stands in the way of fails at once.
    connection.busy_timeout(Duration::ZERO).unwrap();
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; PRAGMA synchronous = OFF; PRAGMA cache_size = -64;
             CREATE TABLE IF NOT EXISTS logs (id INTEGER PRIMARY KEY, payload TEXT);
             PRAGMA wal_checkpoint(TRUNCATE)",
        )
        .unwrap();
    connection
}

fn reader(directory: &tempfile::TempDir) -> Connection {
    let connection = Connection::open(directory.path().join("logs.db")).unwrap();
    connection.execute_batch("PRAGMA query_only = ON; PRAGMA cache_size = -64; PRAGMA wal_autocheckpoint = 0").unwrap();
    connection
}

fn begin(connection: &Connection) {
    connection.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema").unwrap();
}

fn by_statement(connection: &Connection, ids: IdSpan, descending: bool) -> Vec<(i64, Vec<u8>)> {
    let order = if descending { "DESC" } else { "ASC" };
    let sql = format!("SELECT id, CAST(payload AS BLOB) FROM logs WHERE id BETWEEN ?1 AND ?2 ORDER BY id {order}");
    let mut statement = connection.prepare(&sql).unwrap();
    let rows = statement.query_map([ids.first, ids.last], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.map(|row| row.unwrap()).collect()
}

fn visit(connection: &Connection, ids: IdSpan, descending: bool, visit: impl FnMut(i64, &[u8])) -> Result<Reached> {
    let mut visit = visit;
    each_record(connection, ("logs", COLUMNS), ids, descending, u64::MAX, &mut |id, record| {
        visit(id, record);
        Ok(ControlFlow::Continue(()))
    })
}

/// The payloads: the last of what a record holds.
fn by_pages(connection: &Connection, ids: IdSpan, descending: bool) -> Option<Vec<(i64, Vec<u8>)>> {
    let mut found = Vec::new();
    let reached = visit(connection, ids, descending, |id, record| {
        let header = usize::from(record[0]);
        found.push((id, record[header..].to_vec()));
    });
    (reached.unwrap() == Reached::End).then_some(found)
}

#[derive(Clone, Debug)]
enum Event {
    /// So many rows with payloads of so many bytes, in one commit, or not committed.
    Append(u16, u16, bool),
    Delete(i64, i64),
    Update(i64, i64, u16),
    Checkpoint(&'static str),
    Vacuum,
    /// Other pages than those of the table change.
    Other,
    BeginReading,
    EndReading,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let id = || 1_i64..600;
    let event = prop_oneof![
        4 => (1_u16..150, prop_oneof![3 => 0_u16..60, 1 => 0_u16..3_000], prop::bool::weighted(0.8))
            .prop_map(|(count, bytes, is_committed)| Event::Append(count, bytes, is_committed)),
        2 => (id(), 0_i64..100).prop_map(|(first, count)| Event::Delete(first, first + count)),
        2 => (id(), 0_i64..30, 0_u16..3_000).prop_map(|(first, count, bytes)| Event::Update(first, first + count, bytes)),
        3 => prop_oneof![Just("PASSIVE"), Just("RESTART"), Just("TRUNCATE")].prop_map(Event::Checkpoint),
        1 => Just(Event::Vacuum),
        1 => Just(Event::Other),
        3 => Just(Event::BeginReading),
        1 => Just(Event::EndReading),
    ];
    prop::collection::vec(event, 1..25)
}

fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(64)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn pages_say_what_statements_say_whatever_others_write(
        events in events(),
        spans in prop::collection::vec((-5_i64..800, 0_i64..800), 2),
        page_bytes in prop_oneof![Just(512), Just(4_096), Just(65_536)],
    ) {
        let directory = tempfile::tempdir().unwrap();
        let writer = writer(&directory, &format!("PRAGMA page_size = {page_bytes}; PRAGMA auto_vacuum = INCREMENTAL"));
        let readers = [reader(&directory), reader(&directory)];
        let mut reading = 0;
        for event in events {
            match event {
                Event::Append(count, bytes, is_committed) => {
                    let end = if is_committed { "COMMIT" } else { "ROLLBACK" };
                    writer.execute_batch(&format!(
                        "BEGIN; WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {count})
                         INSERT INTO logs (payload) SELECT hex(zeroblob(({bytes} + n % 7) / 2)) FROM n; {end}"
                    )).unwrap();
                }
                Event::Delete(first, last) => {
                    writer.execute("DELETE FROM logs WHERE id BETWEEN ?1 AND ?2", [first, last]).unwrap();
                }
                Event::Update(first, last, bytes) => {
                    writer.execute(
                        "UPDATE logs SET payload = hex(randomblob(?3 / 2)) WHERE id BETWEEN ?1 AND ?2",
                        (first, last, bytes),
                    ).unwrap();
                }
                Event::Checkpoint(mode) => {
                    let _ = writer.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(()));
                }
                Event::Vacuum => writer.execute_batch("PRAGMA incremental_vacuum(20)").unwrap(),
                Event::Other => {
                    writer.execute_batch(
                        "CREATE TABLE IF NOT EXISTS other (value BLOB); INSERT INTO other VALUES (randomblob(20000))",
                    ).unwrap();
                }
                Event::BeginReading if reading < readers.len() => {
                    begin(&readers[reading]);
                    reading += 1;
                }
                Event::EndReading if reading > 0 => {
                    reading -= 1;
                    readers[reading].execute_batch("COMMIT").unwrap();
                }
                Event::BeginReading | Event::EndReading => {}
            }
            for reader in &readers[..reading] {
                let spans = spans.iter().map(|(first, count)| IdSpan { first: *first, last: first + count });
                for span in spans.chain([IdSpan::ALL]) {
                    for descending in [false, true] {
                        prop_assert_eq!(by_pages(reader, span, descending), Some(by_statement(reader, span, descending)));
                    }
                }
            }
        }
    }
}

#[test]
fn a_page_that_the_log_has_is_another_one_in_the_file() {
    // The control of the test above: there is something to be wrong about.
    let directory = tempfile::tempdir().unwrap();
    let writer = writer(&directory, "");
    writer.execute_batch("INSERT INTO logs (payload) VALUES ('old'); PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let reader = reader(&directory);
    writer.execute_batch("UPDATE logs SET payload = 'new'").unwrap();
    begin(&reader);
    let file = std::fs::read(directory.path().join("logs.db")).unwrap();
    assert!(file.windows(3).any(|bytes| bytes == b"old") && !file.windows(3).any(|bytes| bytes == b"new"));
    assert_eq!(by_pages(&reader, IdSpan::ALL, false), Some(vec![(1, b"new".to_vec())]));
}

/// What a statement has to read, and why.
const OTHERS: [(&str, &str); 6] = [
    ("other columns", "CREATE TABLE logs (id INTEGER PRIMARY KEY, payload TEXT, more TEXT)"),
    ("another order", "CREATE TABLE logs (payload TEXT, id INTEGER PRIMARY KEY)"),
    ("no row ids", "CREATE TABLE logs (id INTEGER PRIMARY KEY, payload TEXT) WITHOUT ROWID"),
    ("a view", "CREATE TABLE rows (id INTEGER PRIMARY KEY, payload TEXT); CREATE VIEW logs AS SELECT * FROM rows"),
    ("UTF-16", "PRAGMA encoding = 'UTF-16'; CREATE TABLE logs (id INTEGER PRIMARY KEY, payload TEXT)"),
    ("no file yet", "PRAGMA journal_mode = WAL; CREATE TABLE logs (id INTEGER PRIMARY KEY, payload TEXT)"),
];

#[test]
fn what_is_not_as_it_should_be_is_left_to_a_statement() {
    for (name, schema) in OTHERS {
        let directory = tempfile::tempdir().unwrap();
        let connection = Connection::open(directory.path().join("logs.db")).unwrap();
        connection.execute_batch(schema).unwrap();
        let reader = reader(&directory);
        begin(&reader);
        assert_eq!(by_pages(&reader, IdSpan::ALL, false), None, "{name}");
    }
}

#[test]
fn nothing_is_read_without_a_read_transaction() {
    let directory = tempfile::tempdir().unwrap();
    let writer = writer(&directory, "");
    writer.execute_batch("INSERT INTO logs (payload) VALUES ('x'); PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    assert_eq!(by_pages(&writer, IdSpan::ALL, false), None);
    begin(&writer);
    assert_eq!(by_pages(&writer, IdSpan::ALL, false).map(|rows| rows.len()), Some(1));
    writer.execute_batch("INSERT INTO logs (payload) VALUES ('y')").unwrap();
    assert_eq!(by_pages(&writer, IdSpan::ALL, false), None, "what the transaction changed is in memory");
}

#[test]
fn a_log_with_too_many_frames_is_not_looked_through() {
    let directory = tempfile::tempdir().unwrap();
    let writer = writer(&directory, "");
    writer.execute_batch("PRAGMA wal_checkpoint(TRUNCATE); INSERT INTO logs (payload) VALUES ('x')").unwrap();
    let reader = reader(&directory);
    begin(&reader);
    let read = |most_frames| {
        each_record(&reader, ("logs", COLUMNS), IdSpan::ALL, false, most_frames, &mut |_, _| {
            Ok(ControlFlow::Continue(()))
        })
    };
    assert_eq!(read(0).unwrap(), Reached::Unreadable);
    assert_eq!(read(10).unwrap(), Reached::End);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test writes what no store would")]
fn damaged_pages_are_left_to_a_statement_and_read_no_further() {
    let directory = tempfile::tempdir().unwrap();
    let writer = writer(&directory, "");
    writer
        .execute_batch(
            "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 3000)
             INSERT INTO logs (payload) SELECT hex(zeroblob(20 + (n = 1500) * 9000)) FROM n;
             PRAGMA wal_checkpoint(TRUNCATE)",
        )
        .unwrap();
    drop(writer);
    let path = directory.path().join("logs.db");
    let whole = std::fs::read(&path).unwrap();
    let all: Vec<i64> = (1..=3_000).collect();
    let mut unreadable = 0;
    for damage in 0..400_usize {
        let mut bytes = whole.clone();
        // Most of them in what pages begin with.
        let page = damage % (whole.len() / 4_096 - 1) + 1;
        let at = 4_096 * page + if damage % 3 == 0 { damage * 7 % 4_096 } else { damage % 24 };
        bytes[at] = bytes[at].wrapping_add(1 + (damage * 31 % 255) as u8);
        std::fs::write(&path, &bytes).unwrap();
        let reader = Connection::open(&path).unwrap();
        begin(&reader);
        let mut ids = Vec::new();
        match visit(&reader, IdSpan::ALL, false, |id, _| ids.push(id)) {
            Ok(Reached::Unreadable) => unreadable += 1,
            Ok(Reached::End) => {}
            Err(error) => assert!(matches!(error, Error::Sqlite(_)), "{error:?}"),
        }
        assert!(ids.len() <= 2 * all.len());
    }
    assert!(unreadable > 20, "{unreadable}");
}

#[test]
fn an_interrupted_reading_ends_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let writer = writer(&directory, "");
    writer
        .execute_batch(
            "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 3000)
             INSERT INTO logs (payload) SELECT 'x' FROM n; PRAGMA wal_checkpoint(TRUNCATE)",
        )
        .unwrap();
    begin(&writer);
    let scope = Scope { deadline: Some(Instant::now()), ..Scope::default() };
    let mut count = 0;
    let outcome = scope.enter(|| visit(&writer, IdSpan::ALL, false, |_, _| count += 1));
    assert!(matches!(outcome, Err(Error::TimedOut)));
    assert_eq!(count, 0);
}
