//! Merging the postings of a group of segments into one row a reference.
//!
//! A reference's rows lie together, so that finding them costs a few pages; and they are written once a group instead of
//! once a segment, because each row of another reference dirties another page.

use rusqlite::{Connection, OptionalExtension};

use crate::base::error::{Error, Result};
use crate::index::build::bytes::damaged;
use crate::index::build::offsets::{Offsets, append, decode, ids};
use crate::index::build::postings::each_posting;

/// Segments of a group.
const GROUP: usize = 16;

/// Merges the fresh segments if there are enough for a group, in the caller's transaction.
pub(crate) fn merge_if_due(connection: &Connection) -> Result<()> {
    let mut statement = connection.prepare_cached("SELECT count(*), min(segment), max(segment) FROM log_fresh")?;
    let (count, first, last): (usize, Option<i64>, Option<i64>) =
        statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let (Some(first), Some(last)) = (first, last) else { return Ok(()) };
    // Offsets have 32 bits.
    if count < GROUP && u32::try_from(last.saturating_sub(first)).is_ok() {
        return Ok(());
    }
    let Some(segments) = unless_damaged(read_fresh(connection, first))? else { return Ok(()) };
    let Some(parts) = unless_damaged(parts_of(&segments, first))? else { return Ok(()) };
    let mut delete = connection.prepare_cached("DELETE FROM log_fresh WHERE segment = ?1")?;
    for segment in &segments {
        delete.execute([segment.first_id])?;
    }
    write_group(connection, first, &parts)
}

/// What was read; None where it is damaged: appending goes on, readers are told, and `reindex` reads the rows.
fn unless_damaged<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Err(Error::Damaged { .. }) => Ok(None),
        read => read.map(Some),
    }
}

/// The postings of a segment, as they are stored.
struct Fresh {
    first_id: i64,
    postings: Vec<u8>,
}

/// What one segment says of a reference.
struct Part<'a> {
    ref_key: &'a str,
    /// The distance of the segment from its group.
    base: u32,
    ids: Offsets<'a>,
    /// Those that are rounds, unless all are.
    rounds: Option<Offsets<'a>>,
}

/// The fresh segments as far as their offsets from `first` fit.
fn read_fresh(connection: &Connection, first: i64) -> Result<Vec<Fresh>> {
    let mut statement = connection.prepare_cached(
        "SELECT segment, postings, last_id FROM log_fresh JOIN log_segments ON first_id = segment ORDER BY segment",
    )?;
    let mut rows = statement.query([])?;
    let mut segments = Vec::new();
    while let Some(row) = rows.next()? {
        if !segments.is_empty() && u32::try_from(row.get::<_, i64>(2)?.saturating_sub(first)).is_err() {
            break;
        }
        let postings = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?.to_vec();
        segments.push(Fresh { first_id: row.get(0)?, postings });
    }
    Ok(segments)
}

/// What the segments say of each reference: in the order of the table of postings, so that neighbours share pages, and of
/// a reference in the order of the segments.
fn parts_of(segments: &[Fresh], first: i64) -> Result<Vec<Part<'_>>> {
    let mut parts = Vec::new();
    let mut last = None;
    for segment in segments {
        let base = u32::try_from(segment.first_id.saturating_sub(first))
            .map_err(|_| damaged("a segment is too far from its group"))?;
        if last.is_some_and(|last| base <= last) {
            return Err(damaged("segments overlap"));
        }
        let mut greatest = 0;
        each_posting(&segment.postings, |ref_key, ids, rounds| {
            greatest = greatest.max(ids.last().max(rounds.as_ref().and_then(Offsets::last)).unwrap_or(0));
            parts.push(Part { ref_key, base, ids, rounds });
        })?;
        last = Some(base.checked_add(greatest).ok_or_else(|| damaged("a segment is too far from its group"))?);
    }
    // Stable, and quick where the segments are in order.
    parts.sort_by_key(|part| part.ref_key);
    Ok(parts)
}

fn write_group(connection: &Connection, first: i64, parts: &[Part<'_>]) -> Result<()> {
    let mut earlier = connection.prepare_cached(
        "SELECT rounds_before + round_count FROM log_postings
         WHERE ref_id = ?1 AND round_count > 0 ORDER BY first_id DESC LIMIT 1",
    )?;
    let mut insert =
        connection.prepare_cached("INSERT OR REPLACE INTO log_postings VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
    let (mut ids, mut rounds) = (Vec::new(), Vec::new());
    let (mut id_bytes, mut round_bytes) = (Vec::new(), Vec::new());
    for of_reference in parts.chunk_by(|one, next| one.ref_key == next.ref_key) {
        let ref_key = of_reference[0].ref_key;
        ids.clear();
        rounds.clear();
        for part in of_reference {
            ids.extend(part.ids.iter().map(|offset| part.base + offset));
            rounds.extend(part.rounds.as_ref().unwrap_or(&part.ids).iter().map(|offset| part.base + offset));
        }
        let before: i64 = match rounds.len() {
            0 => 0,
            _ => earlier.query_row([ref_key], |row| row.get(0)).optional()?.unwrap_or(0),
        };
        id_bytes.clear();
        round_bytes.clear();
        append(&mut id_bytes, &ids);
        // The same set, most of the time.
        let has_own = rounds != ids;
        if has_own {
            append(&mut round_bytes, &rounds);
        }
        insert.execute((ref_key, first, &id_bytes, rounds.len(), before, has_own.then_some(&round_bytes)))?;
    }
    Ok(())
}

/// Calls `visit` with every round that the index knows, run by run or segment by segment. What is damaged is passed
/// over: it is about to be built anew.
pub(crate) fn each_known_round(connection: &Connection, mut visit: impl FnMut(&str, i64)) -> Result<()> {
    let mut statement = connection.prepare_cached(
        "SELECT ref_id, first_id, coalesce(rounds, ids) FROM log_postings WHERE round_count > 0 ORDER BY ref_id, first_id",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (run_id, first_id, bytes) = (row.get_ref(0)?, row.get_ref(1)?, row.get_ref(2)?);
        if let (Ok(run_id), Ok(first_id), Ok(bytes)) = (run_id.as_str(), first_id.as_i64(), bytes.as_blob())
            && let Ok(set) = decode(bytes)
        {
            ids(first_id, &set).for_each(|id| visit(run_id, id));
        }
    }
    let mut statement = connection.prepare_cached("SELECT segment, postings FROM log_fresh ORDER BY segment")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (Ok(segment), Ok(bytes)) = (row.get_ref(0)?.as_i64(), row.get_ref(1)?.as_blob()) else { continue };
        // The postings before the damage are good.
        let _ = each_posting(bytes, |run_id, set, rounds| {
            rounds.as_ref().unwrap_or(&set).ids(segment).for_each(|id| visit(run_id, id));
        });
    }
    Ok(())
}
