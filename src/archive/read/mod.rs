//! Reading archived rows: a day, a filter over log and archive, the rounds of a run; and putting a day back.

pub(crate) mod cursor;
pub(crate) mod day;
pub(crate) mod merge;
pub(crate) mod restore;
pub(crate) mod rounds;
pub(crate) mod union;
