//! Types and helpers that know nothing of files and databases: errors, states of a run, time, digests, threads.

pub mod boot;
pub mod digest;
pub mod error;
pub mod fork;
pub mod ids;
pub mod interrupt;
pub(crate) mod io;
pub(crate) mod parallel;
pub mod progress;
pub(crate) mod scope;
pub mod status;
pub mod time;
pub mod wakeup;
