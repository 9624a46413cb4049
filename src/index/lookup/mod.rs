//! Asking the index: which rows a filter may want, and checking them.

pub(crate) mod candidates;
mod check;
pub(crate) mod count;
pub(crate) mod estimate;
mod paged;
pub(crate) mod restored;
pub(crate) mod rounds;
pub(crate) mod search;
mod sections;
pub(crate) mod tail;
pub(crate) mod unmerged;
