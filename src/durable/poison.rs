//! What a handle remembers of a flush that failed.

use std::path::Path;
use std::sync::OnceLock;

use crate::base::error::{Error, Result};

/// The first failed flush of a handle, after which the handle refuses every write.
///
/// The system may mark the pages of a failed flush as clean. A second flush then succeeds without writing them, and a
/// caller would be told that lost bytes are on the disk. A failed flush is therefore never tried again.
#[derive(Debug, Default)]
pub struct Poison(OnceLock<FailedFlush>);

#[derive(Debug)]
struct FailedFlush {
    reason: String,
    errno: i32,
}

impl Poison {
    /// No flush has failed.
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// Whether a flush has failed.
    pub fn is_set(&self) -> bool {
        self.0.get().is_some()
    }

    /// [`Error::Poisoned`], with `path`, if a flush has failed.
    pub fn check(&self, path: &Path) -> Result<()> {
        match self.0.get() {
            None => Ok(()),
            Some(FailedFlush { reason, errno }) => {
                Err(Error::Poisoned { path: path.to_owned(), reason: reason.clone(), errno: *errno })
            }
        }
    }

    /// Remembers a failed flush. The first one counts.
    pub fn set(&self, reason: String, errno: i32) {
        let _ = self.0.set(FailedFlush { reason, errno });
    }

    /// Passes `result` on, and remembers it if it is an [`Error::Flush`].
    pub fn watch<T>(&self, result: Result<T>) -> Result<T> {
        if let Err(error @ Error::Flush { errno, .. }) = &result {
            self.set(error.to_string(), *errno);
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(errno: i32) -> Error {
        Error::Flush { path: "/x".into(), operation: "sync a file", errno, reason: format!("number {errno}") }
    }

    #[test]
    fn only_a_failed_flush_poisons_and_the_first_one_is_kept() {
        let poison = Poison::new();
        for harmless in [libc::EIO, libc::ENOSPC, libc::EDQUOT, libc::EFBIG] {
            poison.watch::<()>(Err(Error::errno(Path::new("/x"), "write", harmless, String::new()))).unwrap_err();
            poison.check(Path::new("/x")).unwrap();
        }
        for errno in [libc::ENOSPC, libc::EIO] {
            poison.watch::<()>(Err(failed(errno))).unwrap_err();
        }
        assert!(poison.is_set());
        let Err(Error::Poisoned { reason, errno, .. }) = poison.check(Path::new("/x")) else { panic!("not poisoned") };
        assert_eq!((reason.as_str(), errno), ("sync a file: number 28", libc::ENOSPC));
    }
}
