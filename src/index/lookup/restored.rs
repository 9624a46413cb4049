//! Rows that were put back from the archive below the sealed end: the index may not know them, so that reads scan the
//! spans in which they lie, until the rows are archived again or the index is built anew.

use rusqlite::Connection;

use crate::base::error::Result;
use crate::base::ids::IdSpan;

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
        let mut span = IdSpan { first: *first, last: *last };
        if let (Some(first), Some(last)) = known {
            span = span.union(IdSpan { first, last });
        }
        delete.execute(<(i64, i64)>::from(span))?;
        insert.execute(<(i64, i64)>::from(span))?;
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

/// The spans that reach into `within`, in order.
pub(crate) fn spans(connection: &Connection, within: IdSpan) -> Result<Vec<IdSpan>> {
    let mut statement = connection.prepare_cached(
        "SELECT first_id, last_id FROM log_restored WHERE last_id >= ?1 AND first_id <= ?2 ORDER BY first_id",
    )?;
    let rows =
        statement.query_map([within.first, within.last], |row| Ok(IdSpan { first: row.get(0)?, last: row.get(1)? }))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// A stretch of ids, in which the index is to be asked or every row looked at.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stretch {
    Indexed(IdSpan),
    Scanned(IdSpan),
}

/// The ids of `within`, ascending, cut where the spans, which ascend, begin and end.
pub(crate) fn stretches(within: IdSpan, spans: &[IdSpan]) -> Vec<Stretch> {
    let mut stretches = Vec::new();
    let mut next = Some(within.first);
    for span in spans {
        let (Some(first), Some(scanned)) = (next, span.intersect(within)) else { continue };
        let before = scanned.first.checked_sub(1).and_then(|before| IdSpan::new(first, before));
        stretches.extend(before.map(Stretch::Indexed));
        // The spans do not overlap, unless they are damaged.
        let Some(scanned) = IdSpan::new(scanned.first.max(first), scanned.last) else { continue };
        stretches.push(Stretch::Scanned(scanned));
        next = scanned.last.checked_add(1);
    }
    stretches.extend(next.and_then(|first| IdSpan::new(first, within.last)).map(Stretch::Indexed));
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
        let all =
            || -> Vec<(i64, i64)> { spans(&connection, IdSpan::ALL).unwrap().into_iter().map(Into::into).collect() };
        add(&connection, &[1, 2, 10, 5_000]).unwrap();
        assert_eq!(all(), [(1, 10), (5_000, 5_000)]);
        add(&connection, &[1_700]).unwrap();
        add(&connection, &[500, 900, 1_300]).unwrap();
        assert_eq!(all(), [(1, 1_700), (5_000, 5_000)]);
        assert_eq!(spans(&connection, IdSpan { first: 1_701, last: 4_999 }).unwrap(), []);
        forget_gone(&connection).unwrap();
        assert_eq!(all(), [(1, 1_700)]);
    }

    #[test]
    fn stretches_cover_the_ids_once() {
        for within in [(0, 20), (5, 15), (10, 11), (16, 20), (6, 6)].map(|(first, last)| IdSpan { first, last }) {
            for spans in [vec![(5, 7), (10, 15)], vec![(0, 30)], vec![], vec![(0, 9), (4, 12)]] {
                let spans: Vec<_> = spans.into_iter().map(|(first, last)| IdSpan { first, last }).collect();
                let mut found = Vec::new();
                for stretch in stretches(within, &spans) {
                    let (span, is_scanned) = match stretch {
                        Stretch::Indexed(span) => (span, false),
                        Stretch::Scanned(span) => (span, true),
                    };
                    found.extend((span.first..=span.last).map(|id| (id, is_scanned)));
                }
                let is_scanned = |id: i64| spans.iter().any(|span| span.contains(id));
                let wanted: Vec<_> = (within.first..=within.last).map(|id| (id, is_scanned(id))).collect();
                assert_eq!(found, wanted);
            }
        }
        let all = stretches(IdSpan::ALL, &[IdSpan::of(i64::MIN), IdSpan { first: 5, last: i64::MAX }]);
        let between = Stretch::Indexed(IdSpan { first: i64::MIN + 1, last: 4 });
        assert_eq!(all[1], between);
        assert_eq!(all.len(), 3);
    }
}
