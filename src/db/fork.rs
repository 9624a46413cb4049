//! Noticing that this process is a forked child: SQLite's connections, locks and memory maps do not survive a fork.

use std::path::Path;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::error::{Error, Result};

static GENERATION: AtomicU64 = AtomicU64::new(0);

/// How many forks lie between the first process and this one, as counted from the first call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Generation(u64);

impl Generation {
    /// This process's generation. A load and a compare afterwards cost less than a system call for the process id.
    pub(super) fn current() -> Self {
        static REGISTER: Once = Once::new();
        extern "C" fn in_child() {
            GENERATION.fetch_add(1, Ordering::Relaxed);
        }
        REGISTER.call_once(|| {
            // SAFETY: the handler only touches an atomic, which is allowed in a forked child, and lives forever.
            // A failure (out of memory) leaves forks unnoticed, as they would be without this module.
            unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
        });
        Self(GENERATION.load(Ordering::Relaxed))
    }

    /// Whether this process is the one that `self` was taken in.
    pub(super) fn is_current(self) -> bool {
        self.0 == GENERATION.load(Ordering::Relaxed)
    }

    /// An error if this process was forked since.
    pub(super) fn check(self, path: &Path) -> Result<()> {
        if self.is_current() { Ok(()) } else { Err(Error::Forked { path: path.to_owned() }) }
    }
}
