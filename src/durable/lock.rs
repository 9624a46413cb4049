//! The lock on a directory that one process holds for long.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::FlockOperation;

use crate::base::error::{Error, Result};
use crate::base::fork::PrivateFd;

/// An advisory lock on a directory, held until it is dropped or the process ends, whatever children it has forked.
pub struct DirectoryLock(PrivateFd<File>);

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // Explicitly, for a child that is forked between the end of the registration and the close.
        let _ = rustix::fs::flock(&self.0, FlockOperation::Unlock);
    }
}

impl DirectoryLock {
    /// Takes the lock; None if it is held already.
    pub fn try_exclusive(directory: &Path) -> Result<Option<Self>> {
        let failed = |error: &io::Error| Error::io(directory, "lock a directory", error);
        let handle = PrivateFd::new(File::open(directory).map_err(|error| failed(&error))?);
        match rustix::fs::flock(&handle, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self(handle))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(failed(&error.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_lock_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let held = DirectoryLock::try_exclusive(directory.path()).unwrap().unwrap();
        assert!(DirectoryLock::try_exclusive(directory.path()).unwrap().is_none());
        drop(held);
        assert!(DirectoryLock::try_exclusive(directory.path()).unwrap().is_some());
    }
}
