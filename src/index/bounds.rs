//! Where the sealed rows end, and where the merged ones do.

use std::sync::LazyLock;

use rusqlite::{Connection, Row};

use crate::base::error::Result;
use crate::base::ids::IdSpan;
use crate::db::schema_version;

/// Whether at least `rows` rows are not sealed yet; and about how many there are, as an upper bound.
pub(crate) fn unsealed(connection: &Connection, rows: u64) -> Result<(bool, u64)> {
    let most = unsealed_span(connection)?.map_or(0, IdSpan::len);
    if most < rows {
        // So few ids are no more rows, which need not be counted.
        return Ok((false, most));
    }
    let least: u64 = connection.query_row(
        "SELECT count(*) FROM (SELECT 1 FROM logs WHERE id > ?1 LIMIT ?2)",
        (sealed_end(connection)?, rows),
        |row| row.get(0),
    )?;
    Ok((least >= rows, most))
}

/// From the first id that is not sealed to the last.
pub(crate) fn unsealed_span(connection: &Connection) -> Result<Option<IdSpan>> {
    let unsealed = sealed_end(connection)?.checked_add(1).and_then(|first| IdSpan::new(first, i64::MAX));
    Ok(unsealed.map(|ids| rows_within(connection, ids)).transpose()?.flatten())
}

/// From the least id to the greatest of the rows within `ids`; None if there are none.
pub(crate) fn rows_within(connection: &Connection, ids: IdSpan) -> Result<Option<IdSpan>> {
    let mut statement = connection.prepare_cached(
        "SELECT (SELECT min(id) FROM logs WHERE id >= ?1), (SELECT max(id) FROM logs WHERE id <= ?2)",
    )?;
    let (first, last): (Option<i64>, Option<i64>) =
        statement.query_row(<(i64, i64)>::from(ids), |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(first.zip(last).and_then(|(first, last)| IdSpan::new(first, last)))
}

/// The last id that is sealed; below any if none is.
pub(crate) fn sealed_end(connection: &Connection) -> Result<i64> {
    let mut statement = connection.prepare_cached("SELECT last_id FROM log_segments ORDER BY first_id DESC LIMIT 1")?;
    let mut rows = statement.query([])?;
    Ok(rows.next()?.map_or(Ok(i64::MIN), |row| row.get(0))?)
}

/// A span of sealed ids, as segments divide it.
pub(crate) struct Division {
    /// From the first id of the first segment that lies in it to the last id of the last one; None if none does.
    pub(crate) whole: Option<IdSpan>,
    /// The rest, at its two ends: a part of a segment, or nothing.
    pub(crate) rest: Vec<IdSpan>,
}

/// Divides a span of sealed ids.
pub(crate) fn divide(connection: &Connection, span: IdSpan) -> Result<Division> {
    let mut bounds = connection.prepare_cached(
        "SELECT (SELECT first_id FROM log_segments WHERE first_id >= ?1 ORDER BY first_id LIMIT 1),
                (SELECT last_id FROM log_segments WHERE first_id <= ?2 AND last_id <= ?2 ORDER BY first_id DESC LIMIT 1)",
    )?;
    let (first, last): (Option<i64>, Option<i64>) =
        bounds.query_row(<(i64, i64)>::from(span), |row| Ok((row.get(0)?, row.get(1)?)))?;
    let Some(whole) = first.zip(last).and_then(|(first, last)| IdSpan::new(first, last)) else {
        return Ok(Division { whole: None, rest: vec![span] });
    };
    let before = whole.first.checked_sub(1).and_then(|last| IdSpan::new(span.first, last));
    let after = whole.last.checked_add(1).and_then(|first| IdSpan::new(first, span.last));
    Ok(Division { whole: Some(whole), rest: before.into_iter().chain(after).collect() })
}

/// Where the parts of the log end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    /// The last id whose reference is in the merged postings; below any if none is.
    pub(crate) merged: i64,
    /// The last id that is sealed; below any if none is.
    pub(crate) sealed: i64,
    /// The last id; below any if there is no row.
    pub(crate) last: i64,
    pub(crate) edition: Edition,
}

/// What is known of the rows of one edition is not known of those of another: it changes when the index is built anew, by
/// whichever process, and when another program replaces the content of the whole database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Edition {
    /// Of the index.
    pub(super) build: Option<i64>,
    /// SQLite's backup API puts the build of an older copy in the place of this one's, and raises this number.
    pub(super) schema_version: i64,
}

/// What `Ends::of` reads.
const ENDS: &str = "SELECT (SELECT min(segment) FROM log_fresh),
 (SELECT last_id FROM log_segments ORDER BY first_id DESC LIMIT 1), (SELECT max(id) FROM logs),
 (SELECT max(build) FROM log_builds)";

/// The same, and the last id that another program has changed, and the mark of the ids that were given out.
static ENDS_AND_TRACES: LazyLock<String> = LazyLock::new(|| {
    format!(
        "{ENDS}, (SELECT last_id FROM log_changed ORDER BY first_id DESC LIMIT 1), (SELECT max(greatest) FROM log_ids)"
    )
});

impl Ends {
    fn of(row: &Row<'_>, schema_version: i64) -> rusqlite::Result<Self> {
        let (fresh, sealed): (Option<i64>, Option<i64>) = (row.get(0)?, row.get(1)?);
        let sealed = sealed.unwrap_or(i64::MIN);
        let merged = fresh.map_or(sealed, |first| first.saturating_sub(1));
        let last = row.get::<_, Option<i64>>(2)?.unwrap_or(i64::MIN);
        Ok(Self { merged, sealed, last, edition: Edition { build: row.get(3)?, schema_version } })
    }
}

/// All of them, by one statement, in a transaction that sees this version of the schema.
pub(crate) fn ends(connection: &Connection, schema_version: i64) -> Result<Ends> {
    Ok(connection.prepare_cached(ENDS)?.query_row([], |row| Ends::of(row, schema_version))?)
}

/// What other programs have left after the parts of the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traces {
    /// They have changed rows that are not merged, or put some among them.
    pub(crate) has_changes: bool,
    /// They may have deleted rows that are not sealed. Sealing moves the mark to the sealed end, at first it is 0, and the
    /// deletion of a later row moves it on.
    pub(crate) has_deletions: bool,
}

/// Both.
pub(crate) fn ends_and_traces(connection: &Connection) -> Result<(Ends, Traces)> {
    let schema_version = schema_version(connection)?;
    let mut statement = connection.prepare_cached(&ENDS_AND_TRACES)?;
    Ok(statement.query_row([], |row| {
        let ends = Ends::of(row, schema_version)?;
        let has_changes = row.get::<_, Option<i64>>(4)?.is_some_and(|last| last > ends.merged);
        let has_deletions = row.get::<_, Option<i64>>(5)?.is_some_and(|mark| mark > ends.sealed.max(0));
        Ok((ends, Traces { has_changes, has_deletions }))
    })?)
}

/// The last id whose reference is in the merged postings; below any if none is.
pub(crate) fn merged_end(connection: &Connection) -> Result<i64> {
    Ok(ends(connection, schema_version(connection)?)?.merged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_is_due_by_its_rows_and_not_by_its_ids() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(crate::index::schema::SCHEMA).unwrap();
        connection.execute_batch("CREATE TABLE logs (id INTEGER PRIMARY KEY)").unwrap();
        assert_eq!(unsealed(&connection, 3).unwrap(), (false, 0));
        connection
            .execute_batch("INSERT INTO log_segments VALUES (1, 9, 9, 0, 0, 0); INSERT INTO logs VALUES (9)")
            .unwrap();
        assert_eq!(unsealed(&connection, 3).unwrap(), (false, 0), "what is sealed does not count");
        for (id, expected) in [(10, (false, 1)), (100, (false, 91)), (101, (true, 92)), (102, (true, 93))] {
            connection.execute("INSERT INTO logs VALUES (?1)", [id]).unwrap();
            assert_eq!(unsealed(&connection, 3).unwrap(), expected);
        }
        connection.execute_batch("DELETE FROM logs WHERE id IN (10, 101)").unwrap();
        assert_eq!(unsealed(&connection, 3).unwrap(), (false, 3));
    }
}
