//! The segment index: how rows are found without a B-tree index that every append would have to keep.
//!
//! Rows are appended to `logs` alone. Each time a segment's worth has gathered, the transaction that crosses the line
//! *seals* them: it writes which (source, type) pairs and which times occur in the segment, and, as one blob, where which
//! reference occurs. Each time a group of segments has gathered, it *merges* their blobs into one row a reference. What
//! is not sealed yet is the *tail*, which is scanned. `docs/format.md` describes the bytes, `docs/architecture.md` why it
//! is fast.
//!
//! Invariants: `logs` is the truth. The index only proposes rows, and every proposed row is checked against the whole
//! filter; it may propose too much, never too little. The one exception: the round postings number the rounds of a run,
//! computed once, from the row itself, when it is sealed.

mod check;
mod codec;
mod merge;
mod plan;
mod prune;
mod recent;
pub(crate) mod restored;
mod rounds;
mod sealer;
mod search;
mod segment;
mod verify;
mod zones;

pub(crate) use plan::{Archivable, IS_ACTIVE, Picker, active_runs, archivable, delete_unpinned};
pub(crate) use prune::{gone_groups, prune_postings, prune_segments};
pub(super) use recent::Recent;
pub(crate) use rounds::{is_round, known_rounds, round_count, round_ids};
pub(crate) use sealer::ArchivedRounds;
pub(super) use sealer::Sealer;
pub(super) use search::{count, search};
pub(super) use segment::IndexedRow;
pub(crate) use verify::{Segment, segments};

/// The index's tables.
pub(crate) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS log_segments (
  first_id      INTEGER PRIMARY KEY,
  last_id       INTEGER NOT NULL,
  row_count     INTEGER NOT NULL,
  min_timestamp INTEGER NOT NULL,
  max_timestamp INTEGER NOT NULL,
  checksum      INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS log_gaps (
  segment       INTEGER PRIMARY KEY,
  ids           BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS log_zones (
  segment       INTEGER PRIMARY KEY,
  zones         BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS log_kinds (
  source        TEXT NOT NULL,
  type          TEXT NOT NULL,
  segment       INTEGER NOT NULL,
  ids           BLOB,
  PRIMARY KEY (source, type, segment)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS log_restored (
  first_id      INTEGER PRIMARY KEY,
  last_id       INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS log_fresh (
  segment       INTEGER PRIMARY KEY,
  postings      BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS log_postings (
  ref_id        TEXT NOT NULL,
  first_id      INTEGER NOT NULL,
  ids           BLOB NOT NULL,
  round_count   INTEGER NOT NULL,
  rounds_before INTEGER NOT NULL,
  rounds        BLOB,
  PRIMARY KEY (ref_id, first_id)
) WITHOUT ROWID;
";

/// Their names.
const TABLES: [&str; 7] =
    ["log_segments", "log_gaps", "log_zones", "log_kinds", "log_restored", "log_fresh", "log_postings"];

/// The predecessor's indexes, which it also puts back when it opens one of our databases.
pub(crate) const PREDECESSORS: [&str; 3] = ["idx_logs_source_type", "idx_logs_timestamp", "idx_logs_ref_id"];

/// Rows of a segment unless the store was opened with another number.
pub(super) const DEFAULT_SEGMENT_ROWS: u64 = 4_096;

/// Whether at least `rows` rows are not sealed yet; and about how many there are, as an upper bound.
pub(super) fn unsealed(connection: &rusqlite::Connection, rows: u64) -> crate::Result<(bool, u64)> {
    let end = sealed_end(connection)?;
    let least: u64 = connection.query_row(
        "SELECT count(*) FROM (SELECT 1 FROM logs WHERE id > ?1 LIMIT ?2)",
        (end, rows),
        |row| row.get(0),
    )?;
    let most = unsealed_bounds(connection)?.map_or(0, |(first, last)| last.abs_diff(first) + 1);
    Ok((least >= rows, most))
}

/// How many rows there are, and their least and greatest timestamp. Looks at every row: without an index of its own
/// nothing else is exact once rows have been deleted.
pub(super) fn census(connection: &rusqlite::Connection) -> crate::Result<(u64, Option<(i64, i64)>)> {
    let (count, least, greatest): (u64, Option<i64>, Option<i64>) = connection.query_row(
        "SELECT count(*), CAST(min(timestamp) AS INTEGER), CAST(max(timestamp) AS INTEGER) FROM logs",
        [],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )?;
    Ok((count, least.zip(greatest)))
}

/// The first and the last id that are not sealed.
fn unsealed_bounds(connection: &rusqlite::Connection) -> crate::Result<Option<(i64, i64)>> {
    let mut statement = connection
        .prepare_cached("SELECT (SELECT min(id) FROM logs WHERE id > ?1), (SELECT max(id) FROM logs WHERE id > ?1)")?;
    let bounds: (Option<i64>, Option<i64>) =
        statement.query_row([sealed_end(connection)?], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(bounds.0.zip(bounds.1))
}

/// The last id that is sealed; below any if none is.
fn sealed_end(connection: &rusqlite::Connection) -> crate::Result<i64> {
    let mut statement = connection.prepare_cached("SELECT last_id FROM log_segments ORDER BY first_id DESC LIMIT 1")?;
    let mut rows = statement.query([])?;
    Ok(rows.next()?.map_or(Ok(i64::MIN), |row| row.get(0))?)
}

/// The last id whose reference is in the merged postings; below any if none is.
fn merged_end(connection: &rusqlite::Connection) -> crate::Result<i64> {
    let mut statement = connection.prepare_cached("SELECT min(segment) FROM log_fresh")?;
    match statement.query_row([], |row| row.get::<_, Option<i64>>(0))? {
        Some(first) => Ok(first - 1),
        None => sealed_end(connection),
    }
}
