//! Which ids were given out. SQLite notes the last one in its table of sequences, where another program may lower it, or
//! delete it. The index therefore keeps a mark of its own.
//!
//! Invariants: no id up to the mark is given out, and none is above it that was sealed, or whose row another program deleted
//! (which the trigger of deletions notes). The mark is stored twice, so that a
//! damaged one is told from a whole one and does not lead to wild ids.

use std::sync::LazyLock;

use rusqlite::Connection;

use crate::base::error::Result;

/// The mark; NULL if there is none, or if it is damaged.
const MARK: &str = "(SELECT max(greatest) FROM log_ids WHERE complement = ~greatest)";

const IS_DAMAGED: &str = "(slot <> 0 OR complement IS NOT ~greatest)";

/// The sequence as SQLite takes it, whatever another program has put there.
const SEQUENCE: &str = "coalesce(CAST(seq AS INTEGER), 0)";

/// A sequence that has come to its end: SQLite has no id to give after it.
const END: i64 = i64::MAX;

static RAISE: LazyLock<String> = LazyLock::new(|| {
    format!(
        "UPDATE sqlite_sequence SET seq = max(?1, coalesce({MARK}, ?1))
         WHERE name = 'logs' AND ({SEQUENCE} < ?1 OR {SEQUENCE} = {END})"
    )
});
/// Of several sequences, which only another program makes, any may be the one that SQLite takes.
static SEQUENCE_AND_MARK: LazyLock<String> = LazyLock::new(|| {
    format!("SELECT min({SEQUENCE}), max({SEQUENCE}), {MARK} FROM sqlite_sequence WHERE name = 'logs'")
});

/// The greatest id given out so far, also to rows that have left the log; below any if there never was a row.
pub(crate) fn last_given_id(connection: &Connection) -> Result<i64> {
    // The end of the ids is no id that was given out, unless a row has it.
    let mut statement = connection.prepare_cached(
        "SELECT (SELECT max(CAST(seq AS INTEGER)) FROM sqlite_sequence
                 WHERE name = 'logs' AND CAST(seq AS INTEGER) < 9223372036854775807),
                (SELECT max(id) FROM logs)",
    )?;
    let (noted, there): (Option<i64>, Option<i64>) = statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(noted.max(there).unwrap_or(i64::MIN))
}

/// The same, by the mark as well.
pub(crate) fn given(connection: &Connection) -> Result<i64> {
    let mark: Option<i64> = connection.query_row(&format!("SELECT {MARK}"), [], |row| row.get(0))?;
    Ok(last_given_id(connection)?.max(mark.unwrap_or(i64::MIN)))
}

/// Makes the next id a greater one than `last`, in the caller's transaction.
pub(crate) fn raise_last_given_id(connection: &Connection, last: i64) -> Result<()> {
    // Those that the log gives out are positive.
    let last = last.max(0);
    note_given(connection, last)?;
    if connection.prepare_cached(&RAISE)?.execute([last])? == 0 {
        let mut insert = connection.prepare_cached(
            "INSERT INTO sqlite_sequence SELECT 'logs', ?1
             WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'logs')",
        )?;
        insert.execute([last])?;
    }
    Ok(())
}

/// Moves the mark forward to `last`, in the caller's transaction.
pub(crate) fn note_given(connection: &Connection, last: i64) -> Result<()> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO log_ids VALUES (0, ?1, ~?1) ON CONFLICT (slot) DO UPDATE
         SET greatest = excluded.greatest, complement = excluded.complement
         WHERE greatest < excluded.greatest OR complement IS NOT ~greatest",
    )?;
    statement.execute([last])?;
    Ok(())
}

/// Sets the mark by what else is known, in the caller's transaction, if there is none; a damaged one is none.
pub(crate) fn renew_mark(connection: &Connection) -> Result<()> {
    connection.execute(&format!("DELETE FROM log_ids WHERE {IS_DAMAGED}"), [])?;
    let mark: Option<i64> = connection.query_row(&format!("SELECT {MARK}"), [], |row| row.get(0))?;
    match last_given_id(connection)? {
        last if mark.is_none() && last > 0 => note_given(connection, last),
        _ => Ok(()),
    }
}

/// The greatest id that was given out, by the mark or as far as it is `known`, if SQLite would not go on above it.
pub(crate) fn given_and_forgotten(connection: &Connection, known: Option<i64>) -> Result<Option<i64>> {
    let mut statement = connection.prepare_cached(&SEQUENCE_AND_MARK)?;
    let (least, most, mark): (Option<i64>, Option<i64>, Option<i64>) =
        statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    // Without a mark nothing tells how far to go back from the end of the ids.
    let is_at_end = most == Some(END) && mark.is_some();
    let greatest = mark.max(known).filter(|greatest| *greatest > 0);
    Ok(greatest.filter(|greatest| is_at_end || least.is_none_or(|least| least < *greatest)))
}

/// Whether the mark is damaged.
pub(crate) fn is_mark_damaged(connection: &Connection) -> Result<bool> {
    Ok(connection.prepare(&format!("SELECT 1 FROM log_ids WHERE {IS_DAMAGED}"))?.exists([])?)
}
