//! The rows of one day's file that a filter wants, one block in memory.

use std::collections::VecDeque;
use std::path::Path;

use crate::archive::file::reader::DayReader;
use crate::archive::manifest::candidates::DayCandidate;
use crate::archive::manifest::catalog::{Archive, OpenDay};
use crate::archive::manifest::examine::patiently;
use crate::base::digest::Digest;
use crate::base::error::Result;
use crate::base::interrupt::check;
use crate::base::time::UtcDay;
use crate::row::{Filter, LogEntry};

/// Walks through a day's file in the order of a filter.
pub(crate) struct DayCursor {
    candidate: DayCandidate,
    reader: DayReader,
    sha256: Digest,
    /// What is still to come.
    filter: Filter,
    /// The ids that may be wanted, ascending; None: any.
    wanted: Option<Vec<i64>>,
    /// Blocks that have not been read, by number.
    blocks: std::ops::Range<usize>,
    rows: VecDeque<LogEntry>,
}

impl DayCursor {
    /// The rows that match `filter`, its limit aside; of these only the ones that the candidate wants.
    pub(crate) fn new(candidate: DayCandidate, open: OpenDay, filter: Filter) -> Self {
        let wanted = candidate.wanted.as_ref().map(|ids| ids.iter().map(u64::cast_signed).collect());
        Self {
            blocks: blocks_of(&open.reader, &filter),
            sha256: open.summary.sha256,
            reader: open.reader,
            candidate,
            filter,
            wanted,
            rows: VecDeque::new(),
        }
    }

    pub(crate) fn day(&self) -> UtcDay {
        self.reader.day()
    }

    pub(crate) fn path(&self) -> &Path {
        self.reader.path()
    }

    /// The sha256 of the file.
    pub(crate) fn sha256(&self) -> Digest {
        self.sha256
    }

    pub(crate) fn candidate(&self) -> &DayCandidate {
        &self.candidate
    }

    /// Whether it holds a descriptor.
    pub(crate) fn is_open(&self) -> bool {
        self.reader.is_open()
    }

    /// Whether the next row takes reading the file.
    pub(crate) fn is_drained(&self) -> bool {
        self.rows.is_empty() && !self.blocks.is_empty()
    }

    /// Gives the descriptor back until a block is read.
    pub(crate) fn close(&mut self) {
        self.reader.close();
    }

    /// The id of the next row.
    pub(crate) fn peek(&mut self, archive: &Archive) -> Result<Option<i64>> {
        self.fill(archive)?;
        Ok(self.rows.front().map(|row| row.id))
    }

    /// The next row, of those that [`DayCursor::peek`] has read.
    pub(crate) fn next_row(&mut self) -> Option<LogEntry> {
        let row = self.rows.pop_front()?;
        let bound = if self.filter.descending { &mut self.filter.before_id } else { &mut self.filter.after_id };
        *bound = Some(row.id);
        Some(row)
    }

    /// Reads blocks until there is a row, or no block is left.
    fn fill(&mut self, archive: &Archive) -> Result<()> {
        while self.rows.is_empty() && !self.blocks.is_empty() {
            // Before the block is passed: an interrupted read goes on here.
            check()?;
            if !self.reader.is_open() && !self.reader.reopen()? {
                // A job has published another file, which has all of its rows.
                let Some(open) = archive.open_candidate(&self.candidate)? else {
                    self.blocks = 0..0;
                    return Ok(());
                };
                self.blocks = blocks_of(&open.reader, &self.filter);
                (self.sha256, self.reader) = (open.summary.sha256, open.reader);
                continue;
            }
            let next = if self.filter.descending { self.blocks.next_back() } else { self.blocks.next() };
            if let Some(index) = next.filter(|index| self.has_wanted(*index)) {
                patiently(|| self.read(index))?;
            }
        }
        if self.blocks.is_empty() {
            self.reader.close();
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

/// The blocks that may hold rows of the filter.
fn blocks_of(reader: &DayReader, filter: &Filter) -> std::ops::Range<usize> {
    let blocks = reader.blocks();
    // The block before the first that begins above the first id may hold it.
    let first = blocks.partition_point(|block| block.first_id <= filter.first_id()).saturating_sub(1);
    let end = blocks.partition_point(|block| block.first_id <= filter.last_id());
    first..end.max(first)
}
