//! The core of the log: a database whose write transactions keep the index, and whose reads go through it. Everything that
//! appends, reads, archives or changes runs is built on it.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use roaring::RoaringTreemap;
use rusqlite::Connection;

use crate::base::error::{Error, Result};
use crate::base::progress::Progress;
use crate::db::{CHECKPOINT_PAGES, Config, Database, Derived, suit_triggers};
use crate::durable::Durability;
use crate::index::bounds;
use crate::index::build::bytes::or_damaged;
use crate::index::build::prune;
use crate::index::build::sealer::{Archived, Sealer};
use crate::index::doubt;
use crate::index::given::{given, given_and_forgotten, last_given_id, raise_last_given_id};
use crate::index::lookup::tail::Estimate;
use crate::index::lookup::unmerged::UnmergedIndex;
use crate::index::lookup::{count, estimate, rounds, search};
use crate::index::schema::{self, DEFAULT_SEGMENT_ROWS};
use crate::log::changes::Changes;
use crate::log::reserve::IdReserve;
use crate::log::transaction::Transaction;
use crate::row::{Filter, LogEntry, NumberedRound, RawRow};

/// Segments that one transaction seals while an older database is brought up to date: it can be killed and goes on
/// where it was, others can write in between, and the write-ahead log stays small.
const CATCH_UP_SEGMENTS: u64 = 32;

/// The derived tables of a log without an archive.
static DERIVED: &[&Derived] = &[&schema::DERIVED];

/// How a log is opened.
#[derive(Clone, Copy, Debug)]
pub struct LogConfig {
    /// The database.
    pub database: Config,
    /// Rows of a segment of the index; None: the default.
    pub segment_rows: Option<u64>,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { database: Config { derived: DERIVED, ..Config::default() }, segment_rows: None }
    }
}

/// The database of an open log and what is known of it, shared between threads.
pub struct Core {
    database: Database,
    sealer: Mutex<Sealer>,
    unmerged: UnmergedIndex,
    changes: Changes,
    ids: IdReserve,
    /// The greatest id that this handle has committed.
    committed: AtomicI64,
}

impl Core {
    /// Opens the log at `path`, or creates it. A database without an index, such as the predecessor's, gets it now.
    pub fn open(path: &Path, config: LogConfig, progress: &mut Progress<'_>) -> Result<Self> {
        let segment_rows = config.segment_rows.unwrap_or(DEFAULT_SEGMENT_ROWS);
        // Looked at before SQLite repairs the write-ahead log.
        let lost_ids = if config.database.read_only { Ok(None) } else { IdReserve::of(path).floor() };
        let database = Database::open(path, config.database)?;
        let ids = IdReserve::of(database.path());
        let core = Self {
            database,
            sealer: Mutex::new(Sealer::new(segment_rows)),
            unmerged: UnmergedIndex::default(),
            changes: Changes::default(),
            ids,
            committed: AtomicI64::new(i64::MIN),
        };
        if !config.database.read_only {
            core.pass_lost_ids(lost_ids?)?;
            core.catch_up(segment_rows, progress)?;
        }
        Ok(core)
    }

    /// The database.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Runs `body` in one read transaction: it sees one state of the log.
    pub fn read<T>(&self, operation: &'static str, body: impl FnOnce(&Snapshot<'_>) -> Result<T>) -> Result<T> {
        self.database.read(operation, |connection| body(&Snapshot { connection, unmerged: &self.unmerged }))
    }

    /// Runs `body` in one write transaction, as durable as asked when this returns; an error changes nothing.
    pub fn write<T>(
        &self,
        operation: &'static str,
        durability: Option<Durability>,
        body: impl FnOnce(&mut Transaction<'_>) -> Result<T>,
    ) -> Result<T> {
        let value = self.commit(operation, durability, body)?;
        self.database.checkpoint_if_due(CHECKPOINT_PAGES);
        Ok(value)
    }

    /// Like [`Self::write`], but leaves the checkpoint to the caller: see [`Database::commit`].
    pub(crate) fn commit<T>(
        &self,
        operation: &'static str,
        durability: Option<Durability>,
        body: impl FnOnce(&mut Transaction<'_>) -> Result<T>,
    ) -> Result<T> {
        let mut has_begun = false;
        let mut given = None;
        let outcome = self.database.commit(operation, durability, |connection| {
            has_begun = true;
            // Only the holder of the write transaction takes this lock, so that it is free.
            let mut sealer = self.sealer();
            if sealer.begin(connection)? {
                // Another program may have put triggers of its own into the database, or removed them.
                suit_triggers(connection, self.database.config().derived)?;
                self.keep_ids_rising(connection)?;
            }
            let path = self.database.path();
            let mut transaction = Transaction::new(connection, &mut sealer, path);
            let value = body(&mut transaction)?;
            transaction.insert_waiting()?;
            transaction.last_id.map_or(Ok(()), |last| self.ids.cover(last))?;
            given = transaction.last_id;
            Ok(value)
        });
        match outcome {
            Ok(_) => {
                self.committed.fetch_max(given.unwrap_or(i64::MIN), Ordering::Relaxed);
                self.changes.announce(given);
            }
            // A forked child waits for no lock.
            Err(Error::Forked { .. }) => {}
            // What did not begin changed nothing, and another transaction may be under way.
            Err(_) if has_begun => self.sealer().forget(),
            Err(_) => {}
        }
        outcome
    }

    /// Builds the index anew from the rows, in one transaction, at whose end `settle` takes part.
    pub(crate) fn reindex(
        &self,
        archived: &Archived<'_>,
        settle: impl FnOnce(&Connection) -> Result<()>,
        progress: &mut Progress<'_>,
    ) -> Result<()> {
        self.write("rebuild the index", None, |transaction| {
            transaction.sealer.rebuild(transaction.connection, archived, &mut *progress)?;
            settle(transaction.connection)
        })
    }

    /// Runs `body`, which may change rows, in one write transaction that ends with an empty index; it also returns the
    /// greatest id that it gave out.
    pub(crate) fn write_unindexed<T>(
        &self,
        operation: &'static str,
        body: impl FnOnce(&Connection) -> Result<(T, i64)>,
    ) -> Result<T> {
        self.write(operation, None, |transaction| {
            transaction.sealer.forget();
            let (value, last) = body(transaction.connection)?;
            transaction.last_id = transaction.last_id.max(Some(last));
            schema::begin_build(transaction.connection)?;
            // Readers of older versions, which know nothing of builds, know rows by the ids that they had.
            doubt::doubt_all(transaction.connection)?;
            Ok(value)
        })
    }

    /// Forgets what the index knows of rows that have left the log, but for their rounds, in short transactions; with
    /// `archived`, only segments whose rows are among these. Such rows must not be put back meanwhile.
    pub(crate) fn prune(&self, archived: Option<&RoaringTreemap>) -> Result<()> {
        const OPERATION: &str = "prune the index";
        let normal = Some(Durability::Normal);
        if !self.database.write(OPERATION, normal, |connection| prune::prune_segments(connection, archived))? {
            return Ok(());
        }
        let gone = self.database.read(OPERATION, prune::gone_groups)?;
        let mut position = None;
        loop {
            let next = self
                .database
                .write(OPERATION, normal, |connection| prune::prune_postings(connection, &gone, position.take()))?;
            match next {
                Some(next) => position = Some(next),
                None => return Ok(()),
            }
        }
    }

    /// Waits for the calls under way and closes; later calls get [`crate::Error::Closed`].
    pub fn close(&self) -> Result<()> {
        self.end_ids()?;
        // Others may still have the database open; then no last close carries the commits over.
        self.database.checkpoint_at_close();
        self.database.close()?;
        self.changes.announce(None);
        Ok(())
    }

    /// Another program may have lowered SQLite's table of sequences, or put an older copy in the place of the content.
    fn keep_ids_rising(&self, connection: &Connection) -> Result<()> {
        let committed = self.committed.load(Ordering::Relaxed);
        let Some(last) = given_and_forgotten(connection, Some(committed))? else { return Ok(()) };
        // A database that knows nothing of what this handle has committed has lost what others have, too.
        let is_older = given(connection)? < committed;
        let last = if is_older { last.max(self.ids.bound()?) } else { last };
        raise_last_given_id(connection, last)
    }

    /// Lets the database go on above the ids that may have been given out and lost, and above those that it has forgotten.
    fn pass_lost_ids(&self, floor: Option<i64>) -> Result<()> {
        let passed = self.database.read("look at the ids", |connection| given_and_forgotten(connection, floor))?;
        let Some(last) = passed else { return Ok(()) };
        self.database.write("pass the ids that were lost", None, |connection| raise_last_given_id(connection, last))
    }

    /// Tells the reserve of ids where the log ends. In a closed store, and in a forked child, that is done, or not its
    /// affair.
    fn end_ids(&self) -> Result<()> {
        match self.database.check_open() {
            Ok(()) => self.ids.end(),
            Err(Error::Closed { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn changes(&self) -> &Changes {
        &self.changes
    }

    fn sealer(&self) -> MutexGuard<'_, Sealer> {
        self.sealer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Seals the segments of a tail that is longer than one.
    fn catch_up(&self, segment_rows: u64, progress: &mut Progress<'_>) -> Result<()> {
        let (is_due, total) = self.read("look at the index", |snapshot| snapshot.unsealed(segment_rows))?;
        if !is_due {
            return Ok(());
        }
        let mut done = 0;
        progress(done, total)?;
        loop {
            let more = self.write("index the log", Some(Durability::Normal), |transaction| {
                transaction.sealer.catch_up(transaction.connection, CATCH_UP_SEGMENTS)
            })?;
            done = if more { total.min(done + CATCH_UP_SEGMENTS * segment_rows) } else { total };
            progress(done, total)?;
            if !more {
                return Ok(());
            }
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        // A failure leaves a gap in the ids.
        let _ = self.end_ids();
    }
}

/// One state of the log.
pub struct Snapshot<'a> {
    connection: &'a Connection,
    unmerged: &'a UnmergedIndex,
}

impl Snapshot<'_> {
    /// The connection, for the tables besides the log.
    pub(crate) fn connection(&self) -> &Connection {
        self.connection
    }

    /// Calls `visit` with every row that matches, in the filter's order.
    pub fn search(&self, filter: &Filter, visit: impl FnMut(LogEntry)) -> Result<()> {
        or_damaged(search::search(self.connection, self.unmerged, filter, visit))
    }

    /// Like [`Self::search`]; rows that cannot be read go to `unreadable`, each with its id.
    pub(crate) fn search_readable(
        &self,
        filter: &Filter,
        visit: impl FnMut(LogEntry),
        unreadable: &mut dyn FnMut(i64, Error),
    ) -> Result<()> {
        or_damaged(search::search_readable(self.connection, self.unmerged, filter, visit, unreadable))
    }

    /// Calls `visit` with every row that matches, as SQLite holds it, in the filter's order, until it breaks.
    pub(crate) fn search_raw(
        &self,
        filter: &Filter,
        visit: &mut dyn FnMut(RawRow<'_>) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        or_damaged(search::search_raw(self.connection, self.unmerged, filter, visit))
    }

    /// The greatest id given out so far, also to rows that have left the log; below any if there never was a row.
    pub(crate) fn last_given_id(&self) -> Result<i64> {
        last_given_id(self.connection)
    }

    /// How many rows match.
    pub fn count(&self, filter: &Filter) -> Result<u64> {
        or_damaged(count::count(self.connection, self.unmerged, filter))
    }

    /// About how many rows there are, and when they were: exact unless more than `most` may have been deleted, or changed by other programs.
    pub(crate) fn estimate(&self, most: u64) -> Result<Estimate> {
        or_damaged(estimate::estimate(self.connection, self.unmerged, most))
    }

    /// How many rounds the run has.
    pub(crate) fn round_count(&self, run_id: &str) -> Result<u64> {
        or_damaged(rounds::round_count(self.connection, self.unmerged, run_id))
    }

    /// The run's rounds numbered below `before` (0: any), the `limit` highest, newest first.
    pub(crate) fn round_ids(&self, run_id: &str, before: u64, limit: u64) -> Result<Vec<NumberedRound>> {
        or_damaged(rounds::round_ids(self.connection, self.unmerged, run_id, before, limit))
    }

    /// The ids of all rounds of the run that the index knows, ascending.
    pub(crate) fn known_rounds(&self, run_id: &str) -> Result<Vec<i64>> {
        or_damaged(rounds::known_rounds(self.connection, self.unmerged, run_id))
    }

    /// Whether so many rows are not sealed yet; and about how many there are.
    fn unsealed(&self, segment_rows: u64) -> Result<(bool, u64)> {
        bounds::unsealed(self.connection, segment_rows)
    }
}
