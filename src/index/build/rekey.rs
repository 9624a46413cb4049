//! Bringing the index of an older schema up to date, which named every text by itself, however long it was.

use std::collections::BTreeSet;

use rusqlite::Connection;

use crate::base::error::Result;
use crate::index::build::postings::rekeyed;
use crate::row::index_key;

/// Gives texts their keys, in the caller's transaction. Few texts are longer than a key, and those that are not are not
/// read.
pub(crate) fn rekey(connection: &Connection) -> Result<()> {
    for (table, column) in [("log_postings", "ref_id"), ("log_kinds", "source"), ("log_kinds", "type")] {
        rekey_column(connection, table, column)?;
    }
    let mut statement = connection.prepare("SELECT segment, postings FROM log_fresh")?;
    let mut update = connection.prepare("UPDATE log_fresh SET postings = ?2 WHERE segment = ?1")?;
    let mut changed = Vec::new();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        // Damage is left to those who read it.
        if let Ok(Some(bytes)) = rekeyed(row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?) {
            changed.push((row.get::<_, i64>(0)?, bytes));
        }
    }
    for segment in changed {
        update.execute(segment)?;
    }
    Ok(())
}

/// The same of a column of a table.
pub(crate) fn rekey_column(connection: &Connection, table: &str, column: &str) -> Result<()> {
    let mut statement = connection.prepare(&format!(
        "SELECT DISTINCT {column} FROM {table} WHERE octet_length({column}) > 512 OR {column} >= char(0x10ffff)"
    ))?;
    let mut update = connection.prepare(&format!("UPDATE {table} SET {column} = ?2 WHERE {column} = ?1"))?;
    let mut left: BTreeSet<String> = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    while let Some(mut text) = left.pop_first() {
        // A text that is another one's key makes room first.
        let mut waiting = Vec::new();
        while let Some(key) = left.take(&*index_key(&text)) {
            waiting.push(std::mem::replace(&mut text, key));
        }
        for text in std::iter::once(text).chain(waiting.into_iter().rev()) {
            let key = index_key(&text);
            if key != text {
                update.execute((&text, &*key))?;
            }
        }
    }
    Ok(())
}
