//! Gathering rows, and sealing them.

use hashbrown::HashMap;
use hashbrown::hash_map::EntryRef;
use rusqlite::Connection;
use xxhash_rust::xxh3::Xxh3;

use crate::base::error::Result;
use crate::base::time::TimeSpan;
use crate::index::build::offsets::encode;
use crate::index::build::postings::{Posting, append_posting};
use crate::index::build::zones::Zones;
use crate::index::given::note_given;
use crate::row::{IndexedRow, index_key, is_round};

/// A (source, type) pair in at least one of so many rows is not located within the segment: checking all of its rows
/// costs less than storing where they are.
const COMMON: usize = 16;

/// A segment is sealed early at so many bytes of keys: a group of segments is merged in memory, and a blob of SQLite has
/// 1 GB at the most.
const MOST_KEY_BYTES: usize = 16 << 20;
/// What a key takes besides its text.
const KEY_OVERHEAD: usize = 64;

/// Rows that will become a segment.
#[derive(Default)]
pub(crate) struct Gathered {
    /// How many rows the segment is to have.
    segment_rows: u64,
    first_id: i64,
    last_id: i64,
    /// The offsets of the rows that are there.
    rows: Vec<u32>,
    /// Rows taken in, those included that left the log.
    taken: u64,
    timestamps: TimeSpan,
    zones: Zones,
    checksum: Checksum,
    /// By key, as the kinds are.
    refs: HashMap<Box<str>, Posting>,
    kinds: HashMap<Box<str>, HashMap<Box<str>, Vec<u32>>>,
    /// Another program stored something else than text as a source or a type: the kinds are not all rows.
    has_odd_kinds: bool,
    /// About what the keys take, in memory and in the segment.
    key_bytes: usize,
}

impl Gathered {
    /// None yet of a segment of `segment_rows`.
    pub(crate) fn new(segment_rows: u64) -> Self {
        Self { segment_rows, ..Self::default() }
    }

    /// Whether they are as many as a segment has, or as much as is held in memory.
    pub(crate) fn is_full(&self) -> bool {
        self.taken >= self.segment_rows || self.key_bytes >= MOST_KEY_BYTES
    }

    /// Whether a row with this id can join: offsets have 32 bits.
    pub(crate) fn can_take(&self, id: i64) -> bool {
        self.taken == 0 || id.checked_sub(self.first_id).is_some_and(|offset| u32::try_from(offset).is_ok())
    }

    /// Takes in a row; its id is above all others.
    pub(crate) fn add(&mut self, row: &IndexedRow<'_>) {
        let offset = self.take(row.id);
        if self.rows.is_empty() {
            self.timestamps = row.timestamps;
        }
        self.rows.push(offset);
        self.timestamps = self.timestamps.union(row.timestamps);
        self.zones.add(self.segment_rows, offset, row.timestamps);
        self.checksum.add(row);
        if let (Some(source), Some(kind)) = (row.source, row.kind) {
            let kinds = entry(&mut self.kinds, &index_key(source), &mut self.key_bytes);
            entry(kinds, &index_key(kind), &mut self.key_bytes).push(offset);
        } else {
            self.has_odd_kinds = true;
        }
        if let Some(ref_id) = row.ref_id {
            let posting = entry(&mut self.refs, &index_key(ref_id), &mut self.key_bytes);
            posting.ids.push(offset);
            if is_round(row.source, row.kind, row.payload) {
                posting.rounds.push(offset);
            }
        }
    }

    /// Takes in a round whose row has left the log, and which keeps its number.
    pub(crate) fn add_departed(&mut self, id: i64, ref_key: &str) {
        let offset = self.take(id);
        let posting = entry(&mut self.refs, ref_key, &mut self.key_bytes);
        posting.ids.push(offset);
        posting.rounds.push(offset);
    }

    /// The offset of the next id.
    fn take(&mut self, id: i64) -> u32 {
        if self.taken == 0 {
            self.first_id = id;
        }
        self.taken += 1;
        self.last_id = id;
        u32::try_from(id - self.first_id).unwrap_or(u32::MAX)
    }

    /// Writes the segment in the caller's transaction, and begins the next. A damaged index may already tell of one that
    /// begins with the same row: appending goes on, and `verify` names the damage.
    pub(crate) fn seal(&mut self, connection: &Connection) -> Result<()> {
        let gathered = std::mem::replace(self, Self::new(self.segment_rows));
        if gathered.taken == 0 {
            return Ok(());
        }
        note_given(connection, gathered.last_id)?;
        gathered.write_segment(connection)?;
        gathered.write_gaps(connection)?;
        gathered.zones.write(connection, gathered.first_id)?;
        gathered.write_kinds(connection)?;
        gathered.write_fresh(connection)
    }

    fn write_segment(&self, connection: &Connection) -> Result<()> {
        let mut statement =
            connection.prepare_cached("INSERT OR REPLACE INTO log_segments VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
        let checksum = self.checksum.finish();
        let TimeSpan { first: earliest, last: latest } = self.timestamps;
        statement.execute((self.first_id, self.last_id, self.rows.len(), earliest, latest, checksum))?;
        Ok(())
    }

    /// Where ids are missing, others may come to lie: rows that had been archived before the segment was sealed.
    fn write_gaps(&self, connection: &Connection) -> Result<()> {
        if i64::try_from(self.rows.len()).is_ok_and(|count| count == self.last_id - self.first_id + 1) {
            return Ok(());
        }
        let mut statement = connection.prepare_cached("INSERT OR REPLACE INTO log_gaps VALUES (?1, ?2)")?;
        statement.execute((self.first_id, encode(&self.rows)))?;
        Ok(())
    }

    fn write_kinds(&self, connection: &Connection) -> Result<()> {
        let mut statement =
            connection.prepare_cached("INSERT OR REPLACE INTO log_kinds VALUES (?1, ?2, ?3, ?4, ?5)")?;
        for (source, kinds) in &self.kinds {
            for (kind, offsets) in kinds {
                let ids = (!is_common(offsets.len(), self.rows.len())).then(|| encode(offsets));
                let row_count = (!self.has_odd_kinds).then_some(offsets.len());
                statement.execute((source, kind, self.first_id, ids, row_count))?;
            }
        }
        Ok(())
    }

    fn write_fresh(&self, connection: &Connection) -> Result<()> {
        let mut postings: Vec<_> = self.refs.iter().collect();
        // So that merging finds them in order.
        postings.sort_unstable_by_key(|(ref_key, _)| *ref_key);
        let mut bytes = Vec::with_capacity(self.key_bytes);
        for (ref_id, posting) in postings {
            append_posting(&mut bytes, ref_id, posting);
        }
        let mut statement = connection.prepare_cached("INSERT OR REPLACE INTO log_fresh VALUES (?1, ?2)")?;
        statement.execute((self.first_id, bytes))?;
        Ok(())
    }
}

/// Whether a pair that is in `count` of `rows` rows is not located within the segment.
pub(crate) fn is_common(count: usize, rows: usize) -> bool {
    count * COMMON >= rows
}

/// Of rows in the order of their ids. It covers ids, timestamps and texts, each text with its length, so that no two
/// contents agree.
#[derive(Clone, Default)]
pub(crate) struct Checksum(Xxh3);

impl Checksum {
    pub(crate) fn add(&mut self, row: &IndexedRow<'_>) {
        self.0.update(&row.id.to_le_bytes());
        self.0.update(&row.timestamps.first.to_le_bytes());
        for text in [row.source, row.kind, row.ref_id, row.payload] {
            match text {
                Some(text) => {
                    self.0.update(&(text.len() as u64).to_le_bytes());
                    self.0.update(text.as_bytes());
                }
                None => self.0.update(&u64::MAX.to_le_bytes()),
            }
        }
    }

    pub(crate) fn finish(&self) -> i64 {
        self.0.digest().cast_signed()
    }
}

/// The value under `key`, whose bytes are counted when it is new.
fn entry<'a, V: Default>(map: &'a mut HashMap<Box<str>, V>, key: &str, key_bytes: &mut usize) -> &'a mut V {
    match map.entry_ref(key) {
        EntryRef::Occupied(entry) => entry.into_mut(),
        EntryRef::Vacant(entry) => {
            *key_bytes += key.len() + KEY_OVERHEAD;
            entry.insert_with_key(key.into(), V::default())
        }
    }
}
