//! The rounds of a run: which rows count, and finding them by their numbers at the cost of what is returned.

use std::ops::RangeInclusive;

use rusqlite::Connection;

use crate::base::error::Result;
use crate::index::build::offsets::{decode, ids};
use crate::index::lookup::unmerged::UnmergedIndex;
use crate::row::{NumberedRound, index_key};

/// How many rounds the run has, those included whose rows have been archived.
pub(crate) fn round_count(connection: &Connection, unmerged: &UnmergedIndex, run_id: &str) -> Result<u64> {
    let newest = unmerged.ids_beside_others(connection, &index_key(run_id))?;
    Ok(merged_count(connection, run_id)?.saturating_add(newest.rounds.len() as u64))
}

/// The rounds numbered below `before` (0: any), the `limit` highest numbers, newest first.
/// Some rows may have left the database.
pub(crate) fn round_ids(
    connection: &Connection,
    unmerged: &UnmergedIndex,
    run_id: &str,
    before: u64,
    limit: u64,
) -> Result<Vec<NumberedRound>> {
    let newest = unmerged.ids_beside_others(connection, &index_key(run_id))?;
    let merged = merged_count(connection, run_id)?;
    let total = merged.saturating_add(newest.rounds.len() as u64);
    let greatest = if before == 0 { total } else { total.min(before - 1) };
    let wanted = greatest.saturating_sub(limit) + 1..=greatest;
    let mut rounds = numbered(newest.rounds.into_iter(), merged, &wanted);
    if *wanted.start() <= merged {
        rounds.extend(merged_rounds(connection, run_id, &wanted)?);
    }
    Ok(rounds)
}

/// The ids of all rounds of the run that the index knows, ascending.
pub(crate) fn known_rounds(connection: &Connection, unmerged: &UnmergedIndex, run_id: &str) -> Result<Vec<i64>> {
    let rounds = round_ids(connection, unmerged, run_id, 0, u64::MAX)?;
    Ok(rounds.into_iter().rev().map(|round| round.id).collect())
}

fn merged_count(connection: &Connection, run_id: &str) -> Result<u64> {
    let mut statement = connection.prepare_cached(
        "SELECT rounds_before + round_count FROM log_postings
         WHERE ref_id = ?1 AND round_count > 0 ORDER BY first_id DESC LIMIT 1",
    )?;
    let mut rows = statement.query([&*index_key(run_id)])?;
    Ok(rows.next()?.map_or(Ok(0), |row| row.get(0))?)
}

/// The merged rounds with the numbers `wanted`, newest first.
fn merged_rounds(connection: &Connection, run_id: &str, wanted: &RangeInclusive<u64>) -> Result<Vec<NumberedRound>> {
    let mut statement = connection.prepare_cached(
        "SELECT first_id, rounds_before, round_count, coalesce(rounds, ids) FROM log_postings
         WHERE ref_id = ?1 AND round_count > 0 AND rounds_before < ?2 ORDER BY first_id DESC",
    )?;
    let mut rows = statement.query((&*index_key(run_id), wanted.end()))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let before: u64 = row.get(1)?;
        if before.saturating_add(row.get(2)?) < *wanted.start() {
            break;
        }
        let set = decode(row.get_ref(3)?.as_blob().map_err(rusqlite::Error::from)?)?;
        found.extend(numbered(ids(row.get(0)?, &set), before, wanted));
    }
    Ok(found)
}

/// Of rounds with ascending ids, numbered after `before` others, the wanted ones, newest first.
fn numbered(ids: impl Iterator<Item = i64>, before: u64, wanted: &RangeInclusive<u64>) -> Vec<NumberedRound> {
    let mut rounds: Vec<_> = ids
        .zip(before.saturating_add(1)..)
        .map(|(id, number)| NumberedRound { number, id })
        .filter(|round| wanted.contains(&round.number))
        .collect();
    rounds.reverse();
    rounds
}

#[cfg(test)]
mod tests {
    use crate::index::build::sealer::Archived;
    use crate::log::{Log, LogConfig, query};
    use crate::row::{EVENT, Filter, MESSAGE, NewLogEntry, SOURCE};
    use proptest::prelude::*;
    use roaring::RoaringTreemap;

    const PAYLOADS: [(&str, bool); 6] = [
        ("{\"role\":\"a\",\"content\":\"b\"}", true),
        ("{\"type\":\"thread_start\"}", false),
        ("{\"role\":\"__start__\",\"content\":\"b\"}", false),
        ("not JSON", false),
        ("null", true),
        ("{\"type\":\"call\"}", true),
    ];
    const RUNS: [&str; 3] = ["r1", "r2", "r3"];

    type Row = (usize, usize, bool);

    fn rows() -> impl Strategy<Value = Vec<Row>> {
        proptest::collection::vec((0..PAYLOADS.len(), 0..RUNS.len(), any::<bool>()), 0..30)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn rounds_have_the_numbers_of_a_plain_count(
            batches in proptest::collection::vec((rows(), any::<bool>()), 1..8),
            segment_rows in 2_u64..6,
            pages in proptest::collection::vec((0_u64..40, 0_u64..12), 8),
        ) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("logs.db");
            let config = LogConfig { segment_rows: Some(segment_rows), ..LogConfig::default() };
            let mut log = Log::open(&path, config, &mut |_, _| Ok(())).unwrap();
            let mut expected: [Vec<i64>; 3] = Default::default();
            for (batch, reopen) in batches {
                let entries: Vec<_> = batch
                    .iter()
                    .map(|(payload, run, is_event)| NewLogEntry {
                        source: SOURCE,
                        kind: if *is_event { EVENT } else { MESSAGE },
                        ref_id: Some(RUNS[*run]),
                        payload: Some(PAYLOADS[*payload].0),
                        timestamp: Some(1),
                    })
                    .collect();
                let first = log.append_many(&entries, None).unwrap();
                for (id, (payload, run, _)) in (first..).zip(&batch) {
                    if PAYLOADS[*payload].1 {
                        expected[*run].push(id);
                    }
                }
                if reopen {
                    drop(log);
                    log = Log::open(&path, config, &mut |_, _| Ok(())).unwrap();
                }
                for (run, ids) in RUNS.iter().zip(&expected) {
                    prop_assert_eq!(log.read("test", |snapshot| snapshot.round_count(run)).unwrap(), ids.len() as u64);
                    for (before, limit) in &pages {
                        let found = log.read("test", |snapshot| snapshot.round_ids(run, *before, *limit)).unwrap();
                        let found: Vec<_> = found.into_iter().map(|round| (round.number, round.id)).collect();
                        let numbered = (1..).zip(ids.iter().copied()).filter(|(number, _)| *before == 0 || number < before);
                        let mut wanted: Vec<(u64, i64)> = numbered.collect();
                        wanted.reverse();
                        wanted.truncate(usize::try_from(*limit).unwrap());
                        prop_assert_eq!(found, wanted);
                    }
                }
            }
            let nothing_archived = Archived { ids: &RoaringTreemap::new(), each_round: &|_, _| Ok(()) };
            let unharmed = query(&log, &Filter { ref_id: Some("r2".into()), ..Filter::default() }).unwrap();
            log.reindex(&nothing_archived, |_| Ok(()), &mut |_, _| Ok(())).unwrap();
            prop_assert_eq!(query(&log, &Filter { ref_id: Some("r2".into()), ..Filter::default() }).unwrap(), unharmed);
            // Rounds keep their numbers when their rows leave.
            let all = query(&log, &Filter::default()).unwrap();
            log.write("test", None, |transaction| {
                transaction.seal()?;
                Ok(transaction.connection().execute_batch("DELETE FROM logs")?)
            }).unwrap();
            prop_assert_eq!(query(&log, &Filter::default()).unwrap(), vec![]);
            // Nor is it they that are forgotten.
            log.prune(None).unwrap();
            for (run, ids) in RUNS.iter().zip(&expected) {
                prop_assert_eq!(log.read("test", |snapshot| snapshot.round_count(run)).unwrap(), ids.len() as u64);
            }
            log.reindex(&nothing_archived, |_| Ok(()), &mut |_, _| Ok(())).unwrap();
            for (run, ids) in RUNS.iter().zip(&expected) {
                prop_assert_eq!(log.read("test", |snapshot| snapshot.round_count(run)).unwrap(), ids.len() as u64);
            }
            let late = NewLogEntry { source: SOURCE, kind: EVENT, ref_id: Some("r1"), payload: Some("1"), timestamp: Some(1) };
            let id = log.append_many(&[late], None).unwrap();
            prop_assert!(all.iter().all(|entry| entry.id < id));
            let newest = log.read("test", |snapshot| snapshot.round_ids("r1", 0, 1)).unwrap();
            prop_assert_eq!(newest[0].number, expected[0].len() as u64 + 1);
        }
    }
}
