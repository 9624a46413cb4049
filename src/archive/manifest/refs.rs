//! Which references, by their keys, have rows in which day, so that what belongs to a run opens only its days.
//!
//! Invariant: what is said here may be too much, never too little.

use roaring::RoaringTreemap;
use rusqlite::Connection;
use rusqlite::types::ValueRef;

use crate::archive::file::summary::RefRows;
use crate::archive::manifest::damage::or_damaged;
use crate::archive::manifest::values::{from_bytes, set_of, to_bytes};
use crate::base::error::Result;
use crate::base::time::UtcDay;

/// Puts references of a day, in the caller's transaction.
pub(in crate::archive) fn save<'a>(
    connection: &Connection,
    day: UtcDay,
    refs: impl Iterator<Item = (&'a str, &'a RefRows)>,
) -> Result<()> {
    let day = day.to_string();
    let mut known = connection
        .prepare_cached("SELECT ids, rounds FROM archive_refs WHERE day = ?1 AND ref_id = ?2 AND first_id = ?3")?;
    let mut statement = connection.prepare_cached("INSERT OR REPLACE INTO archive_refs VALUES (?1, ?2, ?3, ?4, ?5)")?;
    for (ref_id, rows) in refs {
        let Some(first) = rows.ids.first() else { continue };
        let (mut ids, mut rounds) = (set_of(&rows.ids), set_of(&rows.rounds));
        // A day that gains rows is cut into other parts than before, and the file that is there until it is published
        // still needs what was known.
        if let Some(row) = known.query((&day, ref_id, first))?.next()? {
            ids |= from_bytes(row, 0)?;
            if row.get_ref(1)? != ValueRef::Null {
                rounds |= from_bytes(row, 1)?;
            }
        }
        let rounds = (!rounds.is_empty()).then(|| to_bytes(&rounds));
        statement.execute((&day, ref_id, first, to_bytes(&ids), rounds))?;
    }
    Ok(())
}

/// Forgets the references of a day, in the caller's transaction.
pub(in crate::archive) fn forget(connection: &Connection, day: UtcDay) -> Result<()> {
    connection.prepare_cached("DELETE FROM archive_refs WHERE day = ?1")?.execute([day.to_string()])?;
    Ok(())
}

/// Forgets up to so many of them, in the caller's transaction; says whether there may be others.
pub(in crate::archive) fn forget_some(connection: &Connection, day: UtcDay, most: usize) -> Result<bool> {
    let mut statement = connection.prepare_cached(
        "DELETE FROM archive_refs WHERE day = ?1 AND (ref_id, first_id) IN
         (SELECT ref_id, first_id FROM archive_refs WHERE day = ?1 LIMIT ?2)",
    )?;
    Ok(statement.execute((day.to_string(), most))? >= most)
}

/// The ids of the reference's rows in the day's file.
pub(in crate::archive) fn ids(connection: &Connection, day: UtcDay, ref_key: &str) -> Result<RoaringTreemap> {
    set(connection, "ids", day, ref_key)
}

/// Those that are rounds which the log's index has never seen.
pub(in crate::archive) fn rounds(connection: &Connection, day: UtcDay, ref_key: &str) -> Result<RoaringTreemap> {
    set(connection, "rounds", day, ref_key)
}

fn set(connection: &Connection, column: &str, day: UtcDay, ref_key: &str) -> Result<RoaringTreemap> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {column} FROM archive_refs WHERE day = ?1 AND ref_id = ?2 AND {column} IS NOT NULL"
    ))?;
    let mut rows = statement.query((day.to_string(), ref_key))?;
    let mut set = RoaringTreemap::new();
    while let Some(row) = rows.next()? {
        set |= from_bytes(row, 0)?;
    }
    Ok(set)
}

/// Every round that the log's index has never seen, with its run.
pub(in crate::archive) fn each_round(connection: &Connection, visit: impl FnMut(&str, i64)) -> Result<()> {
    each(connection, "true", visit)
}

/// The same of the days of which the manifest says that they hold any: those that readers count.
pub(in crate::archive) fn each_counted_round(connection: &Connection, visit: impl FnMut(&str, i64)) -> Result<()> {
    each(connection, "day IN (SELECT day FROM archive_days WHERE state = 0 AND has_rounds)", visit)
}

fn each(connection: &Connection, condition: &str, mut visit: impl FnMut(&str, i64)) -> Result<()> {
    let mut statement = connection
        .prepare_cached(&format!("SELECT ref_id, rounds FROM archive_refs WHERE rounds IS NOT NULL AND {condition}"))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let run_id = or_damaged(row.get_ref(0)?.as_str().map_err(|error| rusqlite::Error::from(error).into()))?;
        from_bytes(row, 1)?.iter().for_each(|id| visit(run_id, id.cast_signed()));
    }
    Ok(())
}

/// The log's index knows all rounds now.
pub(in crate::archive) fn forget_rounds(connection: &Connection) -> Result<()> {
    connection.execute_batch(
        "UPDATE archive_refs SET rounds = NULL WHERE rounds IS NOT NULL;
         UPDATE archive_days SET has_rounds = 0 WHERE has_rounds",
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::manifest::days::forget_day;
    use crate::archive::manifest::schema::SCHEMA;

    #[test]
    fn what_is_saved_is_found() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(SCHEMA).unwrap();
        let day: UtcDay = "2026-01-02".parse().unwrap();
        let rows = |ids: &[i64], rounds: &[i64]| RefRows { ids: ids.into(), rounds: rounds.into() };
        let refs = [("run", rows(&[3], &[3])), ("run", rows(&[5], &[])), ("other", rows(&[1 << 40], &[]))];
        save(&connection, day, refs.iter().map(|(name, rows)| (*name, rows))).unwrap();
        assert_eq!(ids(&connection, day, "run").unwrap(), set_of(&[3, 5]));
        assert_eq!(rounds(&connection, day, "run").unwrap(), set_of(&[3]));
        let mut each = Vec::new();
        each_round(&connection, |run_id, id| each.push((run_id.to_owned(), id))).unwrap();
        assert_eq!(each, [("run".to_owned(), 3)]);
        forget_rounds(&connection).unwrap();
        assert!(rounds(&connection, day, "run").unwrap().is_empty());
        forget_day(&connection, day).unwrap();
        assert!(ids(&connection, day, "run").unwrap().is_empty());
    }
}
