//! The rounds of a run in the log and the archive.
//!
//! The log's index numbers rounds when their rows are sealed, and keeps the numbers of those that are archived. Only
//! rounds that were archived before the index could see them, by the predecessor, are known to the archive alone; where
//! a run has any, its rounds are numbered here, from all of their ids.

use std::collections::HashMap;

use roaring::RoaringTreemap;

use crate::archive::manifest::catalog::{Archive, DayCandidate};
use crate::archive::manifest::days::set_of;
use crate::base::error::Result;
use crate::log::{Snapshot, by_ids};
use crate::row::{Filter, LogEntry, NumberedRound};

impl Archive {
    /// How many rounds the run has.
    pub fn round_count(&self, run_id: &str) -> Result<u64> {
        self.log.read("count rounds", |snapshot| {
            let candidates = self.candidates(snapshot.connection(), &of_run(run_id))?;
            match all_rounds(snapshot, &candidates, run_id)? {
                Some(rounds) => Ok(rounds.len()),
                None => snapshot.round_count(run_id),
            }
        })
    }

    /// The numbers and rows of the run's rounds numbered below `before` (0: any), the `limit` highest, newest first.
    pub(crate) fn round_rows(&self, run_id: &str, before: u64, limit: u64) -> Result<Vec<(u64, LogEntry)>> {
        let (rounds, live, candidates) = self.log.read("read rounds", |snapshot| {
            let candidates = self.candidates(snapshot.connection(), &of_run(run_id))?;
            let rounds = match all_rounds(snapshot, &candidates, run_id)? {
                Some(rounds) => page(&rounds, before, limit),
                None => snapshot.round_ids(run_id, before, limit)?,
            };
            let ids: Vec<i64> = rounds.iter().rev().map(|round| round.id).collect();
            Ok((rounds, by_ids(snapshot.connection(), &ids)?, candidates))
        })?;
        let mut rows: HashMap<i64, LogEntry> = live.into_iter().map(|row| (row.id, row)).collect();
        let missing: Vec<i64> = rounds.iter().rev().map(|round| round.id).filter(|id| !rows.contains_key(id)).collect();
        if !missing.is_empty() {
            self.each_of(candidates, &set_of(&missing), &mut |row| drop(rows.insert(row.id, row)))?;
        }
        // An index that proposes a row of another run is no reason to return it.
        let rows = rounds.into_iter().filter_map(|round| {
            rows.remove(&round.id).filter(|row| row.ref_id() == Some(run_id)).map(|row| (round.number, row))
        });
        Ok(rows.collect())
    }
}

fn of_run(run_id: &str) -> Filter {
    Filter { ref_id: Some(run_id.to_owned()), ..Filter::default() }
}

/// The ids of all rounds of the run, if the index does not know all of them; else None.
fn all_rounds(snapshot: &Snapshot<'_>, candidates: &[DayCandidate], run_id: &str) -> Result<Option<RoaringTreemap>> {
    let mut rounds = RoaringTreemap::new();
    for candidate in candidates {
        rounds |= candidate.rounds(snapshot.connection(), run_id)?;
    }
    if rounds.is_empty() {
        return Ok(None);
    }
    rounds |= set_of(&snapshot.known_rounds(run_id)?);
    Ok(Some(rounds))
}

/// Of rounds numbered from 1 those below `before` (0: any), the `limit` highest, newest first.
fn page(rounds: &RoaringTreemap, before: u64, limit: u64) -> Vec<NumberedRound> {
    let newest = if before == 0 { rounds.len() } else { rounds.len().min(before - 1) };
    let oldest = newest.saturating_sub(limit) + 1;
    let mut found: Vec<_> = rounds
        .iter()
        .zip(1..)
        .map(|(id, number)| NumberedRound { number, id: id.cast_signed() })
        .filter(|round| (oldest..=newest).contains(&round.number))
        .collect();
    found.reverse();
    found
}
