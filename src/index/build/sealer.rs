//! Which rows are not sealed yet, as the writer knows it, and sealing them when there are enough.

use roaring::RoaringTreemap;
use rusqlite::Connection;

use crate::base::error::Result;
use crate::base::ids::IdSpan;
use crate::index::bounds::{sealed_end, unsealed_span};
use crate::index::build::merge::{each_known_round, merge_if_due};
use crate::index::build::segment::Gathered;
use crate::index::doubt;
use crate::index::given::{last_given_id, renew_mark};
use crate::index::schema::begin_build;
use crate::row::COLUMNS;
use crate::row::IndexedRow;

/// Rows between two reports of a rebuild.
const PROGRESS_ROWS: u64 = 10_000;

/// The writer's knowledge of the tail. It lives as long as the writer, and is forgotten whenever the tail may have
/// changed behind its back: after a transaction that failed, and after another connection's commit.
pub(crate) struct Sealer {
    segment_rows: u64,
    tail: Tail,
    /// SQLite's `data_version`, which changes with other connections' commits.
    data_version: i64,
}

/// What is known of the rows after the last segment.
enum Tail {
    Unknown,
    /// Where they are. While others append as well, the tail is not read again for each row of ours, but once it is
    /// due.
    Short(IdSpan),
    Read(Box<Gathered>),
}

impl Sealer {
    /// Seals segments of `segment_rows` rows.
    pub(crate) fn new(segment_rows: u64) -> Self {
        Self { segment_rows: segment_rows.max(1), tail: Tail::Unknown, data_version: 0 }
    }

    /// To be called first in each write transaction; says whether another connection has committed since the last one.
    pub(crate) fn begin(&mut self, connection: &Connection) -> Result<bool> {
        let mut statement = connection.prepare_cached("PRAGMA data_version")?;
        let version = statement.query_row([], |row| row.get(0))?;
        let is_behind = version != self.data_version;
        if is_behind {
            self.tail = Tail::Unknown;
            self.data_version = version;
        }
        Ok(is_behind)
    }

    /// The transaction did not commit.
    pub(crate) fn forget(&mut self) {
        self.tail = Tail::Unknown;
    }

    /// Learns of the tail what it takes to add so many rows. To be called before they are inserted, lest they be counted
    /// twice.
    pub(crate) fn prepare(&mut self, connection: &Connection, rows: u64) -> Result<()> {
        if matches!(self.tail, Tail::Unknown) {
            self.tail = match unsealed_span(connection)? {
                Some(span) => Tail::Short(span),
                None => Tail::Read(Box::new(Gathered::new(self.segment_rows))),
            };
        }
        if let Tail::Short(span) = self.tail
            && span.len().saturating_add(rows) >= self.segment_rows
        {
            self.tail = Tail::Read(self.take_tail(connection)?);
        }
        Ok(())
    }

    /// Takes in a row that the caller's transaction has inserted after [`Sealer::prepare`].
    pub(crate) fn add(&mut self, connection: &Connection, row: &IndexedRow<'_>) -> Result<()> {
        match &mut self.tail {
            Tail::Unknown => {}
            Tail::Short(span) => span.last = row.id,
            Tail::Read(tail) => {
                Self::take_into(tail, connection, row)?;
            }
        }
        Ok(())
    }

    /// Seals up to `most` segments of a tail that is longer than a segment, as other programs leave it; says whether
    /// there may be more.
    pub(crate) fn catch_up(&mut self, connection: &Connection, most: u64) -> Result<bool> {
        let end = sealed_end(connection)?;
        let (tail, is_whole) = self.read_tail(connection, most)?;
        self.tail = if is_whole { Tail::Read(Box::new(tail)) } else { Tail::Unknown };
        // A damaged index may not let the end move on; `verify` names the damage.
        Ok(!is_whole && sealed_end(connection)? > end)
    }

    /// Seals the whole tail, however short.
    pub(crate) fn seal_all(&mut self, connection: &Connection) -> Result<()> {
        let mut tail = self.take_tail(connection)?;
        seal(&mut tail, connection)?;
        self.tail = Tail::Read(tail);
        Ok(())
    }

    /// The rows of the tail, read if they are not known; after an error they are not.
    fn take_tail(&mut self, connection: &Connection) -> Result<Box<Gathered>> {
        match std::mem::replace(&mut self.tail, Tail::Unknown) {
            Tail::Read(tail) => Ok(tail),
            Tail::Unknown | Tail::Short(_) => Ok(Box::new(self.read_tail(connection, u64::MAX)?.0)),
        }
    }

    /// Reads the rows after the last segment, sealing up to `most` segments on the way; returns what is left, and
    /// whether all rows were read.
    fn read_tail(&self, connection: &Connection, most: u64) -> Result<(Gathered, bool)> {
        let mut tail = Gathered::new(self.segment_rows);
        let mut sealed = 0;
        let mut statement =
            connection.prepare_cached(&format!("SELECT {COLUMNS} FROM logs WHERE id > ?1 ORDER BY id"))?;
        let mut rows = statement.query([sealed_end(connection)?])?;
        while sealed < most {
            let Some(row) = rows.next()? else { return Ok((tail, true)) };
            sealed += u64::from(Self::take_into(&mut tail, connection, &IndexedRow::read(row)?)?);
        }
        Ok((tail, false))
    }

    /// Builds the whole index anew from the rows, in the caller's transaction. Rounds whose rows have left the log keep
    /// their numbers, as far as the index or the archive still knows them.
    pub(crate) fn rebuild(
        &mut self,
        connection: &Connection,
        archived: &Archived<'_>,
        progress: &mut dyn FnMut(u64, u64) -> Result<()>,
    ) -> Result<()> {
        self.forget();
        let mut departed = Departed::read(connection, archived)?;
        begin_build(connection)?;
        let total: u64 = connection.query_row("SELECT count(*) FROM logs", [], |row| row.get(0))?;
        let mut done = 0;
        let mut tail = Gathered::new(self.segment_rows);
        let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM logs ORDER BY id"))?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let row = IndexedRow::read(row)?;
            Self::take_departed(&mut tail, connection, &mut departed, row.id)?;
            Self::take_into(&mut tail, connection, &row)?;
            done += 1;
            if done % PROGRESS_ROWS == 0 {
                progress(done, total)?;
            }
        }
        Self::take_departed(&mut tail, connection, &mut departed, i64::MAX)?;
        // What follows may be shorter than a segment, and is sealed when there is more; but departed rounds are known
        // to nothing else.
        seal(&mut tail, connection)?;
        renew_mark(connection)?;
        progress(total, total)?;
        self.tail = Tail::Read(Box::new(tail));
        Ok(())
    }

    fn take_departed(tail: &mut Gathered, connection: &Connection, departed: &mut Departed, bound: i64) -> Result<()> {
        while let Some((id, run_id)) = departed.next_below(bound) {
            if !tail.can_take(id) {
                seal(tail, connection)?;
            }
            tail.add_departed(id, run_id);
            doubt::note_deleted(connection, IdSpan::of(id))?;
            seal_if_full(tail, connection)?;
        }
        Ok(())
    }

    /// Takes a row into `tail` and seals it if it is full; says whether it was.
    fn take_into(tail: &mut Gathered, connection: &Connection, row: &IndexedRow<'_>) -> Result<bool> {
        if !tail.can_take(row.id) {
            seal(tail, connection)?;
        }
        tail.add(row);
        seal_if_full(tail, connection)
    }
}

/// Tells of the rounds that are in the archive and that the index may never have seen: the run and the id of each.
pub(crate) type ArchivedRounds<'a> = dyn Fn(&Connection, &mut dyn FnMut(&str, i64)) -> Result<()> + 'a;

/// What the archive tells a rebuild.
pub(crate) struct Archived<'a> {
    /// The rows of the files that have been read for it. Which of them are rounds, the archive alone says.
    pub(crate) ids: &'a RoaringTreemap,
    pub(crate) each_round: &'a ArchivedRounds<'a>,
}

/// Rounds whose rows have left the log, by id.
struct Departed {
    runs: Vec<Box<str>>,
    rounds: std::iter::Peekable<std::vec::IntoIter<(i64, usize)>>,
}

impl Departed {
    /// Those that the archive knows, and those that the index knows of other rows.
    fn read(connection: &Connection, archived: &Archived<'_>) -> Result<Self> {
        let mut live = RoaringTreemap::new();
        let mut statement = connection.prepare_cached("SELECT id FROM logs WHERE id >= 0 ORDER BY id")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            live.insert(row.get(0)?);
        }
        let mut runs: Vec<Box<str>> = Vec::new();
        let mut rounds = Vec::new();
        let mut take = |run_id: &str, id: i64| {
            if u64::try_from(id).is_ok_and(|id| !live.contains(id)) {
                if runs.last().is_none_or(|last| **last != *run_id) {
                    runs.push(run_id.into());
                }
                rounds.push((id, runs.len() - 1));
            }
        };
        (archived.each_round)(connection, &mut take)?;
        let last_given = last_given_id(connection)?;
        each_known_round(connection, |run_id, id| {
            if !archived.ids.contains(id.cast_unsigned()) && id <= last_given {
                take(run_id, id);
            }
        })?;
        rounds.sort_unstable();
        rounds.dedup_by_key(|(id, _)| *id);
        Ok(Self { runs, rounds: rounds.into_iter().peekable() })
    }

    /// The next one with an id below `bound`.
    fn next_below(&mut self, bound: i64) -> Option<(i64, &str)> {
        let (id, run) = self.rounds.next_if(|(id, _)| *id < bound)?;
        Some((id, &self.runs[run]))
    }
}

fn seal_if_full(tail: &mut Gathered, connection: &Connection) -> Result<bool> {
    let is_full = tail.is_full();
    if is_full {
        seal(tail, connection)?;
    }
    Ok(is_full)
}

fn seal(tail: &mut Gathered, connection: &Connection) -> Result<()> {
    tail.seal(connection)?;
    merge_if_due(connection)
}
