//! Rows that were put back from the archive below the sealed end: the index may not know them, so that reads scan the
//! spans in which they lie, until the rows are archived again or the index is built anew.

use rusqlite::Connection;

use crate::base::error::Result;
use crate::row::Filter;

/// Ids between two restored rows that one span bridges; scanning a few rows in vain is cheaper than another span.
const BRIDGED: i64 = 512;

/// Notes the ids of restored rows, which ascend, in the caller's transaction.
pub(crate) fn add(connection: &Connection, ids: &[i64]) -> Result<()> {
    let mut insert = connection.prepare_cached("INSERT OR REPLACE INTO log_restored VALUES (?1, ?2)")?;
    let mut touching = connection.prepare_cached(
        "SELECT min(first_id), max(last_id) FROM log_restored WHERE last_id >= ?1 AND first_id <= ?2",
    )?;
    let mut delete = connection.prepare_cached("DELETE FROM log_restored WHERE first_id BETWEEN ?1 AND ?2")?;
    for run in ids.chunk_by(|one, next| next - one <= BRIDGED) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
        let reach = (first.saturating_sub(BRIDGED), last.saturating_add(BRIDGED));
        let known: (Option<i64>, Option<i64>) = touching.query_row(reach, |row| Ok((row.get(0)?, row.get(1)?)))?;
        let span = (known.0.map_or(*first, |known| known.min(*first)), known.1.map_or(*last, |known| known.max(*last)));
        delete.execute(span)?;
        insert.execute(span)?;
    }
    Ok(())
}

/// Forgets the spans that hold no row any more, in the caller's transaction.
pub(crate) fn forget_gone(connection: &Connection) -> Result<()> {
    connection.execute_batch(
        "DELETE FROM log_restored WHERE NOT EXISTS
         (SELECT 1 FROM logs WHERE id BETWEEN log_restored.first_id AND log_restored.last_id)",
    )?;
    Ok(())
}

/// The spans that reach into the ids from `first` to `last`, in order.
pub(crate) fn spans(connection: &Connection, first: i64, last: i64) -> Result<Vec<(i64, i64)>> {
    let mut statement = connection.prepare_cached(
        "SELECT first_id, last_id FROM log_restored WHERE last_id >= ?1 AND first_id <= ?2 ORDER BY first_id",
    )?;
    let rows = statement.query_map([first, last], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// A stretch of ids, in which the index is to be asked or every row looked at.
pub(crate) enum Stretch {
    Indexed(Filter),
    Scanned(i64, i64),
}

/// The filter's ids, cut at the spans, in the filter's order.
pub(crate) fn stretches(filter: &Filter, spans: &[(i64, i64)]) -> Vec<Stretch> {
    let (mut next, end) = (filter.first_id(), filter.last_id());
    let mut stretches = Vec::new();
    // The ids from `first` to `last`; both may be where ids end.
    let indexed = |first: i64, last: i64| {
        let after_id = if first == filter.first_id() { filter.after_id } else { Some(first - 1) };
        let before_id = if last == filter.last_id() { filter.before_id } else { Some(last + 1) };
        Stretch::Indexed(Filter { after_id, before_id, ..filter.clone() })
    };
    for (first, last) in spans {
        if next < *first {
            stretches.push(indexed(next, first - 1));
        }
        stretches.push(Stretch::Scanned(next.max(*first), end.min(*last)));
        next = last.saturating_add(1);
    }
    if next <= end && spans.last().is_none_or(|(_, last)| *last < i64::MAX) {
        stretches.push(indexed(next, end));
    }
    if filter.descending {
        stretches.reverse();
    }
    stretches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_grow_together_and_go_with_their_rows() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(crate::index::schema::SCHEMA).unwrap();
        connection.execute_batch("CREATE TABLE logs (id INTEGER PRIMARY KEY); INSERT INTO logs VALUES (1700)").unwrap();
        let all = || spans(&connection, i64::MIN, i64::MAX).unwrap();
        add(&connection, &[1, 2, 10, 5_000]).unwrap();
        assert_eq!(all(), [(1, 10), (5_000, 5_000)]);
        add(&connection, &[1_700]).unwrap();
        add(&connection, &[500, 900, 1_300]).unwrap();
        assert_eq!(all(), [(1, 1_700), (5_000, 5_000)]);
        assert_eq!(spans(&connection, 1_701, 4_999).unwrap(), []);
        forget_gone(&connection).unwrap();
        assert_eq!(all(), [(1, 1_700)]);
    }

    #[test]
    fn stretches_cover_the_ids_of_the_filter_once() {
        for (after_id, before_id) in [(None, None), (Some(4), Some(16)), (Some(9), Some(12)), (Some(15), None)] {
            for descending in [false, true] {
                let filter = Filter { after_id, before_id, descending, ..Filter::default() };
                let inside: Vec<_> = [(5, 7), (10, 15)]
                    .into_iter()
                    .filter(|(first, last)| *last >= filter.first_id() && *first <= filter.last_id())
                    .collect();
                let mut found = Vec::new();
                for stretch in stretches(&filter, &inside) {
                    let (first, last, is_scanned) = match stretch {
                        Stretch::Indexed(part) => (part.first_id(), part.last_id(), false),
                        Stretch::Scanned(first, last) => (first, last, true),
                    };
                    let mut ids: Vec<_> = (first.max(0)..=last.min(20)).map(|id| (id, is_scanned)).collect();
                    if descending {
                        ids.reverse();
                    }
                    found.extend(ids);
                }
                let is_scanned = |id: i64| inside.iter().any(|(first, last)| (*first..=*last).contains(&id));
                let mut wanted: Vec<_> =
                    (filter.first_id().max(0)..=filter.last_id().min(20)).map(|id| (id, is_scanned(id))).collect();
                if descending {
                    wanted.reverse();
                }
                assert_eq!(found, wanted);
            }
        }
    }
}
