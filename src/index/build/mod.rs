//! Building the index: gathering rows, sealing them as segments, merging postings, and forgetting rows that have left.

pub(crate) mod bytes;
pub(crate) mod merge;
pub(crate) mod offsets;
pub(crate) mod postings;
pub(crate) mod prune;
pub(crate) mod rekey;
pub(crate) mod sealer;
pub(crate) mod segment;
pub(crate) mod zones;
