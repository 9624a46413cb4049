//! The rows that match a filter: what the index proposes, checked.

use rusqlite::{Connection, Row};

use crate::base::error::{Error, Result};
use crate::index::lookup::candidates::candidates;
use crate::index::lookup::check::Check;
use crate::index::lookup::unmerged::UnmergedIndex;
use crate::row::{COLUMNS, Entries, Filter, LogEntry};

/// Calls `visit` with every row that matches, in the filter's order, in the caller's transaction.
pub(crate) fn search(
    connection: &Connection,
    unmerged: &UnmergedIndex,
    filter: &Filter,
    visit: impl FnMut(LogEntry),
) -> Result<()> {
    let mut entries = Entries::new(visit);
    let mut last = None;
    let ids = filter.ids();
    each_match(connection, unmerged, filter, COLUMNS, &mut |row| {
        let id = entries.push(row)?;
        let is_next = last.is_none_or(|last| if filter.descending { id < last } else { id > last });
        if !is_next || ids.is_none_or(|ids| !ids.contains(id)) {
            return Err(out_of_order(id));
        }
        last = Some(id);
        Ok(())
    })?;
    entries.finish()
}

/// Calls `visit` with these columns of every row that matches.
pub(super) fn each_match(
    connection: &Connection,
    unmerged: &UnmergedIndex,
    filter: &Filter,
    columns: &str,
    visit: &mut dyn FnMut(&Row<'_>) -> Result<()>,
) -> Result<()> {
    let mut check = Check::new(connection, filter, columns);
    for candidate in candidates(connection, unmerged, filter)? {
        check.run(&candidate?, visit)?;
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
