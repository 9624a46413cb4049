//! What can still be read of a damaged database, into a new one.
//!
//! SQLite stops at the first damaged page. Here the pages of the file are read one by one, without SQLite: the trees as far as
//! they lead, then every page that no tree led to. Invariant: a row that no checksum vouches for is kept, and listed as
//! unverified; the checksums are those of the sealed segments, and those of the archive.

mod image;
mod log;
mod missing;
mod record;
mod tables;
mod tree;
mod work;

pub use work::{Salvaged, salvage};
