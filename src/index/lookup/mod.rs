//! Asking the index: which rows a filter may want, and checking them.

pub(crate) mod candidates;
pub(crate) mod check;
pub(crate) mod restored;
pub(crate) mod rounds;
pub(crate) mod tail;
