//! SQLite in a forked child.
//!
//! SQLite keeps tables of a process's open databases and of the locks that the process holds on them. A child inherits
//! the tables but not the locks, so that a connection of its own on the same file would hold locks in name only: the
//! parent would take itself for the last user of the file and remove the log that the child is still writing to. A
//! mutex that another thread of the parent held at the moment of the fork would stay locked for ever. Therefore:
//!
//! - SQLite is told another device for the same file in each generation of processes. The tables' inherited entries
//!   match nothing that the child opens; the child's own entries are made, and its own locks taken, from the beginning.
//! - The thread that forks holds all global mutexes of SQLite meanwhile, so that the tables are whole in the child. They
//!   are held for a system call at the most, never while a statement runs.
//! - What is inherited cannot reach the files: its descriptors lead nowhere, and its memory shared with other processes
//!   is exchanged for memory of the child's own. Inherited connections are never closed ([`Link`]), since that would
//!   remove files by their names.
//!
//! So a fork waits for no statement, and a child depends on nothing that its parent does afterwards.
#![expect(unsafe_code, reason = "SQLite's mutexes, and what runs at a fork")]

use std::cell::Cell;
use std::ffi::c_int;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ffi};

use crate::base::error::{Error, Result};
use crate::base::fork::{self, Generation};
use crate::db::system;

/// How long a fork waits for SQLite's mutexes. None is held for more than a system call: a thread that holds one for so
/// long hangs on a dead file system.
const LONGEST_WAIT: Duration = if cfg!(test) { Duration::from_millis(100) } else { Duration::from_secs(5) };
const PAUSE: Duration = Duration::from_micros(20);

/// SQLite's static mutexes have the numbers from here on.
const FIRST_MUTEX: c_int = 2;
const MUTEXES: usize = (system::MUTEX - FIRST_MUTEX + 1) as usize;

static GLOBAL_MUTEXES: [AtomicPtr<ffi::sqlite3_mutex>; MUTEXES] =
    [const { AtomicPtr::new(std::ptr::null_mut()) }; MUTEXES];

/// This process was forked while a mutex could not be had, and SQLite's tables may be in any state.
static IS_UNUSABLE: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// This thread is forking, and holds the mutexes.
    static HOLDS_MUTEXES: Cell<bool> = const { Cell::new(false) };
}

/// Makes this process's SQLite ready for forks. To be called once before other threads may fork, and before any
/// connection is opened.
pub fn prepare() {
    static PREPARE: Once = Once::new();
    PREPARE.call_once(|| {
        fork::watch();
        // What SQLite and rusqlite do once in a process is done here, not in the middle of a fork.
        drop(Connection::open_in_memory());
        for (number, mutex) in (FIRST_MUTEX..).zip(&GLOBAL_MUTEXES) {
            // SAFETY: SQLite is initialized, and these mutexes live for ever.
            mutex.store(unsafe { ffi::sqlite3_mutex_alloc(number) }, Ordering::Relaxed);
        }
        system::replace_calls();
        // SAFETY: the handlers live for ever. They call nothing but system calls, mutexes that the forking thread holds,
        // and atomics, which is allowed in a forked child. A failure (out of memory) leaves forks unprepared.
        unsafe { libc::pthread_atfork(Some(before), Some(after_in_parent), Some(after_in_child)) };
    });
}

/// An error if SQLite cannot be used in this process.
pub(super) fn check_usable(path: &Path) -> Result<()> {
    match IS_UNUSABLE.load(Ordering::Relaxed) {
        false => Ok(()),
        true => Err(Error::ForkedAmidWork { path: path.to_owned() }),
    }
}

extern "C" fn before() {
    let deadline = Instant::now() + LONGEST_WAIT;
    while !try_lock_all() {
        if Instant::now() >= deadline {
            return;
        }
        std::thread::sleep(PAUSE);
    }
    HOLDS_MUTEXES.set(true);
}

extern "C" fn after_in_parent() {
    release();
}

extern "C" fn after_in_child() {
    if !HOLDS_MUTEXES.get() || !cfg!(target_pointer_width = "64") {
        IS_UNUSABLE.store(true, Ordering::Relaxed);
        return;
    }
    // SAFETY: the mutexes are held, and inherited connections are not used again.
    unsafe { system::discard_inherited() };
    release();
}

fn release() {
    if HOLDS_MUTEXES.replace(false) {
        unlock(GLOBAL_MUTEXES.len());
    }
}

/// All or none, so that the order in which SQLite nests them does not matter.
fn try_lock_all() -> bool {
    for (index, mutex) in GLOBAL_MUTEXES.iter().enumerate() {
        // SAFETY: the mutexes live for ever.
        if unsafe { ffi::sqlite3_mutex_try(mutex.load(Ordering::Relaxed)) } != ffi::SQLITE_OK {
            unlock(index);
            return false;
        }
    }
    true
}

fn unlock(count: usize) {
    for mutex in GLOBAL_MUTEXES[..count].iter().rev() {
        // SAFETY: this thread, or the one in the parent that it is the copy of, has locked them.
        unsafe { ffi::sqlite3_mutex_leave(mutex.load(Ordering::Relaxed)) };
    }
}

/// A connection, which a forked child leaves open for ever: there it is its parent's.
pub(super) struct Link {
    connection: ManuallyDrop<Connection>,
    generation: Generation,
}

impl Link {
    pub(super) fn new(connection: Connection) -> Self {
        Self { connection: ManuallyDrop::new(connection), generation: Generation::current() }
    }
}

impl Deref for Link {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl DerefMut for Link {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if self.generation.is_current() {
            // SAFETY: it is dropped once, and not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.connection) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::{Config, Database};

    #[test]
    fn a_child_of_a_fork_without_the_mutexes_refuses_to_open() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("logs.db");
        drop(Database::open(&path, Config::default()).unwrap());
        let (locked, is_locked) = std::sync::mpsc::channel();
        let (release, is_released) = std::sync::mpsc::channel::<()>();
        let hung = std::thread::spawn(move || {
            let mutex = GLOBAL_MUTEXES[(ffi::SQLITE_MUTEX_STATIC_PRNG - FIRST_MUTEX) as usize].load(Ordering::Relaxed);
            // SAFETY: the mutex lives for ever, and this thread unlocks what it has locked.
            unsafe { ffi::sqlite3_mutex_enter(mutex) };
            locked.send(()).unwrap();
            let _ = is_released.recv();
            // SAFETY: as above.
            unsafe { ffi::sqlite3_mutex_leave(mutex) };
        });
        is_locked.recv().unwrap();
        // SAFETY: the child opens nothing, and ends.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let is_refused = matches!(Database::open(&path, Config::default()), Err(Error::ForkedAmidWork { .. }));
            // SAFETY: the call does not return.
            unsafe { libc::_exit(if is_refused { 0 } else { 1 }) };
        }
        drop(release);
        hung.join().unwrap();
        let mut status = -1;
        // SAFETY: the status is written to a variable of ours.
        unsafe { libc::waitpid(pid, &raw mut status, 0) };
        assert_eq!(status, 0);
        drop(Database::open(&path, Config::default()).unwrap());
    }
}
