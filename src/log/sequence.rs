//! Which ids were given out: what SQLite's table of sequences says, and the rows there are, since another program may lower
//! the one, or give rows ids above it.

use rusqlite::Connection;

use crate::base::error::Result;

/// The greatest id given out so far, also to rows that have left the log; below any if there never was a row.
pub(crate) fn last_given_id(connection: &Connection) -> Result<i64> {
    let mut statement = connection.prepare_cached(
        "SELECT (SELECT max(seq) FROM sqlite_sequence WHERE name = 'logs'), (SELECT max(id) FROM logs)",
    )?;
    let (noted, there): (Option<i64>, Option<i64>) = statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(noted.max(there).unwrap_or(i64::MIN))
}

/// Makes the next id a greater one than `last`, in the caller's transaction.
pub(crate) fn raise_last_given_id(connection: &Connection, last: i64) -> Result<()> {
    let mut raise = connection.prepare_cached("UPDATE sqlite_sequence SET seq = max(seq, ?1) WHERE name = 'logs'")?;
    if raise.execute([last])? == 0 {
        connection.prepare_cached("INSERT INTO sqlite_sequence VALUES ('logs', ?1)")?.execute([last])?;
    }
    Ok(())
}
