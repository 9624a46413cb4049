//! The schema, whose database this is, and bringing an older one up to date. `docs/format.md` describes the tables.

use std::path::Path;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use crate::base::error::{Error, Result};

/// The newest schema that this build reads and writes.
///
/// 0: `@uncaged/nerve-store` 0.5.0; 1: the same tables and indexes, marked as ours; 2: the segment index in their place; 3: the manifest
/// of the archive as well; 4: long texts are named by their digests in both; 5: indexes of runs by what is read, triggers that
/// note what other programs do to sealed rows, idempotency keys, and claims of runs.
pub const SCHEMA_VERSION: i32 = 5;

/// The first schema with derived tables.
const FIRST_DERIVED: i32 = 2;

/// "NRVS", in the header of every database of ours, where `file(1)` and other tools look.
const APPLICATION_ID: i32 = 0x4e52_5653;

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS logs (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  source     TEXT NOT NULL,
  type       TEXT NOT NULL,
  ref_id     TEXT,
  payload    TEXT,
  timestamp  INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS meta (
  key   TEXT PRIMARY KEY,
  value TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS workflow_runs (
  run_id    TEXT PRIMARY KEY,
  workflow  TEXT NOT NULL,
  status    TEXT NOT NULL,
  timestamp INTEGER NOT NULL,
  exit_code INTEGER
);
";

/// Tables that are ours alone and derived from nothing: idempotency keys, and claims of runs. `run_claims.status` and
/// `timestamp` are the run's as its claim left them; a run that differs was changed without the claim.
const OWN_TABLES: &str = "
CREATE TABLE IF NOT EXISTS append_keys (
  key         TEXT PRIMARY KEY,
  id          INTEGER NOT NULL,
  digest      BLOB NOT NULL,
  timestamp   INTEGER NOT NULL,
  appended_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS run_claims (
  run_id     TEXT PRIMARY KEY,
  attempt    INTEGER NOT NULL,
  token      INTEGER,
  owner      TEXT,
  lease      INTEGER,
  boot       INTEGER,
  expires    INTEGER,
  expires_at INTEGER,
  status     TEXT,
  timestamp  INTEGER,
  not_before INTEGER
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS run_claims_started ON run_claims(boot, expires) WHERE status = 'started';
";
/// An index or a trigger that belongs to the schema.
#[derive(Debug)]
pub struct Object {
    /// Its name.
    pub name: &'static str,
    /// The statement that creates it, as SQLite keeps it.
    pub sql: &'static str,
}

/// The indexes of the runs: each run is in exactly one of the two. A run that begins and ends moves within the first, which is
/// small, and is added once to the second, at the end of its workflow and state.
const RUN_INDEXES: &[Object] = &[
    Object {
        name: "idx_workflow_runs_active",
        sql: "CREATE INDEX idx_workflow_runs_active ON workflow_runs(status, timestamp) \
              WHERE (status <> 'completed' AND status <> 'failed' AND status <> 'crashed' \
              AND status <> 'interrupted' AND status <> 'dropped' AND status <> 'killed')",
    },
    Object {
        name: "idx_workflow_runs_ended",
        sql: "CREATE INDEX idx_workflow_runs_ended ON workflow_runs(workflow, status, timestamp) \
              WHERE (status = 'completed' OR status = 'failed' OR status = 'crashed' \
              OR status = 'interrupted' OR status = 'dropped' OR status = 'killed')",
    },
];

/// The predecessor's indexes of the runs, in whose place these are.
const REPLACED_RUN_INDEXES: [&str; 2] = ["idx_workflow_runs_status", "idx_workflow_runs_workflow"];

/// The tables of a module above this one that can be rebuilt from the rows at any time, so that another program may drop
/// them.
#[derive(Debug)]
pub struct Derived {
    /// `CREATE TABLE IF NOT EXISTS` statements, each ended by a semicolon.
    pub tables: &'static str,
    /// The triggers that keep them.
    pub triggers: &'static [Object],
    /// The predecessor's indexes that these tables replace.
    pub replaced_indexes: &'static [&'static str],
    /// Brings what the schema of this number holds in them up to date, in the caller's transaction; may be called again.
    pub upgrade: fn(&Connection, i32) -> Result<()>,
    /// Earlier forms of the triggers, which noted what the later ones note.
    pub former_triggers: &'static [Object],
    /// A trigger was gone for a while, or was another one; in the caller's transaction, after it has been put back.
    pub distrust: fn(&Connection) -> Result<()>,
}

/// What `TABLES` holds, for recognizing a database that bears no mark.
const COLUMNS: [(&str, &[&str]); 3] = [
    ("logs", &["id", "source", "type", "ref_id", "payload", "timestamp"]),
    ("meta", &["key", "value"]),
    ("workflow_runs", &["run_id", "workflow", "status", "timestamp"]),
];

/// What a database file is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Identity {
    /// Ours, in the current schema.
    Current,
    /// Empty, upstream's, or ours in an older schema: to be migrated before it is written.
    Outdated,
}

/// Tells whose database this is, without changing it.
pub(super) fn identify(connection: &Connection, path: &Path, derived: &[&Derived]) -> Result<Identity> {
    let pragma = |name| connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i32>(0));
    let version = pragma("user_version")?;
    let refused = |reason: String| Error::SchemaVersion {
        path: path.to_owned(),
        found: version,
        supported: SCHEMA_VERSION,
        reason,
    };
    match pragma("application_id")? {
        APPLICATION_ID if version > SCHEMA_VERSION => Err(refused(format!(
            "written by a newer nerve_store (schema {version}; this one reads up to {SCHEMA_VERSION}): upgrade nerve_store"
        ))),
        APPLICATION_ID
            if version == SCHEMA_VERSION
                && !has_replaced_indexes(connection, derived)?
                && missing_tables(connection, derived)?.is_empty()
                && lacking(connection, objects(derived))?.is_empty() =>
        {
            Ok(Identity::Current)
        }
        APPLICATION_ID => Ok(Identity::Outdated),
        0 if version == 0 => match unmarked_stranger(connection)? {
            None => Ok(Identity::Outdated),
            Some(table) => Err(refused(format!("not a log database (table {table:?}): choose another path"))),
        },
        other => Err(refused(format!(
            "a database of another application (application_id {other}, user_version {version}): choose another path"
        ))),
    }
}

/// In a database without marks: the table that shows that it is not upstream's; None for upstream's or an empty one.
fn unmarked_stranger(connection: &Connection) -> Result<Option<String>> {
    let mut tables = connection
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'")?;
    let names: Vec<String> = tables.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    if !names.is_empty() && !names.iter().any(|name| name == "logs") {
        return Ok(names.into_iter().next());
    }
    for (table, wanted) in COLUMNS.iter().filter(|(table, _)| names.iter().any(|name| name == table)) {
        let mut info = connection.prepare("SELECT name FROM pragma_table_info(?1)")?;
        let columns: Vec<String> = info.query_map([table], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        if !wanted.iter().all(|column| columns.iter().any(|name| name == column)) {
            return Ok(Some((*table).to_owned()));
        }
    }
    Ok(None)
}

/// The predecessor puts its indexes back when it opens one of our databases.
fn has_replaced_indexes(connection: &Connection, derived: &[&Derived]) -> Result<bool> {
    let mut statement = connection.prepare("SELECT 1 FROM sqlite_schema WHERE type = 'index' AND name = ?1")?;
    for name in replaced_indexes(derived) {
        if statement.exists([name])? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn replaced_indexes<'a>(derived: &'a [&Derived]) -> impl Iterator<Item = &'static str> + 'a {
    REPLACED_RUN_INDEXES.into_iter().chain(derived.iter().flat_map(|derived| derived.replaced_indexes).copied())
}

fn objects<'a>(derived: &'a [&Derived]) -> impl Iterator<Item = &'static Object> + 'a {
    RUN_INDEXES.iter().chain(derived.iter().flat_map(|derived| derived.triggers))
}

/// Those of the indexes and triggers that are not there as they should be.
pub(crate) fn lacking(
    connection: &Connection,
    objects: impl Iterator<Item = &'static Object>,
) -> Result<Vec<&'static Object>> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM sqlite_schema WHERE name = ?1 AND sql = ?2")?;
    let mut lacking = Vec::new();
    for object in objects {
        if !statement.exists([object.name, object.sql])? {
            lacking.push(object);
        }
    }
    Ok(lacking)
}

/// A number that rises whenever an object of the schema is made or dropped, and whenever another program replaces the whole
/// content of the database (SQLite's backup API, a full vacuum).
pub(crate) fn schema_version(connection: &Connection) -> Result<i64> {
    Ok(connection.prepare_cached("PRAGMA schema_version")?.query_row([], |row| row.get(0))?)
}

/// Whether an earlier form of the trigger is in its place.
fn has_former(connection: &Connection, derived: &Derived, trigger: &Object) -> Result<bool> {
    let former = || derived.former_triggers.iter().filter(|former| former.name == trigger.name);
    Ok(lacking(connection, former())?.len() < former().count())
}

/// Lets a writing connection run the triggers of the database if there are others than this library's. Without them it notes
/// itself what those would note, which costs next to nothing.
pub(crate) fn suit_triggers(connection: &Connection, derived: &[&Derived]) -> Result<()> {
    let has_others = has_other_triggers(connection, derived)?;
    if connection.db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER)? != has_others {
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, has_others)?;
    }
    Ok(())
}

fn has_other_triggers(connection: &Connection, derived: &[&Derived]) -> Result<bool> {
    let mut statement = connection.prepare_cached("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (name, sql) = (row.get_ref(0)?.as_str(), row.get_ref(1)?.as_str());
        let is_own = |object: &Object| name == Ok(object.name) && sql == Ok(object.sql);
        if !derived.iter().flat_map(|derived| derived.triggers).any(is_own) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Puts an index or a trigger in the place of what has its name, in the caller's transaction.
fn put(connection: &Connection, object: &Object) -> Result<()> {
    let Object { name, sql } = object;
    connection.execute_batch(&format!("DROP INDEX IF EXISTS {name}; DROP TRIGGER IF EXISTS {name}; {sql}"))?;
    Ok(())
}

/// The statements that create the tables beside the predecessor's that are not there.
pub(super) fn missing_tables(connection: &Connection, derived: &[&Derived]) -> Result<Vec<&'static str>> {
    let statements = derived.iter().flat_map(|derived| derived.tables.split_inclusive(';'));
    missing(connection, statements.chain(OWN_TABLES.split_inclusive(';')))
}

fn missing(connection: &Connection, statements: impl Iterator<Item = &'static str>) -> Result<Vec<&'static str>> {
    let mut tables = connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'")?;
    let names: Vec<String> = tables.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    let is_missing = |statement: &&str| {
        let name = statement.strip_prefix("CREATE TABLE IF NOT EXISTS ").and_then(|rest| rest.split(' ').next());
        name.is_some_and(|name| !names.iter().any(|known| known == name))
    };
    Ok(statements.map(str::trim).filter(is_missing).collect())
}

/// Statements for what a database lacks that was not brought up to date, because it may not be written: tables and a view
/// of the connection's own. They say what migration would: nothing is sealed, no file is known, no exit code is kept. So
/// do those in the place of derived tables of an older schema, whose meaning is another: all is read from rows and files.
pub(super) fn stand_ins(connection: &Connection, derived: &[&Derived]) -> Result<Vec<String>> {
    let version: i32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let is_older = (FIRST_DERIVED..SCHEMA_VERSION).contains(&version);
    let statements = derived.iter().flat_map(|derived| derived.tables.split_inclusive(';'));
    let statements: Vec<_> = statements.map(str::trim).filter(|statement| !statement.is_empty()).collect();
    let mut missing = missing(connection, OWN_TABLES.split_inclusive(';').chain(TABLES.split_inclusive(';')))?;
    missing.extend(if is_older { statements } else { self::missing(connection, statements.into_iter())? });
    let has_runs = !missing.iter().any(|statement| statement.contains(" workflow_runs "));
    let mut stand_ins: Vec<String> =
        missing.iter().map(|statement| statement.replace("CREATE TABLE", "CREATE TEMP TABLE")).collect();
    if has_runs && !has_exit_code(connection)? {
        stand_ins.push(
            "CREATE TEMP VIEW workflow_runs AS
             SELECT rowid AS rowid, run_id, workflow, status, timestamp, NULL AS exit_code FROM main.workflow_runs"
                .to_owned(),
        );
    }
    Ok(stand_ins)
}

/// Whether the runs have exit codes, which an early predecessor did not keep.
fn has_exit_code(connection: &Connection) -> Result<bool> {
    let mut columns =
        connection.prepare("SELECT 1 FROM pragma_table_info('workflow_runs') WHERE name = 'exit_code'")?;
    Ok(columns.exists([])?)
}

/// Brings the database to the current schema; the caller holds the write transaction.
pub(super) fn migrate(connection: &Connection, path: &Path, derived: &[&Derived]) -> Result<()> {
    // Another process may have been faster.
    if identify(connection, path, derived)? == Identity::Current {
        return Ok(());
    }
    let version: i32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    connection.execute_batch(TABLES)?;
    connection.execute_batch(OWN_TABLES)?;
    if !has_exit_code(connection)? {
        connection.execute_batch("ALTER TABLE workflow_runs ADD COLUMN exit_code INTEGER")?;
    }
    for name in replaced_indexes(derived) {
        connection.execute_batch(&format!("DROP INDEX IF EXISTS {name}"))?;
    }
    for index in lacking(connection, RUN_INDEXES.iter())? {
        put(connection, index)?;
    }
    for derived in derived {
        connection.execute_batch(derived.tables)?;
        if version >= FIRST_DERIVED {
            (derived.upgrade)(connection, version)?;
        }
        let lacking = lacking(connection, derived.triggers.iter())?;
        let mut is_doubtful = false;
        for trigger in lacking {
            is_doubtful |= !has_former(connection, derived, trigger)?;
            put(connection, trigger)?;
        }
        if version >= FIRST_DERIVED && is_doubtful {
            (derived.distrust)(connection)?;
        }
    }
    connection
        .execute_batch(&format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION};"))?;
    Ok(())
}
