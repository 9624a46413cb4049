//! How a connection waits for locks, and lets its statements be interrupted.
#![expect(unsafe_code, reason = "SQLite's busy handler with an argument, which rusqlite does not pass")]

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ffi};

use crate::base::interrupt::{check, check_wait};

/// Instructions of SQLite's machine between two looks at interruptions: some 50 µs.
const INSTRUCTIONS: c_int = 4_096;

/// Between two attempts to take a lock.
const PAUSE: Duration = Duration::from_millis(1);

thread_local! {
    static BEGAN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Lets every statement of the connection end when the call that runs it is interrupted.
pub(super) fn interrupt_statements(connection: &mut Connection) -> rusqlite::Result<()> {
    connection.progress_handler(INSTRUCTIONS, Some(|| check().is_err()))
}

/// Has the connection wait for locks for so long, unless the call is interrupted. SQLite's own waiting notices nothing.
pub(super) fn wait_for_locks(connection: &Connection, timeout: Duration) {
    let milliseconds = usize::try_from(timeout.as_millis()).unwrap_or(usize::MAX);
    // SAFETY: the handle is open for as long as the borrow; the argument is a number and no pointer.
    unsafe { ffi::sqlite3_busy_handler(connection.handle(), Some(is_to_wait), milliseconds as *mut c_void) };
}

unsafe extern "C" fn is_to_wait(milliseconds: *mut c_void, attempts: c_int) -> c_int {
    if attempts == 0 {
        BEGAN.set(Some(Instant::now()));
    }
    let timeout = Duration::from_millis(milliseconds as usize as u64);
    let waited = BEGAN.get().map_or(Duration::ZERO, |began| began.elapsed());
    if waited >= timeout || check_wait().is_err() {
        return 0;
    }
    std::thread::sleep(PAUSE.min(timeout));
    1
}
