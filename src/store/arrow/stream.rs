//! Rows as a stream of batches, read as they are asked for.
#![expect(unsafe_code, reason = "functions that C calls")]

use std::ffi::{CString, c_char, c_int};
use std::mem;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::Arc;

use crate::base::error::{Error, Result};
use crate::row::{Filter, RawRow};
use crate::store::arrow::c_data::{ArrowArray, ArrowArrayStream, ArrowSchema};
use crate::store::arrow::columns::{Columns, schema};
use crate::store::handle::LogStore;
use crate::store::rows::{Rows, is_repeatable};

/// Where the rows of a stream come from.
pub trait Origin: Send {
    /// Calls `visit` with the next rows until it breaks; returns whether there may be more. Rows that it was called with
    /// before an error do not come again.
    fn each_raw(&mut self, visit: &mut dyn FnMut(RawRow<'_>) -> Result<ControlFlow<()>>) -> Result<bool>;
}

/// The rows of a log on this machine.
struct Own {
    store: Arc<LogStore>,
    rows: Rows,
}

impl Origin for Own {
    fn each_raw(&mut self, visit: &mut dyn FnMut(RawRow<'_>) -> Result<ControlFlow<()>>) -> Result<bool> {
        self.store.log().database().check_open()?;
        self.rows.each_raw(visit)
    }
}

/// What a stream keeps.
struct State {
    /// None: it has ended.
    origin: Option<Box<dyn Origin>>,
    /// The batch that is being read.
    columns: Columns,
    batch_rows: usize,
    /// What went wrong last.
    message: CString,
}

/// The rows of [`LogStore::query`] that there are now, in batches of at most so many.
pub fn stream(store: &Arc<LogStore>, filter: Filter, archived: bool, batch_rows: usize) -> Result<ArrowArrayStream> {
    let rows = store.iter(filter, archived)?;
    Ok(stream_of(Box::new(Own { store: Arc::clone(store), rows }), batch_rows))
}

/// The rows of `origin`, in batches of at most so many.
pub fn stream_of(origin: Box<dyn Origin>, batch_rows: usize) -> ArrowArrayStream {
    let state = State { origin: Some(origin), columns: Columns::default(), batch_rows, message: CString::default() };
    ArrowArrayStream {
        get_schema: Some(get_schema),
        get_next: Some(get_next),
        get_last_error: Some(get_last_error),
        release: Some(release),
        private_data: Box::into_raw(Box::new(state)).cast(),
    }
}

impl ArrowArrayStream {
    /// What stands in the place of a stream that was moved away.
    pub fn moved() -> Self {
        Self { get_schema: None, get_next: None, get_last_error: None, release: None, private_data: ptr::null_mut() }
    }

    /// Frees what it holds, unless that was done or it was moved away.
    pub fn release(&mut self) {
        if let Some(release) = self.release {
            // SAFETY: the struct is whole, and this is its own function.
            unsafe { release(self) };
        }
    }
}

impl State {
    /// The next rows; the end of the stream if there are none. A call that was interrupted is repeated; any other error is
    /// the end.
    fn next_batch(&mut self) -> Result<ArrowArray> {
        let batch = self.read_batch();
        if batch.as_ref().err().is_some_and(|error| !is_repeatable(error)) {
            (self.origin, self.columns) = (None, Columns::default());
        }
        batch
    }

    fn read_batch(&mut self) -> Result<ArrowArray> {
        let Self { origin, columns, batch_rows, .. } = self;
        while let Some(rows) = origin
            && columns.len() < *batch_rows
            && !columns.is_full()
        {
            let is_more = rows.each_raw(&mut |row| {
                columns.push(row);
                let is_whole = columns.len() >= *batch_rows || columns.is_full();
                Ok(if is_whole { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })?;
            if !is_more {
                break;
            }
        }
        columns.check()?;
        let columns = mem::take(columns);
        Ok(if columns.len() == 0 { ArrowArray::end() } else { columns.into_array() })
    }
}

/// The state of a stream.
///
/// # Safety
///
/// The stream is one that [`stream`] made and that was not released; one thread at a time uses it.
unsafe fn state<'a>(stream: *mut ArrowArrayStream) -> &'a mut State {
    // SAFETY: `stream` put it there; the caller answers for the rest.
    unsafe { &mut *(*stream).private_data.cast::<State>() }
}

unsafe extern "C" fn get_schema(_: *mut ArrowArrayStream, out: *mut ArrowSchema) -> c_int {
    // SAFETY: the interface demands a place to write to.
    unsafe { out.write(schema()) };
    0
}

unsafe extern "C" fn get_next(stream: *mut ArrowArrayStream, out: *mut ArrowArray) -> c_int {
    // SAFETY: the interface demands a stream that was not released, and one caller at a time.
    let state = unsafe { state(stream) };
    let batch = catch_unwind(AssertUnwindSafe(|| state.next_batch())).unwrap_or(Err(Error::Internal));
    match batch {
        Ok(batch) => {
            // SAFETY: the interface demands a place to write to.
            unsafe { out.write(batch) };
            0
        }
        Err(error) => {
            state.message = CString::new(error.to_string().replace('\0', "\u{fffd}")).unwrap_or_default();
            libc::EIO
        }
    }
}

unsafe extern "C" fn get_last_error(stream: *mut ArrowArrayStream) -> *const c_char {
    // SAFETY: as in `get_next`.
    unsafe { state(stream) }.message.as_ptr()
}

unsafe extern "C" fn release(stream: *mut ArrowArrayStream) {
    // SAFETY: as in `get_next`; the state is freed once, since the stream is marked as released.
    unsafe {
        drop(Box::from_raw((*stream).private_data.cast::<State>()));
        (*stream).release = None;
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::base::interrupt::Scope;
    use crate::row::NewLogEntry;
    use crate::store::StoreConfig;

    #[test]
    fn batches_have_at_most_so_many_rows_and_are_freed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("logs.db");
        let store = Arc::new(LogStore::open(&path, StoreConfig::default(), &mut |_, _| Ok(())).unwrap());
        let row = |payload| NewLogEntry { source: "s", kind: "t", ref_id: None, payload, timestamp: Some(1) };
        let rows: Vec<_> = (0..10).map(|number| row((number % 3 == 0).then_some("x"))).collect();
        store.log().append_many(&rows, None).unwrap();
        let mut opened = stream(&store, Filter::default(), false, 4).unwrap();
        let mut lengths = Vec::new();
        loop {
            let mut batch = ArrowArray::end();
            // SAFETY: the stream and the place are whole.
            assert_eq!(unsafe { opened.get_next.unwrap()(&raw mut opened, &raw mut batch) }, 0);
            if batch.is_end() {
                break;
            }
            lengths.push(batch.len());
            batch.release();
            assert!(batch.is_end());
        }
        assert_eq!(lengths, [4, 4, 2]);
        store.close().unwrap();
        let mut batch = ArrowArray::end();
        // SAFETY: the same.
        assert_eq!(unsafe { opened.get_next.unwrap()(&raw mut opened, &raw mut batch) }, libc::EIO);
        opened.release();
        schema().release();
    }

    #[test]
    fn a_batch_that_is_interrupted_goes_on_where_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("logs.db");
        let store = Arc::new(LogStore::open(&path, StoreConfig::default(), &mut |_, _| Ok(())).unwrap());
        let row = NewLogEntry { source: "s", kind: "t", ref_id: None, payload: Some("x"), timestamp: Some(1) };
        store.log().append_many(&vec![row; 40_000], None).unwrap();
        let rows = store.iter(Filter::default(), false).unwrap();
        let origin: Box<dyn Origin> = Box::new(Own { store: Arc::clone(&store), rows });
        let (columns, message) = (Columns::default(), CString::default());
        let mut state = State { origin: Some(origin), columns, batch_rows: 30_000, message };
        let mut interruptions = 0;
        let mut lengths = Vec::new();
        loop {
            // Each attempt is stopped a little later.
            let deadline = Some(Instant::now() + Duration::from_micros(200) * interruptions);
            match (Scope { deadline, ..Scope::default() }).enter(|| state.next_batch()) {
                Ok(batch) if batch.is_end() => break,
                Ok(mut batch) => {
                    lengths.push(batch.len());
                    batch.release();
                }
                Err(error) => {
                    assert!(matches!(error, Error::TimedOut), "{error}");
                    interruptions += 1;
                }
            }
        }
        assert!(interruptions > 2);
        assert_eq!(lengths, [30_000, 10_000]);
    }
}
