//! The sealed segments, and what the index says of each.

use std::collections::HashMap;

use roaring::{RoaringBitmap, RoaringTreemap};
use rusqlite::{Connection, OptionalExtension};
use xxhash_rust::xxh3::xxh3_64;

use crate::base::error::Result;
use crate::base::ids::IdSpan;
use crate::base::time::TimeSpan;
use crate::index::build::bytes::or_damaged;
use crate::index::build::offsets::decode;
use crate::index::build::zones;
use crate::index::doubt;
use crate::index::lookup::restored;
use crate::index::verify::observed::{KindsSums, Observed};
use crate::index::verify::unreadable::Unreadable;
use crate::row::{COLUMNS, IndexedRow};

/// A sealed segment, as it was sealed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Segment {
    pub(crate) ids: IdSpan,
    pub(crate) row_count: u64,
    times: TimeSpan,
    checksum: i64,
    /// The distances of its ids from the first; None: all ids up to the last.
    offsets: Option<RoaringBitmap>,
}

/// What the log holds of a segment, and what the index says of it.
pub(crate) struct Live {
    pub(crate) rows: Observed,
    /// When its rows were.
    pub(crate) zones: Option<Vec<u8>>,
    /// Rows have left that are not noted as deleted.
    pub(crate) overlooks: bool,
    pub(crate) unreadable: Unreadable,
}

/// The segments, and what of the index can be seen without the rows.
pub(crate) struct Segments {
    pub(crate) list: Vec<Segment>,
    /// Where rows lie that were put back from the archive, which the index may never have seen.
    pub(crate) restored: Vec<IdSpan>,
    /// What `log_kinds` says, by segment.
    pub(crate) kinds: Kinds,
    /// What does not fit together.
    pub(crate) faults: Vec<String>,
}

/// What `log_kinds` says of segments, by their first ids.
pub(crate) type Kinds = HashMap<i64, KindsSums>;

const WHAT_TO_DO: &str = "reindex() rebuilds it";

/// The segments, in the caller's transaction.
pub(crate) fn segments(connection: &Connection) -> Result<Segments> {
    let list = or_damaged(list(connection))?;
    let restored = or_damaged(restored::spans(connection, IdSpan::ALL))?;
    let kinds = or_damaged(kinds(connection, None))?;
    let faults = or_damaged(faults(connection, &list, &restored))?;
    Ok(Segments { list, restored, kinds, faults })
}

/// The segments alone.
pub(crate) fn list(connection: &Connection) -> Result<Vec<Segment>> {
    let mut statement = connection.prepare_cached(
        "SELECT first_id, last_id, row_count, min_timestamp, max_timestamp, checksum, ids
         FROM log_segments LEFT JOIN log_gaps ON segment = first_id ORDER BY first_id",
    )?;
    let mut rows = statement.query([])?;
    let mut segments = Vec::new();
    while let Some(row) = rows.next()? {
        let offsets = row.get_ref(6)?.as_blob_or_null().map_err(rusqlite::Error::from)?;
        segments.push(Segment {
            ids: IdSpan { first: row.get(0)?, last: row.get(1)? },
            row_count: row.get(2)?,
            times: TimeSpan { first: row.get(3)?, last: row.get(4)? },
            checksum: row.get(5)?,
            offsets: offsets.map(decode).transpose()?,
        });
    }
    Ok(segments)
}

/// What `log_kinds` says, of one segment or of all.
fn kinds(connection: &Connection, segment: Option<i64>) -> Result<Kinds> {
    let mut statement = connection.prepare_cached(
        "SELECT segment, source, type, ids, row_count FROM log_kinds WHERE ?1 IS NULL OR segment = ?1",
    )?;
    let mut rows = statement.query([segment])?;
    let mut kinds = Kinds::new();
    while let Some(row) = rows.next()? {
        let texts = [1, 2].map(|column| row.get_ref(column).map(|value| value.as_bytes().map(xxh3_64)));
        let [source, kind] = texts;
        let (source, kind) = (source?.unwrap_or_default(), kind?.unwrap_or_default());
        let set = row.get_ref(3)?.as_blob_or_null().map_err(rusqlite::Error::from)?.map(decode).transpose()?;
        let row_count: Option<u64> = row.get(4)?;
        kinds.entry(row.get(0)?).or_default().add(source, kind, set.map(RoaringBitmap::into_iter), row_count);
    }
    Ok(kinds)
}

/// Rows that no segment holds, segments that overlap, and what belongs to no segment.
fn faults(connection: &Connection, list: &[Segment], restored: &[IdSpan]) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    let mut next = Some(i64::MIN);
    for segment in list {
        let IdSpan { first, last } = segment.ids;
        if first > last || next.is_none_or(|next| first < next) {
            faults.push(format!("the index of the log is damaged (segment {first} overlaps another); {WHAT_TO_DO}"));
            continue;
        }
        let between = next.zip(first.checked_sub(1)).and_then(|(next, before)| IdSpan::new(next, before));
        if let Some(between) = between
            && let Some(id) = first_outside(connection, between, restored)?
        {
            faults.push(format!("the index of the log is damaged (row {id} is in no segment); {WHAT_TO_DO}"));
        }
        next = last.checked_add(1);
    }
    for table in ["log_gaps", "log_zones", "log_kinds", "log_fresh"] {
        let sql =
            format!("SELECT segment FROM {table} WHERE segment NOT IN (SELECT first_id FROM log_segments) LIMIT 1");
        if let Some(segment) = connection.query_row(&sql, [], |row| row.get::<_, i64>(0)).optional()? {
            faults.push(format!(
                "the index of the log is damaged ({table} tells of a segment {segment} that is none); {WHAT_TO_DO}"
            ));
        }
    }
    let lacking = connection
        .query_row(
            "SELECT first_id FROM log_segments WHERE first_id NOT IN (SELECT segment FROM log_fresh)
             AND first_id > (SELECT min(segment) FROM log_fresh) LIMIT 1",
            [],
            |row| row.get::<_, i64>(0),
        )
        .optional()?;
    if let Some(segment) = lacking {
        faults.push(format!("the index of the log is damaged (segment {segment} lacks its postings); {WHAT_TO_DO}"));
    }
    Ok(faults)
}

/// The first row of a span that is in none of `spans`, which ascend.
fn first_outside(connection: &Connection, within: IdSpan, spans: &[IdSpan]) -> Result<Option<i64>> {
    let mut first = connection.prepare_cached("SELECT min(id) FROM logs WHERE id BETWEEN ?1 AND ?2")?;
    for stretch in restored::stretches(within, spans) {
        if let restored::Stretch::Indexed(span) = stretch
            && let Some(id) = first.query_row(<(i64, i64)>::from(span), |row| row.get::<_, Option<i64>>(0))?
        {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

impl Segments {
    /// The ids that no segment holds.
    pub(crate) fn unsealed(&self) -> Vec<IdSpan> {
        let sealed: Vec<IdSpan> = self.list.iter().map(|segment| segment.ids).collect();
        let outside = |stretch| match stretch {
            restored::Stretch::Indexed(span) => Some(span),
            restored::Stretch::Scanned(_) => None,
        };
        restored::stretches(IdSpan::ALL, &sealed).into_iter().filter_map(outside).collect()
    }
}

impl Segment {
    /// One of which no more is known.
    pub(crate) fn found(ids: IdSpan, row_count: u64, checksum: i64, offsets: Option<RoaringBitmap>) -> Self {
        Self { ids, row_count, times: TimeSpan { first: i64::MIN, last: i64::MAX }, checksum, offsets }
    }

    /// Whether it says as many ids as it says rows.
    pub(crate) fn expects_its_rows(&self) -> bool {
        match &self.offsets {
            Some(offsets) => {
                let last = offsets.max().and_then(|last| self.ids.first.checked_add(i64::from(last)));
                offsets.len() == self.row_count && last.is_none_or(|last| last <= self.ids.last)
            }
            None => self.ids.len() == self.row_count,
        }
    }

    /// The ids of the rows that were sealed; all that it spans, if it contradicts itself.
    pub(crate) fn expected(&self) -> RoaringTreemap {
        let IdSpan { first, last } = self.ids;
        match &self.offsets {
            Some(offsets) if self.expects_its_rows() => {
                offsets.iter().map(|offset| (first + i64::from(offset)).cast_unsigned()).collect()
            }
            _ => {
                let mut all = RoaringTreemap::new();
                all.insert_range(first.max(0).cast_unsigned()..=last.max(0).cast_unsigned());
                all
            }
        }
    }

    /// What the log holds of the segment, and what the index says of when its rows were, in the caller's transaction;
    /// None if the segment is gone.
    pub(crate) fn live(&self, connection: &Connection) -> Result<Option<Live>> {
        or_damaged(self.read_live(connection))
    }

    fn read_live(&self, connection: &Connection) -> Result<Option<Live>> {
        let mut is_there =
            connection.prepare_cached("SELECT 1 FROM log_segments WHERE first_id = ?1 AND checksum = ?2")?;
        if !is_there.exists([self.ids.first, self.checksum])? {
            return Ok(None);
        }
        let mut statement =
            connection.prepare_cached(&format!("SELECT {COLUMNS} FROM logs WHERE id BETWEEN ?1 AND ?2 ORDER BY id"))?;
        let mut rows = statement.query(<(i64, i64)>::from(self.ids))?;
        let mut observed = Observed::default();
        let mut unreadable = Unreadable::default();
        while let Some(row) = rows.next()? {
            let indexed = IndexedRow::read(row)?;
            unreadable.look_at(row, &indexed)?;
            observed.add(self.ids.first, &indexed);
        }
        let zones = connection
            .prepare_cached("SELECT zones FROM log_zones WHERE segment = ?1")?
            .query_row([self.ids.first], |row| row.get(0))
            .optional()?;
        let doubts = doubt::spans(connection, self.ids)?;
        let is_present = |id: i64| observed.rows.binary_search_by_key(&id, |(id, _)| *id).is_ok();
        let is_in_doubt = |id: i64| doubts.iter().any(|span| span.contains(id));
        // Where all rows are there, as nearly everywhere, none is looked for.
        let is_whole = observed.row_count() == self.row_count;
        // One that contradicts itself may span any number of ids.
        let overlooks =
            !is_whole && (!self.expects_its_rows() || self.had_ids().any(|id| !is_in_doubt(id) && !is_present(id)));
        Ok(Some(Live { rows: observed, zones, overlooks, unreadable }))
    }

    /// The ids that were sealed.
    fn had_ids(&self) -> Box<dyn Iterator<Item = i64> + '_> {
        match &self.offsets {
            Some(offsets) => Box::new(offsets.iter().map(|offset| self.ids.first.saturating_add(i64::from(offset)))),
            None => Box::new(self.ids.first..=self.ids.last),
        }
    }

    /// Whether the row with this id was among those that were sealed.
    pub(crate) fn had(&self, id: i64) -> bool {
        let offset = id.checked_sub(self.ids.first).and_then(|offset| u32::try_from(offset).ok());
        match &self.offsets {
            Some(offsets) => offset.is_some_and(|offset| offsets.contains(offset)),
            None => self.ids.contains(id),
        }
    }

    /// Whether all of its rows are among these.
    pub(crate) fn is_within(&self, ids: &RoaringTreemap) -> bool {
        let IdSpan { first, last } = self.ids;
        match &self.offsets {
            _ if first < 0 => false,
            Some(offsets) => offsets.iter().all(|offset| ids.contains((first + i64::from(offset)).cast_unsigned())),
            None => ids.range_cardinality(first.cast_unsigned()..=last.cast_unsigned()) == self.row_count,
        }
    }

    /// Whether each of its rows is one of these, or among others that are gone, and there are no more.
    pub(crate) fn is_made_up_of(&self, rows: &Observed, gone: &RoaringTreemap) -> bool {
        if !self.expects_its_rows() {
            return false;
        }
        let had = |id: &i64| self.had(*id);
        let left = rows.rows.iter().map(|(id, _)| *id).filter(had).count();
        let is_gone =
            |id: i64| rows.rows.binary_search_by_key(&id, |(id, _)| *id).is_err() && gone.contains(id.cast_unsigned());
        let lost = self.had_ids().filter(|id| is_gone(*id)).count();
        lost > 0 && left == rows.rows.len() && (left + lost) as u64 == self.row_count
    }

    /// Whether these rows are what was sealed.
    pub(crate) fn is(&self, rows: &Observed) -> bool {
        (self.row_count, self.checksum) == (rows.row_count(), rows.checksum())
    }

    /// What the index says wrongly of these rows, which are those of the segment: the tables. `kinds` is what
    /// [`segments`] saw; since then the segment may have been forgotten.
    pub(crate) fn faults(
        &self,
        rows: &Observed,
        zones: Option<&[u8]>,
        kinds: &Kinds,
        again: impl FnOnce(&Self) -> Result<Option<KindsSums>>,
    ) -> Result<Vec<&'static str>> {
        let mut faults = Vec::new();
        if rows.times().is_some_and(|times| times != self.times) {
            faults.push("log_segments");
        }
        let offsets = rows.rows.iter().map(|(id, _)| u32::try_from(id - self.ids.first).unwrap_or(u32::MAX));
        let is_known = match &self.offsets {
            Some(known) => known.iter().eq(offsets),
            None => self.row_count == self.ids.len(),
        };
        if !is_known {
            faults.push("log_gaps");
        }
        if rows.row_count() > 0 && !zones.is_some_and(|zones| zones::are(zones, self.ids.first, &rows.rows)) {
            faults.push("log_zones");
        }
        let sums = rows.kinds_sums();
        if !kinds.get(&self.ids.first).copied().unwrap_or_default().agrees(sums)
            && again(self)?.is_some_and(|now| !now.agrees(sums))
        {
            faults.push("log_kinds");
        }
        Ok(faults)
    }

    /// What `log_kinds` says of the segment, in the caller's transaction; None if the segment is gone.
    pub(crate) fn kinds(&self, connection: &Connection) -> Result<Option<KindsSums>> {
        let mut is_there =
            connection.prepare_cached("SELECT 1 FROM log_segments WHERE first_id = ?1 AND checksum = ?2")?;
        if !is_there.exists([self.ids.first, self.checksum])? {
            return Ok(None);
        }
        Ok(Some(kinds(connection, Some(self.ids.first))?.into_values().next().unwrap_or_default()))
    }
}
