//! What SQLite can do at best: a bare prepared insert into `logs` without any secondary index, rows made beforehand.
//!
//! The harness in Python (`limit.py`) runs it in turns with ours and reads its median. By hand:
//! `cargo bench --no-default-features --bench limit`.

use std::env;
use std::path::{Path, PathBuf};

use criterion::{BatchSize, Criterion, Throughput};
use rusqlite::{Connection, params};

const SCHEMA: &str = "
CREATE TABLE logs (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  source     TEXT NOT NULL,
  type       TEXT NOT NULL,
  ref_id     TEXT,
  payload    TEXT,
  timestamp  INTEGER NOT NULL
);
";
const INSERT: &str = "INSERT INTO logs (source, type, ref_id, payload, timestamp) VALUES (?1, ?2, ?3, ?4, ?5)";

const ROWS_PER_COMMIT: usize = 1_000;
/// Enough for the write-ahead log to be checkpointed about once a round, as in the round of the harness.
const COMMITS_PER_ROUND: usize = 10;

/// The same shape as in `workload.py`.
const KINDS: [(&str, &str); 5] = [
    ("workflow", "thread_workflow_message"),
    ("workflow", "thread_command_event"),
    ("workflow", "started"),
    ("reflex", "fired"),
    ("system", "tick"),
];
const FIRST_TIMESTAMP: i64 = 1_770_000_000_000;
const RUNS: u64 = 200;

struct Row {
    source: &'static str,
    kind: &'static str,
    ref_id: String,
    payload: String,
    timestamp: i64,
}

/// An endless supply of rows, the same in every process.
struct Workload {
    random: u64,
    timestamp: i64,
}

impl Workload {
    fn rows(&mut self, count: usize) -> Vec<Row> {
        (0..count).map(|_| self.row()).collect()
    }

    fn row(&mut self) -> Row {
        let (source, kind) = KINDS[usize::try_from(self.below(5)).expect("a small number")];
        let run = self.below(RUNS);
        let content = usize::try_from(227 + self.below(21)).expect("a small number");
        let tokens = 10_000 + self.below(80_000);
        self.timestamp += 1;
        Row {
            source,
            kind,
            ref_id: format!("{:08x}-0000-4000-8000-{run:012x}", run.wrapping_mul(0x9e37_79b9) & 0xffff_ffff),
            payload: format!(
                r#"{{"role":"coder","content":"{:x<content$}","meta":{{"tokens":{tokens}}}}}"#,
                self.timestamp
            ),
            timestamp: self.timestamp,
        }
    }

    /// A pseudo-random number (xorshift).
    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % bound
    }
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;")?;
    connection.execute_batch(SCHEMA)?;
    Ok(connection)
}

fn append_many(connection: &Connection, rows: &[Row]) -> rusqlite::Result<()> {
    connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    let mut insert = connection.prepare_cached(INSERT)?;
    for row in rows {
        insert.execute(params![row.source, row.kind, row.ref_id, row.payload, row.timestamp])?;
    }
    connection.prepare_cached("COMMIT")?.execute([])?;
    Ok(())
}

fn main() {
    // A flush costs nothing on a file system in memory, which the system's temporary directory may be.
    let parent = env::var_os("NERVE_BENCH_DIRECTORY").map_or_else(|| env!("CARGO_TARGET_TMPDIR").into(), PathBuf::from);
    let directory = tempfile::tempdir_in(parent).expect("a directory for the database");
    let connection = open(&directory.path().join("limit.db")).expect("a new database");
    let mut workload = Workload { random: 0x9e37_79b9_7f4a_7c15, timestamp: FIRST_TIMESTAMP };

    let mut criterion = Criterion::default().sample_size(10).configure_from_args();
    let mut group = criterion.benchmark_group("limit");
    group.throughput(Throughput::Elements((ROWS_PER_COMMIT * COMMITS_PER_ROUND) as u64));
    group.bench_function("append_many", |bencher| {
        bencher.iter_batched_ref(
            || workload.rows(ROWS_PER_COMMIT * COMMITS_PER_ROUND),
            |rows| {
                rows.chunks(ROWS_PER_COMMIT).try_for_each(|batch| append_many(&connection, batch)).expect("a commit")
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
    criterion.final_summary();
}
