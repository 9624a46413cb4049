//! The tables of the index. `docs/format.md` describes them.

use rusqlite::Connection;

use crate::base::error::Result;
use crate::db::Derived;
use crate::index::build::rekey::rekey;
use crate::index::doubt;
use crate::index::given::renew_mark;

/// For [`crate::db::Config::derived`].
pub(crate) static DERIVED: Derived = Derived {
    tables: SCHEMA,
    triggers: &doubt::TRIGGERS,
    replaced_indexes: &PREDECESSORS,
    upgrade,
    former_triggers: &doubt::FORMER_TRIGGERS,
    distrust: doubt::doubt_all,
};

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
  row_count     INTEGER,
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
CREATE TABLE IF NOT EXISTS log_deleted (
  first_id      INTEGER PRIMARY KEY,
  last_id       INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS log_changed (
  first_id      INTEGER PRIMARY KEY,
  last_id       INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS log_builds (
  build         INTEGER PRIMARY KEY
);
CREATE TABLE IF NOT EXISTS log_ids (
  slot          INTEGER PRIMARY KEY,
  greatest      INTEGER NOT NULL,
  complement    INTEGER NOT NULL
);
";

/// Their names, but for `log_ids`, which is not made anew from the rows.
pub(crate) const TABLES: [&str; 10] = [
    "log_segments",
    "log_gaps",
    "log_zones",
    "log_kinds",
    "log_restored",
    "log_fresh",
    "log_postings",
    "log_deleted",
    "log_changed",
    "log_builds",
];

/// Empties the index, in the caller's transaction, and names what is built now as another one: readers of any process then
/// forget what they know of the index before.
pub(crate) fn begin_build(connection: &Connection) -> Result<()> {
    for table in TABLES {
        connection.execute_batch(&format!("DELETE FROM {table}"))?;
    }
    connection.execute_batch("INSERT INTO log_builds VALUES (random())")?;
    Ok(())
}

/// From this schema on, texts are named by their keys.
const KEYED: i32 = 4;

/// Brings an older index up to date. What is older than the triggers stays in doubt ([`doubt::doubt_all`]), since these are
/// put in place only now.
fn upgrade(connection: &Connection, version: i32) -> Result<()> {
    if version < KEYED {
        rekey(connection)?;
    }
    let has_counts =
        connection.prepare("SELECT 1 FROM pragma_table_info('log_kinds') WHERE name = 'row_count'")?.exists([])?;
    if !has_counts {
        connection.execute_batch("ALTER TABLE log_kinds ADD COLUMN row_count INTEGER")?;
    }
    renew_mark(connection)
}

/// The predecessor's indexes, which it also puts back when it opens one of our databases.
const PREDECESSORS: [&str; 3] = ["idx_logs_source_type", "idx_logs_timestamp", "idx_logs_ref_id"];

/// Rows of a segment unless the store was opened with another number.
pub(crate) const DEFAULT_SEGMENT_ROWS: u64 = 4_096;
