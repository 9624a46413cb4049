//! A query that keeps what it has read when it is interrupted.

use crate::base::error::Result;
use crate::row::{Filter, LogEntry};

/// The rows that match a filter, as far as they have been read.
///
/// Rows never change and new ones get greater ids, so that going on after the last id is exact. Each part is one
/// transaction: of the rows that an archive job takes away between two parts, a query of the log alone misses those
/// that it has not read yet.
pub struct Query {
    /// What is still to come.
    filter: Filter,
    archived: bool,
    rows: Vec<LogEntry>,
}

impl Query {
    /// Of these rows; none is read yet.
    pub fn new(filter: Filter, archived: bool) -> Self {
        Self { filter, archived, rows: Vec::new() }
    }

    /// How many rows have been read.
    pub fn row_count(&self) -> usize {
        self.rows.len()
    }

    /// Whether going on costs little: beside files, all rows of the log are read before the first one is kept.
    pub fn goes_on_cheaply(&self) -> bool {
        !self.archived
    }

    /// The rows.
    pub fn into_rows(self) -> Vec<LogEntry> {
        self.rows
    }

    /// Whether the archive takes part.
    pub(super) fn is_of_archive(&self) -> bool {
        self.archived
    }

    /// Keeps the rows that `each` visits, those before an error too, and takes them out of what is still to come.
    pub(super) fn read(&mut self, each: impl FnOnce(&Filter, &mut dyn FnMut(LogEntry)) -> Result<()>) -> Result<()> {
        let known = self.rows.len();
        let rows = &mut self.rows;
        let outcome = each(&self.filter, &mut |row| rows.push(row));
        if let Some(last) = self.rows[known..].last() {
            let bound = if self.filter.descending { &mut self.filter.before_id } else { &mut self.filter.after_id };
            *bound = Some(last.id);
            if let Some(limit) = &mut self.filter.limit {
                *limit -= (self.rows.len() - known) as u64;
            }
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::Error;
    use crate::row::NewLogEntry;

    fn row(id: i64) -> LogEntry {
        NewLogEntry { source: "s", kind: "t", ref_id: None, payload: None, timestamp: Some(id) }.stored(id)
    }

    /// The ids that match, as the log would visit them; an error comes after so many.
    fn each(filter: &Filter, visit: &mut dyn FnMut(LogEntry), most: usize) -> Result<()> {
        let mut ids: Vec<i64> = (1..=100).filter(|id| filter.ids().is_some_and(|ids| ids.contains(*id))).collect();
        if filter.descending {
            ids.reverse();
        }
        ids.truncate(filter.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap()));
        ids.iter().take(most).for_each(|id| visit(row(*id)));
        if ids.len() > most { Err(Error::Paused) } else { Ok(()) }
    }

    #[test]
    fn what_is_read_in_parts_is_what_is_read_at_once() {
        for (descending, limit) in [(false, None), (true, None), (false, Some(60)), (true, Some(60))] {
            let filter = Filter { after_id: Some(10), before_id: Some(90), limit, descending, ..Filter::default() };
            let mut whole = Query::new(filter.clone(), false);
            whole.read(|filter, visit| each(filter, visit, usize::MAX)).unwrap();
            let mut query = Query::new(filter, false);
            let mut parts = 1;
            while query.read(|filter, visit| each(filter, visit, parts % 4)).is_err() {
                parts += 1;
            }
            assert!(parts > 10);
            assert_eq!(query.into_rows(), whole.into_rows());
        }
    }
}
