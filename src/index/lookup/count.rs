//! How many rows match, from what the index knows: it is exact except where rows were deleted, or other programs wrote, since
//! they were sealed. There, and for filters that no part of the index answers alone, rows are looked at.

use std::ops::ControlFlow;

use rusqlite::{Connection, OptionalExtension};

use crate::base::error::Result;
use crate::base::ids::IdSpan;
use crate::base::time::TimeSpan;
use crate::db::schema_version;
use crate::index::bounds::{Division, divide, ends, sealed_end};
use crate::index::build::offsets::{cardinality, decode};
use crate::index::build::zones;
use crate::index::doubt;
use crate::index::lookup::restored::{self, Stretch};
use crate::index::lookup::search::each_match;
use crate::index::lookup::unmerged::UnmergedIndex;
use crate::row::{Filter, index_key};

/// How many rows match.
pub(crate) fn count(connection: &Connection, unmerged: &UnmergedIndex, filter: &Filter) -> Result<u64> {
    let schema_version = schema_version(connection)?;
    let counting = Counting { connection, unmerged, filter, schema_version };
    let Some(ids) = filter.ids() else { return Ok(0) };
    // The index has the time of a row of another program that is no integer as the nearest integer, which such a bound
    // includes, and the row's own time is beyond it.
    let is_extreme = filter.since == Some(i64::MIN) || filter.until == Some(i64::MAX);
    if filter.limit.is_some() || is_extreme || !unmerged.trust.holds(connection, schema_version)? {
        return counting.visit(ids);
    }
    let times = filter.times();
    if times.first > times.last {
        return Ok(0);
    }
    let mut total = 0;
    for stretch in restored::stretches(ids, &doubt::spans(connection, ids)?) {
        total += match stretch {
            Stretch::Scanned(span) => counting.visit(span)?,
            Stretch::Indexed(span) => counting.known(span)?,
        };
    }
    Ok(total)
}

struct Counting<'a> {
    connection: &'a Connection,
    unmerged: &'a UnmergedIndex,
    filter: &'a Filter,
    schema_version: i64,
}

impl Counting<'_> {
    /// Of the rows of a span, looked at one by one.
    fn visit(&self, span: IdSpan) -> Result<u64> {
        let filter = self.filter.clone().within(span);
        if !filter.has_conditions() && filter.limit.is_none() {
            // Adds up what the pages say that they hold, and finds rows that are in no segment.
            let mut statement =
                self.connection.prepare_cached("SELECT count(*) FROM logs WHERE id BETWEEN ?1 AND ?2")?;
            return Ok(statement.query_row(<(i64, i64)>::from(span), |row| row.get(0))?);
        }
        let mut found = 0;
        // Counted by the statement itself, unless only the first so many count.
        let columns = if filter.limit.is_none() { "count(*)" } else { "1" };
        each_match(self.connection, self.unmerged, &filter, columns, &mut |row| {
            found += row.get::<_, u64>(0)?;
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    }

    /// Of the rows of a span in which the index is exact.
    fn known(&self, span: IdSpan) -> Result<u64> {
        let Filter { source, kind, ref_id, since, until, .. } = self.filter;
        if let Some(ref_id) = ref_id {
            let is_alone = source.is_none() && kind.is_none() && since.is_none() && until.is_none();
            return if is_alone { self.of_reference(&index_key(ref_id), span) } else { self.visit(span) };
        }
        let sealed_end = sealed_end(self.connection)?;
        let sealed = IdSpan::new(span.first, span.last.min(sealed_end));
        let tail = sealed_end.checked_add(1).and_then(|first| IdSpan::new(first.max(span.first), span.last));
        Ok(sealed.map_or(Ok(0), |sealed| self.sealed(sealed))?
            + tail.map_or(Ok(0), |tail| self.tail(tail, sealed_end))?)
    }

    /// Of the rows of the reference of a key.
    fn of_reference(&self, ref_key: &str, span: IdSpan) -> Result<u64> {
        let ends = ends(self.connection, self.schema_version)?;
        let newest = self.unmerged.ids_within(self.connection, ref_key, ends, false)?;
        // What was read of the log's end by a later transaction is not the caller's.
        let Some(span) = IdSpan::new(span.first, span.last.min(ends.last)) else { return Ok(0) };
        let mut total = newest.ids.iter().filter(|id| span.contains(**id)).count() as u64;
        let Some(merged) = IdSpan::new(span.first, span.last.min(ends.merged)) else { return Ok(total) };
        let is_to_the_end = merged.last == ends.merged;
        // From the group in which the first id falls.
        let from = match merged.first {
            i64::MIN => "",
            _ => {
                "AND first_id >= coalesce((SELECT max(first_id) FROM log_postings WHERE ref_id = ?1 AND first_id <= ?3), ?3)"
            }
        };
        let sql =
            format!("SELECT first_id, ids FROM log_postings WHERE ref_id = ?1 AND first_id <= ?2 AND ?3 <= ?2 {from}");
        let mut groups = self.connection.prepare_cached(&sql)?;
        let mut rows = groups.query((ref_key, merged.last, merged.first))?;
        while let Some(row) = rows.next()? {
            let group: i64 = row.get(0)?;
            let bytes = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
            total += if merged.first <= group && is_to_the_end {
                cardinality(bytes)?
            } else {
                let offset = |id: i64| {
                    id.checked_sub(group).map_or(u32::MAX, |offset| u32::try_from(offset).unwrap_or(u32::MAX))
                };
                let first = if merged.first <= group { 0 } else { offset(merged.first) };
                decode(bytes)?.range_cardinality(first..=offset(merged.last))
            };
        }
        Ok(total)
    }

    /// Of the rows of a span of sealed ids.
    fn sealed(&self, span: IdSpan) -> Result<u64> {
        let Division { whole, rest } = divide(self.connection, span)?;
        let Some(whole) = whole else { return self.visit(span) };
        // Of the segments at both ends a part alone is wanted.
        let mut total = self.whole_segments(whole)?;
        for part in rest {
            if self.has_segment(part)? {
                total += self.visit(part)?;
            }
        }
        Ok(total)
    }

    /// Whether a segment reaches into the span: between segments there are no rows that are not in doubt.
    fn has_segment(&self, span: IdSpan) -> Result<bool> {
        let mut newest = self
            .connection
            .prepare_cached("SELECT last_id FROM log_segments WHERE first_id <= ?1 ORDER BY first_id DESC LIMIT 1")?;
        let last: Option<i64> = newest.query_row([span.last], |row| row.get(0)).optional()?;
        Ok(last.is_some_and(|last| last >= span.first))
    }

    /// Of the rows of the segments from the first id of one to the last id of another.
    fn whole_segments(&self, span: IdSpan) -> Result<u64> {
        let times = self.filter.times();
        if self.filter.source.is_none()
            && self.filter.kind.is_none()
            && (self.filter.since.is_some() || self.filter.until.is_some())
        {
            return self.whole_segments_by_time(span);
        }
        let terms = [("source", &self.filter.source), ("type", &self.filter.kind)];
        let terms: Vec<_> = terms.into_iter().filter_map(|(column, term)| Some((column, term.as_deref()?))).collect();
        let is_timed = self.filter.since.is_some() || self.filter.until.is_some();
        let within = if is_timed { "AND min_timestamp >= ?3 AND max_timestamp <= ?4" } else { "AND ?3 <= ?4" };
        let conditions: String =
            (5..).zip(&terms).map(|(parameter, (column, _))| format!(" AND {column} = ?{parameter}")).collect();
        let sql = match (terms.is_empty(), is_timed) {
            (true, _) => {
                format!("SELECT sum(row_count), true FROM log_segments WHERE first_id BETWEEN ?1 AND ?2 {within}")
            }
            (false, false) => format!(
                "SELECT sum(row_count), count(row_count) = count(*) FROM log_kinds
                 WHERE segment BETWEEN ?1 AND ?2 {within}{conditions}"
            ),
            (false, true) => format!(
                "SELECT sum(kinds.row_count), count(kinds.row_count) = count(*)
                 FROM log_kinds AS kinds CROSS JOIN log_segments ON first_id = segment
                 WHERE segment BETWEEN ?1 AND ?2 {within}{conditions}"
            ),
        };
        let mut statement = self.connection.prepare_cached(&sql)?;
        for (position, number) in (1..).zip([span.first, span.last, times.first, times.last]) {
            statement.raw_bind_parameter(position, number)?;
        }
        for (position, (_, term)) in (5..).zip(&terms) {
            statement.raw_bind_parameter(position, &*index_key(term))?;
        }
        let mut rows = statement.raw_query();
        let Some(row) = rows.next()? else { return Ok(0) };
        if !row.get::<_, bool>(1)? {
            // Segments that an older version sealed.
            return self.visit(span);
        }
        let total = row.get::<_, Option<u64>>(0)?.unwrap_or(0);
        Ok(if is_timed { total + self.segments_at_bounds(span)? } else { total })
    }

    /// The same for bounds of time alone: of the segments at these their zones are looked at.
    fn whole_segments_by_time(&self, span: IdSpan) -> Result<u64> {
        let times = self.filter.times();
        let mut statement = self.connection.prepare_cached(
            "SELECT first_id, last_id, row_count, min_timestamp, max_timestamp FROM log_segments
             WHERE first_id BETWEEN ?1 AND ?2 AND max_timestamp >= ?3 AND min_timestamp <= ?4",
        )?;
        let mut rows = statement.query([span.first, span.last, times.first, times.last])?;
        let mut total = 0;
        while let Some(row) = rows.next()? {
            let is_within = times.covers(TimeSpan { first: row.get(3)?, last: row.get(4)? });
            total += match is_within {
                true => row.get(2)?,
                false => self.by_zones(IdSpan { first: row.get(0)?, last: row.get(1)? })?,
            };
        }
        Ok(total)
    }

    /// Of the rows of the kinds in the segments that the filter's bounds of time cut through.
    fn segments_at_bounds(&self, span: IdSpan) -> Result<u64> {
        let times = self.filter.times();
        let mut statement = self.connection.prepare_cached(
            "SELECT first_id, last_id FROM log_segments WHERE first_id BETWEEN ?1 AND ?2
             AND max_timestamp >= ?3 AND min_timestamp <= ?4 AND NOT (min_timestamp >= ?3 AND max_timestamp <= ?4)",
        )?;
        let mut rows = statement.query([span.first, span.last, times.first, times.last])?;
        let mut total = 0;
        while let Some(row) = rows.next()? {
            total += self.visit(IdSpan { first: row.get(0)?, last: row.get(1)? })?;
        }
        Ok(total)
    }

    /// Of the rows of a segment by its zones: those of a zone within the bounds need not be looked at.
    fn by_zones(&self, segment: IdSpan) -> Result<u64> {
        let zones::Split { within, cut } = zones::split(self.connection, segment, self.filter.times())?;
        let mut gaps = self.connection.prepare_cached("SELECT ids FROM log_gaps WHERE segment = ?1")?;
        let mut rows = gaps.query([segment.first])?;
        let present = match rows.next()? {
            Some(row) => Some(decode(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?)?),
            None => None,
        };
        let offset = |id: i64| u32::try_from(id.saturating_sub(segment.first)).unwrap_or(u32::MAX);
        let mut total: u64 = within
            .into_iter()
            .map(|span| match &present {
                Some(present) => present.range_cardinality(offset(span.first)..=offset(span.last)),
                None => span.len(),
            })
            .sum();
        let conditions = self.filter.conditions(3);
        let sql = format!("SELECT count(*) FROM logs WHERE id BETWEEN ?1 AND ?2{}", conditions.sql);
        let mut cut_through = self.connection.prepare_cached(&sql)?;
        conditions.bind(&mut cut_through)?;
        for span in cut {
            cut_through.raw_bind_parameter(1, span.first)?;
            cut_through.raw_bind_parameter(2, span.last)?;
            let mut rows = cut_through.raw_query();
            total += rows.next()?.map_or(Ok(0), |row| row.get::<_, u64>(0))?;
        }
        Ok(total)
    }

    /// Of the rows after the sealed ones.
    fn tail(&self, span: IdSpan, sealed_end: i64) -> Result<u64> {
        if span.last == i64::MAX && span.first == sealed_end.saturating_add(1) {
            let known = self.unmerged.tail.count(self.connection, self.schema_version, sealed_end, self.filter)?;
            return known.map_or_else(|| self.visit(span), Ok);
        }
        self.visit(span)
    }
}
