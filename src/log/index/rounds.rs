//! The rounds of a run: which rows count, and finding them by their numbers at the cost of what is returned.

use rusqlite::Connection;

use super::codec::{decode, ids};
use super::recent::Recent;
use super::sealed_end;
use crate::error::Result;
use crate::log::entry::LogEntry;
use crate::log::filter::Filter;
use crate::log::payload::{self, Payload};
use crate::log::read::by_ids;
use crate::log::{EVENT, MESSAGE, SOURCE};

/// Whether a row counts as a round: a message or an event whose payload is JSON and no start of a thread.
pub(super) fn is_round(source: Option<&str>, kind: Option<&str>, payload: Option<&str>) -> bool {
    if source != Some(SOURCE) || !matches!(kind, Some(MESSAGE | EVENT)) {
        return false;
    }
    match payload.and_then(payload::parse) {
        None => false,
        Some(Payload::Object(object)) => {
            !payload::is_text(object.kind, "thread_start") && !payload::is_text(object.role, "__start__")
        }
        Some(Payload::Other) => true,
    }
}

/// A row with the number that it has among its run's rounds.
pub(crate) struct RoundRow {
    pub(crate) number: u64,
    pub(crate) entry: LogEntry,
}

/// How many rounds the run has, those included whose rows have been archived.
pub(crate) fn round_count(connection: &Connection, recent: &Recent, run_id: &str) -> Result<u64> {
    let end = sealed_end(connection)?;
    Ok(sealed_count(connection, run_id)? + tail_rounds(connection, recent, end, run_id)?.len() as u64)
}

/// The rows whose numbers are below `before` (0: any), from the `limit` highest numbers, newest first. Rows that have
/// left the database are missing.
pub(crate) fn round_rows(
    connection: &Connection,
    recent: &Recent,
    run_id: &str,
    before: u64,
    limit: u64,
) -> Result<Vec<RoundRow>> {
    let sealed = sealed_count(connection, run_id)?;
    let tail = tail_rounds(connection, recent, sealed_end(connection)?, run_id)?;
    let total = sealed + tail.len() as u64;
    let newest = if before == 0 { total } else { total.min(before - 1) };
    let oldest = newest.saturating_sub(limit) + 1;
    let wanted = oldest..=newest;

    let mut found: Vec<RoundRow> = tail
        .into_iter()
        .zip(sealed + 1..)
        .filter(|(_, number)| wanted.contains(number))
        .map(|(entry, number)| RoundRow { number, entry })
        .collect();
    found.reverse();
    let numbered = sealed_rounds(connection, run_id, oldest, newest)?;
    let ids: Vec<i64> = numbered.iter().rev().map(|(id, _)| *id).collect();
    let mut entries = by_ids(connection, &ids)?.into_iter().rev().peekable();
    for (id, number) in numbered {
        // An index that proposes a row of another run is no reason to return it.
        if let Some(entry) =
            entries.next_if(|entry| entry.id == id).filter(|entry| entry.ref_id.as_deref() == Some(run_id))
        {
            found.push(RoundRow { number, entry });
        }
    }
    Ok(found)
}

fn sealed_count(connection: &Connection, run_id: &str) -> Result<u64> {
    let mut statement = connection.prepare_cached(
        "SELECT rounds_before + round_count FROM log_postings
         WHERE ref_id = ?1 AND round_count > 0 ORDER BY segment DESC LIMIT 1",
    )?;
    let mut rows = statement.query([run_id])?;
    Ok(rows.next()?.map_or(Ok(0), |row| row.get(0))?)
}

/// The ids of the sealed rounds numbered from `oldest` to `newest`, with their numbers, newest first.
fn sealed_rounds(connection: &Connection, run_id: &str, oldest: u64, newest: u64) -> Result<Vec<(i64, u64)>> {
    let mut statement = connection.prepare_cached(
        "SELECT segment, rounds_before, round_count, coalesce(rounds, ids) FROM log_postings
         WHERE ref_id = ?1 AND round_count > 0 AND rounds_before < ?2 ORDER BY segment DESC",
    )?;
    let mut rows = statement.query((run_id, newest))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let before: u64 = row.get(1)?;
        if before + row.get::<_, u64>(2)? < oldest {
            break;
        }
        let set = decode(row.get_ref(3)?.as_blob().map_err(rusqlite::Error::from)?)?;
        let numbered: Vec<_> = ids(row.get(0)?, &set).zip(before + 1..).collect();
        found.extend(numbered.into_iter().rev().filter(|(_, number)| (oldest..=newest).contains(number)));
    }
    Ok(found)
}

/// The rows of the tail that are rounds of the run, in order.
fn tail_rounds(connection: &Connection, recent: &Recent, sealed_end: i64, run_id: &str) -> Result<Vec<LogEntry>> {
    let filter = Filter {
        source: Some(SOURCE.to_owned()),
        ref_id: Some(run_id.to_owned()),
        after_id: Some(sealed_end),
        ..Filter::default()
    };
    let mut found = Vec::new();
    super::search(connection, recent, &filter, |entry| {
        if is_round(Some(&entry.source), Some(&entry.kind), entry.payload.as_deref()) {
            found.push(entry);
        }
    })?;
    Ok(found)
}
