//! Persistent storage for workflow and agent daemons: an append-only log with workflow runs in SQLite, a cold archive
//! of day files, and content-addressed blobs, all in one directory.
//!
//! This crate is the core of the Python package `nerve_store`; `docs/architecture.md` is its map. Dependencies point one
//! way, and `make lint` checks that they do. Python is known to `py` alone.

#[cfg(not(unix))]
compile_error!(
    "nerve_store does not support Windows: it relies on POSIX locks, on handles of directories, and on names that outlive \
     open files. Use it in WSL 2 or in a Linux container, on a file system of Linux."
);

pub mod archive;
pub mod base;
pub mod blob;
pub mod db;
pub mod durable;
mod index;
pub mod log;
pub mod row;
pub mod salvage;
pub mod store;
pub mod workflow;

#[cfg(feature = "python")]
mod py;

pub use base::error::{Error, Result};
