//! Rows that Python code read elsewhere: those of the log on PostgreSQL.
#![expect(unsafe_code, reason = "an interrupt is raised again")]

use std::ops::ControlFlow;

use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};

use crate::base::error::{Error, Result};
use crate::py::entry::{LogEntry, Row};
use crate::py::interpreter;
use crate::py::results::List;
use crate::row::{self, CopiedRows, Entries, RawRow, of_record, unmarked_bytes};
use crate::store::arrow::Origin;

/// The rows in what a server returned: of each the `record_send` of a `LogEntry`'s fields, in a tuple.
///
/// Their texts are as PostgreSQL stores them.
#[pyfunction]
pub(super) fn stored_rows(rows: &Bound<'_, PyList>) -> PyResult<List<Row>> {
    let mut found = Vec::with_capacity(rows.len());
    let mut entries = Entries::new(|entry| found.push(Row(entry)));
    for row in rows {
        let row = row.cast_into::<PyTuple>()?;
        push(&mut entries, of_record(row.get_borrowed_item(0)?.cast::<PyBytes>()?.as_bytes())?)?;
    }
    entries.finish()?;
    drop(entries);
    Ok(List(found))
}

/// The rows in whole messages of a binary COPY of a `LogEntry`'s fields, with texts as PostgreSQL stores them.
#[pyfunction]
pub(super) fn copied_rows(data: &[u8]) -> PyResult<List<Row>> {
    let mut found = Vec::new();
    let mut entries = Entries::new(|entry| found.push(Row(entry)));
    CopiedRows::new(data)?.try_for_each(|row| push(&mut entries, row?))?;
    entries.finish()?;
    drop(entries);
    Ok(List(found))
}

fn push(entries: &mut Entries<impl FnMut(row::LogEntry)>, sent: RawRow<'_>) -> Result<()> {
    let (source, kind, ref_id, payload) = sent.texts;
    let (source, kind) = (unmarked_bytes(source), unmarked_bytes(kind));
    let (ref_id, payload) = (ref_id.map(unmarked_bytes), payload.map(unmarked_bytes));
    entries.push(RawRow { texts: (&source, &kind, ref_id.as_deref(), payload.as_deref()), ..sent })
}

/// The rows that a callable of Python's returns, page by page.
pub(super) struct Pages {
    next: Py<PyAny>,
    page: Vec<Py<LogEntry>>,
    /// How many of the page were read.
    position: usize,
}

impl Pages {
    pub(super) fn new(next: Py<PyAny>) -> Self {
        Self { next, page: Vec::new(), position: 0 }
    }

    /// Reads the next page, which is empty at the end.
    fn turn(&mut self) -> Result<()> {
        let page = interpreter::attach(|py| {
            let page = self.next.bind(py).call0().and_then(|page| page.extract());
            page.map_err(|error| told(py, &error))
        });
        // None: the interpreter is ending.
        (self.page, self.position) = (page.unwrap_or(Err(Error::Cancelled))?, 0);
        Ok(())
    }
}

impl Origin for Pages {
    fn each_raw(&mut self, visit: &mut dyn FnMut(RawRow<'_>) -> Result<ControlFlow<()>>) -> Result<bool> {
        if self.position == self.page.len() {
            self.turn()?;
        }
        while let Some(row) = self.page.get(self.position) {
            self.position += 1;
            if visit(RawRow::from(&row.get().0))?.is_break() {
                return Ok(true);
            }
        }
        Ok(!self.page.is_empty())
    }
}

/// The error of a stream, which has no place for an exception but its words.
fn told(py: Python<'_>, error: &PyErr) -> Error {
    if error.is_instance_of::<PyKeyboardInterrupt>(py) {
        // The reader raises an error of its own, and the interrupt comes again after it.
        // SAFETY: the thread is attached.
        unsafe { ffi::PyErr_SetInterrupt() };
    }
    Error::Value(error.value(py).to_string())
}
