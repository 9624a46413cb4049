//! An open log: its core, and the group commit through which callers append.

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use crate::base::error::Result;
use crate::base::progress::Progress;
use crate::log::core::{Core, LogConfig};
use crate::log::group_commit::GroupCommit;

/// An open log, shared between threads.
pub struct Log {
    core: Arc<Core>,
    commits: Arc<GroupCommit>,
}

impl Log {
    /// Opens the log at `path`, or creates it: see [`Core::open`].
    pub fn open(path: &Path, config: LogConfig, progress: &mut Progress<'_>) -> Result<Self> {
        let core = Arc::new(Core::open(path, config, progress)?);
        let commits = Arc::new(GroupCommit::new(Arc::clone(&core)));
        Ok(Self { core, commits })
    }

    /// What the log is built on, for what shares it.
    pub fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// The group commit.
    pub(super) fn commits(&self) -> &Arc<GroupCommit> {
        &self.commits
    }

    /// Waits for the calls under way and closes; later calls get [`crate::Error::Closed`].
    pub fn close(&self) -> Result<()> {
        self.core.close()?;
        self.commits.end();
        Ok(())
    }
}

impl Deref for Log {
    type Target = Core;

    fn deref(&self) -> &Core {
        &self.core
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if self.core.database().is_of_this_process() {
            self.commits.end();
        }
    }
}
