//! Content-addressed bytes, each blob one file that is named by its sha256.
//!
//! Invariants: a digest is returned only when its bytes are published under it, as durable as asked; no read returns
//! bytes that do not have the digest asked for; a file in a blob's place is replaced as a whole or not at all.
//! `docs/architecture.md`, "Blobs".

mod batch;
mod collect;
mod delete;
mod get;
mod list;
mod path;
mod pipe;
mod presence;
mod put;
mod root;
mod verify;
mod vouch;

use std::io::{self, ErrorKind, Read};
use std::path::{Path, absolute};
use std::sync::{Arc, RwLock};

pub use batch::Batch;
pub use collect::Collected;
pub use get::OpenBlob;
pub use list::{BlobDigests, BlobStats};
pub use put::BlobWriter;
pub use verify::{BlobProblem, Verified};

use crate::base::error::{Error, Result};
use crate::durable;
use crate::durable::{Directory, Durability, Poison};
use root::Root;
use vouch::Vouchers;

/// How much is read, hashed and written at a time.
pub const CHUNK_BYTES: usize = 256 * 1024;

/// A staged file that nobody has written to for so long belongs to nobody: its writer died.
const ORPHANED_AFTER_SECONDS: i64 = 24 * 60 * 60;

/// The blobs under one directory. Any number of threads and processes may use the same one; between calls it holds
/// no lock, and nothing open but two directories, so that a forked child may go on with its parent's. It need not be
/// closed: that only lets go of the directories, and whoever needs them opens them again.
pub struct BlobStore {
    root: Arc<Path>,
    durability: Durability,
    read_only: bool,
    poison: Poison,
    vouchers: Vouchers,
    /// The root as it was last met, kept open to save the way there. Each use makes sure that it is still where it was.
    kept: RwLock<Option<Arc<Root>>>,
}

impl BlobStore {
    /// The store under `root`, which the first write creates. A relative `root` keeps its meaning when the process
    /// changes its directory.
    pub fn new(root: &Path, durability: Durability, read_only: bool) -> Result<Self> {
        let failed = |error: io::Error| match error.kind() {
            ErrorKind::InvalidInput => Error::Value(format!("no path of a blob store: {root:?}: {error}")),
            _ => Error::io(root, "open a blob store", &error),
        };
        let root: Arc<Path> = absolute(root).map_err(failed)?.into();
        match root.metadata() {
            Ok(metadata) if !metadata.is_dir() => {
                let reason = format!("it is {}, not a directory", durable::kind_name(metadata.file_type()));
                return Err(Error::errno(&root, "open a blob store", libc::ENOTDIR, reason));
            }
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        if !read_only {
            // Of no consequence if it fails: the next one who opens the store tries again.
            let _ = sweep(&root);
        }
        Ok(Self {
            root,
            durability,
            read_only,
            poison: Poison::new(),
            vouchers: Vouchers::new(),
            kept: RwLock::new(None),
        })
    }

    /// The directory, absolute.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Refuses what would change anything where nothing may be changed.
    fn check_writable(&self, operation: &'static str) -> Result<()> {
        if self.read_only {
            return Err(Error::errno(&self.root, operation, libc::EROFS, "the store was opened with read_only".into()));
        }
        self.poison.check(&self.root)
    }
}

fn sweep(root: &Path) -> Result<()> {
    let Some(root) = Directory::open(root)? else { return Ok(()) };
    root.directory(path::STAGING)?.map_or(Ok(()), |staging| staging.sweep_staged(ORPHANED_AFTER_SECONDS))
}

/// Reads until `buffer` is full or the end is there; says how much it read.
fn read_full(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests do to the files what others might")]
mod tests {
    use super::*;
    use crate::base::digest::Digest;

    #[test]
    fn a_root_that_is_a_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, b"").unwrap();
        for root in [file.clone(), file.join("below")] {
            let refused = BlobStore::new(&root, Durability::Full, false);
            assert!(matches!(refused, Err(Error::Io { errno: libc::ENOTDIR, .. })), "{root:?}");
        }
        assert!(matches!(BlobStore::new(Path::new(""), Durability::Full, false), Err(Error::Value(_))));
    }

    #[test]
    fn a_read_only_store_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("blobs");
        let store = BlobStore::new(&root, Durability::Full, true).unwrap();
        let digest = Digest::of(b"x");
        assert!(matches!(store.write(b"x", false), Err(Error::Io { errno: libc::EROFS, .. })));
        assert!(matches!(store.writer().err(), Some(Error::Io { errno: libc::EROFS, .. })));
        assert!(matches!(store.delete(&digest), Err(Error::Io { errno: libc::EROFS, .. })));
        assert!(store.read(&digest).unwrap().is_none());
        assert!(!root.exists());
    }

    #[test]
    fn a_failed_flush_poisons_the_handle_for_writing_alone() {
        let directory = tempfile::tempdir().unwrap();
        let store = BlobStore::new(directory.path(), Durability::Full, false).unwrap();
        let digest = store.write(b"x", false).unwrap();
        store.poison.watch(durable::sync_directory(Path::new("/proc"))).unwrap_err();
        assert!(matches!(store.write(b"y", false), Err(Error::Poisoned { errno: libc::EINVAL, .. })));
        assert!(matches!(store.delete(&digest), Err(Error::Poisoned { .. })));
        assert_eq!(store.read(&digest).unwrap().unwrap(), b"x");
    }
}
