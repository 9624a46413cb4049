//! Which rows are not sealed yet, as the writer knows it, and sealing them when there are enough.

use rusqlite::Connection;

use super::merge::merge_if_due;
use super::sealed_end;
use super::segment::{Gathered, IndexedRow};
use crate::error::Result;
use crate::log::entry::COLUMNS;

/// The writer's knowledge of the tail. It lives as long as the writer, and is forgotten whenever the tail may have
/// changed behind its back: after a transaction that failed, and after another connection's commit.
pub(crate) struct Sealer {
    segment_rows: u64,
    /// None: not known.
    tail: Option<Gathered>,
    /// SQLite's `data_version`, which changes with other connections' commits.
    data_version: i64,
}

impl Sealer {
    /// Seals segments of `segment_rows` rows.
    pub(crate) fn new(segment_rows: u64) -> Self {
        Self { segment_rows: segment_rows.max(1), tail: None, data_version: 0 }
    }

    /// To be called first in each write transaction.
    pub(crate) fn begin(&mut self, connection: &Connection) -> Result<()> {
        let mut statement = connection.prepare_cached("PRAGMA data_version")?;
        let version = statement.query_row([], |row| row.get(0))?;
        if version != self.data_version {
            self.tail = None;
            self.data_version = version;
        }
        Ok(())
    }

    /// The transaction did not commit.
    pub(crate) fn forget(&mut self) {
        self.tail = None;
    }

    /// Learns the tail, if it is not known. To be called before rows are inserted, lest they be counted twice.
    pub(crate) fn load(&mut self, connection: &Connection) -> Result<()> {
        if self.tail.is_none() {
            self.tail = Some(self.read_tail(connection, u64::MAX)?.0);
        }
        Ok(())
    }

    /// Takes in a row that the caller's transaction has inserted after [`Sealer::load`].
    pub(crate) fn add(&mut self, connection: &Connection, row: &IndexedRow<'_>) -> Result<()> {
        if let Some(mut tail) = self.tail.take() {
            self.take_into(&mut tail, connection, row)?;
            self.tail = Some(tail);
        }
        Ok(())
    }

    /// Seals up to `most` segments of a tail that is longer than a segment, as other programs leave it; says whether
    /// there may be more.
    pub(crate) fn catch_up(&mut self, connection: &Connection, most: u64) -> Result<bool> {
        let (tail, is_whole) = self.read_tail(connection, most)?;
        self.tail = is_whole.then_some(tail);
        Ok(!is_whole)
    }

    /// Seals the whole tail, however short.
    pub(crate) fn seal_all(&mut self, connection: &Connection) -> Result<()> {
        self.load(connection)?;
        if let Some(mut tail) = self.tail.take() {
            seal(&mut tail, connection)?;
            self.tail = Some(tail);
        }
        Ok(())
    }

    /// Reads the rows after the last segment, sealing up to `most` segments on the way; returns what is left, and
    /// whether all rows were read.
    fn read_tail(&self, connection: &Connection, most: u64) -> Result<(Gathered, bool)> {
        let mut tail = Gathered::default();
        let mut sealed = 0;
        let mut statement =
            connection.prepare_cached(&format!("SELECT {COLUMNS} FROM logs WHERE id > ?1 ORDER BY id"))?;
        let mut rows = statement.query([sealed_end(connection)?])?;
        while sealed < most {
            let Some(row) = rows.next()? else { return Ok((tail, true)) };
            sealed += u64::from(self.take_into(&mut tail, connection, &IndexedRow::read(row)?)?);
        }
        Ok((tail, false))
    }

    /// Takes a row into `tail` and seals it if it is full; says whether it was.
    fn take_into(&self, tail: &mut Gathered, connection: &Connection, row: &IndexedRow<'_>) -> Result<bool> {
        if !tail.can_take(row.id) {
            seal(tail, connection)?;
        }
        tail.add(row);
        let is_full = tail.row_count() >= self.segment_rows;
        if is_full {
            seal(tail, connection)?;
        }
        Ok(is_full)
    }
}

fn seal(tail: &mut Gathered, connection: &Connection) -> Result<()> {
    tail.seal(connection)?;
    merge_if_due(connection)
}
