//! Stage, sync, publish, sync the directory: the only place that creates, renames, locks or removes files.
//!
//! The order is the invariant: nothing is published under its name before its bytes are where the caller asked them to
//! be, and nothing counts as published before its directory entry is there too. `docs/durability.md` says what each
//! step is for.
#![expect(clippy::disallowed_methods, reason = "this is the one place that may")]

mod directory;
mod duplicate;
mod durability;
mod files;
mod lock;
mod poison;
mod record;
mod staged;
mod sweep;
mod sync;
mod system;

pub use directory::{Directory, Locked};
pub use duplicate::{Batch, Copied, Duplicate, Original, Sharing, digest_of, duplicate, is_same_file};
pub use durability::Durability;
pub use files::{create_directories, kind_name, open_regular, remove};
pub use lock::DirectoryLock;
pub use poison::Poison;
pub use record::{RECORD_BYTES, Record};
pub use staged::{Staged, create_empty};
pub use sweep::{sweep_orphaned, sweep_staged};
pub use sync::{sync_directory, sync_file, sync_parent};
