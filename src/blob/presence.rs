//! Whether a blob is there already: by what the handle knows, or else by reading it. Finding it renews its grace.

use std::fs::File;

use crate::base::digest::Digest;
use crate::base::error::{Error, Result};
use crate::base::time::now_ns;
use crate::blob::path::Name;
use crate::blob::root::OpenRoot;
use crate::blob::stamp::Stamp;
use crate::blob::store::BlobStore;

/// A blob that was written or found longer ago than this has its grace renewed when it is found again. `collect` adds as
/// much to the grace, so that none is lost by it.
pub(super) const RENEW_AFTER_NS: i128 = 50_000_000;

/// To what file systems cut the times that they are told to set.
const COARSENESS_NS: [i128; 7] = [1, 100, 1_000, 1_000_000, 10_000_000, 1_000_000_000, 2_000_000_000];

/// How often a blob that others keep changing is looked at before it is replaced.
const MOST_LOOKS: usize = 3;

/// The blob that is to be in a place.
pub(super) struct Blob<'a> {
    pub(super) digest: &'a Digest,
    pub(super) name: &'a Name,
    pub(super) size: u64,
}

/// What is in a blob's place.
pub(super) enum Presence {
    /// The blob's bytes, and whether they and the way to them are known to be synced.
    Intact { stamp: Stamp, synced: bool },
    /// Other bytes, or some that cannot be read.
    Damaged,
    /// No file.
    Missing,
}

impl BlobStore {
    /// What is in the blob's place. Its grace runs from now on, if it is whole. `holds` reads the file, which has the
    /// blob's size, and says whether it is the blob; it is not asked if the store has
    /// verified the blob before, unless `verify`.
    pub(super) fn find(
        &self,
        root: &OpenRoot,
        blob: &Blob<'_>,
        verify: bool,
        holds: impl Fn(&File) -> bool,
    ) -> Result<Presence> {
        let Blob { digest, name, size } = *blob;
        for _ in 0..MOST_LOOKS {
            let Some(stat) = root.look(name.below())? else { return Ok(Presence::Missing) };
            let mut stamp = Stamp::of(&stat);
            let known = self.cache.lookup(digest, &stamp);
            let since_ns = now_ns();
            if verify || known.is_none() {
                let Some((file, stat)) = root.open_regular(name.below())? else {
                    return Ok(Presence::Missing);
                };
                stamp = Stamp::of(&stat);
                if stamp.size != size || !holds(&file) {
                    return Ok(Presence::Damaged);
                }
            }
            let synced = known.unwrap_or(false) && self.cache.lookup(digest, &stamp).unwrap_or(false);
            if since_ns - stamp.modified_ns <= RENEW_AFTER_NS {
                if known.is_none() || verify {
                    // Read it was, but is it still there?
                    if !is_unchanged(root, name, &stamp)? {
                        continue;
                    }
                    self.cache.insert(digest, stamp, root.trust(since_ns), synced);
                }
                return Ok(Presence::Intact { stamp, synced });
            }
            if let Some((stamp, is_our_own)) = renew(root, name, &stamp)? {
                if is_our_own {
                    self.cache.insert(digest, stamp, root.trust_in_own_time(), synced);
                }
                return Ok(Presence::Intact { stamp, synced });
            }
        }
        // It keeps changing, or is another's, whose grace we cannot renew: it is replaced by one of our own.
        Ok(Presence::Damaged)
    }
}

/// Renews the grace of the file with this stamp: sets when it was last written to now. Under the lock that `collect`
/// takes exclusively while it looks at a blob and removes it: it sees the new time, or we see that the blob is gone.
/// Returns the new stamp and whether its time is of our own making, to the nanosecond, so that a program that changes the
/// file changes it, too; None if the file is another by now, or changed.
fn renew(root: &OpenRoot, name: &Name, stamp: &Stamp) -> Result<Option<(Stamp, bool)>> {
    let Some(shard) = root.directory(name.shard())? else { return Ok(None) };
    let _lock = shard.lock_shared()?;
    if !is_unchanged(root, name, stamp)? {
        return Ok(None);
    }
    let set_ns = now_ns();
    match shard.touch(name.file(), set_ns) {
        Ok(()) => {}
        Err(Error::Io { errno: libc::EPERM | libc::EACCES | libc::ENOENT, .. }) => return Ok(None),
        Err(error) => return Err(error),
    }
    let Some(stat) = root.look(name.below())? else { return Ok(None) };
    let renewed = Stamp::of(&stat);
    let is_as_set = COARSENESS_NS.iter().any(|coarseness| set_ns - set_ns % coarseness == renewed.modified_ns);
    let is_our_own = renewed.modified_ns == set_ns;
    Ok((renewed.is_same_file(stamp) && is_as_set).then_some((renewed, is_our_own)))
}

fn is_unchanged(root: &OpenRoot, name: &Name, stamp: &Stamp) -> Result<bool> {
    Ok(root.look(name.below())?.is_some_and(|stat| Stamp::of(&stat) == *stamp))
}
