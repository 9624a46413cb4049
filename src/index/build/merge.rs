//! Merging the postings of a group of segments into one row a reference.
//!
//! A reference's rows lie together, so that finding them costs a few pages; and they are written once a group instead of
//! once a segment, because each row of another reference dirties another page.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension};

use crate::base::error::{Error, Result};
use crate::index::build::postings::{Posting, damaged, decode, each_posting, encode, ids};

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
    match read_group(connection, first) {
        Ok((group, segments)) => {
            let mut delete = connection.prepare_cached("DELETE FROM log_fresh WHERE segment = ?1")?;
            for segment in segments {
                delete.execute([segment])?;
            }
            write_group(connection, first, &group)
        }
        // Appending goes on; readers are told, and `reindex` reads the rows.
        Err(Error::Damaged { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Postings by the keys of their references, and the segments that they are of.
type Group = (HashMap<Box<str>, Posting>, Vec<i64>);

/// The postings of the fresh segments as far as their offsets from `first` fit.
fn read_group(connection: &Connection, first: i64) -> Result<Group> {
    let mut group: HashMap<Box<str>, Posting> = HashMap::new();
    let mut taken = Vec::new();
    let mut statement = connection.prepare_cached(
        "SELECT segment, postings, last_id FROM log_fresh JOIN log_segments ON first_id = segment ORDER BY segment",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let segment: i64 = row.get(0)?;
        if !taken.is_empty() && u32::try_from(row.get::<_, i64>(2)?.saturating_sub(first)).is_err() {
            break;
        }
        let beyond = || damaged("a segment is too far from its group");
        let base = u32::try_from(segment.saturating_sub(first)).map_err(|_| beyond())?;
        let mut is_beyond = false;
        let bytes = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
        each_posting(bytes, |ref_key, ids, rounds| {
            let posting = match group.get_mut(ref_key) {
                Some(posting) => posting,
                None => group.entry(ref_key.into()).or_default(),
            };
            let rounds = rounds.as_ref().unwrap_or(&ids);
            is_beyond |= ids.max().max(rounds.max()).is_some_and(|last| base.checked_add(last).is_none());
            posting.rounds.extend(rounds.iter().map(|offset| base.wrapping_add(offset)));
            posting.ids.extend(ids.iter().map(|offset| base.wrapping_add(offset)));
        })?;
        if is_beyond {
            return Err(beyond());
        }
        taken.push(segment);
    }
    Ok((group, taken))
}

fn write_group(connection: &Connection, first: i64, group: &HashMap<Box<str>, Posting>) -> Result<()> {
    let mut earlier = connection.prepare_cached(
        "SELECT rounds_before + round_count FROM log_postings
         WHERE ref_id = ?1 AND round_count > 0 ORDER BY first_id DESC LIMIT 1",
    )?;
    let mut insert =
        connection.prepare_cached("INSERT OR REPLACE INTO log_postings VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
    // In the order of the table, so that neighbours share pages.
    let mut postings: Vec<_> = group.iter().collect();
    postings.sort_unstable_by_key(|(ref_id, _)| *ref_id);
    for (ref_id, posting) in postings {
        let round_count = posting.rounds.len();
        let before: i64 = match round_count {
            0 => 0,
            _ => earlier.query_row([ref_id], |row| row.get(0)).optional()?.unwrap_or(0),
        };
        // The same set, most of the time.
        let rounds = (posting.rounds != posting.ids).then(|| encode(&posting.rounds));
        insert.execute((ref_id, first, encode(&posting.ids), round_count, before, rounds))?;
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
        let (Ok(run_id), Ok(bytes)) = (row.get_ref(0)?.as_str(), row.get_ref(2)?.as_blob()) else { continue };
        if let Ok(set) = decode(bytes) {
            ids(row.get(1)?, &set).for_each(|id| visit(run_id, id));
        }
    }
    let mut statement = connection.prepare_cached("SELECT segment, postings FROM log_fresh ORDER BY segment")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let segment = row.get(0)?;
        let Ok(bytes) = row.get_ref(1)?.as_blob() else { continue };
        // The postings before the damage are good.
        let _ = each_posting(bytes, |run_id, set, rounds| {
            ids(segment, rounds.as_ref().unwrap_or(&set)).for_each(|id| visit(run_id, id));
        });
    }
    Ok(())
}
