//! The cold archive: one file a UTC day, `archive/logs/YYYY-MM-DD.jsonl` or `.jsonl.zst`, of the rows that left the
//! database.
//!
//! Invariant: at every instant, at every crash point, every row is in the database, or in a complete, synced, published
//! file, or in both; and every read that asks for archived rows sees each row once. `docs/durability.md`, "Archive",
//! goes through the steps; `docs/format.md` describes the files and the manifest.

mod block;
mod catalog;
mod cursor;
mod days;
mod export;
mod finish;
mod format;
mod line;
mod manifest;
mod pace;
mod reader;
mod restore;
mod rounds;
mod run;
mod scan;
mod summary;
mod take_in;
mod union;
mod verify;
mod writer;

pub use catalog::Archive;
pub use days::{ArchivedDay, ArchivedRows};
pub use finish::ARCHIVED_UP_TO;
pub use format::Format;
pub use line::{RowRef, parse_line, write_line};
pub(crate) use manifest::SCHEMA;
pub use run::{Options, Outcome, Progress, Vacuum};
pub use union::UnionPages;
pub use verify::{Problem, Verified};
