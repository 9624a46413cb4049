//! The tail as readers know it: which reference is in which of the rows that are not sealed yet.
//!
//! Invariant: every row after `sealed_end` up to `seen` is in it, except rows that were deleted. It grows as reads see
//! more of the log, whoever appended it, so that no row is looked at twice, and writers have nothing to do with it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use crate::error::Result;

#[derive(Default)]
pub(crate) struct Recent {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Rows up to here are sealed.
    sealed_end: i64,
    /// Rows up to here have been looked at.
    seen: i64,
    refs: HashMap<Box<str>, Vec<i64>>,
}

impl Recent {
    /// The ids above `sealed_end` of the rows with this reference, ascending, perhaps with some that the caller's
    /// transaction does not see. None if that transaction is older than what is known here: then the tail is scanned.
    pub(super) fn ids(&self, connection: &Connection, sealed_end: i64, ref_id: &str) -> Result<Option<Vec<i64>>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if sealed_end < state.sealed_end {
            return Ok(None);
        }
        state.advance(sealed_end);
        state.look_further(connection)?;
        Ok(Some(state.refs.get(ref_id).cloned().unwrap_or_default()))
    }
}

impl State {
    fn advance(&mut self, sealed_end: i64) {
        if sealed_end == self.sealed_end {
            return;
        }
        self.sealed_end = sealed_end;
        self.seen = self.seen.max(sealed_end);
        self.refs.retain(|_, ids| {
            ids.drain(..ids.partition_point(|id| *id <= sealed_end));
            !ids.is_empty()
        });
    }

    fn look_further(&mut self, connection: &Connection) -> Result<()> {
        let mut statement = connection.prepare_cached("SELECT id, ref_id FROM logs WHERE id > ?1 ORDER BY id")?;
        let mut rows = statement.query([self.seen])?;
        while let Some(row) = rows.next()? {
            let id = row.get(0)?;
            if let ValueRef::Text(bytes) = row.get_ref(1)?
                && let Ok(ref_id) = std::str::from_utf8(bytes)
            {
                match self.refs.get_mut(ref_id) {
                    Some(ids) => ids.push(id),
                    None => {
                        self.refs.insert(ref_id.into(), vec![id]);
                    }
                }
            }
            self.seen = id;
        }
        Ok(())
    }
}
