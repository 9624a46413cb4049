//! A small pool of read-only connections. Reads never wait for writes, and each is one short transaction.

use std::sync::{Mutex, PoisonError};

use rusqlite::Connection;

use crate::base::error::{Error, Result};
use crate::db::failure::{Context, Located};
use crate::db::fork::Link;
use crate::db::held::HeldFiles;
use crate::db::page_cache::PageCache;
use crate::db::unlocked::{self, Still};

/// Idle connections that are kept; more are opened while more threads read at once.
const KEPT: usize = 4;

/// A read-only connection.
pub(super) struct Reader {
    pub(super) connection: Link,
    /// The file that it reads without locks; None if it takes locks.
    still: Option<Still>,
    cache: PageCache,
}

impl Reader {
    pub(super) fn locking(connection: Link) -> Self {
        Self { connection, still: None, cache: PageCache::default() }
    }

    pub(super) fn unlocked(connection: Link, still: Still) -> Self {
        Self { connection, still: Some(still), cache: PageCache::default() }
    }

    /// Gives it the large cache at once.
    pub(super) fn enlarge_cache(&mut self) -> rusqlite::Result<()> {
        self.cache.enlarge(&self.connection)
    }

    /// Whether what it reads is the file as it is.
    fn is_current(&self, context: Context<'_>) -> bool {
        self.still.as_ref().is_none_or(|still| still.holds(context.path))
    }
}

#[derive(Default)]
pub(super) struct Readers {
    idle: Mutex<Vec<Reader>>,
}

impl Readers {
    /// Runs `body` in one read transaction on an idle connection, or on one that `open` makes.
    pub(super) fn with<T>(
        &self,
        context: Context<'_>,
        files: &HeldFiles,
        open: impl FnOnce(Context<'_>) -> Result<Reader>,
        body: impl FnOnce(&Connection) -> Result<T>,
    ) -> Result<T> {
        files.check_database(context)?;
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut reader = match idle.filter(|reader| reader.is_current(context)) {
            Some(reader) => reader,
            None => {
                files.check_places(context)?;
                open(context)?
            }
        };
        let connection = &reader.connection;
        let outcome = run(connection, "BEGIN").and_then(|()| body(connection));
        let outcome = outcome.and_then(|value| {
            run(connection, "COMMIT")?;
            reader.cache.suit(connection)?;
            Ok(value)
        });
        if !reader.is_current(context) {
            return Err(unlocked::changed(context));
        }
        let outcome = outcome.located(context, Some(connection));
        // A connection that met an error is dropped, its transaction with it: it is cheap to open another. A call that
        // pauses goes on with the pages that this one has in memory.
        let is_whole = match &outcome {
            Ok(_) => true,
            Err(Error::Paused) => run(connection, "ROLLBACK").is_ok(),
            Err(_) => false,
        };
        if is_whole {
            self.keep(reader);
        }
        outcome
    }

    /// Gives a connection to the pool.
    pub(super) fn keep(&self, reader: Reader) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < KEPT {
            idle.push(reader);
        }
    }
}

fn run(connection: &Connection, sql: &str) -> Result<()> {
    connection.prepare_cached(sql)?.execute([])?;
    Ok(())
}
