//! What callers have committed: rows, and operations.

use std::sync::Arc;

use crate::base::error::{Error, Result};
use crate::durable::Durability;
use crate::log::group_commit::{Outcome, Own, Waiter};
use crate::log::handle::Log;
use crate::log::operation::{Operation, Shared, Work, downcast};
use crate::row::{LogEntry, NewLogEntry};

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
        match self.commits().commit(Own::Rows(entries), self.durability(durability))? {
            Outcome::First(id) => Ok(id),
            Outcome::Answer(_) => Err(Error::Internal),
        }
    }

    /// Performs an operation, in a commit that it shares with what other callers wait for.
    pub fn perform<O: Operation>(&self, operation: O, durability: Option<Durability>) -> Result<O::Answer> {
        self.perform_shared::<O>(&(Arc::new(operation) as Arc<dyn Shared>), durability)
    }

    /// The same of an operation, of the type `O`, that its caller may have to begin again.
    pub fn perform_shared<O: Operation>(
        &self,
        operation: &Arc<dyn Shared>,
        durability: Option<Durability>,
    ) -> Result<O::Answer> {
        match self.commits().commit(Own::Operation(operation), self.durability(durability))? {
            Outcome::Answer(answer) => downcast::<O>(answer),
            Outcome::First(_) => Err(Error::Internal),
        }
    }

    /// Queues works and returns at once; `waiter` is called with their outcomes, unless this fails. True: no thread
    /// is to be had that commits them, and the caller is to call [`Log::commit_submitted`].
    pub fn submit(&self, works: Vec<Work>, durability: Durability, waiter: Waiter) -> Result<bool> {
        self.commits().submit(works, durability, waiter)
    }

    /// Commits what was submitted, in the calling thread.
    pub fn commit_submitted(&self) {
        self.commits().lead();
    }

    fn durability(&self, asked: Option<Durability>) -> Durability {
        asked.unwrap_or(self.database().config().durability)
    }
}
