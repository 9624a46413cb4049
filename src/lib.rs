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

#[cfg(unix)]
pub mod archive;
#[cfg(unix)]
pub mod base;
#[cfg(unix)]
pub mod blob;
#[cfg(unix)]
pub mod db;
#[cfg(unix)]
pub mod durable;
#[cfg(unix)]
mod index;
#[cfg(unix)]
pub mod log;
#[cfg(unix)]
pub mod row;
#[cfg(unix)]
pub mod salvage;
#[cfg(unix)]
pub mod store;
#[cfg(unix)]
pub mod workflow;

#[cfg(feature = "python")]
#[cfg(unix)]
mod py;

#[cfg(unix)]
pub use base::error::{Error, Result};
