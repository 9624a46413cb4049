//! The records of a table, taken from its pages: many times faster than a statement, which looks up each column of each row.

use std::mem;
use std::ops::ControlFlow;

use rusqlite::{Connection, OptionalExtension};

use crate::base::error::Result;
use crate::base::ids::IdSpan;
use crate::base::interrupt::check;
use crate::db::format::{Bounds, INTERIOR_TABLE, LEAF_TABLE, MOST_DEPTH, PageHeader, local_bytes, varint, word};
use crate::db::pages::Pages;

/// Called with the id and the record of each row: it ends the reading, or says that it cannot read the record.
pub(crate) type VisitRecord<'a> = dyn FnMut(i64, &[u8]) -> Result<ControlFlow<Reached>> + 'a;

/// SQLite stores no longer record.
const MOST_RECORD_BYTES: usize = 1 << 30;

/// How far a reading came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reached {
    /// As far as it was to.
    End,
    /// To something that a statement has to read: no row was visited after it.
    Unreadable,
}

/// Calls `visit` with the rows of `table` whose ids are in the span, in order, in the caller's read transaction. The table
/// has these columns, the first of which is its row id.
///
/// Nothing is taken for granted that another program could have changed, or that a disk could have: what is not as it should
/// be is left to a statement, whose answer counts.
pub(crate) fn each_record(
    connection: &Connection,
    (table, columns): (&str, &str),
    ids: IdSpan,
    descending: bool,
    most_frames: u64,
    visit: &mut VisitRecord<'_>,
) -> Result<Reached> {
    let Some(root) = root(connection, table, columns)? else { return Ok(Reached::Unreadable) };
    let Some(pages) = Pages::open(connection, most_frames)? else { return Ok(Reached::Unreadable) };
    let mut walk = Walk { pages, ids, descending, leaf: Vec::new(), record: Vec::new(), visit };
    Ok(walk.descend(root, Bounds::NONE, 0)?.break_value().unwrap_or(Reached::End))
}

/// The number of the page at the root of a table with these columns; None if there is none.
fn root(connection: &Connection, table: &str, columns: &str) -> Result<Option<u32>> {
    let mut statement = connection.prepare_cached(&format!("SELECT * FROM main.{table} LIMIT 0"))?;
    // A statement that was compiled before the schema changed is compiled again when it is run.
    statement.query([])?.next()?;
    if !statement.column_names().eq(columns.split(", ")) {
        return Ok(None);
    }
    let mut statement =
        connection.prepare_cached("SELECT rootpage FROM main.sqlite_schema WHERE type = 'table' AND name = ?1")?;
    Ok(statement.query_row([table], |row| row.get(0)).optional()?)
}

struct Walk<'a, 'v> {
    pages: Pages<'a>,
    ids: IdSpan,
    descending: bool,
    /// The leaf that is being read.
    leaf: Vec<u8>,
    /// The last record that did not fit its page.
    record: Vec<u8>,
    visit: &'a mut VisitRecord<'v>,
}

const UNREADABLE: Result<ControlFlow<Reached>> = Ok(ControlFlow::Break(Reached::Unreadable));

impl Walk<'_, '_> {
    fn descend(&mut self, number: u32, bounds: Bounds, depth: usize) -> Result<ControlFlow<Reached>> {
        check()?;
        let Some(page) = self.pages.page(number)? else { return UNREADABLE };
        let Some(header) = PageHeader::of(page, number).filter(|_| depth < MOST_DEPTH) else { return UNREADABLE };
        match header.kind {
            LEAF_TABLE => {
                self.leaf.clear();
                self.leaf.extend_from_slice(page);
                self.read_leaf(header, bounds)
            }
            INTERIOR_TABLE => {
                let Some(mut children) = children(page, header, bounds) else { return UNREADABLE };
                if self.descending {
                    children.reverse();
                }
                for (child, bounds) in children {
                    if bounds.meet(self.ids) {
                        let flow = self.descend(child, bounds, depth + 1)?;
                        if flow.is_break() {
                            return Ok(flow);
                        }
                    }
                }
                Ok(ControlFlow::Continue(()))
            }
            _ => UNREADABLE,
        }
    }

    fn read_leaf(&mut self, header: PageHeader, bounds: Bounds) -> Result<ControlFlow<Reached>> {
        let leaf = mem::take(&mut self.leaf);
        let mut cells = header.cells(&leaf);
        let mut flow = Ok(ControlFlow::Continue(()));
        while matches!(flow, Ok(ControlFlow::Continue(())))
            && let Some(cell) = if self.descending { cells.next_back() } else { cells.next() }
        {
            flow = self.read_cell(cell, bounds);
        }
        drop(cells);
        self.leaf = leaf;
        flow
    }

    #[inline]
    fn read_cell(&mut self, cell: Option<&[u8]>, bounds: Bounds) -> Result<ControlFlow<Reached>> {
        let Some((id, record_bytes, rest)) = cell.and_then(id_and_record) else { return UNREADABLE };
        if !bounds.contain(id) {
            // Another leaf is in the place of the one that should be here.
            return UNREADABLE;
        }
        if !self.ids.contains(id) {
            return Ok(ControlFlow::Continue(()));
        }
        let local = local_bytes(record_bytes, self.pages.usable, false);
        let Some(record) = rest.get(..local) else { return UNREADABLE };
        if local == record_bytes {
            return (self.visit)(id, record);
        }
        self.record.clear();
        self.record.extend_from_slice(record);
        if !self.read_overflow(word(rest, local), record_bytes)? {
            return UNREADABLE;
        }
        (self.visit)(id, &self.record)
    }

    /// Adds what is in pages of its own to a record; returns whether all of it is there.
    fn read_overflow(&mut self, mut next: u32, record_bytes: usize) -> Result<bool> {
        let most = self.pages.usable - 4;
        while self.record.len() < record_bytes {
            check()?;
            let Some(page) = self.pages.page(next)? else { return Ok(false) };
            let count = (record_bytes - self.record.len()).min(most);
            self.record.extend_from_slice(&page[4..4 + count]);
            next = word(page, 0);
        }
        Ok(true)
    }
}

/// The children of a page, each with the ids that can be below it; None if the page is damaged.
fn children(page: &[u8], header: PageHeader, bounds: Bounds) -> Option<Vec<(u32, Bounds)>> {
    let mut children = Vec::new();
    let mut after = bounds.0;
    for cell in header.cells(page) {
        let cell = cell.filter(|cell| cell.len() > 4)?;
        let last = varint(&cell[4..])?.0.cast_signed();
        if !Bounds(after, bounds.1).contain(last) {
            // Nor does a page that leads back to itself get any further.
            return None;
        }
        children.push((word(cell, 0), Bounds(after, Some(last))));
        after = Some(last);
    }
    children.push((header.right, Bounds(after, bounds.1)));
    Some(children)
}

/// The id of a row, how many bytes its record has, and what follows in the page.
fn id_and_record(cell: &[u8]) -> Option<(i64, usize, &[u8])> {
    let (record_bytes, at) = varint(cell)?;
    let (id, bytes) = varint(&cell[at..])?;
    let record_bytes = usize::try_from(record_bytes).ok().filter(|bytes| *bytes <= MOST_RECORD_BYTES)?;
    Some((id.cast_signed(), record_bytes, &cell[at + bytes..]))
}
