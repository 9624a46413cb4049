//! What the rows of a segment are, gathered anew.

use std::collections::HashMap;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::base::time::TimeSpan;
use crate::index::build::segment::{Checksum, is_common};
use crate::index::verify::elements::{Elements, hash_of_key};
use crate::row::{IndexedRow, LogEntry, index_key, is_round};

/// Rows of a segment, in the order of their ids.
#[derive(Clone, Default)]
pub(crate) struct Observed {
    checksum: Checksum,
    /// Each with its times.
    pub(super) rows: Vec<(i64, TimeSpan)>,
    kinds: HashMap<(u64, u64), Vec<u32>>,
    /// Each row with a reference: the hash of its key, and whether it is a round.
    refs: Vec<(i64, u64, bool)>,
}

impl Observed {
    /// Rows that were read.
    pub(crate) fn of(first_id: i64, rows: &[LogEntry]) -> Self {
        let mut observed = Self::default();
        rows.iter().for_each(|row| observed.add(first_id, &row.indexed()));
        observed
    }

    /// Rows that were read, with the times that those of the log have there: a row that was read has no fraction any more.
    pub(crate) fn with_times_of(live: &Self, first_id: i64, rows: &[LogEntry]) -> Self {
        let mut observed = Self::default();
        for row in rows {
            let mut row = row.indexed();
            if let Ok(place) = live.rows.binary_search_by_key(&row.id, |(id, _)| *id) {
                row.timestamps = live.rows[place].1;
            }
            observed.add(first_id, &row);
        }
        observed
    }

    /// Takes in a row of the segment that begins with `first_id`.
    pub(super) fn add(&mut self, first_id: i64, row: &IndexedRow<'_>) {
        self.checksum.add(row);
        self.rows.push((row.id, row.timestamps));
        if let (Some(source), Some(kind)) = (row.source, row.kind) {
            let offset = u32::try_from(row.id.saturating_sub(first_id)).unwrap_or(u32::MAX);
            let pair = (xxh3_64(index_key(source).as_bytes()), xxh3_64(index_key(kind).as_bytes()));
            self.kinds.entry(pair).or_default().push(offset);
        }
        if let Some(ref_id) = row.ref_id {
            let is_round = is_round(row.source, row.kind, row.payload);
            self.refs.push((row.id, hash_of_key(&index_key(ref_id)), is_round));
        }
    }

    /// How many rows there are.
    pub(crate) fn row_count(&self) -> u64 {
        self.rows.len() as u64
    }

    pub(super) fn checksum(&self) -> i64 {
        self.checksum.finish()
    }

    /// When the rows were; None if there are none.
    pub(super) fn times(&self) -> Option<TimeSpan> {
        self.rows.iter().map(|(_, times)| *times).reduce(TimeSpan::union)
    }

    /// What `log_kinds` has to say, as sums.
    pub(super) fn kinds_sums(&self) -> KindsSums {
        let mut sums = KindsSums::default();
        for ((source, kind), offsets) in &self.kinds {
            let set = (!is_common(offsets.len(), self.rows.len())).then(|| offsets.iter().copied());
            sums.add(*source, *kind, set, Some(offsets.len() as u64));
        }
        sums
    }

    /// What postings have to say of the rows for which `is_wanted`.
    pub(crate) fn elements(&self, is_wanted: impl Fn(i64) -> bool) -> Elements {
        let mut elements = Elements::default();
        self.rows.iter().filter(|(id, _)| is_wanted(*id)).for_each(|(id, _)| elements.add_row(*id));
        for (id, key_hash, is_round) in self.refs.iter().filter(|(id, ..)| is_wanted(*id)) {
            elements.add(*key_hash, *id, *is_round);
        }
        elements
    }
}

/// What `log_kinds` says of a segment, as sums of hashes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct KindsSums {
    /// Where each pair is.
    places: u64,
    /// How many rows have it.
    counts: u64,
    /// Of some pairs that is not known: they were sealed by an older version.
    is_uncounted: bool,
}

impl KindsSums {
    /// Takes in a pair.
    pub(super) fn add(
        &mut self,
        source: u64,
        kind: u64,
        offsets: Option<impl Iterator<Item = u32>>,
        row_count: Option<u64>,
    ) {
        self.places = self.places.wrapping_add(hash_of_kind(source, kind, offsets));
        let seed = xxh3_64_with_seed(&kind.to_le_bytes(), source);
        let count = row_count.map_or(0, |count| xxh3_64_with_seed(&count.to_le_bytes(), seed));
        self.counts = self.counts.wrapping_add(count);
        self.is_uncounted |= row_count.is_none();
    }

    /// Whether both say the same, as far as they do.
    pub(super) fn agrees(self, other: Self) -> bool {
        self.places == other.places && (self.is_uncounted || other.is_uncounted || self.counts == other.counts)
    }
}

/// The hash of a row of `log_kinds`: the hashes of source and type, and the offsets; None: anywhere.
fn hash_of_kind(source: u64, kind: u64, offsets: Option<impl Iterator<Item = u32>>) -> u64 {
    let seed = xxh3_64_with_seed(&kind.to_le_bytes(), source);
    match offsets {
        None => xxh3_64_with_seed(b"anywhere", seed),
        Some(offsets) => offsets.fold(seed, |seed, offset| xxh3_64_with_seed(&offset.to_le_bytes(), seed)),
    }
}
