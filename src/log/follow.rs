//! Following the log: every row of every process, once, in id order.
//!
//! Ids are given out inside the write transaction, so their order is the order of commits, and a reader that has seen all rows
//! up to an id has seen all that will ever be below it. A commit of this process wakes its followers; those of other
//! processes are looked for at intervals, which reads SQLite's shared memory and no disk while nothing changes.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::base::error::Result;
use crate::log::core::Core;
use crate::row::Filter;
use crate::row::LogEntry;

/// Rows that one step returns at the most.
const PAGE_ROWS: u64 = 512;

/// Reads the rows of a filter, at most as many as its limit; also returns the greatest id that was looked at, unless the
/// limit came before it.
pub type ReadPage<'a> = dyn Fn(&Filter) -> Result<(Vec<LogEntry>, i64)> + 'a;

/// The rows of a filter from an id on, without an end.
pub struct Follower {
    filter: Filter,
}

impl Follower {
    /// The rows that match `filter`, whose `after_id` says where to begin; None: after the last row there is now.
    pub fn open(core: &Core, mut filter: Filter) -> Result<Self> {
        if filter.after_id.is_none() {
            filter.after_id = Some(core.read("follow", |snapshot| snapshot.last_given_id())?);
        }
        filter.limit = Some(PAGE_ROWS);
        filter.descending = false;
        Ok(Self { filter })
    }

    /// The next rows; none if there are none yet after `timeout`.
    pub fn next_page(&mut self, core: &Core, timeout: Duration, read: &ReadPage<'_>) -> Result<Vec<LogEntry>> {
        let changes = core.changes();
        changes.waiting.fetch_add(1, Ordering::SeqCst);
        let known = changes.count();
        let mut page = self.read(read);
        if matches!(&page, Ok(rows) if rows.is_empty()) && !timeout.is_zero() {
            changes.wait(known, timeout);
            page = self.read(read);
        }
        changes.waiting.fetch_sub(1, Ordering::SeqCst);
        page
    }

    fn read(&mut self, read: &ReadPage<'_>) -> Result<Vec<LogEntry>> {
        let (page, last) = read(&self.filter)?;
        // Short of a full page, everything there is has been looked at.
        let seen = match page.last() {
            Some(entry) if Some(page.len() as u64) == self.filter.limit => entry.id,
            _ => last,
        };
        self.filter.after_id = self.filter.after_id.max(Some(seen));
        Ok(page)
    }
}

/// The rows of the log alone, as [`ReadPage`].
pub fn read_page(core: &Core, filter: &Filter) -> Result<(Vec<LogEntry>, i64)> {
    core.read("follow", |snapshot| {
        let last = snapshot.last_given_id()?;
        let mut page = Vec::new();
        snapshot.search(filter, |entry| page.push(entry))?;
        Ok((page, last))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Log, LogConfig};
    use crate::row::NewLogEntry;

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
        let mut all = Follower::open(&log, Filter::default()).unwrap();
        let mut some =
            Follower::open(&log, Filter { source: Some("a".into()), after_id: Some(0), ..Filter::default() }).unwrap();
        let read = |filter: &Filter| read_page(&log, filter);
        let (mut seen, mut seen_of_a) = (Vec::new(), Vec::new());
        let mut expected = Vec::new();
        for round in 0..40 {
            let (writer, source) = if round % 3 == 0 { (&other, "a") } else { (&log, "b") };
            expected.push((put(writer, source), source));
            seen.extend(all.next_page(&log, Duration::ZERO, &read).unwrap());
            if round % 5 == 0 {
                seen_of_a.extend(some.next_page(&log, Duration::ZERO, &read).unwrap());
            }
        }
        seen_of_a.extend(some.next_page(&log, Duration::ZERO, &read).unwrap());
        assert_eq!(seen.iter().map(|row| (row.id, row.source())).collect::<Vec<_>>(), expected);
        expected.retain(|(_, source)| *source == "a");
        assert_eq!(seen_of_a.iter().map(|row| (row.id, row.source())).collect::<Vec<_>>(), expected);
        assert!(all.next_page(&log, Duration::from_millis(1), &read).unwrap().is_empty());
    }

    #[test]
    fn a_commit_of_this_process_wakes_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let log = Log::open(&directory.path().join("logs.db"), LogConfig::default(), &mut |_, _| Ok(())).unwrap();
        let mut follower = Follower::open(&log, Filter::default()).unwrap();
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
