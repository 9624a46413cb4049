//! A write transaction under way.
//!
//! Invariant: rows that wait go into the table before the transaction ends, before any other row does, and before anything
//! here looks at the table, under the ids that their callers were told.

use std::path::Path;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use crate::base::error::{Error, Result};
use crate::base::ids::IdSpan;
use crate::index::build::sealer::Sealer;
use crate::index::doubt;
use crate::index::lookup::restored;
use crate::log::insert;
use crate::row::{LogEntry, NewLogEntry, OwnedEntry};

/// Rows that wait at the most, so that one statement inserts several.
const MOST_WAITING: usize = 256;

/// Rows of one call that join those that wait, at the most: more of them fill statements of their own.
const MOST_JOINING: usize = 16;

/// A write transaction under way.
pub struct Transaction<'a> {
    pub(super) connection: &'a Connection,
    pub(super) sealer: &'a mut Sealer,
    /// The greatest id that it has given out.
    pub(super) last_id: Option<i64>,
    /// Of the database.
    path: &'a Path,
    /// Rows that have their ids, the last of which is `last_id`, and are not in the table yet.
    waiting: Vec<OwnedEntry>,
}

/// How far a transaction has come.
#[derive(PartialEq, Eq)]
pub(super) struct Progress {
    changes: u64,
    waiting: usize,
}

impl<'a> Transaction<'a> {
    pub(super) fn new(connection: &'a Connection, sealer: &'a mut Sealer, path: &'a Path) -> Self {
        Self { connection, sealer, last_id: None, path, waiting: Vec::new() }
    }
}

impl Transaction<'_> {
    /// The connection, for the tables besides the log, and for deleting rows.
    pub(crate) fn connection(&self) -> &Connection {
        self.connection
    }

    /// The path of the database, for errors.
    pub(crate) fn path(&self) -> &Path {
        self.path
    }

    /// Inserts checked rows, at the end of the transaction at the latest; returns the last id. Those of one call are
    /// consecutive.
    pub fn insert(&mut self, entries: &[NewLogEntry<'_>]) -> Result<i64> {
        if !self.waiting.is_empty() && entries.len() <= MOST_JOINING {
            return entries.iter().try_fold(0, |_, entry| self.let_wait(entry.into()));
        }
        self.insert_waiting()?;
        self.insert_now(entries)
    }

    /// Inserts a checked row, at the end of the transaction at the latest; returns its id. The rows of several changes that
    /// share a commit go into the table together.
    pub(crate) fn insert_soon(&mut self, entry: &OwnedEntry) -> Result<i64> {
        // The first row asks the table for its id, and those after it are numbered one by one, unless a trigger of another
        // program's inserts rows in between.
        if self.last_id.is_none() || self.has_triggers()? {
            return self.insert(&[entry.borrow()]);
        }
        self.let_wait(entry.clone())
    }

    /// Whether triggers of other programs run, which may pass rows over, or insert others.
    pub(super) fn has_triggers(&self) -> Result<bool> {
        Ok(self.connection.db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER)?)
    }

    /// Numbers a row after the last one.
    fn let_wait(&mut self, entry: OwnedEntry) -> Result<i64> {
        if self.waiting.len() == MOST_WAITING {
            self.insert_waiting()?;
        }
        let Some(id) = self.last_id.and_then(|last| last.checked_add(1)) else {
            self.insert_waiting()?;
            return self.insert_now(&[entry.borrow()]);
        };
        self.waiting.push(entry);
        self.last_id = Some(id);
        Ok(id)
    }

    /// Inserts the rows that wait.
    pub(super) fn insert_waiting(&mut self) -> Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let told = self.last_id;
        let waiting = std::mem::take(&mut self.waiting);
        let rows: Vec<_> = waiting.iter().map(OwnedEntry::borrow).collect();
        match self.insert_now(&rows)? {
            last if Some(last) == told => Ok(()),
            _ => Err(Error::Internal),
        }
    }

    /// The row with this id, if it waits.
    pub(crate) fn waiting(&self, id: i64) -> Option<NewLogEntry<'_>> {
        let from_end = usize::try_from(self.last_id?.checked_sub(id)?).ok()?;
        let index = self.waiting.len().checked_sub(from_end)?.checked_sub(1)?;
        self.waiting.get(index).map(OwnedEntry::borrow)
    }

    /// Changes when anything is changed.
    pub(super) fn progress(&self) -> Progress {
        Progress { changes: self.connection.total_changes(), waiting: self.waiting.len() }
    }

    /// The savepoint that was begun when `last_id` was the greatest id and no row waited has been rolled back.
    pub(super) fn return_to(&mut self, last_id: Option<i64>) {
        self.waiting.clear();
        // It has counted the rows that are gone.
        self.sealer.forget();
        self.last_id = last_id;
    }

    /// Puts archived rows back, with their ids, which ascend; those that are here already are passed over. Returns how
    /// many were put back.
    pub(crate) fn restore(&mut self, entries: &[LogEntry]) -> Result<u64> {
        self.insert_waiting()?;
        // They lie among rows that it has passed.
        self.sealer.forget();
        let put = insert::restore(self.connection, entries)?;
        restored::add(self.connection, &put)?;
        Ok(put.len() as u64)
    }

    /// Notes that rows between these ids are about to be deleted.
    pub(crate) fn note_deleted(&self, within: IdSpan) -> Result<()> {
        doubt::note_deleted(self.connection, within)
    }

    /// Seals what is not sealed yet. To be called before rows are deleted, so that rounds keep their numbers.
    pub(crate) fn seal(&mut self) -> Result<()> {
        self.insert_waiting()?;
        self.sealer.seal_all(self.connection)
    }

    fn insert_now(&mut self, entries: &[NewLogEntry<'_>]) -> Result<i64> {
        self.sealer.prepare(self.connection, entries.len() as u64)?;
        let mut next = None;
        let last = insert::insert(self.connection, entries, self.has_triggers()?, |id, entry| {
            if next.is_some_and(|next| next != id) {
                let reason = "append: a trigger of another program inserts rows between those of one call; append them one by one, or drop the trigger";
                return Err(Error::corrupt(self.path, reason));
            }
            next = id.checked_add(1);
            self.sealer.add(self.connection, &entry.indexed(id))
        })?;
        self.last_id = self.last_id.max(Some(last));
        Ok(last)
    }
}

#[cfg(test)]
#[path = "transaction_tests.rs"]
mod tests;
