//! The tables of the index. `docs/format.md` describes them.

use crate::db::Derived;
use crate::index::build::rekey::rekey;

/// For [`crate::db::Config::derived`].
pub(crate) static DERIVED: Derived = Derived { tables: SCHEMA, replaced_indexes: &PREDECESSORS, upgrade: rekey };

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
pub(crate) const TABLES: [&str; 7] =
    ["log_segments", "log_gaps", "log_zones", "log_kinds", "log_restored", "log_fresh", "log_postings"];

/// The predecessor's indexes, which it also puts back when it opens one of our databases.
const PREDECESSORS: [&str; 3] = ["idx_logs_source_type", "idx_logs_timestamp", "idx_logs_ref_id"];

/// Rows of a segment unless the store was opened with another number.
pub(crate) const DEFAULT_SEGMENT_ROWS: u64 = 4_096;
