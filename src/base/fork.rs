//! What a forked child may not share with its parent.
//!
//! A child has a copy of its parent's memory and the same open files, and only the thread that forked. An advisory lock
//! (`flock`) that the parent holds would stay taken for as long as the child lives, bytes that both write would mix, and
//! what one removes from a shared `epoll` is gone for the other. Descriptors that are registered here are therefore
//! exchanged in the child before `fork` returns there. Their numbers stay taken, so that an owner that closes one later
//! closes nothing else.
//!
//! A child that executes another program without running these handlers (`vfork`, `posix_spawn`) shares nothing either:
//! every descriptor is closed on exec.
#![expect(clippy::disallowed_methods, reason = "directories are opened for reading")]
#![expect(unsafe_code, reason = "handlers of `fork`, and descriptors that are exchanged in a child")]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::error::{Error, Result};

static GENERATION: AtomicU64 = AtomicU64::new(0);

/// Descriptors that lead nowhere in a child.
static PRIVATE: Set = Set::new();
/// Descriptors of directories, which a child opens anew: the same directory, without its parent's locks on it.
static DIRECTORIES: Set = Set::new();

/// How many forks lie between the first process and this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation(u64);

impl Generation {
    /// This process's generation. A load and a compare afterwards cost less than a system call for the process id.
    pub fn current() -> Self {
        watch();
        Self(GENERATION.load(Ordering::Relaxed))
    }

    /// Whether this process is the one that `self` was taken in.
    pub fn is_current(self) -> bool {
        self.0 == GENERATION.load(Ordering::Relaxed)
    }

    /// An error if this process was forked since.
    pub fn check(self, path: &Path) -> Result<()> {
        if self.is_current() { Ok(()) } else { Err(Error::Forked { path: path.to_owned() }) }
    }

    /// Its number.
    pub fn number(self) -> u64 {
        self.0
    }
}

/// Begins to notice forks. To be called once before other threads may fork: a child that is forked in the middle of the
/// first call could not call it.
pub fn watch() {
    static REGISTER: Once = Once::new();
    REGISTER.call_once(|| {
        // SAFETY: the handler makes system calls and touches atomics alone, which a forked child may do, and it lives
        // for ever. A failure (out of memory) leaves forks unnoticed.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });
}

extern "C" fn in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
    DIRECTORIES.each(|fd| {
        // SAFETY: the call takes a static string, and a descriptor of this process.
        let fresh = unsafe { libc::openat(fd, c".".as_ptr(), libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC) };
        // Without one to spare, or the right to read it, it is better to lose the directory than to share a lock.
        if fresh < 0 {
            DIRECTORIES.remove(fd);
            PRIVATE.insert(fd);
        } else {
            exchange(fd, fresh);
            // SAFETY: nothing else knows this descriptor.
            unsafe { libc::close(fresh) };
        }
    });
    let mut nowhere = -1;
    PRIVATE.each(|fd| {
        if nowhere < 0 {
            nowhere = leads_nowhere();
        }
        if nowhere < 0 {
            // There is no descriptor to spare: closing one makes room, and the new one takes its number.
            // SAFETY: the number is taken again by the next call, as it is the only free one.
            unsafe { libc::close(fd) };
            nowhere = leads_nowhere();
        }
        if nowhere != fd {
            exchange(fd, nowhere);
        }
    });
    if nowhere >= 0 && !PRIVATE.contains(nowhere) {
        // SAFETY: nothing else knows this descriptor.
        unsafe { libc::close(nowhere) };
    }
}

/// Makes `fd` refer to what `other` refers to.
fn exchange(fd: RawFd, other: RawFd) {
    // SAFETY: both are descriptors of this process, and the owner of `fd` goes on owning it.
    unsafe {
        libc::dup2(other, fd);
        libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
    }
}

/// A descriptor of something that no other process shares and that holds no data; below 0 without one.
fn leads_nowhere() -> RawFd {
    #[cfg(all(target_os = "linux", not(feature = "portable")))]
    // SAFETY: the call takes constants.
    unsafe {
        libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK)
    }
    #[cfg(not(all(target_os = "linux", not(feature = "portable"))))]
    // SAFETY: the call takes a constant, and a static string.
    unsafe {
        libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC)
    }
}

/// Registers `fd`: in a child it leads nowhere.
pub fn keep_private(fd: RawFd) {
    watch();
    PRIVATE.insert(fd);
}

/// Ends the registration of `fd`. To be called before it is closed.
pub fn let_go(fd: RawFd) {
    PRIVATE.remove(fd);
    DIRECTORIES.remove(fd);
}

/// A descriptor that leads nowhere in a forked child.
#[derive(Debug)]
pub struct PrivateFd<T: AsRawFd = OwnedFd>(T);

impl<T: AsRawFd> PrivateFd<T> {
    /// Registers it.
    pub fn new(fd: T) -> Self {
        keep_private(fd.as_raw_fd());
        Self(fd)
    }

    /// The descriptor's owner.
    pub fn get(&self) -> &T {
        &self.0
    }
}

impl<T: AsRawFd> Drop for PrivateFd<T> {
    fn drop(&mut self) {
        let_go(self.0.as_raw_fd());
    }
}

impl<T: AsFd + AsRawFd> AsFd for PrivateFd<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// An open directory, on which a forked child holds none of its parent's locks.
#[derive(Debug)]
pub struct DirectoryFd(OwnedFd);

impl DirectoryFd {
    /// Registers it.
    pub fn new(fd: OwnedFd) -> Self {
        watch();
        DIRECTORIES.insert(fd.as_raw_fd());
        Self(fd)
    }
}

impl Drop for DirectoryFd {
    fn drop(&mut self) {
        let_go(self.0.as_raw_fd());
    }
}

impl AsFd for DirectoryFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Descriptors, in memory that a handler may read at any moment. Those beyond its size are not kept apart, which only
/// a process with more open files than that can meet.
struct Set([AtomicU64; Self::WORDS]);

impl Set {
    const WORDS: usize = 1024;

    const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; Self::WORDS])
    }

    fn insert(&self, fd: RawFd) {
        if let Some((word, bit)) = self.place(fd) {
            word.fetch_or(bit, Ordering::Relaxed);
        }
    }

    fn remove(&self, fd: RawFd) {
        if let Some((word, bit)) = self.place(fd) {
            word.fetch_and(!bit, Ordering::Relaxed);
        }
    }

    fn contains(&self, fd: RawFd) -> bool {
        self.place(fd).is_some_and(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0)
    }

    fn place(&self, fd: RawFd) -> Option<(&AtomicU64, u64)> {
        let fd = usize::try_from(fd).ok()?;
        Some((self.0.get(fd / 64)?, 1 << (fd % 64)))
    }

    fn each(&self, mut visit: impl FnMut(RawFd)) {
        for (index, word) in self.0.iter().enumerate() {
            let mut bits = word.load(Ordering::Relaxed);
            while bits != 0 {
                visit((index * 64) as RawFd + bits.trailing_zeros().cast_signed());
                bits &= bits - 1;
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test makes files as other programs do")]
mod tests {
    use std::fs::File;
    use std::os::fd::OwnedFd;

    use rustix::fs::FlockOperation;

    use super::*;

    /// What `child` says in a forked child.
    fn in_a_child(child: impl FnOnce() -> bool) -> bool {
        // SAFETY: the child makes system calls alone, and ends.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let is_right = child();
            // SAFETY: the call does not return.
            unsafe { libc::_exit(if is_right { 0 } else { 1 }) };
        }
        let mut status = -1;
        // SAFETY: the status is written to a variable of ours.
        unsafe { libc::waitpid(pid, &raw mut status, 0) };
        status == 0
    }

    #[test]
    fn a_child_shares_no_lock_and_no_position_with_its_parent() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        File::create(&path).unwrap();
        let file = PrivateFd::new(File::open(&path).unwrap());
        let opened = DirectoryFd::new(OwnedFd::from(File::open(directory.path()).unwrap()));
        let generation = Generation::current();
        for fd in [file.as_fd(), opened.as_fd()] {
            rustix::fs::flock(fd, FlockOperation::NonBlockingLockExclusive).unwrap();
        }
        let is_free = |path: &Path| {
            let other = File::open(path).unwrap();
            rustix::fs::flock(&other, FlockOperation::NonBlockingLockExclusive).is_ok()
        };
        assert!(in_a_child(|| {
            let inode = |fd: BorrowedFd<'_>| rustix::fs::fstat(fd).unwrap().st_ino;
            let (file_inode, here) = (rustix::fs::stat(&path).unwrap().st_ino, inode(opened.as_fd()));
            // An unlock of the child's own is none of the parent's.
            let unlocked = rustix::fs::flock(opened.as_fd(), FlockOperation::Unlock).is_ok();
            let is_apart =
                inode(file.as_fd()) != file_inode && here == rustix::fs::stat(directory.path()).unwrap().st_ino;
            unlocked && is_apart && !generation.is_current() && !is_free(directory.path())
        }));
        assert!(!is_free(&path) && !is_free(directory.path()));
        // A child that outlives the owner keeps nothing.
        let (reader, writer) = std::io::pipe().unwrap();
        let (is_ready, ready) = std::io::pipe().unwrap();
        // SAFETY: the child makes system calls alone, and ends.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let mut byte = [0];
            drop(writer);
            let _ = rustix::io::write(&ready, &byte);
            let _ = rustix::io::read(&reader, &mut byte);
            // SAFETY: the call does not return.
            unsafe { libc::_exit(0) };
        }
        rustix::io::read(&is_ready, &mut [0]).unwrap();
        drop((file, opened));
        assert!(is_free(&path) && is_free(directory.path()));
        drop(writer);
        // SAFETY: nothing is written.
        unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
    }

    #[test]
    fn numbers_that_were_let_go_are_not_touched() {
        let file = tempfile::tempfile().unwrap();
        drop(PrivateFd::new(file.try_clone().unwrap()));
        let fd = file.as_raw_fd();
        keep_private(fd);
        let_go(fd);
        let inode = rustix::fs::fstat(&file).unwrap().st_ino;
        assert!(in_a_child(|| rustix::fs::fstat(&file).unwrap().st_ino == inode));
    }
}
