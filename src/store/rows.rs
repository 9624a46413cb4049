//! Rows one by one, from the log, the archive, both, or one day's file; no transaction is open between pages.

use std::sync::Arc;
use std::vec::IntoIter;

use crate::archive::{ArchivedRows, UnionPages};
use crate::base::error::{Error, Result};
use crate::log::{Core, Pages};
use crate::row::LogEntry;

/// Rows that one step reads from a day's file.
const DAY_PAGE: usize = 256;

/// Rows in order, read as they are asked for. An error ends them, after the rows before it have been returned.
pub struct Rows {
    source: Source,
    page: IntoIter<LogEntry>,
    /// What comes after the page.
    failure: Option<Error>,
}

enum Source {
    Log(Pages),
    Day(Arc<Core>, Box<ArchivedRows>),
    Both(Box<UnionPages>),
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
        Self { source, page: Vec::new().into_iter(), failure: None }
    }

    /// The next row of the page that has been read; None if that takes reading another.
    pub fn next_buffered(&mut self) -> Option<LogEntry> {
        self.page.next()
    }

    /// The next row; None at the end.
    pub fn next_row(&mut self) -> Result<Option<LogEntry>> {
        if let Some(entry) = self.page.next() {
            return Ok(Some(entry));
        }
        if let Some(error) = self.failure.take() {
            return Err(error);
        }
        let page = match std::mem::replace(&mut self.source, Source::Ended) {
            Source::Ended => return Ok(None),
            Source::Log(mut pages) => {
                let page = pages.next_page()?;
                self.source = Source::Log(pages);
                page
            }
            Source::Both(mut pages) => {
                let page = pages.next_page()?;
                self.source = Source::Both(pages);
                page
            }
            Source::Day(core, mut rows) => {
                core.database().check_open()?;
                let page = self.read_day(&mut rows);
                if self.failure.is_none() {
                    self.source = Source::Day(core, rows);
                }
                page
            }
        };
        self.page = page.into_iter();
        match self.page.next() {
            Some(entry) => Ok(Some(entry)),
            None => self.failure.take().map_or(Ok(None), Err),
        }
    }

    /// Up to `most` rows; none at the end.
    pub fn take(&mut self, most: usize) -> Result<Vec<LogEntry>> {
        let mut rows = Vec::with_capacity(most);
        while rows.len() < most {
            match self.next_row() {
                Ok(Some(row)) => rows.push(row),
                Ok(None) => break,
                Err(error) if rows.is_empty() => return Err(error),
                Err(error) => {
                    self.failure = Some(error);
                    break;
                }
            }
        }
        Ok(rows)
    }

    fn read_day(&mut self, rows: &mut ArchivedRows) -> Vec<LogEntry> {
        let mut page = Vec::with_capacity(DAY_PAGE);
        while page.len() < DAY_PAGE {
            match rows.next_row() {
                Ok(Some(entry)) => page.push(entry),
                Ok(None) => break,
                // The rows before the damage are good, and are returned first.
                Err(error) => {
                    self.failure = Some(error);
                    break;
                }
            }
        }
        page
    }
}
