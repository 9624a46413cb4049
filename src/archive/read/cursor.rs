//! The rows of one day's file that a filter wants, one block in memory.

use std::collections::VecDeque;

use crate::archive::file::reader::DayReader;
use crate::archive::manifest::catalog::OpenDay;
use crate::base::digest::Digest;
use crate::base::error::Result;
use crate::base::interrupt::check;
use crate::base::time::UtcDay;
use crate::row::{Filter, LogEntry};

/// Walks through a day's file in the order of a filter.
pub(crate) struct DayCursor {
    reader: DayReader,
    sha256: Digest,
    filter: Filter,
    /// The ids that may be wanted, ascending; None: any.
    wanted: Option<Vec<i64>>,
    /// Blocks that have not been read, by number.
    blocks: std::ops::Range<usize>,
    rows: VecDeque<LogEntry>,
}

impl DayCursor {
    /// The rows that match `filter`, its limit aside; of these only the ones that are `wanted`.
    pub(crate) fn new(open: OpenDay, filter: Filter, wanted: Option<Vec<i64>>) -> Self {
        let blocks = open.reader.blocks();
        // The block before the first that begins above the first id may hold it.
        let first = blocks.partition_point(|block| block.first_id <= filter.first_id()).saturating_sub(1);
        let end = blocks.partition_point(|block| block.first_id <= filter.last_id());
        Self {
            blocks: first..end.max(first),
            sha256: open.summary.sha256,
            reader: open.reader,
            filter,
            wanted,
            rows: VecDeque::new(),
        }
    }

    pub(crate) fn day(&self) -> UtcDay {
        self.reader.day()
    }

    /// The sha256 of the file.
    pub(crate) fn sha256(&self) -> Digest {
        self.sha256
    }

    /// The id of the next row.
    pub(crate) fn peek(&mut self) -> Result<Option<i64>> {
        self.fill()?;
        Ok(self.rows.front().map(|row| row.id))
    }

    /// The next row.
    pub(crate) fn next_row(&mut self) -> Result<Option<LogEntry>> {
        self.fill()?;
        Ok(self.rows.pop_front())
    }

    /// Reads blocks until there is a row, or no block is left.
    fn fill(&mut self) -> Result<()> {
        while self.rows.is_empty() {
            // Before the block is passed: an interrupted read goes on here.
            check()?;
            let next = if self.filter.descending { self.blocks.next_back() } else { self.blocks.next() };
            let Some(index) = next else { return Ok(()) };
            if self.has_wanted(index) {
                self.read(index)?;
            }
        }
        Ok(())
    }

    fn has_wanted(&self, index: usize) -> bool {
        let Some(wanted) = &self.wanted else { return true };
        let blocks = self.reader.blocks();
        let next = wanted.partition_point(|id| *id < blocks[index].first_id);
        let end = blocks.get(index + 1).map_or(i64::MAX, |block| block.first_id);
        wanted.get(next).is_some_and(|id| *id < end)
    }

    fn read(&mut self, index: usize) -> Result<()> {
        let Self { reader, filter, wanted, rows, .. } = self;
        let ids = filter.first_id()..=filter.last_id();
        let wants =
            |id: i64| ids.contains(&id) && wanted.as_ref().is_none_or(|wanted| wanted.binary_search(&id).is_ok());
        reader.each_row(index, wants, |row, _| {
            if filter.matches(&row) {
                if filter.descending { rows.push_front(row) } else { rows.push_back(row) }
            }
        })
    }
}
