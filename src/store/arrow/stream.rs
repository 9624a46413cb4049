//! Rows as a stream of batches, read as they are asked for.
#![expect(unsafe_code, reason = "functions that C calls")]

use std::ffi::{CString, c_char, c_int};
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::Arc;

use crate::base::error::{Error, Result};
use crate::base::ids::IdSpan;
use crate::base::parallel::cores;
use crate::row::{Filter, RawRow};
use crate::store::arrow::c_data::{ArrowArray, ArrowArrayStream, ArrowSchema};
use crate::store::arrow::columns::schema;
use crate::store::arrow::parts::{Divisible, Origin, Parts};
use crate::store::handle::LogStore;
use crate::store::rows::Rows;

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

/// Rows of a log between two ids, in parts.
struct Spans {
    store: Arc<LogStore>,
    filter: Filter,
    archived: bool,
    /// What is left.
    ids: Option<IdSpan>,
}

impl Divisible for Spans {
    fn next_part(&mut self, rows: u64) -> Result<Option<Box<dyn Origin>>> {
        let Some(ids) = self.ids else { return Ok(None) };
        let more = i64::try_from(rows.saturating_sub(1)).unwrap_or(i64::MAX);
        let (part, rest) = if self.filter.descending {
            let first = ids.last.saturating_sub(more).max(ids.first);
            (IdSpan { first, ..ids }, first.checked_sub(1).and_then(|last| IdSpan::new(ids.first, last)))
        } else {
            let last = ids.first.saturating_add(more).min(ids.last);
            (IdSpan { last, ..ids }, last.checked_add(1).and_then(|first| IdSpan::new(first, ids.last)))
        };
        let rows = self.store.iter_ids(self.filter.clone(), self.archived, part)?;
        self.ids = rest;
        Ok(Some(Box::new(Own { store: Arc::clone(&self.store), rows })))
    }

    fn check(&self) -> Result<()> {
        self.store.log().database().check_open()
    }
}

/// Rows that are read in parts at the least: fewer are read in the time that it takes to start threads and to look how many
/// there are.
const DIVIDED_ROWS: u64 = 65_536;

/// Rows of a batch at the least where they are read in parts.
const DIVIDED_BATCH_ROWS: usize = 16_384;

/// Threads that read a stream at the most: each has a connection, of which that many stay open.
const MOST_THREADS: usize = 4;

/// The rows that match there are now, if they are many, and lie so close together that they can be divided by their ids.
fn divided(store: &Arc<LogStore>, filter: &Filter, archived: bool) -> Result<Option<Spans>> {
    if filter.source.is_some() || filter.kind.is_some() || filter.ref_id.is_some() || filter.limit.is_some() {
        return Ok(None);
    }
    let Some((ids, rows)) = store.extent(filter, archived, DIVIDED_ROWS)? else { return Ok(None) };
    let is_dense = rows >= DIVIDED_ROWS && ids.len() / 2 <= rows;
    let (store, filter, ids) = (Arc::clone(store), filter.clone(), Some(ids));
    Ok(is_dense.then_some(Spans { store, filter, archived, ids }))
}

/// What a stream keeps.
struct State {
    parts: Parts,
    /// What went wrong last.
    message: CString,
}

/// The rows of [`LogStore::query`] that there are now, in batches of at most so many.
pub fn stream(store: &Arc<LogStore>, filter: Filter, archived: bool, batch_rows: usize) -> Result<ArrowArrayStream> {
    let threads = cores().min(MOST_THREADS);
    if threads > 1
        && batch_rows >= DIVIDED_BATCH_ROWS
        && let Some(spans) = divided(store, &filter, archived)?
    {
        return Ok(opened(Parts::divided(Box::new(spans), threads, batch_rows)));
    }
    let rows = store.iter(filter, archived)?;
    Ok(stream_of(Box::new(Own { store: Arc::clone(store), rows }), batch_rows))
}

/// The rows of `origin`, in batches of at most so many.
pub fn stream_of(origin: Box<dyn Origin>, batch_rows: usize) -> ArrowArrayStream {
    opened(Parts::undivided(origin, batch_rows))
}

fn opened(parts: Parts) -> ArrowArrayStream {
    let state = State { parts, message: CString::default() };
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
    /// The next rows; the end of the stream if there are none.
    fn next_batch(&mut self) -> Result<ArrowArray> {
        let columns = self.parts.next_batch()?;
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
        let mut unread = stream(&store, Filter::default(), false, 4).unwrap();
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
        assert_eq!(unsafe { unread.get_next.unwrap()(&raw mut unread, &raw mut batch) }, libc::EIO);
        opened.release();
        unread.release();
        schema().release();
    }

    #[test]
    fn many_rows_that_lie_close_together_are_divided() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("logs.db");
        let store = Arc::new(LogStore::open(&path, StoreConfig::default(), &mut |_, _| Ok(())).unwrap());
        let row = |timestamp| NewLogEntry { source: "s", kind: "t", ref_id: None, payload: None, timestamp };
        let rows: Vec<_> = (0..100_000).map(|number| row(Some(number))).collect();
        store.log().append_many(&rows, None).unwrap();
        store
            .log()
            .core()
            .database()
            .write("test", None, |connection| {
                Ok(connection.execute_batch("DELETE FROM logs WHERE id % 10 = 0 OR id BETWEEN 50001 AND 60000")?)
            })
            .unwrap();
        let all = Filter::default();
        let since = Filter { since: Some(10_000), ..all.clone() };
        let some = Filter { after_id: Some(15_005), before_id: Some(99_995), ..all.clone() };
        let downwards = Filter { descending: true, ..all.clone() };
        for filter in [all, since, some, downwards] {
            let spans = divided(&store, &filter, false).unwrap().unwrap();
            store.log().append_many(&[row(Some(200_000))], None).unwrap();
            let mut parts = Parts::divided(Box::new(spans), 3, 65_536);
            let mut found = Vec::new();
            loop {
                let batch = parts.next_batch().unwrap();
                if batch.len() == 0 {
                    break;
                }
                found.extend_from_slice(batch.ids());
            }
            let mut expected: Vec<_> = store.query(&filter, false).unwrap().iter().map(|entry| entry.id).collect();
            if filter.before_id.is_none() {
                // Appended after the reading began.
                expected.remove(if filter.descending { 0 } else { expected.len() - 1 });
            }
            assert_eq!(found, expected);
        }
        let few = Filter { since: Some(90_000), ..Filter::default() };
        let named = Filter { kind: Some("t".to_owned()), ..Filter::default() };
        for filter in [few, named, Filter { limit: Some(90_000), ..Filter::default() }] {
            assert!(divided(&store, &filter, false).unwrap().is_none());
        }
        let spans = divided(&store, &Filter::default(), false).unwrap().unwrap();
        let mut parts = Parts::divided(Box::new(spans), 2, 65_536);
        assert!(parts.next_batch().unwrap().len() > 0);
        store.close().unwrap();
        assert!(matches!(parts.next_batch(), Err(Error::Closed { .. })));
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
        let mut state = State { parts: Parts::undivided(origin, 30_000), message: CString::default() };
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
