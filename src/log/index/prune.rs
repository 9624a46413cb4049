//! Forgetting where rows were that have left the log, so that the index does not grow for ever while rows are archived.
//!
//! Invariant: which rows were rounds is kept, because that numbers the rounds of a run. Everything else about a segment,
//! or a group of them, goes when none of its rows is left.

use std::rc::Rc;

use rusqlite::Connection;
use rusqlite::types::Value;

use super::merged_end;
use crate::error::Result;

/// Forgets what has become needless, in the caller's transaction.
pub(super) fn prune(connection: &Connection) -> Result<()> {
    if prune_segments(connection)? { prune_postings(connection) } else { Ok(()) }
}

/// Says whether there was anything to forget.
fn prune_segments(connection: &Connection) -> Result<bool> {
    // The last segment says where the sealed rows end, and those that are not merged say where theirs do.
    let mut statement = connection.prepare_cached(
        "SELECT first_id FROM log_segments
         WHERE last_id <= ?1 AND first_id < (SELECT max(first_id) FROM log_segments)
           AND NOT EXISTS (SELECT 1 FROM logs WHERE id BETWEEN first_id AND last_id)",
    )?;
    let gone: Vec<Value> =
        statement.query_map([merged_end(connection)?], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    if gone.is_empty() {
        return Ok(false);
    }
    let gone = Rc::new(gone);
    for (table, key) in [("log_segments", "first_id"), ("log_zones", "segment"), ("log_kinds", "segment")] {
        let sql = format!("DELETE FROM {table} WHERE {key} IN (SELECT value FROM rarray(?1))");
        connection.prepare_cached(&sql)?.execute([Rc::clone(&gone)])?;
    }
    Ok(true)
}

fn prune_postings(connection: &Connection) -> Result<()> {
    let mut statement = connection.prepare_cached("SELECT DISTINCT first_id FROM log_postings ORDER BY first_id")?;
    let groups: Vec<i64> = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    let ends = groups.iter().skip(1).map(|next| next - 1).chain([merged_end(connection)?]);
    let mut has_rows = connection.prepare_cached("SELECT 1 FROM logs WHERE id BETWEEN ?1 AND ?2")?;
    let mut gone = Vec::new();
    for (first, last) in groups.iter().zip(ends) {
        if !has_rows.exists([*first, last])? {
            gone.push(Value::Integer(*first));
        }
    }
    let gone = Rc::new(gone);
    for sql in [
        "DELETE FROM log_postings WHERE round_count = 0 AND first_id IN (SELECT value FROM rarray(?1))",
        "UPDATE log_postings SET ids = rounds, rounds = NULL
         WHERE rounds IS NOT NULL AND first_id IN (SELECT value FROM rarray(?1))",
    ] {
        connection.prepare_cached(sql)?.execute([Rc::clone(&gone)])?;
    }
    Ok(())
}
