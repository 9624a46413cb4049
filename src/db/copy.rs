//! Copying a database while others write to it.
//!
//! The copy is made page by page within one read transaction, so that it is one state of the database: commits of others
//! meanwhile neither get into it nor make it begin anew, whatever their number. Until it is done they stay in the
//! write-ahead log, as they do for any long read.

use std::path::Path;
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use crate::base::error::{Error, Result};
use crate::base::interrupt::check;
use crate::base::progress::Progress;
use crate::db::database::Database;
use crate::db::failure::{Context, Located};
use crate::db::system::{descriptor_of, file_id_at};
use crate::db::{fork, open};
use crate::durable::Staged;

const OPERATION: &str = "copy the database";

/// Pages between two looks at interruptions: 1 MiB.
const STEP_PAGES: i32 = 256;

/// Where the header of a database says how it is journaled, and the bytes for a rollback journal.
const JOURNAL_OFFSET: u64 = 18;
const ROLLBACK: [u8; 2] = [1, 1];

impl Database {
    /// Writes a copy into an empty staged file, and returns its size. The copy is set to a rollback journal: it needs no
    /// file beside it to be read, and the next opening for writing sets it to a write-ahead log again. `progress` hears of
    /// bytes.
    pub fn copy_into(&self, target: &Staged, progress: &mut Progress<'_>) -> Result<u64> {
        let path = target.path();
        let context = Context { path: &path, operation: OPERATION, busy_timeout: Duration::ZERO };
        self.read(OPERATION, |source| copy(source, context, progress))?;
        let failed = |error: &std::io::Error| Error::io(&path, OPERATION, error);
        // No connection has it open any more.
        std::os::unix::fs::FileExt::write_all_at(target.file(), &ROLLBACK, JOURNAL_OFFSET)
            .map_err(|error| failed(&error))?;
        target.file().metadata().map(|metadata| metadata.len()).map_err(|error| failed(&error))
    }
}

fn copy(source: &Connection, context: Context<'_>, progress: &mut Progress<'_>) -> Result<()> {
    // A transaction begins with its first read.
    let page_bytes: u64 = source.query_row("PRAGMA page_size", [], |row| row.get(0))?;
    source.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    let mut target = open::copy(context)?;
    let backup = Backup::new(source, &mut target).located(context, None)?;
    loop {
        let step = backup.step(STEP_PAGES).located(context, None)?;
        let pages = backup.progress();
        let (total, left) = (u64::try_from(pages.pagecount), u64::try_from(pages.remaining));
        let (total, left) = (total.unwrap_or(0), left.unwrap_or(0));
        progress(total.saturating_sub(left) * page_bytes, total * page_bytes)?;
        match step {
            StepResult::Done => break,
            StepResult::More => {}
            // Neither is locked by others: the source is read in a transaction, and the target is ours alone.
            _ => {
                return Err(Error::Busy {
                    path: context.path.to_owned(),
                    operation: OPERATION,
                    timeout: Duration::ZERO,
                });
            }
        }
        check()?;
    }
    drop(backup);
    Ok(())
}

/// Whether the database was set to a rollback journal, as a copy is until it is opened for writing. In the caller's
/// transaction or outside of one.
pub fn has_rollback_journal(connection: &Connection) -> Result<bool> {
    let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
    Ok(mode != "wal")
}

/// Runs `body` on a connection that reads the database file at `path`, whatever it holds.
pub fn look_into<T>(path: &Path, body: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
    fork::check_usable(path)?;
    fork::prepare();
    let context = Context { path, operation: "look at a database", busy_timeout: Duration::from_secs(5) };
    let connection = open::connect(context, path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    body(&connection).located(context, Some(&connection))
}

/// Whether this process has the file at `path` open as a database. Closing another descriptor of it would drop its locks.
pub fn is_open_here(path: &Path) -> bool {
    fork::prepare();
    file_id_at(path).and_then(descriptor_of).is_some()
}
