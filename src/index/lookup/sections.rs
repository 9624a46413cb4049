//! Which rows of which sealed segments can match a filter without a reference: by their times, and by the pairs of
//! source and type that occur.

use std::collections::BTreeMap;

use roaring::RoaringBitmap;
use rusqlite::{CachedStatement, Connection, Row};

use crate::base::error::Result;
use crate::base::ids::IdSpan;
use crate::base::time::TimeSpan;
use crate::index::build::offsets::decode;
use crate::index::lookup::paged::Paged;
use crate::row::{Filter, index_key};

/// The rows of a segment that can match.
pub(super) struct Section {
    /// Where the segment is.
    pub(super) ids: IdSpan,
    /// When its rows were.
    pub(super) times: TimeSpan,
    /// The distances of the rows from the segment's first id; None: any of its rows.
    pub(super) set: Option<RoaringBitmap>,
}

/// Sections in the filter's order.
pub(super) type Sections<'a> = Box<dyn Iterator<Item = Result<Section>> + 'a>;

/// The sections of the segments that reach into `within`.
pub(super) fn sections<'a>(connection: &'a Connection, filter: &'a Filter, within: IdSpan) -> Result<Sections<'a>> {
    // The segment in which the first id falls, or the first one.
    let first = connection
        .prepare_cached("SELECT coalesce(max(first_id), ?1) FROM log_segments WHERE first_id <= ?1")?
        .query_row([within.first], |row| row.get(0))?;
    let firsts = IdSpan { first, last: within.last };
    match (&filter.source, &filter.kind) {
        (Some(term), None) => merged(connection, filter, "source", term, firsts),
        (None, Some(term)) => merged(connection, filter, "type", term, firsts),
        (None, None) => Ok(paged(connection, filter, within, firsts, None)),
        (Some(source), Some(kind)) => Ok(paged(connection, filter, within, firsts, Some((source, kind)))),
    }
}

/// The sections of one pair of source and type, or of all rows, of segments whose first ids are within `firsts`.
fn paged<'a>(
    connection: &'a Connection,
    filter: &'a Filter,
    within: IdSpan,
    firsts: IdSpan,
    pair: Option<(&'a str, &'a str)>,
) -> Sections<'a> {
    let order = if filter.descending { "DESC" } else { "ASC" };
    let bounds = "first_id >= ?1 AND first_id <= ?2 AND last_id >= ?3 AND max_timestamp >= ?4 AND min_timestamp <= ?5";
    let columns = "first_id, last_id, min_timestamp, max_timestamp";
    let sql = match pair {
        None => format!("SELECT {columns}, NULL FROM log_segments WHERE {bounds} ORDER BY first_id {order} LIMIT ?6"),
        Some(_) => format!(
            "SELECT {columns}, ids FROM log_kinds CROSS JOIN log_segments ON first_id = segment
             WHERE source = ?7 AND type = ?8 AND segment >= ?1 AND segment <= ?2 AND {bounds}
             ORDER BY segment {order} LIMIT ?6"
        ),
    };
    let times = filter.times();
    let pair = pair.map(|(source, kind)| [index_key(source), index_key(kind)]);
    let mut left = Some(firsts);
    Box::new(Paged::new(move |wanted| {
        let Some(firsts) = left else { return Ok(Vec::new()) };
        let mut statement = connection.prepare_cached(&sql)?;
        let numbers = [firsts.first, firsts.last, within.first, times.first, times.last, i64::from(wanted)];
        for (position, number) in (1..).zip(numbers) {
            statement.raw_bind_parameter(position, number)?;
        }
        for (position, term) in (7..).zip(pair.iter().flatten()) {
            statement.raw_bind_parameter(position, &**term)?;
        }
        let page = read(&mut statement)?;
        if let Some(last) = page.last() {
            let seen = last.ids.first;
            left = if filter.descending {
                seen.checked_sub(1).and_then(|before| IdSpan::new(firsts.first, before))
            } else {
                seen.checked_add(1).and_then(|after| IdSpan::new(after, firsts.last))
            };
        }
        Ok(page)
    }))
}

fn read(statement: &mut CachedStatement<'_>) -> Result<Vec<Section>> {
    let mut rows = statement.raw_query();
    let mut page = Vec::new();
    while let Some(row) = rows.next()? {
        page.push(Section {
            ids: IdSpan { first: row.get(0)?, last: row.get(1)? },
            times: TimeSpan { first: row.get(2)?, last: row.get(3)? },
            set: set(row, 4)?,
        });
    }
    Ok(page)
}

/// For a source without a type or a type without a source: where any of its pairs occurs.
fn merged<'a>(
    connection: &'a Connection,
    filter: &'a Filter,
    column: &str,
    term: &str,
    firsts: IdSpan,
) -> Result<Sections<'a>> {
    let sets = merge_kinds(connection, column, &index_key(term), firsts)?;
    let mut statement = connection.prepare_cached(
        "SELECT last_id, min_timestamp, max_timestamp FROM log_segments
         WHERE first_id = ?1 AND max_timestamp >= ?2 AND min_timestamp <= ?3",
    )?;
    let times = filter.times();
    let mut section = move |(first, set): (i64, Option<RoaringBitmap>)| {
        let mut rows = statement.query((first, times.first, times.last))?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let ids = IdSpan { first, last: row.get(0)? };
        Ok(Some(Section { ids, times: TimeSpan { first: row.get(1)?, last: row.get(2)? }, set }))
    };
    let section = move |found| section(found).transpose();
    Ok(if filter.descending {
        Box::new(sets.into_iter().rev().filter_map(section))
    } else {
        Box::new(sets.into_iter().filter_map(section))
    })
}

fn merge_kinds(
    connection: &Connection,
    column: &str,
    term: &str,
    firsts: IdSpan,
) -> Result<BTreeMap<i64, Option<RoaringBitmap>>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT segment, ids FROM log_kinds WHERE {column} = ?1 AND segment >= ?2 AND segment <= ?3"
    ))?;
    let mut rows = statement.query((term, firsts.first, firsts.last))?;
    let mut merged: BTreeMap<i64, Option<RoaringBitmap>> = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let set = set(row, 1)?;
        merged
            .entry(row.get(0)?)
            .and_modify(|known| {
                *known = match (known.take(), &set) {
                    (Some(known), Some(set)) => Some(known | set),
                    _ => None,
                };
            })
            .or_insert(set);
    }
    Ok(merged)
}

fn set(row: &Row<'_>, column: usize) -> Result<Option<RoaringBitmap>> {
    row.get_ref(column)?.as_blob_or_null().map_err(rusqlite::Error::from)?.map(decode).transpose()
}
