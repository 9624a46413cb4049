//! Where the index may not say what the rows are: ids of rows that were deleted after they were sealed, and ids at which
//! another program wrote. Everywhere else the index is exact, so that counting needs no row.
//!
//! Invariants: a row that leaves, and an id at which another program inserts or overwrites, is noted in the transaction that
//! does it: by [`TRIGGERS`] for other programs, and by the callers of [`note_deleted`] for this library. Spans of
//! `log_deleted` consist of whole blocks, so that none overlaps another. An id that another program frees is below the mark
//! of the ids that were given out ([`crate::index::given`]), whatever becomes of SQLite's sequence.

use std::sync::{Mutex, PoisonError};

use rusqlite::Connection;

use crate::base::error::Result;
use crate::base::ids::IdSpan;
use crate::db::{Object, lacking};
use crate::index::lookup::restored;

/// What other programs do to rows, in blocks of ids: 4,096 for rows that they delete, which costs later counts a look at the
/// block, and 256 for rows that they overwrite or put among others, which every later read looks at. A deletion moves the mark
/// of the ids that were given out, too. This library's own connections run no triggers, and keep these tables themselves. An
/// insertion is one among others if its id had been given out before, by SQLite's sequence or by the mark, or is below that
/// of a row (an UPDATE of ids does not count as giving them out); `INSERT OR REPLACE` fires no trigger for the row that it
/// deletes, but that one.
///
/// They name no table that may be dropped alone, lest the other program's statement fail.
pub(crate) static TRIGGERS: [Object; 3] = [
    Object {
        name: "log_row_deleted",
        sql: "CREATE TRIGGER log_row_deleted AFTER DELETE ON logs
WHEN coalesce((SELECT last_id FROM log_deleted WHERE first_id <= OLD.id ORDER BY first_id DESC LIMIT 1) < OLD.id, 1)
  OR NOT EXISTS (SELECT 1 FROM log_ids WHERE slot = 0 AND greatest >= OLD.id AND complement = ~greatest)
BEGIN
  INSERT OR REPLACE INTO log_deleted SELECT OLD.id & -4096, OLD.id | 4095
   WHERE coalesce((SELECT last_id FROM log_deleted WHERE first_id <= OLD.id ORDER BY first_id DESC LIMIT 1) < OLD.id, 1);
  INSERT OR REPLACE INTO log_ids SELECT 0, OLD.id, ~OLD.id
   WHERE OLD.id BETWEEN 1 AND 9223372036854775806
     AND NOT EXISTS (SELECT 1 FROM log_ids WHERE slot = 0 AND greatest >= OLD.id AND complement = ~greatest);
END",
    },
    Object {
        name: "log_row_inserted",
        sql: "CREATE TRIGGER log_row_inserted AFTER INSERT ON logs
WHEN (NEW.id <= (SELECT max(seq) FROM sqlite_sequence WHERE name = 'logs') OR NEW.id < (SELECT max(id) FROM logs)
  OR NEW.id <= (SELECT max(greatest) FROM log_ids WHERE complement = ~greatest))
 AND coalesce((SELECT last_id FROM log_changed WHERE first_id <= NEW.id ORDER BY first_id DESC LIMIT 1) < NEW.id, 1)
BEGIN
  INSERT OR REPLACE INTO log_changed VALUES (NEW.id & -256, NEW.id | 255);
END",
    },
    Object {
        name: "log_row_updated",
        sql: "CREATE TRIGGER log_row_updated AFTER UPDATE ON logs
BEGIN
  INSERT OR REPLACE INTO log_changed SELECT OLD.id & -256, OLD.id | 255
   WHERE coalesce((SELECT last_id FROM log_changed WHERE first_id <= OLD.id ORDER BY first_id DESC LIMIT 1) < OLD.id, 1);
  INSERT OR REPLACE INTO log_changed SELECT NEW.id & -256, NEW.id | 255
   WHERE coalesce((SELECT last_id FROM log_changed WHERE first_id <= NEW.id ORDER BY first_id DESC LIMIT 1) < NEW.id, 1);
END",
    },
];

/// Those of version 0.2.0, from before there was a mark of the ids that were given out.
pub(crate) static FORMER_TRIGGERS: [Object; 2] = [
    Object {
        name: "log_row_deleted",
        sql: "CREATE TRIGGER log_row_deleted AFTER DELETE ON logs
WHEN coalesce((SELECT last_id FROM log_deleted WHERE first_id <= OLD.id ORDER BY first_id DESC LIMIT 1) < OLD.id, 1)
BEGIN
  INSERT OR REPLACE INTO log_deleted VALUES (OLD.id & -4096, OLD.id | 4095);
END",
    },
    Object {
        name: "log_row_inserted",
        sql: "CREATE TRIGGER log_row_inserted AFTER INSERT ON logs
WHEN (NEW.id <= (SELECT max(seq) FROM sqlite_sequence WHERE name = 'logs') OR NEW.id < (SELECT max(id) FROM logs))
 AND coalesce((SELECT last_id FROM log_changed WHERE first_id <= NEW.id ORDER BY first_id DESC LIMIT 1) < NEW.id, 1)
BEGIN
  INSERT OR REPLACE INTO log_changed VALUES (NEW.id & -256, NEW.id | 255);
END",
    },
];

/// Ids of a block of `log_deleted`, less one; the trigger has the same number.
const BLOCK_MASK: i64 = 4_095;

/// Notes that rows between these ids, inclusive, have left or are about to leave, in the caller's transaction.
pub(crate) fn note_deleted(connection: &Connection, within: IdSpan) -> Result<()> {
    let mut span = IdSpan { first: within.first & !BLOCK_MASK, last: within.last | BLOCK_MASK };
    let mut touching = connection.prepare_cached(
        "SELECT min(first_id), max(last_id), count(*) FROM log_deleted
         WHERE first_id <= ?2 AND first_id >= coalesce((SELECT max(first_id) FROM log_deleted WHERE first_id <= ?1), ?1)
           AND last_id >= ?3",
    )?;
    let reach = (span.first, span.last.saturating_add(1), span.first.saturating_sub(1));
    let known: (Option<i64>, Option<i64>, u64) =
        touching.query_row(reach, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    if let (Some(first), Some(last), count) = known {
        let known = IdSpan { first, last };
        // Several have a gap between them, even if they reach as far.
        if count == 1 && known.first <= span.first && known.last >= span.last {
            return Ok(());
        }
        span = span.union(known);
        let mut delete = connection.prepare_cached("DELETE FROM log_deleted WHERE first_id BETWEEN ?1 AND ?2")?;
        delete.execute(<(i64, i64)>::from(span))?;
    }
    let mut insert = connection.prepare_cached("INSERT INTO log_deleted VALUES (?1, ?2)")?;
    insert.execute(<(i64, i64)>::from(span))?;
    Ok(())
}

/// Of everything up to now it is unknown whether rows have left, in the caller's transaction: there was a time without
/// triggers.
pub(crate) fn doubt_all(connection: &Connection) -> Result<()> {
    let last: i64 = connection.query_row(
        "SELECT max(coalesce((SELECT max(id) FROM logs), 0), coalesce((SELECT max(last_id) FROM log_segments), 0))",
        [],
        |row| row.get(0),
    )?;
    note_deleted(connection, IdSpan { first: i64::MIN, last })
}

/// Ends the doubt about written ids whose rows are all gone, and joins what adjoins, in the caller's transaction.
pub(crate) fn settle(connection: &Connection) -> Result<()> {
    let mut statement = connection.prepare_cached(
        "SELECT first_id, last_id FROM log_changed WHERE NOT EXISTS
         (SELECT 1 FROM logs WHERE id BETWEEN log_changed.first_id AND log_changed.last_id)",
    )?;
    let gone = read(&mut statement.query([])?)?;
    let mut forget = connection.prepare_cached("DELETE FROM log_changed WHERE first_id = ?1")?;
    for span in gone {
        // What the index says of their rows is of rows that have left.
        note_deleted(connection, span)?;
        forget.execute([span.first])?;
    }
    let mut statement = connection.prepare_cached("SELECT first_id, last_id FROM log_deleted ORDER BY first_id")?;
    let spans = read(&mut statement.query([])?)?;
    for pair in spans.windows(2).filter(|pair| pair[0].adjoins(pair[1])) {
        note_deleted(connection, IdSpan { first: pair[0].first, last: pair[1].last })?;
    }
    Ok(())
}

/// The spans of doubt that reach into `within`, ascending and apart from each other.
pub(crate) fn spans(connection: &Connection, within: IdSpan) -> Result<Vec<IdSpan>> {
    let mut statement = connection.prepare_cached(
        "SELECT first_id, last_id FROM log_deleted WHERE last_id >= ?1 AND first_id <= ?2
         UNION ALL SELECT first_id, last_id FROM log_changed WHERE last_id >= ?1 AND first_id <= ?2
         UNION ALL SELECT first_id, last_id FROM log_restored WHERE last_id >= ?1 AND first_id <= ?2",
    )?;
    Ok(IdSpan::joined(read(&mut statement.query([within.first, within.last])?)?))
}

/// The spans of sealed ids whose rows need not be what the index says, or in the index at all, cut to `within`, ascending
/// and apart from each other: other programs wrote there, or rows were restored.
pub(crate) fn undescribed(connection: &Connection, within: IdSpan) -> Result<Vec<IdSpan>> {
    let mut spans = changed(connection, within)?;
    spans.extend(restored::spans(connection, within)?);
    Ok(IdSpan::joined(spans.into_iter().filter_map(|span| span.intersect(within)).collect()))
}

/// The spans in which other programs wrote and that reach into `within`, ascending.
pub(crate) fn changed(connection: &Connection, within: IdSpan) -> Result<Vec<IdSpan>> {
    let mut statement = connection.prepare_cached(
        "SELECT first_id, last_id FROM log_changed WHERE last_id >= ?1 AND first_id <= ?2 ORDER BY first_id",
    )?;
    read(&mut statement.query([within.first, within.last])?)
}

fn read(rows: &mut rusqlite::Rows<'_>) -> Result<Vec<IdSpan>> {
    let mut spans = Vec::new();
    while let Some(row) = rows.next()? {
        spans.push(IdSpan { first: row.get(0)?, last: row.get(1)? });
    }
    Ok(spans)
}

/// Whether the triggers are in place, as of a state of the schema.
#[derive(Default)]
pub(crate) struct Trust {
    known: Mutex<Option<(i64, bool)>>,
}

impl Trust {
    /// Whether other programs' changes are noted, in the caller's transaction, which sees this version of the schema.
    pub(crate) fn holds(&self, connection: &Connection, version: i64) -> Result<bool> {
        let known = *self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, holds)) = known
            && of == version
        {
            return Ok(holds);
        }
        let holds = lacking(connection, TRIGGERS.iter())?.is_empty();
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some((version, holds));
        Ok(holds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCKS: i64 = 7;

    fn noted(connection: &Connection) -> Vec<IdSpan> {
        let mut statement =
            connection.prepare_cached("SELECT first_id, last_id FROM log_deleted ORDER BY first_id").unwrap();
        read(&mut statement.query([]).unwrap()).unwrap()
    }

    /// The blocks whose bits are set.
    fn blocks(bits: u32) -> Vec<IdSpan> {
        let block =
            |number: i64| IdSpan { first: number * (BLOCK_MASK + 1), last: number * (BLOCK_MASK + 1) + BLOCK_MASK };
        (0..BLOCKS).filter(|number| bits >> number & 1 == 1).map(block).collect()
    }

    #[test]
    fn every_block_is_noted_whatever_is_noted_around_it() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(crate::index::schema::SCHEMA).unwrap();
        connection.execute_batch("CREATE TABLE logs (id INTEGER PRIMARY KEY)").unwrap();
        for before in 0..1_u32 << BLOCKS {
            for (first, last) in (0..BLOCKS).flat_map(|first| (first..BLOCKS).map(move |last| (first, last))) {
                connection.execute("DELETE FROM log_deleted", []).unwrap();
                // As the trigger notes them: none is joined to another.
                for block in blocks(before) {
                    connection.execute("INSERT INTO log_deleted VALUES (?1, ?2)", <(i64, i64)>::from(block)).unwrap();
                }
                let within = IdSpan { first: first * (BLOCK_MASK + 1) + 9, last: last * (BLOCK_MASK + 1) + 9 };
                note_deleted(&connection, within).unwrap();
                let wanted = IdSpan::joined(blocks((first..=last).fold(before, |bits, block| bits | 1 << block)));
                assert_eq!(IdSpan::joined(noted(&connection)), wanted, "{before:b}, {first} to {last}");
                settle(&connection).unwrap();
                assert_eq!(noted(&connection), wanted, "{before:b}, {first} to {last}");
            }
        }
    }
}
