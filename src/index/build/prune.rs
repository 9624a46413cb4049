//! Forgetting where rows were that have left the log, so that the index does not grow for ever while rows are archived.
//!
//! Invariant: which rows were rounds is kept, because that numbers the rounds of a run. Everything else about a segment,
//! or a group of them, goes when none of its rows is left.

use std::collections::HashSet;
use std::rc::Rc;

use roaring::RoaringTreemap;
use rusqlite::Connection;
use rusqlite::types::Value;

use crate::base::error::Result;
use crate::index::bounds::merged_end;
use crate::index::verify::list;

/// Postings that one step looks at, so that it holds the lock for moments.
const STEP_POSTINGS: u64 = 500;

/// A posting: its reference and the first id of its group.
pub(crate) type Position = (String, i64);

/// Forgets the segments whose rows are all gone, in the caller's transaction; says whether there were any. With
/// `archived`, only those whose rows are among these: that others are missing must not be forgotten.
pub(crate) fn prune_segments(connection: &Connection, archived: Option<&RoaringTreemap>) -> Result<bool> {
    // The last segment says where the sealed rows end, and those that are not merged say where theirs do.
    let mut statement = connection.prepare_cached(
        "SELECT first_id FROM log_segments
         WHERE last_id <= ?1 AND first_id < (SELECT max(first_id) FROM log_segments)
           AND NOT EXISTS (SELECT 1 FROM logs WHERE id BETWEEN first_id AND last_id)",
    )?;
    let gone: Vec<i64> =
        statement.query_map([merged_end(connection)?], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    if gone.is_empty() {
        return Ok(false);
    }
    let lost: HashSet<i64> = match archived {
        None => HashSet::new(),
        Some(archived) => list(connection)?
            .into_iter()
            .filter(|segment| !segment.is_within(archived))
            .map(|segment| segment.ids.first)
            .collect(),
    };
    let gone: Vec<Value> = gone.into_iter().filter(|first| !lost.contains(first)).map(Value::Integer).collect();
    if gone.is_empty() {
        return Ok(false);
    }
    let gone = Rc::new(gone);
    for (table, key) in
        [("log_segments", "first_id"), ("log_gaps", "segment"), ("log_zones", "segment"), ("log_kinds", "segment")]
    {
        let sql = format!("DELETE FROM {table} WHERE {key} IN (SELECT value FROM rarray(?1))");
        connection.prepare_cached(&sql)?.execute([Rc::clone(&gone)])?;
    }
    Ok(true)
}

/// The first ids of the groups of merged postings whose rows are all gone.
pub(crate) fn gone_groups(connection: &Connection) -> Result<HashSet<i64>> {
    let mut statement = connection.prepare_cached("SELECT DISTINCT first_id FROM log_postings ORDER BY first_id")?;
    let groups: Vec<i64> = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    let ends = groups.iter().skip(1).map(|next| next - 1).chain([merged_end(connection)?]);
    let mut has_rows = connection.prepare_cached("SELECT 1 FROM logs WHERE id BETWEEN ?1 AND ?2")?;
    let mut gone = HashSet::new();
    for (first, last) in groups.iter().zip(ends) {
        if !has_rows.exists([*first, last])? {
            gone.insert(*first);
        }
    }
    Ok(gone)
}

/// Forgets the rows of the `gone` groups but for their rounds, in the caller's transaction: of some postings after a
/// position. Returns the next position; None at the end.
pub(crate) fn prune_postings(
    connection: &Connection,
    gone: &HashSet<i64>,
    after: Option<Position>,
) -> Result<Option<Position>> {
    let mut statement = connection.prepare_cached(
        "SELECT ref_id, first_id, round_count, rounds IS NOT NULL FROM log_postings
         WHERE (ref_id, first_id) > (?1, ?2) ORDER BY ref_id, first_id LIMIT ?3",
    )?;
    let mut delete = connection.prepare_cached("DELETE FROM log_postings WHERE ref_id = ?1 AND first_id = ?2")?;
    let mut reduce = connection
        .prepare_cached("UPDATE log_postings SET ids = rounds, rounds = NULL WHERE ref_id = ?1 AND first_id = ?2")?;
    let (ref_id, first_id) = after.unwrap_or((String::new(), i64::MIN));
    let postings: Vec<(String, i64, u64, bool)> = statement
        .query_map((ref_id, first_id, STEP_POSTINGS), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
        .collect::<rusqlite::Result<_>>()?;
    for (ref_id, first_id, round_count, has_rounds) in &postings {
        if gone.contains(first_id) {
            match (round_count, has_rounds) {
                (0, _) => drop(delete.execute((ref_id, first_id))?),
                (_, true) => drop(reduce.execute((ref_id, first_id))?),
                (_, false) => {}
            }
        }
    }
    Ok(postings.into_iter().last().map(|(ref_id, first_id, ..)| (ref_id, first_id)))
}
