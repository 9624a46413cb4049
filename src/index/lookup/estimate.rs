//! How many rows there are and when they were, at a cost that does not grow with them: from the segments, and from as many
//! rows as are in doubt, up to a bound.

use rusqlite::Connection;

use crate::base::error::Result;
use crate::base::ids::IdSpan;
use crate::base::time::TimeSpan;
use crate::db::schema_version;
use crate::index::bounds::{Division, divide, sealed_end};
use crate::index::doubt;
use crate::index::lookup::restored::{self, Stretch};
use crate::index::lookup::tail::Estimate;
use crate::index::lookup::unmerged::UnmergedIndex;

/// About how many rows there are; exact unless more than `most` are in doubt.
pub(crate) fn estimate(connection: &Connection, unmerged: &UnmergedIndex, most: u64) -> Result<Estimate> {
    let end = sealed_end(connection)?;
    let schema_version = schema_version(connection)?;
    let doubts = match unmerged.trust.holds(connection, schema_version)? {
        true => doubt::spans(connection, IdSpan::ALL)?,
        false => vec![IdSpan { first: i64::MIN, last: end }, IdSpan { first: end.saturating_add(1), last: i64::MAX }],
    };
    let (mut total, mut left) = (Estimate::default(), most);
    for stretch in restored::stretches(IdSpan::ALL, &doubts) {
        match stretch {
            Stretch::Indexed(span) => {
                let tail = end.saturating_add(1);
                if span.last == i64::MAX && span.first <= tail {
                    total.add(unmerged.tail.estimate(connection, schema_version, end)?);
                    if let Some(sealed) = IdSpan::new(span.first, end) {
                        total.add(of_segments(connection, sealed)?);
                    }
                } else {
                    total.add(of_segments(connection, span)?);
                }
            }
            Stretch::Scanned(span) => {
                let found = look(connection, span, left + 1)?;
                if found.row_count <= left {
                    left -= found.row_count;
                    total.add(found);
                } else if span.first > end {
                    // The tail is short.
                    total.add(look(connection, span, u64::MAX)?);
                } else {
                    total.add(sealed(connection, span)?);
                }
            }
        }
    }
    Ok(total)
}

/// Of the rows of a span that are not in doubt.
fn of_segments(connection: &Connection, span: IdSpan) -> Result<Estimate> {
    let Division { whole, rest } = divide(connection, span)?;
    let mut total = whole.map_or(Ok(Estimate::default()), |whole| sealed(connection, whole))?;
    for part in rest {
        total.add(look(connection, part, u64::MAX)?);
    }
    Ok(total)
}

/// What was sealed of the segments that begin within a span.
fn sealed(connection: &Connection, span: IdSpan) -> Result<Estimate> {
    let mut statement = connection.prepare_cached(
        "SELECT coalesce(sum(row_count), 0), min(min_timestamp), max(max_timestamp) FROM log_segments
         WHERE first_id BETWEEN ?1 AND ?2",
    )?;
    read(&mut statement, [span.first, span.last])
}

/// What there is of the first so many rows of a span.
fn look(connection: &Connection, span: IdSpan, most: u64) -> Result<Estimate> {
    let mut statement = connection.prepare_cached(
        "SELECT count(*), CAST(min(timestamp) AS INTEGER), CAST(max(timestamp) AS INTEGER)
         FROM (SELECT timestamp FROM logs WHERE id BETWEEN ?1 AND ?2 LIMIT ?3)",
    )?;
    read(&mut statement, [span.first, span.last, i64::try_from(most).unwrap_or(i64::MAX)])
}

fn read(statement: &mut rusqlite::Statement<'_>, parameters: impl rusqlite::Params) -> Result<Estimate> {
    let (row_count, first, last): (u64, Option<i64>, Option<i64>) =
        statement.query_row(parameters, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    Ok(Estimate { row_count, times: first.zip(last).map(|(first, last)| TimeSpan { first, last }) })
}
