//! Whether a blob is there already: by what the handle knows, or else by reading it. Finding it renews its grace.

use std::fs::File;

use super::BlobStore;
use super::path::Name;
use super::vouch::{Stamp, now_ns};
use crate::digest::Digest;
use crate::durable::{self, Directory};
use crate::error::{Error, Result};

/// A blob that was written or found longer ago than this has its grace renewed when it is found again. `collect` adds as
/// much to the grace, so that none is lost by it.
pub(super) const RENEW_AFTER_NS: i128 = 50_000_000;

/// How often a blob that others keep changing is looked at before it is replaced.
const MOST_LOOKS: usize = 3;

/// What is in a blob's place.
pub(super) enum Found {
    /// The blob's bytes, and whether they and the way to them are known to be synced.
    Whole { stamp: Stamp, synced: bool },
    /// Other bytes, or some that cannot be read.
    Damaged,
    /// None.
    Nothing,
}

impl BlobStore {
    /// What is in the blob's place. Its grace runs from now on, if it is whole. `holds` reads the file, which has the
    /// blob's size, and says whether it is the blob; it is not asked if the store vouches for the blob, unless `verify`.
    pub(super) fn find(
        &self,
        root: &Directory,
        digest: &Digest,
        name: &Name,
        size: u64,
        verify: bool,
        holds: impl Fn(&File) -> bool,
    ) -> Result<Found> {
        for _ in 0..MOST_LOOKS {
            let Some(stat) = root.look(name.shard(), name.file())? else { return Ok(Found::Nothing) };
            let mut stamp = Stamp::of(&stat);
            let known = self.vouchers.known(digest, &stamp);
            let since_ns = now_ns();
            if verify || known.is_none() {
                let Some((file, stat)) = root.open_regular(name.shard(), name.file())? else {
                    return Ok(Found::Nothing);
                };
                stamp = Stamp::of(&stat);
                if stamp.size != size || !holds(&file) {
                    return Ok(Found::Damaged);
                }
            }
            let synced = known.unwrap_or(false) && self.vouchers.known(digest, &stamp).unwrap_or(false);
            if since_ns - stamp.modified_ns <= RENEW_AFTER_NS {
                if known.is_none() || verify {
                    // Read it was, but is it still there?
                    if !is_unchanged(root, name, &stamp)? {
                        continue;
                    }
                    self.vouchers.vouch(digest, stamp, since_ns, synced);
                }
                return Ok(Found::Whole { stamp, synced });
            }
            if let Some((stamp, unmistakable)) = self.renew(root, name, &stamp)? {
                self.vouchers.vouch(digest, stamp, if unmistakable { i128::MAX } else { since_ns }, synced);
                return Ok(Found::Whole { stamp, synced });
            }
        }
        // It keeps changing, or is another's, whose grace we cannot renew: it is replaced by one of our own.
        Ok(Found::Damaged)
    }

    /// Renews the grace of the file with this stamp: sets when it was last written to now. Under the lock that `collect`
    /// takes exclusively while it looks at a blob and removes it: it sees the new time, or we see that the blob is gone.
    /// Returns the new stamp and whether its times are of our own making, to the nanosecond, so that no change by
    /// another can leave it as it is; None if the file is another by now.
    fn renew(&self, root: &Directory, name: &Name, stamp: &Stamp) -> Result<Option<(Stamp, bool)>> {
        let Some(shard) = root.directory(name.shard())? else { return Ok(None) };
        let _lock = shard.lock_shared()?;
        if !is_unchanged(root, name, stamp)? {
            return Ok(None);
        }
        let now = durable::now();
        match shard.touch(name.file(), now) {
            Ok(()) => {}
            Err(Error::Io { errno: libc::EPERM | libc::EACCES | libc::ENOENT, .. }) => return Ok(None),
            Err(error) => return Err(error),
        }
        let Some(stat) = root.look(name.shard(), name.file())? else { return Ok(None) };
        let renewed = Stamp::of(&stat);
        if !renewed.is_same_file(stamp) {
            return Ok(None);
        }
        let now_ns = i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec);
        Ok(Some((renewed, renewed.modified_ns == now_ns)))
    }
}

fn is_unchanged(root: &Directory, name: &Name, stamp: &Stamp) -> Result<bool> {
    Ok(root.look(name.shard(), name.file())?.is_some_and(|stat| Stamp::of(&stat) == *stamp))
}
