//! Following the log: every row of every process, once, in id order.
//!
//! Ids are given out inside the write transaction, so their order is the order of commits, and a reader that has seen all rows
//! up to an id has seen all that will ever be below it. A commit of this process wakes its followers; those of other
//! processes are learned of by watching the database, in one thread for all followers. Without that thread each follower
//! looks at intervals.

use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::base::error::Result;
use crate::db::Watching;
use crate::log::changes::Listener;
use crate::log::core::Core;
use crate::row::Filter;
use crate::row::LogEntry;

/// Rows that one step returns at the most.
const PAGE_ROWS: u64 = 512;

/// Rows that are a few, and bytes of text that are little: they are read in some 100 µs.
const FEW_ROWS: u64 = 32;
const FEW_BYTES: u64 = 64 << 10;

/// What one look at the log finds.
pub struct FollowedPage {
    /// The rows of a filter, at most as many as its limit.
    pub rows: Vec<LogEntry>,
    /// The greatest id that was looked at, unless the limit came before it.
    pub last: i64,
    /// There may be more, without another commit.
    pub is_partial: bool,
}

/// Reads the rows of a filter.
pub type ReadPage<'a> = dyn Fn(&Filter) -> Result<FollowedPage> + 'a;

/// The rows of a filter from an id on, without an end.
pub struct Follower {
    filter: Filter,
    /// What had been announced when everything there was had been read; None: there may be more.
    seen: Option<u64>,
    watching: Option<Arc<Watching>>,
}

impl Follower {
    /// The rows that match `filter`, whose `after_id` says where to begin; None: after the last row there is now. Where
    /// commits of other processes may go untold, they are looked for once an `interval`.
    pub fn open(core: &Arc<Core>, mut filter: Filter, interval: Duration) -> Result<Self> {
        if filter.after_id.is_none() {
            filter.after_id = Some(core.read("follow", |snapshot| snapshot.last_given_id())?);
        }
        filter.limit = Some(PAGE_ROWS);
        filter.descending = false;
        Ok(Self { filter, seen: None, watching: watch(core, interval) })
    }

    /// Whether nothing is to be read before something is announced.
    pub fn is_settled(&self, core: &Core) -> bool {
        self.watching.is_some() && self.seen == Some(core.changes().count())
    }

    /// Whether only a few rows with little text have come that were not looked at, whether they match or not.
    pub fn is_nearly_settled(&self, core: &Core) -> Result<bool> {
        if self.is_settled(core) {
            return Ok(true);
        }
        core.read("follow", |snapshot| {
            // The length of a text is known without reading it.
            let mut newest = snapshot.connection().prepare_cached(
                "SELECT count(*), coalesce(sum(length), 0) FROM (
                 SELECT octet_length(source) + octet_length(type) + coalesce(octet_length(ref_id), 0)
                 + coalesce(octet_length(payload), 0) AS length FROM logs WHERE id > ?1 ORDER BY id LIMIT ?2)",
            )?;
            let (rows, bytes): (u64, u64) =
                newest.query_row((self.filter.after_id, FEW_ROWS + 1), |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(rows <= FEW_ROWS && bytes <= FEW_BYTES)
        })
    }

    /// The next rows; none if there are none yet after `timeout`.
    pub fn next_page(&mut self, core: &Core, timeout: Duration, read: &ReadPage<'_>) -> Result<Vec<LogEntry>> {
        core.database().check_open()?;
        let known = core.changes().count();
        let page = if self.is_settled(core) { Vec::new() } else { self.read(known, read)? };
        if !page.is_empty() || timeout.is_zero() {
            return Ok(page);
        }
        core.changes().wait(known, timeout);
        let known = core.changes().count();
        if self.is_settled(core) { Ok(Vec::new()) } else { self.read(known, read) }
    }

    fn read(&mut self, known: u64, read: &ReadPage<'_>) -> Result<Vec<LogEntry>> {
        self.seen = None;
        let FollowedPage { rows, last, is_partial } = read(&self.filter)?;
        // Short of a full page, everything there is has been looked at.
        let is_full = Some(rows.len() as u64) == self.filter.limit;
        let end = rows.last().filter(|_| is_full).map_or(last, |entry| entry.id);
        self.filter.after_id = self.filter.after_id.max(Some(end));
        self.seen = (!is_full && !is_partial).then_some(known);
        Ok(rows)
    }
}

/// Has the commits of other processes announced for as long as the answer is kept, within an `interval` where they may go
/// untold; None if there is no thread for it.
pub(crate) fn watch(core: &Arc<Core>, interval: Duration) -> Option<Arc<Watching>> {
    let begin = || {
        let watched = Arc::downgrade(core);
        let look = move || watched.upgrade().map_or((), |core| look(&core));
        Watching::begin(core.database().path(), interval, Arc::new(look))
    };
    core.changes().watching(interval, begin)
}

/// Tells `listener` of the log's changes from now on, for as long as it is there.
pub fn listen(core: &Core, listener: Weak<dyn Listener>) {
    core.changes().listen(listener);
}

/// Wakes all followers, for them to look at what has become of them.
pub fn wake(core: &Core) {
    core.changes().announce(None);
}

/// Looks whether another process has appended.
fn look(core: &Core) {
    match core.read("follow", |snapshot| snapshot.last_given_id()) {
        Ok(last) if core.changes().is_news(last) => core.changes().announce(Some(last)),
        Ok(_) => {}
        // Followers are to meet it themselves.
        Err(_) => core.changes().announce(None),
    }
}

/// The rows of the log alone, as [`ReadPage`].
pub fn read_page(core: &Core, filter: &Filter) -> Result<FollowedPage> {
    core.read("follow", |snapshot| {
        let last = snapshot.last_given_id()?;
        let mut rows = Vec::new();
        snapshot.search(filter, |entry| rows.push(entry))?;
        Ok(FollowedPage { rows, last, is_partial: false })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::{Config, Database};
    use crate::log::{Log, LogConfig};
    use crate::row::NewLogEntry;

    const INTERVAL: Duration = Duration::from_secs(60);

    #[test]
    fn a_follower_sees_each_row_of_each_writer_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("logs.db");
        let open = || {
            Log::open(&path, LogConfig { segment_rows: Some(7), ..LogConfig::default() }, &mut |_, _| Ok(())).unwrap()
        };
        let (log, other) = (open(), open());
        let put = |log: &Log, source| {
            let row = NewLogEntry { source, kind: "t", ref_id: None, payload: None, timestamp: Some(1) };
            log.append_many(&[row], None).unwrap()
        };
        put(&log, "before");
        let mut all = Follower::open(log.core(), Filter::default(), INTERVAL).unwrap();
        let mut some = Follower::open(
            log.core(),
            Filter { source: Some("a".into()), after_id: Some(0), ..Filter::default() },
            INTERVAL,
        )
        .unwrap();
        let read = |filter: &Filter| read_page(&log, filter);
        let (mut seen, mut seen_of_a) = (Vec::new(), Vec::new());
        let mut expected = Vec::new();
        for round in 0..40 {
            let (writer, source) = if round % 3 == 0 { (&other, "a") } else { (&log, "b") };
            expected.push((put(writer, source), source));
            seen.extend(all.next_page(&log, Duration::from_secs(10), &read).unwrap());
            if round % 5 == 0 {
                seen_of_a.extend(some.next_page(&log, Duration::ZERO, &read).unwrap());
            }
        }
        while seen_of_a.len() < expected.iter().filter(|(_, source)| *source == "a").count() {
            seen_of_a.extend(some.next_page(&log, Duration::from_secs(10), &read).unwrap());
        }
        assert_eq!(seen.iter().map(|row| (row.id, row.source())).collect::<Vec<_>>(), expected);
        expected.retain(|(_, source)| *source == "a");
        assert_eq!(seen_of_a.iter().map(|row| (row.id, row.source())).collect::<Vec<_>>(), expected);
        assert!(all.next_page(&log, Duration::from_millis(1), &read).unwrap().is_empty());
    }

    #[test]
    fn rows_at_ids_that_another_program_freed_are_news() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("logs.db");
        let log = Log::open(&path, LogConfig::default(), &mut |_, _| Ok(())).unwrap();
        let row = NewLogEntry { source: "s", kind: "t", ref_id: None, payload: None, timestamp: Some(1) };
        log.append_many(&[row; 9], None).unwrap();
        let stranger = Database::open(&path, Config::default()).unwrap();
        let run = |sql: &str| stranger.write("test", None, |connection| Ok(connection.execute_batch(sql)?)).unwrap();
        run("DELETE FROM logs; DELETE FROM sqlite_sequence");
        let mut follower = Follower::open(log.core(), Filter::default(), Duration::from_millis(5)).unwrap();
        for id in 1..=3 {
            assert!(follower.next_page(&log, Duration::ZERO, &|filter| read_page(&log, filter)).unwrap().is_empty());
            run("INSERT INTO logs (source, type, timestamp) VALUES ('a', 'b', 7)");
            let page = follower.next_page(&log, Duration::from_secs(30), &|filter| read_page(&log, filter)).unwrap();
            assert_eq!(page.iter().map(|row| row.id).collect::<Vec<_>>(), [id]);
        }
    }

    #[test]
    fn a_commit_of_this_process_wakes_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let log = Log::open(&directory.path().join("logs.db"), LogConfig::default(), &mut |_, _| Ok(())).unwrap();
        let mut follower = Follower::open(log.core(), Filter::default(), INTERVAL).unwrap();
        let started = std::time::Instant::now();
        let page = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                follower.next_page(&log, Duration::from_secs(60), &|filter| read_page(&log, filter)).unwrap()
            });
            std::thread::sleep(Duration::from_millis(50));
            let row = NewLogEntry { source: "s", kind: "t", ref_id: None, payload: None, timestamp: Some(1) };
            log.append_many(&[row], None).unwrap();
            waiting.join().unwrap()
        });
        assert_eq!(page.len(), 1);
        assert!(started.elapsed() < Duration::from_secs(30));
    }
}
