//! How many rows of each kind are not sealed yet, and when they were, as readers know it.
//!
//! Invariant: rows up to the last one seen are counted once. It is asked only where no row of the tail is in doubt, so that
//! rows have only been added since, in one edition of the database.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use rusqlite::Connection;

use crate::base::error::Result;
use crate::base::time::TimeSpan;
use crate::index::bounds::Edition;
use crate::row::Filter;

/// What is known of rows without looking at each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Estimate {
    pub(crate) row_count: u64,
    /// From the least to the greatest timestamp; None if there are no rows.
    pub(crate) times: Option<TimeSpan>,
}

impl Estimate {
    pub(super) fn add(&mut self, other: Self) {
        self.row_count += other.row_count;
        self.times = self.times.into_iter().chain(other.times).reduce(TimeSpan::union);
    }
}

/// The counts, as far as reads have seen the tail.
#[derive(Default)]
pub(crate) struct TailCounts {
    known: Mutex<Option<Known>>,
}

struct Known {
    /// Of the database.
    edition: Edition,
    /// After the sealed rows up to here.
    sealed_end: i64,
    /// Up to this row; at the sealed end, none.
    seen: i64,
    total: u64,
    /// When these rows were.
    times: Option<TimeSpan>,
    /// Another program stored something else than an integer as a timestamp.
    has_odd_times: bool,
    /// Another program stored something else than text as a source or a type.
    has_odd_kinds: bool,
    /// By source and type.
    kinds: HashMap<Box<str>, HashMap<Box<str>, u64>>,
}

impl TailCounts {
    /// The rows after the sealed ones that match, in the caller's transaction, of which none is in doubt; None if that
    /// cannot be told. The filter's bounds of ids and its reference do not count.
    pub(super) fn count(
        &self,
        connection: &Connection,
        schema_version: i64,
        sealed_end: i64,
        filter: &Filter,
    ) -> Result<Option<u64>> {
        self.with(connection, schema_version, sealed_end, |known| known.matching(filter))
    }

    /// How many there are, and when they were.
    pub(super) fn estimate(&self, connection: &Connection, schema_version: i64, sealed_end: i64) -> Result<Estimate> {
        self.with(connection, schema_version, sealed_end, |known| Estimate {
            row_count: known.total,
            times: known.times,
        })
    }

    fn with<T>(
        &self,
        connection: &Connection,
        schema_version: i64,
        sealed_end: i64,
        tell: impl FnOnce(&Known) -> T,
    ) -> Result<T> {
        let (last, build): (Option<i64>, Option<i64>) = connection
            .prepare_cached("SELECT (SELECT max(id) FROM logs), (SELECT max(build) FROM log_builds)")?
            .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let edition = Edition { build, schema_version };
        let last = last.map_or(sealed_end, |last| last.max(sealed_end));
        let mut shared = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = match shared.as_mut().filter(|known| known.edition == edition && known.sealed_end >= sealed_end) {
            Some(known) => known,
            None => shared.insert(Known::after(sealed_end, edition)),
        };
        if known.sealed_end > sealed_end || known.seen > last {
            // The caller's transaction is older than what is known here.
            drop(shared);
            let mut known = Known::after(sealed_end, edition);
            known.read_on(connection)?;
            return Ok(tell(&known));
        }
        known.read_on(connection)?;
        Ok(tell(known))
    }
}

impl Known {
    fn after(sealed_end: i64, edition: Edition) -> Self {
        Self {
            edition,
            sealed_end,
            seen: sealed_end,
            total: 0,
            times: None,
            has_odd_times: false,
            has_odd_kinds: false,
            kinds: HashMap::new(),
        }
    }

    fn read_on(&mut self, connection: &Connection) -> Result<()> {
        let mut statement = connection.prepare_cached(
            "SELECT id, source, type, CAST(timestamp AS INTEGER), typeof(timestamp) = 'integer' FROM logs
             WHERE id > ?1 ORDER BY id",
        )?;
        let mut rows = statement.query([self.seen])?;
        while let Some(row) = rows.next()? {
            self.seen = row.get(0)?;
            self.total += 1;
            let time = TimeSpan::of(row.get(3)?);
            self.times = Some(self.times.map_or(time, |times| times.union(time)));
            self.has_odd_times |= !row.get::<_, bool>(4)?;
            let (Ok(source), Ok(kind)) = (row.get_ref(1)?.as_str(), row.get_ref(2)?.as_str()) else {
                self.has_odd_kinds = true;
                continue;
            };
            match self.kinds.get_mut(source).and_then(|kinds| kinds.get_mut(kind)) {
                Some(count) => *count += 1,
                None => *self.kinds.entry(source.into()).or_default().entry(kind.into()).or_default() += 1,
            }
        }
        Ok(())
    }

    fn matching(&self, filter: &Filter) -> Option<u64> {
        if filter.since.is_some() || filter.until.is_some() {
            if self.has_odd_times {
                return None;
            }
            let wanted = filter.times();
            let Some(times) = self.times.filter(|times| wanted.overlaps(*times)) else { return Some(0) };
            if !wanted.covers(times) {
                // Some are within the bounds; which ones is not known.
                return None;
            }
        }
        let (source, kind) = (filter.source.as_deref(), filter.kind.as_deref());
        if self.has_odd_kinds && (source.is_some() || kind.is_some()) {
            return None;
        }
        let of_kind = |kinds: &HashMap<Box<str>, u64>| match kind {
            Some(kind) => kinds.get(kind).copied().unwrap_or(0),
            None => kinds.values().sum(),
        };
        Some(match source {
            Some(source) => self.kinds.get(source).map_or(0, of_kind),
            None if kind.is_some() => self.kinds.values().map(of_kind).sum(),
            None => self.total,
        })
    }
}
