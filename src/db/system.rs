//! SQLite's system calls, which go through here: which files and what memory SQLite has open is known, and a file is
//! another one in each generation of processes (`fork`).
#![expect(unsafe_code, reason = "SQLite's table of system calls")]

use std::cell::{Cell, UnsafeCell};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicPtr, Ordering};

use rusqlite::ffi;

use crate::base::fork::{self, Generation};
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
use crate::db::frames;

/// The mutex of SQLite's that guards the tables here: the one that it leaves to the file systems of applications.
pub(super) const MUTEX: c_int = 13;

static TABLES_MUTEX: AtomicPtr<ffi::sqlite3_mutex> = AtomicPtr::new(std::ptr::null_mut());
static TABLES: Shared = Shared(UnsafeCell::new(Tables { files: Vec::new(), mappings: Vec::new() }));

struct Shared(UnsafeCell<Tables>);

// SAFETY: it is only used under its mutex.
unsafe impl Sync for Shared {}

struct Tables {
    /// SQLite's descriptors, and which files they are of.
    files: Vec<(RawFd, FileId)>,
    /// The write-ahead logs' indexes that are mapped: addresses and bytes.
    mappings: Vec<(usize, usize)>,
}

thread_local! {
    static LAST_WAL: Cell<Option<FileId>> = const { Cell::new(None) };
}

/// Which file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId {
    device: libc::dev_t,
    inode: libc::ino_t,
}

impl FileId {
    pub(super) fn of(stat: &libc::stat) -> Self {
        Self { device: stat.st_dev, inode: stat.st_ino }
    }

    #[cfg(target_os = "linux")]
    pub(super) fn of_statx(found: &rustix::fs::Statx) -> Self {
        Self { device: rustix::fs::makedev(found.stx_dev_major, found.stx_dev_minor), inode: found.stx_ino }
    }

    fn of_descriptor(fd: RawFd) -> Option<Self> {
        let mut stat = std::mem::MaybeUninit::uninit();
        // SAFETY: the buffer is as large as what is written, and it is read only if it was.
        unsafe { (libc::fstat(fd, stat.as_mut_ptr()) == 0).then(|| Self::of(stat.assume_init_ref())) }
    }
}

/// The write-ahead log that this thread's SQLite opened last.
pub(super) fn last_wal() -> Option<FileId> {
    LAST_WAL.get()
}

/// A descriptor of SQLite's of this file. SQLite closes it no earlier than its last connection to the file.
pub(super) fn descriptor_of(id: FileId) -> Option<RawFd> {
    with_tables(|tables| tables.files.iter().find(|(_, open)| *open == id).map(|(fd, _)| *fd))
}

/// Which file is at `path`; None if there is none.
pub(super) fn file_id_at(path: &std::path::Path) -> Option<FileId> {
    use std::os::unix::fs::MetadataExt;
    let found = std::fs::metadata(path).ok()?;
    Some(FileId { device: found.dev() as libc::dev_t, inode: found.ino() as libc::ino_t })
}

/// Forgets what the parent of this process has open, and exchanges the memory that the two share for memory of this
/// process's own.
///
/// # Safety
/// Only in a forked child whose parent held the mutex, and if no inherited connection is used any more.
pub(super) unsafe fn discard_inherited() {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    // SAFETY: the mutex is held, and each range was mapped by SQLite and has not been unmapped.
    unsafe {
        let tables = &mut *TABLES.0.get();
        tables.files.clear();
        for (address, bytes) in tables.mappings.drain(..) {
            libc::mmap(address as *mut c_void, bytes, protection, flags, -1, 0);
        }
    }
}

/// Changes the tables together with what they tell of, so that a fork finds both or neither.
fn with_tables<T>(body: impl FnOnce(&mut Tables) -> T) -> T {
    let mutex = TABLES_MUTEX.load(Ordering::Relaxed);
    // SAFETY: the mutex lives for ever and guards the tables. `body` does not come back here.
    unsafe {
        ffi::sqlite3_mutex_enter(mutex);
        let value = body(&mut *TABLES.0.get());
        ffi::sqlite3_mutex_leave(mutex);
        value
    }
}

/// How often an unlocking is tried.
#[cfg(target_os = "linux")]
const MOST_UNLOCKINGS: u32 = 4;

/// Has SQLite make these system calls through this module.
pub(super) fn replace_calls() {
    type Pointer = unsafe extern "C" fn();
    // SAFETY: SQLite casts each back to the type of the call of that name, which is the type of the function here.
    let calls: [(&CStr, Pointer); 6] = unsafe {
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
    // SAFETY: SQLite is initialized, and this mutex lives for ever.
    TABLES_MUTEX.store(unsafe { ffi::sqlite3_mutex_alloc(MUTEX) }, Ordering::Relaxed);
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
            #[cfg(all(target_os = "linux", target_pointer_width = "64"))]
            set(
                vfs,
                c"pwrite".as_ptr(),
                Some(std::mem::transmute::<
                    unsafe extern "C" fn(c_int, *const c_void, usize, libc::off_t) -> libc::ssize_t,
                    Pointer,
                >(frames::pwrite)),
            );
            // SQLite's has a varying number of arguments, which this system passes like a fixed one.
            #[cfg(target_os = "linux")]
            set(
                vfs,
                c"fcntl".as_ptr(),
                Some(std::mem::transmute::<unsafe extern "C" fn(c_int, c_int, *mut libc::flock) -> c_int, Pointer>(
                    fcntl,
                )),
            );
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the files are SQLite's own")]
unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: c_int) -> c_int {
    // SAFETY: the arguments are SQLite's.
    let fd = unsafe { libc::open(path, flags, mode) };
    if fd >= 0 {
        fork::keep_private(fd);
        if let Some(id) = FileId::of_descriptor(fd) {
            // A database is never created by SQLite here, whatever its name.
            // SAFETY: the path is a string of SQLite's.
            if flags & libc::O_CREAT != 0 && unsafe { CStr::from_ptr(path) }.to_bytes().ends_with(b"-wal") {
                LAST_WAL.set(Some(id));
            }
            with_tables(|tables| tables.files.push((fd, id)));
        }
    }
    fd
}

unsafe extern "C" fn close(fd: c_int) -> c_int {
    fork::let_go(fd);
    with_tables(|tables| tables.files.retain(|&(open, _)| open != fd));
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

/// A lock that SQLite fails to give back bars its other connections in this process for ever: each of their calls would
/// wait for tens of seconds. A failed unlocking has changed nothing, and is tried again.
#[cfg(target_os = "linux")]
unsafe extern "C" fn fcntl(fd: c_int, command: c_int, argument: *mut libc::flock) -> c_int {
    // SAFETY: the arguments are SQLite's; with this command the last one is a lock.
    let is_unlocking = command == libc::F_SETLK
        && unsafe { argument.as_ref() }.is_some_and(|lock| lock.l_type == libc::F_UNLCK as i16);
    let mut tries = if is_unlocking { MOST_UNLOCKINGS } else { 1 };
    loop {
        // SAFETY: as above.
        let outcome = unsafe { libc::fcntl(fd, command, argument) };
        tries -= 1;
        if outcome >= 0 || tries == 0 {
            return outcome;
        }
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
    with_tables(|tables| {
        // SAFETY: the arguments are SQLite's.
        let mapped = unsafe { libc::mmap(address, bytes, protection, flags, fd, offset) };
        if mapped != libc::MAP_FAILED {
            tables.mappings.push((mapped as usize, bytes));
        }
        mapped
    })
}

unsafe extern "C" fn munmap(address: *mut c_void, bytes: usize) -> c_int {
    with_tables(|tables| {
        tables.mappings.retain(|&(mapped, _)| mapped != address as usize);
        // SAFETY: the arguments are SQLite's.
        unsafe { libc::munmap(address, bytes) }
    })
}
