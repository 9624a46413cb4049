//! Checking everything: SQLite's own structures, the rows against the checksums of their segments, the index against the
//! rows, and each day's file against its digest, its lines and the manifest.

mod checks;
mod found;
mod ids;
mod look;
mod report;
mod steps;

pub use report::Verified;
