//! Iterators over rows, from the database or from an archive file.

use std::sync::{Arc, Mutex, PoisonError};
use std::vec::IntoIter;

use pyo3::prelude::*;
use pyo3::sync::MutexExt;

use super::entry::Row;
use crate::archive::{Archive, ArchivedRows, UnionPages};
use crate::error::{Error, Result};
use crate::log::{self, Log, Pages};

/// Rows that one step reads from an archive file.
const ARCHIVE_PAGE: usize = 256;

/// The rows of a filter or of an archived day, page by page; no transaction is open between steps.
#[pyclass(frozen, module = "nerve_store._core")]
pub(super) struct LogIterator {
    log: Arc<Log>,
    state: Mutex<State>,
}

struct State {
    source: Source,
    page: IntoIter<log::LogEntry>,
    /// What comes after the page.
    failure: Option<Error>,
}

enum Source {
    Database(Pages),
    Archive(ArchivedRows),
    Both(Box<UnionPages>, Arc<Archive>),
    Ended,
}

impl LogIterator {
    pub(super) fn over_pages(log: Arc<Log>, pages: Pages) -> Self {
        Self::over(log, Source::Database(pages))
    }

    pub(super) fn over_both(log: Arc<Log>, archive: Arc<Archive>, pages: UnionPages) -> Self {
        Self::over(log, Source::Both(Box::new(pages), archive))
    }

    pub(super) fn over_archive(log: Arc<Log>, rows: ArchivedRows) -> Self {
        Self::over(log, Source::Archive(rows))
    }

    fn over(log: Arc<Log>, source: Source) -> Self {
        Self { log, state: Mutex::new(State { source, page: Vec::new().into_iter(), failure: None }) }
    }
}

#[pymethods]
impl LogIterator {
    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Row>> {
        let buffered = self.state.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner).page.next();
        if let Some(entry) = buffered {
            return Ok(Some(Row(entry)));
        }
        let entry = py.detach(|| self.state.lock().unwrap_or_else(PoisonError::into_inner).refill(&self.log))?;
        Ok(entry.map(Row))
    }
}

#[pymethods]
impl LogIterator {
    /// Up to so many rows at once; none at the end.
    fn _take(&self, py: Python<'_>, most: usize) -> PyResult<Vec<Row>> {
        let rows = py.detach(|| -> Result<Vec<log::LogEntry>> {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let mut rows = Vec::with_capacity(most);
            while rows.len() < most {
                match state.refill(&self.log) {
                    Ok(Some(row)) => rows.push(row),
                    Ok(None) => break,
                    Err(error) if rows.is_empty() => return Err(error),
                    Err(error) => {
                        state.failure = Some(error);
                        break;
                    }
                }
            }
            Ok(rows)
        })?;
        Ok(rows.into_iter().map(Row).collect())
    }
}

impl State {
    /// The next row, after reading the next page if this one is used up. An error ends the iteration.
    fn refill(&mut self, log: &Log) -> Result<Option<log::LogEntry>> {
        if let Some(entry) = self.page.next() {
            return Ok(Some(entry));
        }
        if let Some(error) = self.failure.take() {
            return Err(error);
        }
        let page = match std::mem::replace(&mut self.source, Source::Ended) {
            Source::Ended => return Ok(None),
            Source::Database(mut pages) => {
                let page = pages.next_page(log)?;
                self.source = Source::Database(pages);
                page
            }
            Source::Both(mut pages, archive) => {
                let page = pages.next_page(log, &archive)?;
                self.source = Source::Both(pages, archive);
                page
            }
            Source::Archive(mut rows) => {
                log.database().check_open()?;
                let mut page = Vec::with_capacity(ARCHIVE_PAGE);
                while page.len() < ARCHIVE_PAGE {
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
                if self.failure.is_none() {
                    self.source = Source::Archive(rows);
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
}
