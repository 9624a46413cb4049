//! Which rows the index proposes for a filter, pulled by the reader as it needs them.

use std::borrow::Cow;
use std::iter::Peekable;

use rusqlite::Connection;

use crate::base::error::Result;
use crate::base::ids::IdSpan;
use crate::index::bounds::sealed_end;
use crate::index::build::offsets::{decode, ids};
use crate::index::build::zones;
use crate::index::doubt;
use crate::index::lookup::paged::Paged;
use crate::index::lookup::restored::{self, Stretch};
use crate::index::lookup::sections::{Section, sections};
use crate::index::lookup::unmerged::UnmergedIndex;
use crate::row::{Filter, index_key};

/// Ids that a span may hold for each one that is wanted, before the rows are looked up one by one: reading on to the
/// next row costs about a sixth of looking one up.
const SPARSE: u64 = 6;

/// Rows that may match, in the filter's order.
#[derive(Debug)]
pub(crate) enum Candidate {
    /// Every row of a span.
    Span(IdSpan),
    /// These rows.
    Ids(Vec<i64>),
}

/// Candidates in the filter's order; an error is the end.
pub(crate) type Candidates<'a> = Box<dyn Iterator<Item = Result<Candidate>> + 'a>;

/// Every row that can match.
pub(crate) fn candidates<'a>(
    connection: &'a Connection,
    unmerged: &'a UnmergedIndex,
    filter: &'a Filter,
) -> Result<Candidates<'a>> {
    let Some(ids) = filter.ids() else { return Ok(Box::new(std::iter::empty())) };
    let times = filter.times();
    if filter.limit == Some(0) || times.first > times.last {
        return Ok(Box::new(std::iter::empty()));
    }
    let scanned = doubt::undescribed(connection, ids)?;
    if scanned.is_empty() {
        return by_index(connection, unmerged, filter, ids);
    }
    let mut stretches = restored::stretches(ids, &scanned);
    if filter.descending {
        stretches.reverse();
    }
    Ok(Box::new(stretches.into_iter().flat_map(move |stretch| match stretch {
        Stretch::Scanned(span) => one(Some(Candidate::Span(span))),
        Stretch::Indexed(span) => {
            by_index(connection, unmerged, filter, span).unwrap_or_else(|error| Box::new(std::iter::once(Err(error))))
        }
    })))
}

/// Whether ascending ids lie so close together that reading all rows between them costs less than looking them up.
pub(crate) fn is_dense(ids: &[i64]) -> bool {
    let (Some(first), Some(last)) = (ids.first(), ids.last()) else { return false };
    last.abs_diff(*first) / SPARSE <= ids.len() as u64
}

/// What the index proposes within a span of ids.
fn by_index<'a>(
    connection: &'a Connection,
    unmerged: &UnmergedIndex,
    filter: &'a Filter,
    within: IdSpan,
) -> Result<Candidates<'a>> {
    let (older, newer) = match &filter.ref_id {
        Some(ref_id) => {
            let ref_key = index_key(ref_id);
            let (ends, unmerged) = unmerged.ids(connection, &ref_key)?;
            let unmerged = unmerged.ids.into_iter().filter(|id| within.contains(*id)).collect();
            let merged = IdSpan::new(within.first, within.last.min(ends.merged));
            (
                merged.map(|within| merged_candidates(connection, filter, ref_key, within)).transpose()?,
                one(of_ids(unmerged, filter.descending)),
            )
        }
        None => {
            let sealed_end = sealed_end(connection)?;
            let sealed = IdSpan::new(within.first, within.last.min(sealed_end));
            let tail = sealed_end.checked_add(1).and_then(|first| IdSpan::new(first.max(within.first), within.last));
            (
                sealed.map(|within| sealed_candidates(connection, filter, within)).transpose()?,
                one(tail.map(Candidate::Span)),
            )
        }
    };
    let older = older.into_iter().flatten();
    Ok(if filter.descending { Box::new(newer.chain(older)) } else { Box::new(older.chain(newer)) })
}

fn one<'a>(candidate: Option<Candidate>) -> Candidates<'a> {
    Box::new(candidate.map(Ok).into_iter())
}

/// Ascending ids as a candidate: a span where they are dense.
fn of_ids(mut ids: Vec<i64>, descending: bool) -> Option<Candidate> {
    let span = IdSpan::new(*ids.first()?, *ids.last()?);
    match span {
        Some(span) if is_dense(&ids) => Some(Candidate::Span(span)),
        _ => {
            if descending {
                ids.reverse();
            }
            Some(Candidate::Ids(ids))
        }
    }
}

/// The rows of the reference of a key that are merged.
fn merged_candidates<'a>(
    connection: &'a Connection,
    filter: &'a Filter,
    ref_key: Cow<'a, str>,
    within: IdSpan,
) -> Result<Candidates<'a>> {
    // The group in which the first id falls, or the first one.
    let first = connection
        .prepare_cached("SELECT coalesce(max(first_id), ?2) FROM log_postings WHERE ref_id = ?1 AND first_id <= ?2")?
        .query_row((&*ref_key, within.first), |row| row.get(0))?;
    let order = if filter.descending { "DESC" } else { "ASC" };
    let sql = format!(
        "SELECT first_id, ids FROM log_postings
         WHERE ref_id = ?1 AND first_id >= ?2 AND first_id <= ?3 ORDER BY first_id {order} LIMIT ?4"
    );
    let mut left = IdSpan::new(first, within.last);
    let groups = Paged::new(move |wanted| {
        let Some(firsts) = left else { return Ok(Vec::new()) };
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows = statement.query((&*ref_key, firsts.first, firsts.last, wanted))?;
        let mut page = Vec::new();
        while let Some(row) = rows.next()? {
            let group: i64 = row.get(0)?;
            page.push((group, decode(row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?)?));
            left = if filter.descending {
                group.checked_sub(1).and_then(|before| IdSpan::new(firsts.first, before))
            } else {
                group.checked_add(1).and_then(|after| IdSpan::new(after, firsts.last))
            };
        }
        Ok(page)
    });
    let descending = filter.descending;
    Ok(Box::new(groups.filter_map(move |group| match group {
        Ok((group, set)) => {
            let ids = ids(group, &set).filter(|id| within.contains(*id)).collect();
            of_ids(ids, descending).map(Ok)
        }
        Err(error) => Some(Err(error)),
    })))
}

/// The rows of the segments whose times and kinds allow a match.
fn sealed_candidates<'a>(connection: &'a Connection, filter: &'a Filter, within: IdSpan) -> Result<Candidates<'a>> {
    let parts = sections(connection, filter, within)?.flat_map(move |section| {
        section
            .and_then(|section| parts(connection, filter, within, &section))
            .map_or_else(|error| vec![Err(error)], |parts| parts.into_iter().map(Ok).collect())
    });
    Ok(Box::new(Joined { candidates: parts.peekable(), descending: filter.descending }))
}

/// The candidates in a section.
fn parts(connection: &Connection, filter: &Filter, within: IdSpan, section: &Section) -> Result<Vec<Candidate>> {
    let mut spans = if filter.times().covers(section.times) {
        vec![section.ids]
    } else {
        zones::spans(connection, section.ids, filter.times())?
    };
    if filter.descending {
        spans.reverse();
    }
    let spans = spans.into_iter().filter_map(|span| span.intersect(within));
    Ok(match &section.set {
        None => spans.map(Candidate::Span).collect(),
        Some(set) => spans
            .filter_map(|span| {
                let ids = ids(section.ids.first, set).filter(|id| span.contains(*id)).collect();
                of_ids(ids, filter.descending)
            })
            .collect(),
    })
}

/// Candidates whose spans are joined where one follows the other.
struct Joined<I: Iterator<Item = Result<Candidate>>> {
    candidates: Peekable<I>,
    descending: bool,
}

impl<I: Iterator<Item = Result<Candidate>>> Iterator for Joined<I> {
    type Item = Result<Candidate>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut span = match self.candidates.next()? {
            Ok(Candidate::Span(span)) => span,
            other => return Some(other),
        };
        while let Some(Ok(Candidate::Span(next))) = self.candidates.peek()
            && (if self.descending { next.adjoins(span) } else { span.adjoins(*next) })
        {
            span = span.union(*next);
            self.candidates.next();
        }
        Some(Ok(Candidate::Span(span)))
    }
}
