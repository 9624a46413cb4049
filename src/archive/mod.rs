//! The cold archive: one file a UTC day, `archive/logs/YYYY-MM-DD.jsonl` or `.jsonl.zst`, of the rows that left the
//! database.
//!
//! Invariant: at every instant, at every crash point, every row is in the database, or in a complete, synced, published
//! file, or in both; and every read that asks for archived rows sees each row once. `docs/durability.md`, "Archive",
//! goes through the steps; `docs/format.md` describes the files and the manifest.

mod copy;
mod file;
#[cfg(test)]
mod fuzz;
mod job;
mod manifest;
mod problem;
mod read;
mod verify;

pub use file::encoder::{DayEncoder, EncodedDay};
pub use file::format::Format;
pub use file::line::{RowRef, parse_line, write_line};
pub use job::publish::ARCHIVED_UP_TO;
pub use job::reindex::Reindexed;
pub use job::steps::{JobOutcome, Options, Vacuum};
pub use manifest::catalog::Archive;
pub(crate) use manifest::owner::identity as identity_of;
pub use manifest::remote::{ObjectState, Remote, RemoteObject};
pub(crate) use manifest::schema::DERIVED;
pub use problem::Problem;
pub use read::day::{ArchivedDay, ArchivedRows};
pub use read::union::UnionPages;
pub use verify::Verified;
