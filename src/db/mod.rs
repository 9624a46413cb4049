//! The SQLite database: opening it, its schema, the one writer and the pool of readers.
//!
//! Invariants: every write is one `BEGIN IMMEDIATE` transaction of the one writer connection; every read is one short
//! transaction of a pooled read-only connection; no other module opens a connection or begins a transaction.
//! See `docs/decisions/0011-one-writer-pooled-readers.md`.

mod checkpoints;
mod copy;
mod database;
mod failure;
mod file;
mod fork;
pub(crate) mod format;
// Elsewhere SQLite's off_t need not be libc's.
#[cfg_attr(not(all(target_os = "linux", target_pointer_width = "64")), path = "frames_apart.rs")]
mod frames;
mod held;
mod inotify;
mod name;
mod open;
mod page_cache;
mod pages;
mod readers;
mod schema;
mod sql;
mod system;
mod table;
#[cfg(test)]
mod tests;
mod turn;
mod unlocked;
mod vacuum;
mod wait;
mod wal;
mod wal_condition;
mod watch;
mod writer;

pub use checkpoints::CHECKPOINT_PAGES;
pub use copy::{has_rollback_journal, is_open_here, look_into};
pub use database::{Config, Database};
pub(crate) use failure::stored;
pub use fork::prepare as prepare_for_forks;
pub(crate) use name::stored_name;
pub use open::UNFINISHED_BACKUP;
pub use schema::{Derived, Object, SCHEMA_VERSION};
pub(crate) use schema::{lacking, schema_version, suit_triggers};
pub use sql::{NamedRows, SqlParams};
pub(crate) use table::{Reached, each_record};
pub(crate) use wal_condition::checksum as wal_checksum;
pub use wal_condition::{WalCondition, wal_condition};
pub(crate) use watch::Watching;

/// The version of the SQLite that is compiled in.
pub fn sqlite_version() -> &'static str {
    rusqlite::version()
}
