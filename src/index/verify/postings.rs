//! Whether the postings say of every row what it is, and number the rounds of every run.

use std::collections::HashMap;

use roaring::{RoaringBitmap, RoaringTreemap};
use rusqlite::Connection;

use crate::base::error::{Error, Result};
use crate::base::ids::IdSpan;
use crate::index::bounds::sealed_end;
use crate::index::build::bytes::or_damaged;
use crate::index::build::offsets::{Offsets, decode, ids};
use crate::index::build::postings::each_posting;
use crate::index::build::sealer::ArchivedRounds;
use crate::index::doubt;
use crate::index::given::is_mark_damaged;
use crate::index::lookup::restored;
use crate::index::verify::elements::{Elements, bucket_of, hash_of, hash_of_key, ids_of};
use crate::row::{COLUMNS, IndexedRow, index_key, is_round};

/// Buckets that are looked at again, to say which reference is concerned.
const MOST_NAMED: usize = 4;

/// What the postings say wrongly.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) ids: Option<IdSpan>,
    pub(crate) reason: String,
}

impl Fault {
    fn of(ids: Option<IdSpan>, what: &str) -> Self {
        Self { ids, reason: format!("the index of the log is damaged ({what}); reindex() rebuilds it") }
    }
}

/// Compares the postings with `live`, which are rows of the log that are sealed and what they are, and with `archived`,
/// which are the rows in the archive and the rounds among them. `elsewhere` tells of rounds that the archive numbers.
///
/// Rows that are neither may have been deleted by another program; what is said of them is not looked at, but for the
/// numbers of rounds.
pub(crate) fn check_postings(
    connection: &Connection,
    live: &Elements,
    archived: &Elements,
    elsewhere: &ArchivedRounds<'_>,
) -> Result<Vec<Fault>> {
    let mut faults = Vec::new();
    let (mut of_live, mut of_archived) = (live.of_same_rows(), archived.of_same_rows());
    let mut numbered_elsewhere = RoaringTreemap::new();
    elsewhere(connection, &mut |ref_key, id| {
        if archived.contains(id) {
            numbered_elsewhere.insert(id.cast_unsigned());
            of_archived.add(hash_of_key(ref_key), id, true);
        }
    })?;
    if is_mark_damaged(connection)? {
        faults.push(Fault::of(None, "log_ids does not say which ids were given out"));
    }
    let end = sealed_end(connection)?;
    let doubts = doubt::spans(connection, IdSpan::ALL)?;
    let is_in_doubt = |id: i64| {
        let next = doubts.partition_point(|span| span.last < id);
        doubts.get(next).is_some_and(|span| span.contains(id))
    };
    let (mut is_beyond, mut overlooked) = (false, RoaringTreemap::new());
    let read = each(connection, &mut faults, &mut |ref_key, first, set, rounds| {
        let key_hash = hash_of_key(ref_key);
        for id in ids(first, set) {
            let is_round = id.checked_sub(first).and_then(|offset| u32::try_from(offset).ok());
            let is_round = is_round.is_some_and(|offset| rounds.contains(offset));
            if live.contains(id) {
                of_live.add(key_hash, id, is_round);
            }
            if is_round && archived.contains(id) && !numbered_elsewhere.contains(id.cast_unsigned()) {
                of_archived.add(key_hash, id, true);
            }
            is_beyond |= id > end;
            if archived.contains(id) && !live.contains(id) && !is_in_doubt(id) {
                overlooked.insert(id.cast_unsigned());
            }
        }
    });
    match or_damaged(read) {
        Ok(()) => {}
        Err(Error::Damaged { what, reason, way_out }) => {
            // What comes after it was not looked at.
            return Ok(vec![Fault { ids: None, reason: Error::Damaged { what, reason, way_out }.to_string() }]);
        }
        Err(error) => return Err(error),
    }
    if is_beyond {
        faults.push(Fault::of(None, "it tells of rows after the last sealed one"));
    }
    if let Some(id) = first_absent(connection, &overlooked)? {
        faults.push(Fault::of(Some(IdSpan::of(id)), &format!("it does not know that row {id} has left")));
    }
    let differing = live.differing(&of_live);
    for bucket in differing.iter().take(MOST_NAMED) {
        if let Some(ref_key) = look_again(connection, live, *bucket)? {
            faults.push(Fault::of(Some(ids_of(*bucket)), &format!("it does not know all rows of {ref_key:?}")));
        }
    }
    if differing.len() > MOST_NAMED && !faults.is_empty() {
        let last = differing.last().map(|bucket| ids_of(*bucket).last);
        let ids = last.and_then(|last| IdSpan::new(ids_of(differing[MOST_NAMED]).first, last));
        faults.push(Fault::of(ids, "it does not know all rows of some references"));
    }
    for bucket in archived.differing(&of_archived) {
        faults.push(Fault::of(Some(ids_of(bucket)), "it numbers the rounds of archived rows otherwise"));
    }
    Ok(faults)
}

type Visit<'a> = dyn FnMut(&str, i64, &RoaringBitmap, &RoaringBitmap) + 'a;

/// Calls `visit` with each posting: its reference, the first id of its group, its rows and its rounds.
fn each(connection: &Connection, faults: &mut Vec<Fault>, visit: &mut Visit<'_>) -> Result<()> {
    let mut statement = connection.prepare_cached(
        "SELECT ref_id, first_id, ids, round_count, rounds_before, rounds FROM log_postings ORDER BY ref_id, first_id",
    )?;
    let mut rows = statement.query([])?;
    let (mut run, mut before) = (String::new(), 0);
    while let Some(row) = rows.next()? {
        let ref_key = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
        let set = decode(row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?)?;
        let count: u64 = row.get(3)?;
        let rounds = match row.get_ref(5)?.as_blob_or_null().map_err(rusqlite::Error::from)? {
            Some(bytes) => decode(bytes)?,
            None if count == 0 => RoaringBitmap::new(),
            None => set.clone(),
        };
        if run != ref_key {
            ref_key.clone_into(&mut run);
            before = 0;
        }
        if rounds.len() != count || (count > 0 && row.get::<_, u64>(4)? != before) || !rounds.is_subset(&set) {
            faults.push(Fault::of(None, &format!("the rounds of {ref_key:?} are numbered wrongly")));
        }
        before += count;
        visit(ref_key, row.get(1)?, &set, &rounds);
    }
    let mut statement = connection.prepare_cached("SELECT segment, postings FROM log_fresh ORDER BY segment")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let segment = row.get(0)?;
        each_posting(row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?, |ref_key, set, rounds| {
            let (set, rounds) = (set.into_bitmap(), rounds.map(Offsets::into_bitmap));
            visit(ref_key, segment, &set, rounds.as_ref().unwrap_or(&set));
        })?;
    }
    Ok(())
}

/// The first of these rows that is not in the log: others were put back after it was looked at.
fn first_absent(connection: &Connection, ids: &RoaringTreemap) -> Result<Option<i64>> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM logs WHERE id = ?1")?;
    for id in ids {
        if !statement.exists([id.cast_signed()])? {
            return Ok(Some(id.cast_signed()));
        }
    }
    Ok(None)
}

/// Compares what the postings say of the rows of a bucket in one transaction, since rows may have left since; returns a
/// reference of which they do not know all rows, or know too many.
fn look_again(connection: &Connection, live: &Elements, bucket: i64) -> Result<Option<String>> {
    let within = ids_of(bucket);
    let restored = restored::spans(connection, within)?;
    let is_restored = |id: i64| restored.iter().any(|span| span.contains(id));
    let mut sums: HashMap<String, u64> = HashMap::new();
    let mut present = RoaringTreemap::new();
    let mut statement =
        connection.prepare_cached(&format!("SELECT {COLUMNS} FROM logs WHERE id BETWEEN ?1 AND ?2 ORDER BY id"))?;
    let mut rows = statement.query(<(i64, i64)>::from(within))?;
    while let Some(row) = rows.next()? {
        let row = IndexedRow::read(row)?;
        if !live.contains(row.id) || is_restored(row.id) {
            continue;
        }
        present.insert(row.id.cast_unsigned());
        if let Some(ref_id) = row.ref_id {
            let ref_key = index_key(ref_id);
            let hash = hash_of(hash_of_key(&ref_key), row.id, is_round(row.source, row.kind, row.payload));
            let sum = sums.entry(ref_key.into_owned()).or_default();
            *sum = sum.wrapping_add(hash);
        }
    }
    each(connection, &mut Vec::new(), &mut |ref_key, first, set, rounds| {
        for id in ids(first, set).filter(|id| bucket_of(*id) == bucket && present.contains(id.cast_unsigned())) {
            let is_round = u32::try_from(id - first).is_ok_and(|offset| rounds.contains(offset));
            let sum = match sums.get_mut(ref_key) {
                Some(sum) => sum,
                None => sums.entry(ref_key.to_owned()).or_default(),
            };
            *sum = sum.wrapping_sub(hash_of(hash_of_key(ref_key), id, is_round));
        }
    })?;
    let mut wrong: Vec<String> = sums.into_iter().filter(|(_, sum)| *sum != 0).map(|(ref_key, _)| ref_key).collect();
    wrong.sort_unstable();
    Ok(wrong.into_iter().next())
}
