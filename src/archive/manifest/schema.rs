//! The tables of the manifest. `docs/format.md` describes them.

use rusqlite::Connection;

use crate::base::error::Result;
use crate::db::Derived;
use crate::index::build::rekey::rekey_column;

/// For [`crate::db::Config::derived`].
pub(crate) static DERIVED: Derived = Derived {
    tables: SCHEMA,
    triggers: &[],
    replaced_indexes: &[],
    upgrade,
    former_triggers: &[],
    distrust: |_| Ok(()),
};

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
CREATE TABLE IF NOT EXISTS archive_missing (
  day TEXT PRIMARY KEY,
  ids BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS archive_owner (
  id TEXT PRIMARY KEY
);
CREATE TABLE IF NOT EXISTS archive_expired (
  day     TEXT PRIMARY KEY,
  ids     BLOB NOT NULL,
  pending INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS archive_expired_rounds (
  ref_id   TEXT NOT NULL,
  first_id INTEGER NOT NULL,
  rounds   BLOB NOT NULL,
  PRIMARY KEY (ref_id, first_id)
) WITHOUT ROWID;
";

/// From this schema on, texts are named by their keys.
const KEYED: i32 = 4;

/// Gives long texts their keys; a day whose kinds were named by long texts is one of too many kinds.
fn upgrade(connection: &Connection, version: i32) -> Result<()> {
    if version >= KEYED {
        return Ok(());
    }
    rekey_column(connection, "archive_refs", "ref_id")?;
    let sql = "UPDATE archive_days SET kinds = NULL WHERE octet_length(kinds) > 512 OR instr(kinds, char(0x10ffff))";
    Ok(connection.execute_batch(sql)?)
}
