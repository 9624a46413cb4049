//! Appending rows.

use crate::base::error::Result;
use crate::durable::Durability;
use crate::log::group_commit::Waiter;
use crate::log::handle::Log;
use crate::row::{LogEntry, NewLogEntry, OwnedEntry};

impl Log {
    /// Appends one checked row and returns it as it is stored.
    pub fn append(&self, entry: &NewLogEntry<'_>, durability: Option<Durability>) -> Result<LogEntry> {
        Ok(entry.stored(self.append_many(std::slice::from_ref(entry), durability)?))
    }

    /// Appends checked rows in one transaction; returns the first id.
    pub fn append_many(&self, entries: &[NewLogEntry<'_>], durability: Option<Durability>) -> Result<i64> {
        if entries.is_empty() {
            return Ok(0);
        }
        self.commits().commit(entries, durability.unwrap_or(self.database().config().durability))
    }

    /// Queues checked rows and returns at once; `waiter` is called with their outcome, unless this fails. True: no thread
    /// is to be had that commits them, and the caller is to call [`Log::commit_submitted`].
    pub fn submit(&self, rows: Vec<OwnedEntry>, durability: Durability, waiter: Waiter) -> Result<bool> {
        self.commits().submit(rows, durability, waiter)
    }

    /// Commits what was submitted, in the calling thread.
    pub fn commit_submitted(&self) {
        self.commits().lead();
    }
}
