//! A small pool of read-only connections. Reads never wait for writes, and each is one short transaction.

use std::sync::{Mutex, PoisonError};

use rusqlite::Connection;

use crate::base::error::Result;
use crate::db::failure::{Context, Located};
use crate::db::fork::Link;

/// Idle connections that are kept; more are opened while more threads read at once.
const KEPT: usize = 4;

#[derive(Default)]
pub(super) struct Readers {
    idle: Mutex<Vec<Link>>,
}

impl Readers {
    /// Runs `body` in one read transaction on an idle connection, or on one that `open` makes.
    pub(super) fn with<T>(
        &self,
        context: Context<'_>,
        open: impl FnOnce(Context<'_>) -> Result<Link>,
        body: impl FnOnce(&Connection) -> Result<T>,
    ) -> Result<T> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => open(context)?,
        };
        let outcome = run(&connection, "BEGIN").and_then(|()| body(&connection));
        let outcome = outcome.and_then(|value| run(&connection, "COMMIT").map(|()| value));
        // A connection that met an error is dropped, its transaction with it: it is cheap to open another.
        let value = outcome.located(context, Some(&connection))?;
        self.keep(connection);
        Ok(value)
    }

    /// Gives a connection to the pool.
    pub(super) fn keep(&self, connection: Link) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < KEPT {
            idle.push(connection);
        }
    }
}

fn run(connection: &Connection, sql: &str) -> Result<()> {
    connection.prepare_cached(sql)?.execute([])?;
    Ok(())
}
