//! The segment index: how rows are found without a B-tree index that every append would have to keep.
//!
//! Rows are appended to `logs` alone. Each time a segment's worth has gathered, the transaction that crosses the line
//! *seals* them: it writes which (source, type) pairs and which times occur in the segment, and, as one blob, where which
//! reference occurs. Each time a group of segments has gathered, it *merges* their blobs into one row a reference. What
//! is not sealed yet is the *tail*, which is scanned. `docs/format.md` describes the bytes, `docs/architecture.md` why it
//! is fast.
//!
//! Invariants: `logs` is the truth. The index only proposes rows, and every proposed row is checked against the whole
//! filter; it may propose too much, never too little. The one exception: the round postings number the rounds of a run,
//! computed once, from the row itself, when it is sealed.

pub(crate) mod bounds;
pub(crate) mod build;
pub(crate) mod doubt;
pub(crate) mod given;
pub(crate) mod lookup;
pub(crate) mod schema;
pub(crate) mod verify;
