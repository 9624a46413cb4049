//! Rows that no read can give, because another program stored what is none of the log's: bytes for a text, a text for a time.

use rusqlite::{Connection, Row};

use crate::base::error::{Error, Result};
use crate::base::ids::IdSpan;
use crate::row::{COLUMNS, IndexedRow, RawRow};

/// Rows that one statement looks at, so that none keeps a transaction open for long.
const PAGE_ROWS: usize = 4_096;
/// Rows that are named one by one.
const MOST_NAMED: usize = 8;

/// The rows that cannot be read, among those that were looked at in the order of their ids.
#[derive(Default)]
pub(crate) struct Unreadable {
    count: usize,
    /// Why the first of them cannot be read.
    reason: String,
    /// The first ids.
    named: Vec<i64>,
    last: i64,
}

impl Unreadable {
    /// Looks at a row of a statement over [`COLUMNS`], which is `indexed` in the index.
    pub(super) fn look_at(&mut self, row: &Row<'_>, indexed: &IndexedRow<'_>) -> Result<()> {
        if indexed.is_complete() {
            return Ok(());
        }
        match RawRow::of(row).and_then(RawRow::checked) {
            Ok(_) => Ok(()),
            Err(error @ Error::Damaged { .. }) => {
                if self.is_empty() {
                    self.reason = error.to_string();
                }
                if self.named.len() < MOST_NAMED {
                    self.named.push(indexed.id);
                }
                self.count += 1;
                self.last = indexed.id;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Looks at the first rows of a span, in the caller's transaction; returns what is left of it.
    pub(crate) fn look_into(&mut self, connection: &Connection, within: IdSpan) -> Result<Option<IdSpan>> {
        let mut statement = connection.prepare_cached(&format!(
            "SELECT {COLUMNS} FROM logs WHERE id BETWEEN ?1 AND ?2 ORDER BY id LIMIT {PAGE_ROWS}"
        ))?;
        let mut rows = statement.query(<(i64, i64)>::from(within))?;
        let (mut count, mut last) = (0, within.first);
        while let Some(row) = rows.next()? {
            let indexed = IndexedRow::read(row)?;
            self.look_at(row, &indexed)?;
            (count, last) = (count + 1, indexed.id);
        }
        let is_more = count == PAGE_ROWS;
        Ok(last.checked_add(1).filter(|_| is_more).and_then(|next| IdSpan::new(next, within.last)))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Which rows they are, and why; None if there are none.
    pub(crate) fn described(&self) -> Option<(IdSpan, String)> {
        let ids = IdSpan::new(*self.named.first()?, self.last)?;
        let Self { reason, count, last, named } = self;
        if *count == 1 {
            return Some((
                ids,
                format!("{reason}: another program wrote it; correct or delete it there, and call reindex()"),
            ));
        }
        let mut others: Vec<String> = named[1..].iter().map(i64::to_string).collect();
        if *count > named.len() {
            others.push(format!("… {last}"));
        }
        let others = format!("{} more cannot be read (ids {})", count - 1, others.join(", "));
        Some((
            ids,
            format!("{reason}; {others}: another program wrote them; correct or delete them there, and call reindex()"),
        ))
    }
}
