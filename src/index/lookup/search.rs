//! The rows that match a filter: what the index proposes, checked.

use std::ops::ControlFlow;

use rusqlite::Connection;

use crate::base::error::{Error, Result};
use crate::base::ids::IdSpan;
use crate::index::lookup::candidates::{Candidate, candidates};
use crate::index::lookup::check::{Check, Visit};
use crate::index::lookup::unmerged::UnmergedIndex;
use crate::row::{COLUMNS, Entries, Filter, LogEntry, RawRow};

/// Calls `visit` with every row that matches, in the filter's order, in the caller's transaction.
pub(crate) fn search(
    connection: &Connection,
    unmerged: &UnmergedIndex,
    filter: &Filter,
    visit: impl FnMut(LogEntry),
) -> Result<()> {
    let mut entries = Entries::new(visit);
    search_raw(connection, unmerged, filter, &mut |row| {
        entries.push(row)?;
        Ok(ControlFlow::Continue(()))
    })?;
    entries.finish()
}

/// Like [`search`], but a row that is none of ours, as another program may have stored it, is an error of its own: it goes
/// to `unreadable` with its id, and takes a place of the limit.
pub(crate) fn search_readable(
    connection: &Connection,
    unmerged: &UnmergedIndex,
    filter: &Filter,
    visit: impl FnMut(LogEntry),
    unreadable: &mut dyn FnMut(i64, Error),
) -> Result<()> {
    let mut entries = Entries::new(visit);
    let mut order = Order::of(filter);
    each_match(connection, unmerged, filter, COLUMNS, &mut |row| {
        order.check(row.get(0)?)?;
        match RawRow::of(row).and_then(RawRow::checked) {
            Ok(row) => entries.push(row)?,
            Err(error @ Error::Damaged { .. }) => unreadable(row.get(0)?, error),
            Err(error) => return Err(error),
        }
        Ok(ControlFlow::Continue(()))
    })?;
    entries.finish()
}

/// Calls `visit` with every row that matches, as SQLite holds it, until it breaks.
pub(crate) fn search_raw(
    connection: &Connection,
    unmerged: &UnmergedIndex,
    filter: &Filter,
    visit: &mut dyn FnMut(RawRow<'_>) -> Result<ControlFlow<()>>,
) -> Result<()> {
    let mut order = Order::of(filter);
    let mut visit = |row: RawRow<'_>| {
        order.check(row.id)?;
        visit(row)
    };
    each_candidate(connection, unmerged, filter, COLUMNS, |check, candidate| {
        check.run_raw(candidate, filter, &mut visit)
    })
}

/// The order in which rows come.
struct Order {
    descending: bool,
    ids: Option<IdSpan>,
    last: Option<i64>,
}

impl Order {
    fn of(filter: &Filter) -> Self {
        Self { descending: filter.descending, ids: filter.ids(), last: None }
    }

    /// An error if a row with this id is not the next one.
    fn check(&mut self, id: i64) -> Result<()> {
        let is_next = self.last.is_none_or(|last| if self.descending { id < last } else { id > last });
        if !is_next || self.ids.is_none_or(|ids| !ids.contains(id)) {
            return Err(out_of_order(id));
        }
        self.last = Some(id);
        Ok(())
    }
}

/// Calls `visit` with these columns of every row that matches.
pub(super) fn each_match(
    connection: &Connection,
    unmerged: &UnmergedIndex,
    filter: &Filter,
    columns: &str,
    visit: &mut Visit<'_>,
) -> Result<()> {
    each_candidate(connection, unmerged, filter, columns, |check, candidate| check.run(candidate, visit))
}

/// Has `run` look up one candidate after the other, until there are rows enough.
fn each_candidate(
    connection: &Connection,
    unmerged: &UnmergedIndex,
    filter: &Filter,
    columns: &str,
    mut run: impl FnMut(&mut Check<'_>, &Candidate) -> Result<()>,
) -> Result<()> {
    let mut check = Check::new(connection, filter, columns);
    for candidate in candidates(connection, unmerged, filter)? {
        run(&mut check, &candidate?)?;
        if check.has_enough() {
            break;
        }
    }
    Ok(())
}

/// The error of a row that is not where its id belongs: pages of the database have changed places.
fn out_of_order(id: i64) -> Error {
    Error::Damaged {
        what: "the rows of the log are damaged".to_owned(),
        reason: format!("row {id} is out of order"),
        way_out: Some("restore a backup"),
    }
}
