//! The days whose files were deleted because they are old: which rows they held, so that nothing misses them, and the rounds
//! among them that the log's index has never seen, so that the rounds of a run keep their numbers.
//!
//! Invariant: a day is noted here, as one whose files are to be removed, in the transaction that takes it from the list of
//! days, and before a file is removed. So its rows are gone for every reader at once, whatever becomes of the files.

use roaring::RoaringTreemap;
use rusqlite::{Connection, OptionalExtension};

use crate::archive::manifest::values::{from_bytes, parsed, to_bytes};
use crate::archive::manifest::{days, refs};
use crate::base::error::Result;
use crate::base::time::UtcDay;

/// Takes a day with these rows from the list of days, in the caller's transaction; its files are to be removed.
pub(in crate::archive) fn expire(connection: &Connection, day: UtcDay, ids: &RoaringTreemap) -> Result<()> {
    let text = day.to_string();
    let mut known = connection.prepare_cached("SELECT ids FROM archive_expired WHERE day = ?1")?;
    let mut rows = known.query([&text])?;
    let ids = match rows.next()? {
        // Rows came late to a day that had been expired before.
        Some(row) => from_bytes(row, 0)? | ids,
        None => ids.clone(),
    };
    drop(rows);
    connection
        .prepare_cached("INSERT OR REPLACE INTO archive_expired VALUES (?1, ?2, 1)")?
        .execute((&text, to_bytes(&ids)))?;
    connection
        .prepare_cached(
            "INSERT OR IGNORE INTO archive_expired_rounds
             SELECT ref_id, first_id, rounds FROM archive_refs WHERE day = ?1 AND rounds IS NOT NULL",
        )?
        .execute([&text])?;
    days::forget(connection, day, days::State::Current)?;
    days::forget(connection, day, days::State::Pending)?;
    connection.prepare_cached("DELETE FROM archive_missing WHERE day = ?1")?.execute([&text])?;
    Ok(())
}

/// Forgets some of the references of a day that is not listed any more, in the caller's transaction; says whether there may
/// be others.
pub(in crate::archive) fn forget_refs(connection: &Connection, day: UtcDay, most: usize) -> Result<bool> {
    if days::is_described(connection, day)? {
        return Ok(false);
    }
    refs::forget_some(connection, day, most)
}

/// The days whose files are to be removed.
pub(in crate::archive) fn pending(connection: &Connection) -> Result<Vec<UtcDay>> {
    let mut statement = connection.prepare_cached("SELECT day FROM archive_expired WHERE pending ORDER BY day")?;
    let mut rows = statement.query([])?;
    let mut days = Vec::new();
    while let Some(row) = rows.next()? {
        days.push(parsed(row, 0, |text| text.parse().ok())?);
    }
    Ok(days)
}

/// The files of a day have been removed, in the caller's transaction.
pub(in crate::archive) fn settle(connection: &Connection, day: UtcDay) -> Result<()> {
    connection.prepare_cached("UPDATE archive_expired SET pending = 0 WHERE day = ?1")?.execute([day.to_string()])?;
    Ok(())
}

/// Whether the day has been expired, and has no file since.
pub(in crate::archive) fn is_expired(connection: &Connection, day: UtcDay) -> Result<bool> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM archive_expired WHERE day = ?1")?;
    let is_known = statement.query_row([day.to_string()], |_| Ok(())).optional()?.is_some();
    Ok(is_known && !days::is_described(connection, day)?)
}

/// The rows of all expired days.
pub(in crate::archive) fn ids(connection: &Connection) -> Result<RoaringTreemap> {
    let mut statement = connection.prepare_cached("SELECT ids FROM archive_expired")?;
    let mut rows = statement.query([])?;
    let mut ids = RoaringTreemap::new();
    while let Some(row) = rows.next()? {
        ids |= from_bytes(row, 0)?;
    }
    Ok(ids)
}

/// The rounds of a run, by its key, that the log's index has never seen and whose rows have been expired.
pub(in crate::archive) fn rounds(connection: &Connection, ref_key: &str) -> Result<RoaringTreemap> {
    let mut statement = connection.prepare_cached("SELECT rounds FROM archive_expired_rounds WHERE ref_id = ?1")?;
    let mut rows = statement.query([ref_key])?;
    let mut rounds = RoaringTreemap::new();
    while let Some(row) = rows.next()? {
        rounds |= from_bytes(row, 0)?;
    }
    Ok(rounds)
}

/// Calls `visit` with every such round and its run.
pub(in crate::archive) fn each_round(connection: &Connection, mut visit: impl FnMut(&str, i64)) -> Result<()> {
    let mut statement = connection.prepare_cached("SELECT ref_id, rounds FROM archive_expired_rounds")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let Ok(ref_key) = row.get_ref(0)?.as_str() else { continue };
        from_bytes(row, 1)?.iter().for_each(|id| visit(ref_key, id.cast_signed()));
    }
    Ok(())
}

/// The log's index knows all rounds now.
pub(in crate::archive) fn forget_rounds(connection: &Connection) -> Result<()> {
    Ok(connection.execute_batch("DELETE FROM archive_expired_rounds")?)
}
