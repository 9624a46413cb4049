//! Giving rows new ids, where they have those of archived rows: the one case in which the id of a row changes.

use std::rc::Rc;

use roaring::RoaringTreemap;
use rusqlite::types::Value;

use crate::base::error::{Error, Result};
use crate::base::ids::IdSpan;
use crate::index::given::{last_given_id, raise_last_given_id};
use crate::log::core::Core;

impl Core {
    /// Gives the rows from the id `first` on, except those in `kept`, ids above `greatest` and above all that were given
    /// out, in the order that they have. Returns how many there were, and where their new ids lie. The index is empty
    /// afterwards, and has to be built anew.
    pub(crate) fn renumber(&self, first: i64, kept: &RoaringTreemap, greatest: i64) -> Result<Option<(u64, IdSpan)>> {
        self.write_unindexed("give rows new ids", |connection| {
            let last: i64 = connection.query_row("SELECT coalesce(max(id), 0) FROM logs", [], |row| row.get(0))?;
            let end = last_given_id(connection)?.max(last).max(greatest);
            let too_many = || Error::Value("there are not enough ids left to give rows new ones".to_owned());
            let distance = end.checked_add(1).and_then(|next| next.checked_sub(first)).ok_or_else(too_many)?;
            last.checked_add(distance).ok_or_else(too_many)?;
            let kept: Vec<Value> =
                kept.iter().map(u64::cast_signed).filter(|id| *id >= first).map(Value::Integer).collect();
            // The new ids are above all others, so that no two rows meet on the way.
            let count = connection.execute(
                "UPDATE logs SET id = id + ?1 WHERE id >= ?2 AND id NOT IN (SELECT value FROM rarray(?3))",
                (distance, first, Rc::new(kept.clone())),
            )?;
            // An idempotency key follows its row.
            connection.execute(
                "UPDATE append_keys SET id = id + ?1 WHERE id >= ?2 AND id NOT IN (SELECT value FROM rarray(?3))
                   AND EXISTS (SELECT 1 FROM logs WHERE logs.id = append_keys.id + ?1)",
                (distance, first, Rc::new(kept)),
            )?;
            let last: i64 = connection.query_row("SELECT coalesce(max(id), 0) FROM logs", [], |row| row.get(0))?;
            raise_last_given_id(connection, last)?;
            let span = IdSpan::new(end + 1, last);
            Ok((span.filter(|_| count > 0).map(|span| (count as u64, span)), last))
        })
    }
}
