//! Putting a day's rows back into the log. The file stays, and the next archive job deletes the rows again.

use crate::archive::manifest::catalog::Archive;
use crate::base::error::{Error, Result};
use crate::base::progress::Progress;
use crate::base::time::UtcDay;
use crate::durable::Durability;
use crate::log::by_ids;
use crate::row::LogEntry;

/// Rows that one transaction puts back, so that appends wait only for moments.
const CHUNK_ROWS: usize = 1_000;

impl Archive {
    /// Puts the rows of `day` back under their ids; returns how many were not in the log. Nothing is put back if the file
    /// is damaged, or if the log has another row under one of its ids.
    pub fn restore(&self, day: UtcDay, progress: &mut Progress<'_>) -> Result<u64> {
        self.log.database().check_writable("restore archived rows")?;
        let path = self.directory().to_owned();
        let mut total = 0;
        self.each_chunk(day, &mut |rows| {
            total += rows.len() as u64;
            let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
            let live = self.log.database().read("restore archived rows", |connection| by_ids(connection, &ids))?;
            let mut archived = rows.iter();
            for row in live {
                if archived.find(|archived| archived.id == row.id) != Some(&row) {
                    let reason = format!(
                        "row {} of {day} is another row than the one in the database: was the database replaced?",
                        row.id
                    );
                    return Err(Error::Archive { path: path.clone(), reason });
                }
            }
            Ok(())
        })?;
        let (mut restored, mut done) = (0, 0);
        progress(done, total)?;
        self.each_chunk(day, &mut |rows| {
            // Until it is deleted, the file has them as well.
            restored += self
                .log
                .write("restore archived rows", Some(Durability::Normal), |transaction| transaction.restore(rows))?;
            done += rows.len() as u64;
            progress(done, total)
        })?;
        Ok(restored)
    }

    fn each_chunk(&self, day: UtcDay, visit: &mut dyn FnMut(&[LogEntry]) -> Result<()>) -> Result<()> {
        let mut rows = self.read(day)?;
        loop {
            let mut chunk = Vec::with_capacity(CHUNK_ROWS);
            while chunk.len() < CHUNK_ROWS
                && let Some(row) = rows.next_row()?
            {
                chunk.push(row);
            }
            if chunk.is_empty() {
                return Ok(());
            }
            visit(&chunk)?;
        }
    }
}
