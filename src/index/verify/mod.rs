//! Whether the rows of sealed segments are still what was sealed, and whether the index says of them what they are.
//!
//! Everything that the index says is computed again from the rows and compared. Of postings, which are ordered by
//! reference and not by row, sums are compared: of one hash for each reference, row and round.

mod elements;
mod observed;
mod postings;
mod segment;
mod unreadable;

pub(crate) use elements::Elements;
pub(crate) use observed::Observed;
pub(crate) use postings::check_postings;
pub(crate) use segment::{Live, Segment, Segments, list, segments};
pub(crate) use unreadable::Unreadable;
