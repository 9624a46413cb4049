//! The meta key-values.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension};

use crate::base::error::Result;
use crate::db::{Database, stored};
use crate::durable::Durability;
use crate::log::handle::Log;
use crate::log::operation::Operation;
use crate::log::transaction::Transaction;

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

/// Sets the value under `key`.
pub fn set_meta(log: &Log, key: &str, value: &str, durability: Option<Durability>) -> Result<()> {
    log.perform(SetMeta { key: key.to_owned(), value: value.to_owned() }, durability)
}

/// Removes `key`; says whether it was there.
pub fn delete_meta(log: &Log, key: &str, durability: Option<Durability>) -> Result<bool> {
    log.perform(DeleteMeta { key: key.to_owned() }, durability)
}

/// [`set_meta`] as an operation.
#[derive(Clone, Debug)]
pub struct SetMeta {
    /// The key.
    pub key: String,
    /// Its value from now on.
    pub value: String,
}

/// [`delete_meta`] as an operation.
#[derive(Clone, Debug)]
pub struct DeleteMeta {
    /// The key.
    pub key: String,
}

impl Operation for SetMeta {
    type Answer = ();

    const NAME: &'static str = "write meta";

    fn apply(&self, transaction: &mut Transaction<'_>) -> Result<()> {
        write_meta(transaction.connection(), &self.key, &self.value)
    }

    fn bytes(&self) -> usize {
        self.key.len() + self.value.len()
    }
}

impl Operation for DeleteMeta {
    type Answer = bool;

    const NAME: &'static str = "write meta";

    fn apply(&self, transaction: &mut Transaction<'_>) -> Result<bool> {
        remove_meta(transaction.connection(), &self.key)
    }

    fn bytes(&self) -> usize {
        self.key.len()
    }
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
    stored(statement.execute([key, value])?, 1)
}

/// [`delete_meta`] in the caller's transaction.
pub(crate) fn remove_meta(connection: &Connection, key: &str) -> Result<bool> {
    Ok(connection.prepare_cached("DELETE FROM meta WHERE key = ?1")?.execute([key])? > 0)
}
