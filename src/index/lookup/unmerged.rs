//! The rows that are not merged yet, as readers know them: which reference is in which of them, and which are rounds.
//!
//! Invariant: every row after `merged_end` up to `seen` is in it, with some that were deleted since. It grows as reads see
//! more of the log, whichever process appended it, so that no row is looked at twice; writers have nothing to do with it.
//! It is forgotten when the database has another edition.

use std::sync::{Mutex, PoisonError};

use hashbrown::HashMap;
use hashbrown::hash_map::EntryRef;
use rusqlite::Connection;

use crate::base::error::Result;
use crate::db::schema_version;
use crate::index::bounds::{Edition, Ends, ends, ends_and_traces};
use crate::index::build::postings::each_posting;
use crate::index::doubt::Trust;
use crate::index::lookup::tail::TailCounts;
use crate::row::COLUMNS;
use crate::row::{IndexedRow, index_key, is_round};

/// The ids of a reference that are not merged yet, ascending, perhaps with some that the caller's transaction does not
/// see.
#[derive(Clone, Default)]
pub(crate) struct UnmergedIds {
    pub(crate) ids: Vec<i64>,
    /// Those that are rounds.
    pub(crate) rounds: Vec<i64>,
}

#[derive(Default)]
pub(crate) struct UnmergedIndex {
    state: Mutex<State>,
    /// How many rows of which kinds are not sealed yet.
    pub(crate) tail: TailCounts,
    pub(crate) trust: Trust,
}

struct State {
    /// The edition that it is of.
    edition: Option<Edition>,
    /// Rows up to here are merged.
    merged_end: i64,
    /// Of rows up to here, what is known is what was sealed.
    sealed: i64,
    /// Rows up to here have been looked at.
    seen: i64,
    /// How many rows these are, from the sealed ones on.
    tail_rows: u64,
    /// By key.
    refs: HashMap<Box<str>, UnmergedIds>,
}

impl Default for State {
    fn default() -> Self {
        Self::after(i64::MIN, None)
    }
}

impl UnmergedIndex {
    /// Like [`Self::ids`], also where another program has put rows among those that were passed, or changed them, and
    /// without those of the tail that it has deleted: a row that was never sealed is no round.
    pub(crate) fn ids_beside_others(&self, connection: &Connection, ref_key: &str) -> Result<UnmergedIds> {
        let (ends, traces) = ends_and_traces(connection)?;
        if traces.has_changes {
            return State::read(connection, ends, ref_key);
        }
        self.ids_within(connection, ref_key, ends, traces.has_deletions)
    }

    /// Where the parts of the log end, and the rows with the reference of this key after the merged ones, in the caller's
    /// transaction; where another program put rows among others or changed them, what is there is not looked at again.
    pub(crate) fn ids(&self, connection: &Connection, ref_key: &str) -> Result<(Ends, UnmergedIds)> {
        let ends = ends(connection, schema_version(connection)?)?;
        Ok((ends, self.ids_within(connection, ref_key, ends, false)?))
    }

    /// The same where the ends are known. With `has_deletions`, rows of the tail may have been deleted that must not be
    /// returned.
    pub(super) fn ids_within(
        &self,
        connection: &Connection,
        ref_key: &str,
        ends: Ends,
        has_deletions: bool,
    ) -> Result<UnmergedIds> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.edition != Some(ends.edition) {
            *state = State { edition: Some(ends.edition), ..State::default() };
        }
        if ends.merged < state.merged_end {
            // The caller's transaction is older than what is known here, which forgot what it needs.
            drop(state);
            return State::read(connection, ends, ref_key);
        }
        state.advance(ends.merged);
        if has_deletions && !state.has_whole_tail(connection)? {
            state.forget_tail();
        }
        state.read_on(connection, ends)?;
        Ok(state.refs.get(ref_key).cloned().unwrap_or_default())
    }
}

impl State {
    fn after(merged_end: i64, edition: Option<Edition>) -> Self {
        Self { edition, merged_end, sealed: merged_end, seen: merged_end, tail_rows: 0, refs: HashMap::new() }
    }

    /// What the caller's transaction sees of one reference, and is not kept.
    fn read(connection: &Connection, ends: Ends, ref_key: &str) -> Result<UnmergedIds> {
        let mut state = Self::after(ends.merged, Some(ends.edition));
        state.read_on(connection, ends)?;
        Ok(state.refs.remove(ref_key).unwrap_or_default())
    }

    fn advance(&mut self, merged_end: i64) {
        if merged_end == self.merged_end {
            return;
        }
        if merged_end > self.sealed {
            self.forget_tail();
            self.sealed = merged_end;
            self.seen = merged_end;
        }
        self.merged_end = merged_end;
        self.refs.retain(|_, known| {
            for ids in [&mut known.ids, &mut known.rounds] {
                ids.drain(..ids.partition_point(|id| *id <= merged_end));
            }
            !known.ids.is_empty()
        });
    }

    /// Whether no row of the tail has left since it was read.
    fn has_whole_tail(&self, connection: &Connection) -> Result<bool> {
        let mut statement = connection.prepare_cached("SELECT count(*) FROM logs WHERE id > ?1 AND id <= ?2")?;
        let rows: u64 = statement.query_row([self.sealed, self.seen], |row| row.get(0))?;
        Ok(rows == self.tail_rows)
    }

    /// Forgets what was read of rows that were not sealed.
    fn forget_tail(&mut self) {
        if self.seen == self.sealed {
            return;
        }
        self.seen = self.sealed;
        self.tail_rows = 0;
        self.refs.retain(|_, known| {
            for ids in [&mut known.ids, &mut known.rounds] {
                ids.truncate(ids.partition_point(|id| *id <= self.sealed));
            }
            !known.ids.is_empty()
        });
    }

    fn read_on(&mut self, connection: &Connection, ends: Ends) -> Result<()> {
        if self.sealed < ends.sealed {
            // What was sealed need not be what was read: another program may have put rows among them.
            self.forget_tail();
            self.read_fresh(connection)?;
            self.sealed = ends.sealed;
            self.seen = ends.sealed;
        }
        if self.seen < ends.last { self.read_tail(connection) } else { Ok(()) }
    }

    /// Reads the postings of the fresh segments, as far as their rows have not been seen.
    fn read_fresh(&mut self, connection: &Connection) -> Result<()> {
        let mut statement = connection.prepare_cached(
            "SELECT segment, postings FROM log_fresh JOIN log_segments ON first_id = segment
             WHERE last_id > ?1 ORDER BY segment",
        )?;
        let mut rows = statement.query([self.seen])?;
        let seen = self.seen;
        while let Some(row) = rows.next()? {
            let segment: i64 = row.get(0)?;
            let bytes = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
            each_posting(bytes, |ref_key, set, rounds| {
                let known = self.entry(ref_key);
                known.rounds.extend(rounds.as_ref().unwrap_or(&set).ids(segment).filter(|id| *id > seen));
                known.ids.extend(set.ids(segment).filter(|id| *id > seen));
            })?;
        }
        Ok(())
    }

    fn read_tail(&mut self, connection: &Connection) -> Result<()> {
        let mut statement =
            connection.prepare_cached(&format!("SELECT {COLUMNS} FROM logs WHERE id > ?1 ORDER BY id"))?;
        let mut rows = statement.query([self.seen])?;
        while let Some(row) = rows.next()? {
            let row = IndexedRow::read(row)?;
            if let Some(ref_id) = row.ref_id {
                let known = self.entry(&index_key(ref_id));
                known.ids.push(row.id);
                if is_round(row.source, row.kind, row.payload) {
                    known.rounds.push(row.id);
                }
            }
            self.seen = row.id;
            self.tail_rows += 1;
        }
        Ok(())
    }

    fn entry(&mut self, ref_key: &str) -> &mut UnmergedIds {
        match self.refs.entry_ref(ref_key) {
            EntryRef::Occupied(entry) => entry.into_mut(),
            EntryRef::Vacant(entry) => entry.insert_with_key(ref_key.into(), UnmergedIds::default()),
        }
    }
}
