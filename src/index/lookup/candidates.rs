//! From a filter to the rows: which rows the index proposes, and checking them.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use roaring::RoaringBitmap;
use rusqlite::Connection;

use crate::base::error::Result;
use crate::index::bounds::sealed_end;
use crate::index::build::postings::{decode, ids};
use crate::index::build::zones;
use crate::index::lookup::check::{Candidate, Check};
use crate::index::lookup::restored;
use crate::index::lookup::restored::Stretch;
use crate::index::lookup::tail::Recent;
use crate::row::Filter;
use crate::row::LogEntry;
use crate::row::{COLUMNS, Entries};

/// Rows that a span of ids may hold besides those proposed, as a multiple, before they are looked up one by one.
const SPARSE: u64 = 6;

/// Calls `visit` with every row that matches, in the filter's order, in the caller's transaction.
pub(crate) fn search(
    connection: &Connection,
    recent: &Recent,
    filter: &Filter,
    visit: impl FnMut(LogEntry),
) -> Result<()> {
    let mut check = Check::new(connection, filter, COLUMNS);
    let mut entries = Entries::new(visit);
    each_candidate(connection, recent, filter, &mut |candidate| check.run(candidate, &mut |row| entries.push(row)))?;
    entries.finish()
}

/// How many rows match.
pub(crate) fn count(connection: &Connection, recent: &Recent, filter: &Filter) -> Result<u64> {
    if is_everything(filter) {
        // Without a condition SQLite adds up what its pages say that they hold.
        return Ok(connection.prepare_cached("SELECT count(*) FROM logs")?.query_row([], |row| row.get(0))?);
    }
    let mut found = 0;
    // Counted by the statement itself, unless only the first so many count.
    let columns = if filter.limit.is_none() { "count(*)" } else { "1" };
    let mut check = Check::new(connection, filter, columns);
    each_candidate(connection, recent, filter, &mut |candidate| {
        check.run(candidate, &mut |row| {
            found += row.get::<_, u64>(0)?;
            Ok(())
        })
    })?;
    Ok(found)
}

fn is_everything(filter: &Filter) -> bool {
    let Filter { source, kind, ref_id, since, until, after_id, before_id, limit, descending: _ } = filter;
    source.is_none()
        && kind.is_none()
        && ref_id.is_none()
        && [since, until, after_id, before_id].iter().all(|bound| bound.is_none())
        && limit.is_none()
}

type Propose<'a> = dyn FnMut(Candidate) -> Result<ControlFlow<()>> + 'a;

/// Proposes every row that can match, in the filter's order, until it is told to stop.
fn each_candidate(connection: &Connection, recent: &Recent, filter: &Filter, propose: &mut Propose<'_>) -> Result<()> {
    if filter.limit == Some(0) || filter.since > Some(filter.until.unwrap_or(i64::MAX)) {
        return Ok(());
    }
    let restored = restored::spans(connection, filter.first_id(), filter.last_id())?;
    if restored.is_empty() {
        return by_index(connection, recent, filter, propose).map(drop);
    }
    for stretch in restored::stretches(filter, &restored) {
        let flow = match stretch {
            Stretch::Indexed(filter) => by_index(connection, recent, &filter, propose)?,
            Stretch::Scanned(first, last) => propose(Candidate::Span(first, last))?,
        };
        if flow.is_break() {
            break;
        }
    }
    Ok(())
}

fn by_index(
    connection: &Connection,
    recent: &Recent,
    filter: &Filter,
    propose: &mut Propose<'_>,
) -> Result<ControlFlow<()>> {
    match &filter.ref_id {
        Some(ref_id) => by_reference(connection, recent, filter, ref_id, propose),
        None => by_segment(connection, filter, propose),
    }
}

/// The rows of a reference: those that are merged, and the recent ones.
fn by_reference(
    connection: &Connection,
    recent: &Recent,
    filter: &Filter,
    ref_id: &str,
    propose: &mut Propose<'_>,
) -> Result<ControlFlow<()>> {
    let (merged_end, recent) = recent.ids(connection, ref_id)?;
    let mut recent = recent.ids;
    recent.retain(|id| (filter.first_id()..=filter.last_id()).contains(id));
    if filter.descending && propose_ids(std::mem::take(&mut recent), true, propose)?.is_break() {
        return Ok(ControlFlow::Break(()));
    }
    if filter.first_id() <= merged_end && merged(connection, filter, ref_id, propose)?.is_break() {
        return Ok(ControlFlow::Break(()));
    }
    propose_ids(recent, false, propose)
}

fn merged(
    connection: &Connection,
    filter: &Filter,
    ref_id: &str,
    propose: &mut Propose<'_>,
) -> Result<ControlFlow<()>> {
    let (first, last) = (filter.first_id(), filter.last_id());
    // The group in which the first id falls, or the first one.
    let from: i64 = connection
        .prepare_cached("SELECT coalesce(max(first_id), ?2) FROM log_postings WHERE ref_id = ?1 AND first_id <= ?2")?
        .query_row((ref_id, first), |row| row.get(0))?;
    let order = if filter.descending { "DESC" } else { "ASC" };
    let mut statement = connection.prepare_cached(&format!(
        "SELECT first_id, ids FROM log_postings
         WHERE ref_id = ?1 AND first_id >= ?2 AND first_id <= ?3 ORDER BY first_id {order}"
    ))?;
    let mut rows = statement.query((ref_id, from, last))?;
    while let Some(row) = rows.next()? {
        let set = decode(row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?)?;
        let ids = ids(row.get(0)?, &set).filter(|id| (first..=last).contains(id)).collect();
        if propose_ids(ids, filter.descending, propose)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// The rows of the segments whose zone and kinds allow a match, and the tail.
fn by_segment(connection: &Connection, filter: &Filter, propose: &mut Propose<'_>) -> Result<ControlFlow<()>> {
    let end = sealed_end(connection)?;
    let tail = end.checked_add(1).map(|first| (first.max(filter.first_id()), filter.last_id()));
    let propose_tail = |propose: &mut Propose<'_>| match tail {
        Some((first, last)) if first <= last => propose(Candidate::Span(first, last)),
        _ => Ok(ControlFlow::Continue(())),
    };
    if filter.descending {
        if propose_tail(propose)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        sealed(connection, filter, end, propose)
    } else if sealed(connection, filter, end, propose)?.is_break() {
        Ok(ControlFlow::Break(()))
    } else {
        propose_tail(propose)
    }
}

/// Where rows may be in a segment.
struct Place {
    first_id: i64,
    last_id: i64,
    timestamps: (i64, i64),
    /// None: anywhere.
    set: Option<RoaringBitmap>,
}

fn sealed(
    connection: &Connection,
    filter: &Filter,
    sealed_end: i64,
    propose: &mut Propose<'_>,
) -> Result<ControlFlow<()>> {
    if filter.first_id() > sealed_end {
        return Ok(ControlFlow::Continue(()));
    }
    let mut spans = Spans { connection, filter, open: None, propose };
    let flow = each_place(connection, filter, &mut |place| spans.take(place))?;
    if flow.is_break() { Ok(flow) } else { spans.close() }
}

/// Calls `visit` with the places in the segments that can hold a match, in the filter's order.
fn each_place(
    connection: &Connection,
    filter: &Filter,
    visit: &mut dyn FnMut(Place) -> Result<ControlFlow<()>>,
) -> Result<ControlFlow<()>> {
    let order = if filter.descending { "DESC" } else { "ASC" };
    let bounds =
        (filter.first_id(), filter.last_id(), filter.since.unwrap_or(i64::MIN), filter.until.unwrap_or(i64::MAX));
    // The segment in which the first id falls, or the first one.
    let from = connection
        .prepare_cached("SELECT coalesce(max(first_id), ?1) FROM log_segments WHERE first_id <= ?1")?
        .query_row([bounds.0], |row| row.get::<_, i64>(0))?;
    let zone = "first_id >= ?1 AND first_id <= ?2 AND last_id >= ?3 AND max_timestamp >= ?4 AND min_timestamp <= ?5";
    let (sql, terms): (String, Vec<&str>) = match (&filter.source, &filter.kind) {
        (Some(source), Some(kind)) => (
            format!(
                "SELECT first_id, last_id, min_timestamp, max_timestamp, ids FROM log_kinds CROSS JOIN log_segments ON first_id = segment
                 WHERE source = ?6 AND type = ?7 AND segment >= ?1 AND segment <= ?2 AND {zone} ORDER BY segment {order}"
            ),
            vec![source, kind],
        ),
        (Some(term), None) | (None, Some(term)) => {
            let column = if filter.source.is_some() { "source" } else { "type" };
            let merged = merge_kinds(connection, column, term, (from, bounds.1))?;
            return each_merged(connection, filter, merged, visit);
        }
        (None, None) => {
            let columns = "first_id, last_id, min_timestamp, max_timestamp, NULL";
            (format!("SELECT {columns} FROM log_segments WHERE {zone} ORDER BY first_id {order}"), vec![])
        }
    };
    let mut statement = connection.prepare_cached(&sql)?;
    for (position, bound) in [from, bounds.1, bounds.0, bounds.2, bounds.3].into_iter().enumerate() {
        statement.raw_bind_parameter(position + 1, bound)?;
    }
    for (position, term) in terms.into_iter().enumerate() {
        statement.raw_bind_parameter(position + 6, term)?;
    }
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next()? {
        let set = row.get_ref(4)?.as_blob_or_null().map_err(rusqlite::Error::from)?.map(decode).transpose()?;
        let timestamps = (row.get(2)?, row.get(3)?);
        if visit(Place { first_id: row.get(0)?, last_id: row.get(1)?, timestamps, set })?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// For a source without a type or a type without a source: where any of its pairs occurs, by segment.
fn merge_kinds(
    connection: &Connection,
    column: &str,
    term: &str,
    segments: (i64, i64),
) -> Result<BTreeMap<i64, Option<RoaringBitmap>>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT segment, ids FROM log_kinds WHERE {column} = ?1 AND segment >= ?2 AND segment <= ?3"
    ))?;
    let mut rows = statement.query((term, segments.0, segments.1))?;
    let mut merged: BTreeMap<i64, Option<RoaringBitmap>> = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let set = row.get_ref(1)?.as_blob_or_null().map_err(rusqlite::Error::from)?.map(decode).transpose()?;
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

fn each_merged(
    connection: &Connection,
    filter: &Filter,
    merged: BTreeMap<i64, Option<RoaringBitmap>>,
    visit: &mut dyn FnMut(Place) -> Result<ControlFlow<()>>,
) -> Result<ControlFlow<()>> {
    let mut statement = connection.prepare_cached(
        "SELECT last_id, min_timestamp, max_timestamp FROM log_segments
         WHERE first_id = ?1 AND max_timestamp >= ?2 AND min_timestamp <= ?3",
    )?;
    let mut visit_one = |(first_id, set): (i64, Option<RoaringBitmap>)| -> Result<ControlFlow<()>> {
        let mut rows =
            statement.query((first_id, filter.since.unwrap_or(i64::MIN), filter.until.unwrap_or(i64::MAX)))?;
        match rows.next()? {
            Some(row) => visit(Place { first_id, last_id: row.get(0)?, timestamps: (row.get(1)?, row.get(2)?), set }),
            None => Ok(ControlFlow::Continue(())),
        }
    };
    let mut ascending;
    let mut descending;
    let places: &mut dyn Iterator<Item = _> = if filter.descending {
        descending = merged.into_iter().rev();
        &mut descending
    } else {
        ascending = merged.into_iter();
        &mut ascending
    };
    for place in places {
        if visit_one(place)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// Turns places into candidates: neighbouring whole segments become one span.
struct Spans<'a, 'b> {
    connection: &'a Connection,
    filter: &'a Filter,
    open: Option<(i64, i64)>,
    propose: &'a mut Propose<'b>,
}

impl Spans<'_, '_> {
    fn take(&mut self, place: Place) -> Result<ControlFlow<()>> {
        let (since, until) = (self.filter.since.unwrap_or(i64::MIN), self.filter.until.unwrap_or(i64::MAX));
        let whole = (place.first_id, place.last_id);
        if since <= place.timestamps.0 && place.timestamps.1 <= until {
            return self.take_part(&place, whole);
        }
        let mut parts = zones::spans(self.connection, whole, (since, until))?;
        if self.filter.descending {
            parts.reverse();
        }
        for part in parts {
            if self.take_part(&place, part)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn take_part(&mut self, place: &Place, (first, last): (i64, i64)) -> Result<ControlFlow<()>> {
        let (first, last) = (first.max(self.filter.first_id()), last.min(self.filter.last_id()));
        if first > last {
            return Ok(ControlFlow::Continue(()));
        }
        if let Some(set) = &place.set {
            if self.close()?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            let ids = ids(place.first_id, set).filter(|id| (first..=last).contains(id)).collect();
            return propose_ids(ids, self.filter.descending, self.propose);
        }
        self.open = match self.open {
            Some((open_first, open_last)) if !self.filter.descending && first.checked_sub(open_last) == Some(1) => {
                Some((open_first, last))
            }
            Some((open_first, open_last)) if self.filter.descending && open_first.checked_sub(last) == Some(1) => {
                Some((first, open_last))
            }
            _ => {
                if self.close()?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                Some((first, last))
            }
        };
        Ok(ControlFlow::Continue(()))
    }

    /// Proposes the span that is open.
    fn close(&mut self) -> Result<ControlFlow<()>> {
        match self.open.take() {
            Some((first, last)) => (self.propose)(Candidate::Span(first, last)),
            None => Ok(ControlFlow::Continue(())),
        }
    }
}

/// Proposes ascending ids, as a span where they are dense.
fn propose_ids(mut ids: Vec<i64>, descending: bool, propose: &mut Propose<'_>) -> Result<ControlFlow<()>> {
    let (Some(first), Some(last)) = (ids.first(), ids.last()) else { return Ok(ControlFlow::Continue(())) };
    if last.abs_diff(*first) / SPARSE <= ids.len() as u64 {
        return propose(Candidate::Span(*first, *last));
    }
    if descending {
        ids.reverse();
    }
    propose(Candidate::Ids(ids))
}
