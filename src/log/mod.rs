//! The append-only log: rows, filters, appending and reading, and the meta key-values beside it.
//!
//! Rows never change. Ids strictly increase and are never reused; the order of ids is the order of commits.

mod append;
mod entry;
mod filter;
pub(crate) mod index;
mod meta;
mod read;
mod stats;

pub(crate) use append::insert;
pub use append::{append, append_many};
pub use entry::{DEFAULT_MAX_TEXT_BYTES, LogEntry, NewLogEntry};
pub use filter::Filter;
pub use meta::{get_meta, set_meta};
pub(crate) use meta::{read_meta, write_meta};
pub use read::{Pages, count, query};
pub(crate) use read::{by_ids, each_row};
pub use stats::{LogStats, stats};
