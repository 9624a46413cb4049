//! The tables of the manifest. `docs/format.md` describes them.

use crate::db::Derived;

/// For [`crate::db::Config::derived`].
pub(crate) static DERIVED: Derived = Derived { tables: SCHEMA, replaced_indexes: &[] };

/// The manifest's tables.
pub(crate) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS archive_days (
  day         TEXT NOT NULL,
  state       INTEGER NOT NULL,
  format      TEXT NOT NULL,
  row_count   INTEGER NOT NULL,
  first_id    INTEGER NOT NULL,
  last_id     INTEGER NOT NULL,
  size        INTEGER NOT NULL,
  raw_size    INTEGER NOT NULL,
  sha256      TEXT NOT NULL,
  archived_at INTEGER NOT NULL,
  has_rounds  INTEGER NOT NULL,
  kinds       TEXT,
  PRIMARY KEY (day, state)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS archive_contents (
  day         TEXT NOT NULL,
  state       INTEGER NOT NULL,
  ids         BLOB NOT NULL,
  blocks      BLOB NOT NULL,
  PRIMARY KEY (day, state)
);
CREATE TABLE IF NOT EXISTS archive_refs (
  day      TEXT NOT NULL,
  ref_id   TEXT NOT NULL,
  first_id INTEGER NOT NULL,
  ids      BLOB NOT NULL,
  rounds   BLOB,
  PRIMARY KEY (day, ref_id, first_id)
) WITHOUT ROWID;
";
