//! The append-only log: rows, filters, appending and reading, and the meta key-values beside it.
//!
//! Rows never change. Ids strictly increase and are never reused; the order of ids is the order of commits.

mod append;
mod commit;
mod entry;
mod filter;
mod follow;
pub(crate) mod index;
mod meta;
pub(crate) mod payload;
mod read;
mod restore;
mod stats;
mod store;
mod texts;

pub use append::{append, append_many};
pub use commit::{Committed, Waiter, submit};
pub use entry::{DEFAULT_MAX_TEXT_BYTES, LogEntry, NewLogEntry, OwnedEntry};
pub use filter::Filter;
pub use follow::{Follower, ReadPage, read_page};
pub use meta::{get_meta, set_meta};
pub(crate) use meta::{read_meta, write_meta};
pub use read::{Pages, count, query};
pub(crate) use read::{by_ids, each_by_ids};
pub use stats::{LogStats, stats};
pub(crate) use store::last_given_id;
pub use store::{Log, LogConfig, Progress, Snapshot, Transaction};

/// Whether the row counts as a round of its run.
pub(crate) fn is_round(entry: &LogEntry) -> bool {
    index::is_round(Some(entry.source()), Some(entry.kind()), entry.payload())
}

/// The source of the rows that belong to a workflow run.
pub(crate) const SOURCE: &str = "workflow";
/// The type of a thread's messages.
pub(crate) const MESSAGE: &str = "thread_workflow_message";
/// The type of a thread's command events.
pub(crate) const EVENT: &str = "thread_command_event";
