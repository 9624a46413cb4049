//! One day's file: its lines, its blocks, and writing, reading and scanning it.

pub(crate) mod block;
pub(crate) mod encoder;
pub(crate) mod format;
pub(crate) mod frame;
pub(crate) mod last_id;
pub(crate) mod line;
pub(crate) mod reader;
pub(crate) mod remains;
pub(crate) mod scan;
pub(crate) mod summary;
pub(crate) mod writer;
