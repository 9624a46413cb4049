//! Content-addressed bytes, each blob one file that is named by its sha256.
//!
//! Invariants: a digest is returned only when its bytes are published under it, as durable as asked; no read returns
//! bytes that do not have the digest asked for; a file in a blob's place is replaced as a whole or not at all.
//! `docs/architecture.md`, "Blobs".

mod batch;
mod collect;
mod copy;
mod delete;
mod get;
mod list;
mod path;
mod pipe;
mod presence;
mod put;
mod root;
mod stamp;
mod store;
mod verified_cache;
mod verify;

pub use batch::Batch;
pub use collect::Collected;
pub use get::OpenBlob;
pub use list::{BlobDigests, BlobStats};
pub use put::BlobWriter;
pub use store::{BlobStore, CHUNK_BYTES};
pub use verify::{BlobProblem, Verified};
