//! Following the log, and the archive where rows leave before they are read.

use std::sync::Arc;
use std::time::Duration;

use crate::archive::Archive;
use crate::base::error::Result;
use crate::log::{self, Core};
use crate::row::{Filter, LogEntry};

/// The rows of a filter from an id on, without an end.
pub struct Follower {
    core: Arc<Core>,
    archive: Option<Arc<Archive>>,
    follower: log::Follower,
}

impl Follower {
    pub(super) fn open(
        core: Arc<Core>,
        archive: Option<Arc<Archive>>,
        filter: Filter,
        interval: Duration,
    ) -> Result<Self> {
        let follower = log::Follower::open(&core, filter, interval)?;
        Ok(Self { core, archive, follower })
    }

    /// Whether nothing is to be read before something is announced.
    pub fn is_settled(&self) -> bool {
        self.follower.is_settled(&self.core)
    }

    /// The next rows; none if there are none yet after `timeout`.
    pub fn next_page(&mut self, timeout: Duration) -> Result<Vec<LogEntry>> {
        let Self { core, archive, follower } = self;
        let archive = archive.as_deref();
        follower.next_page(core, timeout, &|filter| match archive {
            Some(archive) => archive.read_page(filter),
            None => log::read_page(core, filter),
        })
    }

    /// The next rows that there are now, if they are few and have little text; None if they may be many.
    pub fn few(&mut self) -> Result<Option<Vec<LogEntry>>> {
        Ok(if self.follower.is_nearly_settled(&self.core)? { Some(self.next_page(Duration::ZERO)?) } else { None })
    }
}
