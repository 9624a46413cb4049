//! The rows of one day's file that a filter wants, one block in memory.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::path::Path;

use crate::archive::file::reader::DayReader;
use crate::archive::manifest::candidates::DayCandidate;
use crate::archive::manifest::catalog::{Archive, OpenDay};
use crate::archive::manifest::examine::patiently;
use crate::base::digest::Digest;
use crate::base::error::Result;
use crate::base::interrupt::check;
use crate::base::time::UtcDay;
use crate::row::{Entries, Filter, LogEntry, RawRow};

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

    /// Calls `visit` with the rows below the id `end`, ascending, until it breaks; returns whether it did. Most of them
    /// are passed on where they lie. Rows that it was called with before an error do not come again.
    pub(crate) fn each_raw(&mut self, archive: &Archive, end: i64, visit: &mut VisitRaw<'_>) -> Result<bool> {
        while self.rows.front().is_some_and(|row| row.id < end)
            && let Some(row) = self.next_row()
        {
            if visit(RawRow::from(&row))?.is_break() {
                return Ok(true);
            }
        }
        let mut is_broken = false;
        while self.rows.is_empty()
            && !is_broken
            && let Some(index) = self.next_block(archive)?
        {
            let Self { reader, filter, wanted, rows, .. } = self;
            let (mut last, conditions) = (None, filter.clone());
            let mut later = Entries::new(|row| rows.push_back(row));
            let read = each_wanted(reader, index, &conditions, wanted.as_deref(), |row| {
                if is_broken || row.id >= end {
                    return later.push(row);
                }
                last = Some(row.id);
                is_broken = visit(row)?.is_break();
                Ok(())
            });
            let read = read.and_then(|()| later.finish());
            filter.after_id = last.or(filter.after_id);
            read?;
        }
        Ok(is_broken)
    }

    /// Reads blocks until there is a row, or no block is left.
    fn fill(&mut self, archive: &Archive) -> Result<()> {
        while self.rows.is_empty()
            && let Some(index) = self.next_block(archive)?
        {
            let Self { reader, filter, wanted, rows, .. } = self;
            let descending = filter.descending;
            let mut entries = Entries::new(|row| if descending { rows.push_front(row) } else { rows.push_back(row) });
            each_wanted(reader, index, filter, wanted.as_deref(), |row| entries.push(row))?;
            entries.finish()?;
        }
        Ok(())
    }

    /// Reads the next block that may hold wanted rows; returns its number, or None at the end.
    fn next_block(&mut self, archive: &Archive) -> Result<Option<usize>> {
        while !self.blocks.is_empty() {
            // Before the block is passed: an interrupted read goes on here.
            check()?;
            if !self.reader.is_open() && !self.reader.reopen()? {
                // A job has published another file, which has all of its rows.
                let Some(open) = archive.open_candidate(&self.candidate)? else {
                    self.blocks = 0..0;
                    return Ok(None);
                };
                self.blocks = blocks_of(&open.reader, &self.filter);
                (self.sha256, self.reader) = (open.summary.sha256, open.reader);
                continue;
            }
            // The block is passed once it has been read: an interrupted wait for a file goes on with it.
            let index = if self.filter.descending { self.blocks.end - 1 } else { self.blocks.start };
            let is_wanted = self.has_wanted(index);
            if is_wanted {
                patiently(|| self.reader.block(index))?;
            }
            if self.filter.descending {
                self.blocks.end -= 1
            } else {
                self.blocks.start += 1
            }
            if self.blocks.is_empty() {
                self.reader.close();
            }
            if is_wanted {
                return Ok(Some(index));
            }
        }
        self.reader.close();
        Ok(None)
    }

    fn has_wanted(&self, index: usize) -> bool {
        let Some(wanted) = &self.wanted else { return true };
        let blocks = self.reader.blocks();
        let next = wanted.partition_point(|id| *id < blocks[index].first_id);
        let end = blocks.get(index + 1).map_or(i64::MAX, |block| block.first_id);
        wanted.get(next).is_some_and(|id| *id < end)
    }
}

/// Is called with rows as they lie in a file, until it breaks.
pub(crate) type VisitRaw<'a> = dyn FnMut(RawRow<'_>) -> Result<ControlFlow<()>> + 'a;

/// Calls `visit` with the rows of the block that was read last that match, in the order of the file.
fn each_wanted(
    reader: &DayReader,
    index: usize,
    filter: &Filter,
    wanted: Option<&[i64]>,
    mut visit: impl FnMut(RawRow<'_>) -> Result<()>,
) -> Result<()> {
    let ids = filter.first_id()..=filter.last_id();
    let wants = |id: i64| ids.contains(&id) && wanted.is_none_or(|wanted| wanted.binary_search(&id).is_ok());
    reader.each_line_of_last(index, wants, |row, _| if filter.matches(&row) { visit(row) } else { Ok(()) })
}

/// The blocks that may hold rows of the filter.
fn blocks_of(reader: &DayReader, filter: &Filter) -> std::ops::Range<usize> {
    let blocks = reader.blocks();
    // The block before the first that begins above the first id may hold it.
    let first = blocks.partition_point(|block| block.first_id <= filter.first_id()).saturating_sub(1);
    let end = blocks.partition_point(|block| block.first_id <= filter.last_id());
    first..end.max(first)
}
