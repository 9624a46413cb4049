//! The rounds of a run in the log and the archive.
//!
//! The log's index numbers rounds when their rows are sealed, and keeps the numbers of those that are archived. Only
//! rounds that were archived before the index could see them, by the predecessor, are known to the archive alone; where
//! a run has any, its rounds are numbered here, from all of their ids.

use std::collections::HashMap;

use roaring::RoaringTreemap;

use crate::archive::manifest::candidates::DayCandidate;
use crate::archive::manifest::catalog::Archive;
use crate::archive::manifest::expired;
use crate::archive::manifest::overlap::live_among;
use crate::archive::manifest::values::set_of;
use crate::base::error::Result;
use crate::log::{Snapshot, by_ids};
use crate::row::{Filter, LogEntry, NumberedRound, index_key};

impl Archive {
    /// How many rounds the run has.
    pub fn round_count(&self, run_id: &str) -> Result<u64> {
        let (count, shared) = self.log.read("count rounds", |snapshot| {
            let candidates = self.candidates(snapshot, &of_run(run_id))?;
            let count = match all_rounds(snapshot, &candidates, run_id)? {
                Some(rounds) => rounds.len(),
                None => snapshot.round_count(run_id)?,
            };
            Ok((count, shared(snapshot, &candidates, run_id)?))
        })?;
        self.check_shared(shared)?;
        Ok(count)
    }

    /// The numbers and rows of the run's rounds numbered below `before` (0: any), the `limit` highest, newest first.
    pub(crate) fn round_rows(&self, run_id: &str, before: u64, limit: u64) -> Result<Vec<(u64, LogEntry)>> {
        let (rounds, mut live, candidates, shared) = self.log.read("read rounds", |snapshot| {
            let candidates = self.candidates(snapshot, &of_run(run_id))?;
            let rounds = match all_rounds(snapshot, &candidates, run_id)? {
                Some(rounds) => page(&rounds, before, limit),
                None => snapshot.round_ids(run_id, before, limit)?,
            };
            let ids: Vec<i64> = rounds.iter().rev().map(|round| round.id).collect();
            let shared = shared(snapshot, &candidates, run_id)?;
            Ok((rounds, by_ids(snapshot.connection(), &ids)?, candidates, shared))
        })?;
        self.check_shared(shared)?;
        // An index that proposes a row of another run is no reason to return it.
        let is_of_run = |row: &LogEntry| row.ref_id() == Some(run_id);
        live.retain(is_of_run);
        let mut rows: HashMap<i64, LogEntry> = live.into_iter().map(|row| (row.id, row)).collect();
        let missing: Vec<i64> = rounds.iter().rev().map(|round| round.id).filter(|id| !rows.contains_key(id)).collect();
        if !missing.is_empty() {
            self.each_of(candidates, &set_of(&missing), &mut |row| drop(rows.insert(row.id, row)))?;
        }
        let rows = rounds
            .into_iter()
            .filter_map(|round| rows.remove(&round.id).filter(is_of_run).map(|row| (round.number, row)));
        Ok(rows.collect())
    }

    /// An error if the log has other rows of the run than the files under the ids that both have.
    fn check_shared(&self, shared: Vec<(DayCandidate, RoaringTreemap)>) -> Result<()> {
        for (candidate, ids) in shared {
            let Some(open) = self.open_candidate(&candidate)? else { continue };
            if let Some(id) = self.conflicts(open, &ids)?.min()
                && let Some(open) = self.open_candidate(&candidate)?
            {
                return Err(self.conflict(open, id.cast_signed()));
            }
        }
        Ok(())
    }
}

/// The ids under which both the log and a file have a row of the run: such a pair counts as one round.
fn shared(
    snapshot: &Snapshot<'_>,
    candidates: &[DayCandidate],
    run_id: &str,
) -> Result<Vec<(DayCandidate, RoaringTreemap)>> {
    let mut found = Vec::new();
    for candidate in candidates {
        let Some(wanted) = &candidate.wanted else { continue };
        let ids: Vec<i64> = live_among(snapshot.connection(), wanted)?.iter().map(u64::cast_signed).collect();
        let of_run = by_ids(snapshot.connection(), &ids)?.into_iter().filter(|row| row.ref_id() == Some(run_id));
        let ids: RoaringTreemap = of_run.map(|row| row.id.cast_unsigned()).collect();
        if !ids.is_empty() {
            found.push((candidate.clone(), ids));
        }
    }
    Ok(found)
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
    rounds |= expired::rounds(snapshot.connection(), &index_key(run_id))?;
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
