//! The cold archive: one file a UTC day, `archive/logs/YYYY-MM-DD.jsonl`, of the rows that left the database.
//!
//! Invariant: at every instant, at every crash point, every row is in the database, or in a complete, synced, published
//! file, or in both. `docs/durability.md`, "Archive", goes through the steps.

mod day_file;
mod export;
mod line;
mod run;

pub use day_file::{ArchivedDay, DayFile};
pub use line::{parse_line, write_line};
pub use run::{ARCHIVED_UP_TO, Archive, ArchivedRows, Options, Outcome, Progress};
