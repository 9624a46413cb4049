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

/// How many rows match.
pub(crate) fn count(connection: &Connection, unmerged: &UnmergedIndex, filter: &Filter) -> Result<u64> {
    if is_everything(filter) {
        // Without a condition SQLite adds up what its pages say that they hold.
        return Ok(connection.prepare_cached("SELECT count(*) FROM logs")?.query_row([], |row| row.get(0))?);
    }
    let mut found = 0;
    // Counted by the statement itself, unless only the first so many count.
    let columns = if filter.limit.is_none() { "count(*)" } else { "1" };
    each_match(connection, unmerged, filter, columns, &mut |row| {
        found += row.get::<_, u64>(0)?;
        Ok(())
    })?;
    Ok(found)
}

/// Calls `visit` with these columns of every row that matches.
fn each_match(
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

fn is_everything(filter: &Filter) -> bool {
    let Filter { source, kind, ref_id, since, until, after_id, before_id, limit, descending: _ } = filter;
    source.is_none()
        && kind.is_none()
        && ref_id.is_none()
        && [since, until, after_id, before_id].iter().all(|bound| bound.is_none())
        && limit.is_none()
}
