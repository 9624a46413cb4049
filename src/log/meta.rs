//! The meta key-values.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension};

use crate::base::error::Result;
use crate::db::Database;

/// The value under `key`.
pub fn get_meta(database: &Database, key: &str) -> Result<Option<String>> {
    database.read("read meta", |connection| read_meta(connection, key))
}

/// The keys that begin with `prefix`, and their values, by key. A key or value of another program's that is no text is left out.
pub fn list_meta(database: &Database, prefix: &str) -> Result<BTreeMap<String, String>> {
    database.read("read meta", |connection| {
        let mut statement = connection.prepare_cached("SELECT key, value FROM meta WHERE key >= ?1 ORDER BY key")?;
        let mut rows = statement.query([prefix])?;
        let mut found = BTreeMap::new();
        while let Some(row) = rows.next()? {
            let Ok(key) = row.get_ref(0)?.as_str() else { continue };
            if !key.starts_with(prefix) {
                break;
            }
            if let Ok(value) = row.get_ref(1)?.as_str() {
                found.insert(key.to_owned(), value.to_owned());
            }
        }
        Ok(found)
    })
}

/// Sets the value under `key`, as durable as the store.
pub fn set_meta(database: &Database, key: &str, value: &str) -> Result<()> {
    database.write("write meta", None, |connection| write_meta(connection, key, value))
}

/// [`get_meta`] in the caller's transaction.
pub(crate) fn read_meta(connection: &Connection, key: &str) -> Result<Option<String>> {
    let mut statement = connection.prepare_cached("SELECT value FROM meta WHERE key = ?1")?;
    Ok(statement.query_row([key], |row| row.get(0)).optional()?)
}

/// [`set_meta`] in the caller's transaction.
pub(crate) fn write_meta(connection: &Connection, key: &str, value: &str) -> Result<()> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
    )?;
    statement.execute([key, value])?;
    Ok(())
}
