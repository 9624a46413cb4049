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
#![expect(unsafe_code, reason = "SQLite's table of system calls")]

use std::cell::{Cell, UnsafeCell};
use std::ffi::{c_char, c_int, c_void};
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ffi};

use crate::base::error::{Error, Result};
use crate::base::fork::{self, Generation};

/// How long a fork waits for SQLite's mutexes. None is held for more than a system call: a thread that holds one for so
/// long hangs on a dead file system.
const LONGEST_WAIT: Duration = if cfg!(test) { Duration::from_millis(100) } else { Duration::from_secs(5) };
const PAUSE: Duration = Duration::from_micros(20);

/// SQLite's static mutexes have the numbers from here on.
const FIRST_MUTEX: c_int = 2;
const SQLITE_MUTEX_STATIC_VFS3: c_int = 13;
const MUTEXES: usize = (SQLITE_MUTEX_STATIC_VFS3 - FIRST_MUTEX + 1) as usize;

static GLOBAL_MUTEXES: [AtomicPtr<ffi::sqlite3_mutex>; MUTEXES] =
    [const { AtomicPtr::new(std::ptr::null_mut()) }; MUTEXES];

/// This process was forked while a mutex could not be had, and SQLite's tables may be in any state.
static IS_UNUSABLE: AtomicBool = AtomicBool::new(false);

/// The write-ahead logs' indexes that are mapped: addresses and bytes.
static MAPPINGS: Mappings = Mappings(UnsafeCell::new(Vec::new()));

struct Mappings(UnsafeCell<Vec<(usize, usize)>>);

// SAFETY: it is only used under one of the global mutexes.
unsafe impl Sync for Mappings {}

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
        replace_system_calls();
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
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    // SAFETY: the mutexes are held. Each range was mapped by SQLite and has not been unmapped; inherited connections
    // alone point there, and what they do with it no longer matters.
    unsafe {
        for (address, bytes) in (*MAPPINGS.0.get()).drain(..) {
            libc::mmap(address as *mut c_void, bytes, protection, flags, -1, 0);
        }
    }
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

/// Changes the list of mappings together with what is mapped, so that a fork finds both or neither.
fn with_mappings<T>(body: impl FnOnce(&mut Vec<(usize, usize)>) -> T) -> T {
    let mutex = GLOBAL_MUTEXES[(SQLITE_MUTEX_STATIC_VFS3 - FIRST_MUTEX) as usize].load(Ordering::Relaxed);
    // SAFETY: the mutex lives for ever, is meant for the file systems of applications, and guards the list. `body` makes
    // one system call and does not come back here.
    unsafe {
        ffi::sqlite3_mutex_enter(mutex);
        let value = body(&mut *MAPPINGS.0.get());
        ffi::sqlite3_mutex_leave(mutex);
        value
    }
}

/// Has SQLite make these system calls through this module.
fn replace_system_calls() {
    type Pointer = unsafe extern "C" fn();
    // SAFETY: SQLite casts each back to the type of the call of that name, which is the type of the function here.
    let calls: [(&std::ffi::CStr, Pointer); 6] = unsafe {
        use std::mem::transmute;
        [
            (c"open", transmute::<unsafe extern "C" fn(*const c_char, c_int, c_int) -> c_int, Pointer>(open)),
            (c"close", transmute::<unsafe extern "C" fn(c_int) -> c_int, Pointer>(close)),
            (c"stat", transmute::<unsafe extern "C" fn(*const c_char, *mut libc::stat) -> c_int, Pointer>(stat)),
            (c"fstat", transmute::<unsafe extern "C" fn(c_int, *mut libc::stat) -> c_int, Pointer>(fstat)),
            (
                c"mmap",
                transmute::<
                    unsafe extern "C" fn(*mut c_void, usize, c_int, c_int, c_int, libc::off_t) -> *mut c_void,
                    Pointer,
                >(mmap),
            ),
            (c"munmap", transmute::<unsafe extern "C" fn(*mut c_void, usize) -> c_int, Pointer>(munmap)),
        ]
    };
    if !cfg!(target_pointer_width = "64") {
        return;
    }
    // SAFETY: SQLite is initialized; its default file system lives for ever and has this method from version 3 on.
    unsafe {
        let vfs = ffi::sqlite3_vfs_find(std::ptr::null());
        if let Some(set) = vfs.as_ref().filter(|vfs| vfs.iVersion >= 3).and_then(|vfs| vfs.xSetSystemCall) {
            for (name, call) in calls {
                set(vfs, name.as_ptr(), Some(call));
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the files are SQLite's own")]
unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: c_int) -> c_int {
    // SAFETY: the arguments are SQLite's.
    let fd = unsafe { libc::open(path, flags, mode) };
    if fd >= 0 {
        fork::keep_private(fd);
    }
    fd
}

unsafe extern "C" fn close(fd: c_int) -> c_int {
    fork::let_go(fd);
    // SAFETY: the descriptor is SQLite's.
    unsafe { libc::close(fd) }
}

unsafe extern "C" fn stat(path: *const c_char, buffer: *mut libc::stat) -> c_int {
    // SAFETY: the arguments are SQLite's.
    unsafe {
        let outcome = libc::stat(path, buffer);
        if outcome == 0 {
            mark(&mut *buffer);
        }
        outcome
    }
}

unsafe extern "C" fn fstat(fd: c_int, buffer: *mut libc::stat) -> c_int {
    // SAFETY: the arguments are SQLite's.
    unsafe {
        let outcome = libc::fstat(fd, buffer);
        if outcome == 0 {
            mark(&mut *buffer);
        }
        outcome
    }
}

/// Makes a file another one than it was in this process's ancestors. SQLite uses device and inode for nothing but to
/// tell files apart.
fn mark(stat: &mut libc::stat) {
    let generation = Generation::current().number();
    // Bits that no device, or inode, of the system has.
    #[cfg(target_os = "linux")]
    {
        stat.st_dev ^= generation << 44;
    }
    #[cfg(not(target_os = "linux"))]
    {
        stat.st_ino ^= generation << 48;
    }
}

unsafe extern "C" fn mmap(
    address: *mut c_void,
    bytes: usize,
    protection: c_int,
    flags: c_int,
    fd: c_int,
    offset: libc::off_t,
) -> *mut c_void {
    with_mappings(|mappings| {
        // SAFETY: the arguments are SQLite's.
        let mapped = unsafe { libc::mmap(address, bytes, protection, flags, fd, offset) };
        if mapped != libc::MAP_FAILED {
            mappings.push((mapped as usize, bytes));
        }
        mapped
    })
}

unsafe extern "C" fn munmap(address: *mut c_void, bytes: usize) -> c_int {
    with_mappings(|mappings| {
        mappings.retain(|&(mapped, _)| mapped != address as usize);
        // SAFETY: the arguments are SQLite's.
        unsafe { libc::munmap(address, bytes) }
    })
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
