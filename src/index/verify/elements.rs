//! What postings have to say, as sums: which reference each row has, and whether it is a round.

use std::collections::BTreeMap;

use roaring::RoaringTreemap;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::base::ids::IdSpan;

/// Ids whose elements are summed up together, as a power of two.
const BUCKET_BITS: u32 = 16;

/// Rows, and the sums of the hashes of their elements. An element is a row with its reference, and whether it is a
/// round; the sum is the same in whatever order they are seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Elements {
    /// The rows, also those without a reference.
    ids: RoaringTreemap,
    sums: BTreeMap<i64, u64>,
}

/// The hash of a reference's key.
pub(super) fn hash_of_key(ref_key: &str) -> u64 {
    xxh3_64(ref_key.as_bytes())
}

/// The hash of an element.
pub(super) fn hash_of(key_hash: u64, id: i64, is_round: bool) -> u64 {
    xxh3_64_with_seed(&id.to_le_bytes(), key_hash ^ u64::from(is_round))
}

/// The bucket of a row.
pub(super) fn bucket_of(id: i64) -> i64 {
    id >> BUCKET_BITS
}

/// The ids of a bucket.
pub(super) fn ids_of(bucket: i64) -> IdSpan {
    let first = bucket << BUCKET_BITS;
    IdSpan { first, last: first | ((1 << BUCKET_BITS) - 1) }
}

impl Elements {
    /// Takes in a row.
    pub(super) fn add_row(&mut self, id: i64) {
        self.ids.insert(id.cast_unsigned());
    }

    /// Takes in rows that are nothing else.
    pub(crate) fn add_rows(&mut self, ids: &RoaringTreemap) {
        self.ids |= ids;
    }

    /// Takes in the element of a row.
    pub(super) fn add(&mut self, key_hash: u64, id: i64, is_round: bool) {
        let sum = self.sums.entry(bucket_of(id)).or_default();
        *sum = sum.wrapping_add(hash_of(key_hash, id, is_round));
    }

    /// Takes in rounds of a reference.
    pub(crate) fn add_rounds(&mut self, ref_key: &str, ids: &[i64]) {
        let key_hash = hash_of_key(ref_key);
        ids.iter().for_each(|id| self.add(key_hash, *id, true));
    }

    /// Takes in all of the others.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.ids |= &other.ids;
        for (bucket, sum) in &other.sums {
            let known = self.sums.entry(*bucket).or_default();
            *known = known.wrapping_add(*sum);
        }
    }

    pub(super) fn contains(&self, id: i64) -> bool {
        self.ids.contains(id.cast_unsigned())
    }

    /// The sums without rows.
    pub(super) fn of_same_rows(&self) -> Self {
        Self { ids: RoaringTreemap::new(), sums: self.sums.keys().map(|bucket| (*bucket, 0)).collect() }
    }

    /// The buckets whose sums differ.
    pub(super) fn differing(&self, other: &Self) -> Vec<i64> {
        let mut buckets: Vec<i64> = self.sums.keys().chain(other.sums.keys()).copied().collect();
        buckets.sort_unstable();
        buckets.dedup();
        let sum = |elements: &Self, bucket: &i64| elements.sums.get(bucket).copied().unwrap_or_default();
        buckets.retain(|bucket| sum(self, bucket) != sum(other, bucket));
        buckets
    }
}
