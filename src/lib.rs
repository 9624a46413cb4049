//! Persistent storage for workflow and agent daemons: an append-only log with workflow runs in SQLite, a cold archive
//! of day files, and content-addressed blobs, all in one directory.
//!
//! This crate is the core of the Python package `nerve_store`; `docs/architecture.md` describes it. Dependencies point
//! one way: `error, time, digest, parallel <- durable, db <- log, blob <- archive <- run <- py`. Python is known to `py` alone.

pub mod archive;
pub mod blob;
pub mod db;
pub mod digest;
pub mod durable;
pub mod error;
pub mod log;
mod parallel;
pub mod run;
pub mod time;

#[cfg(feature = "python")]
mod py;

pub use error::{Error, Result};
