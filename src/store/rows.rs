//! Rows one by one, from the log, the archive, both, or one day's file; no transaction is open between pages.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::vec::IntoIter;

use crate::archive::{ArchivedRows, UnionPages};
use crate::base::error::{Error, Result};
use crate::base::interrupt::check;
use crate::log::{Core, Pages};
use crate::row::{LogEntry, RawRow};

/// Rows that one step reads from a day's file.
const DAY_PAGE: usize = 256;

/// Rows in order, read as they are asked for. An error comes after the rows before it, and each time again: a caller that
/// goes on does not take it for the end.
pub struct Rows {
    source: Source,
    page: IntoIter<LogEntry>,
}

enum Source {
    Log(Pages),
    Day(Arc<Core>, Box<ArchivedRows>),
    Both(Box<UnionPages>),
    Failed(Error),
    Ended,
}

impl Rows {
    pub(super) fn of_log(pages: Pages) -> Self {
        Self::of(Source::Log(pages))
    }

    pub(super) fn of_both(pages: UnionPages) -> Self {
        Self::of(Source::Both(Box::new(pages)))
    }

    pub(super) fn of_day(core: Arc<Core>, rows: ArchivedRows) -> Self {
        Self::of(Source::Day(core, Box::new(rows)))
    }

    fn of(source: Source) -> Self {
        Self { source, page: Vec::new().into_iter() }
    }

    /// The next row of the page that has been read; None if that takes reading another.
    pub fn next_buffered(&mut self) -> Option<LogEntry> {
        self.page.next()
    }

    /// Up to `most` rows of the page that has been read.
    pub fn take_buffered(&mut self, most: usize) -> Vec<LogEntry> {
        self.page.by_ref().take(most).collect()
    }

    /// Whether there are no more rows.
    pub fn is_ended(&self) -> bool {
        matches!(self.source, Source::Ended) && self.page.len() == 0
    }

    /// The next row; None at the end.
    pub fn next_row(&mut self) -> Result<Option<LogEntry>> {
        self.fill()?;
        Ok(self.next_buffered())
    }

    /// Calls `visit` with the next rows until it breaks, without making rows of what SQLite holds; returns whether there
    /// may be more. Rows that it was called with before an error do not come again.
    pub(super) fn each_raw(&mut self, visit: &mut dyn FnMut(RawRow<'_>) -> Result<ControlFlow<()>>) -> Result<bool> {
        if let Source::Log(pages) = &mut self.source {
            let outcome = pages.each_raw(visit);
            self.end_after(&outcome);
            return outcome;
        }
        if let Source::Both(pages) = &mut self.source
            && self.page.len() == 0
        {
            let outcome = pages.each_raw(visit);
            self.end_after(&outcome);
            return outcome;
        }
        self.fill()?;
        while let Some(row) = self.next_buffered() {
            if visit(RawRow::from(&row))?.is_break() {
                break;
            }
        }
        Ok(!self.is_ended())
    }

    /// Reads the next page unless rows are buffered; afterwards none are at the end. An interrupted read can be repeated.
    pub fn fill(&mut self) -> Result<()> {
        if self.page.len() > 0 {
            return Ok(());
        }
        let page = match &mut self.source {
            Source::Ended => return Ok(()),
            Source::Failed(error) => return Err(error.clone()),
            Source::Log(pages) => pages.next_page().map(|page| (page, None)),
            Source::Both(pages) => pages.next_page().map(|page| (page, None)),
            Source::Day(core, rows) => core.database().check_open().and_then(|()| read_day(rows)),
        };
        self.end_after(&page);
        let (page, failure) = page?;
        if let Some(error) = failure {
            self.source = Source::Failed(error);
        } else if page.is_empty() {
            self.source = Source::Ended;
        }
        self.page = page.into_iter();
        match &self.source {
            Source::Failed(error) if self.page.len() == 0 => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// Ends the rows with an error, unless the read can be repeated.
    fn end_after<T>(&mut self, outcome: &Result<T>) {
        if let Some(error) = outcome.as_ref().err().filter(|error| !is_repeatable(error)) {
            self.source = Source::Failed(error.clone());
        }
    }
}

/// Whether a read that ended so goes on where it was.
pub(super) fn is_repeatable(error: &Error) -> bool {
    matches!(error, Error::Paused | Error::Cancelled | Error::TimedOut)
}

/// The next rows of a day's file, and the error after them.
fn read_day(rows: &mut ArchivedRows) -> Result<(Vec<LogEntry>, Option<Error>)> {
    let mut page = Vec::with_capacity(DAY_PAGE);
    while page.len() < DAY_PAGE {
        if let Err(interrupted) = check() {
            return if page.is_empty() { Err(interrupted) } else { Ok((page, None)) };
        }
        match rows.next_row() {
            Ok(Some(entry)) => page.push(entry),
            Ok(None) => break,
            // The rows before the damage are good, and are returned first.
            Err(error) => return Ok((page, Some(error))),
        }
    }
    Ok((page, None))
}
