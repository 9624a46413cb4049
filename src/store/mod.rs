//! The log and its archive as one: what a caller opens, asks and closes.
//!
//! Each method decides from its arguments whether the archive takes part; the bindings, and tests in Rust, call these and
//! nothing below.

pub mod arrow;
mod backup;
mod follow;
mod handle;
mod query;
mod rows;
mod tables;

pub use backup::{Backup, CopyBlobs};
pub use follow::Follower;
pub use handle::{LogStore, StoreConfig, check_meta_key};
pub use query::Query;
pub use rows::Rows;

#[cfg(test)]
mod archive_tests;
