//! A descriptor that an event loop watches.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;

use crate::base::fork::PrivateFd;

/// Readable from when it is raised until it is lowered. A forked child has another one under its number, so that it
/// cannot remove it from an `epoll` that it shares.
#[derive(Debug)]
pub struct Wakeup {
    watched: PrivateFd,
    /// The other end of a pipe; an eventfd has one end alone.
    #[cfg(not(all(target_os = "linux", not(feature = "portable"))))]
    raised: PrivateFd,
}

impl Wakeup {
    /// One that is not raised.
    #[cfg(all(target_os = "linux", not(feature = "portable")))]
    pub fn new() -> Result<Self, Errno> {
        use rustix::event::{EventfdFlags, eventfd};
        let watched = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { watched: PrivateFd::new(watched) })
    }

    /// One that is not raised.
    #[cfg(not(all(target_os = "linux", not(feature = "portable"))))]
    pub fn new() -> Result<Self, Errno> {
        use rustix::fs::OFlags;
        use rustix::io::FdFlags;
        let (watched, raised) = rustix::pipe::pipe()?;
        for end in [&watched, &raised] {
            rustix::io::fcntl_setfd(end, FdFlags::CLOEXEC)?;
            rustix::fs::fcntl_setfl(end, rustix::fs::fcntl_getfl(end)? | OFlags::NONBLOCK)?;
        }
        Ok(Self { watched: PrivateFd::new(watched), raised: PrivateFd::new(raised) })
    }

    /// Makes it readable. It may be raised before.
    pub fn raise(&self) {
        #[cfg(all(target_os = "linux", not(feature = "portable")))]
        let end = &self.watched;
        #[cfg(not(all(target_os = "linux", not(feature = "portable"))))]
        let end = &self.raised;
        // An eventfd takes eight bytes, a pipe any number. It fails only when it is full, and then it is readable.
        let _ = rustix::io::write(end, &1_u64.to_ne_bytes());
    }

    /// Makes it unreadable, until it is raised the next time.
    pub fn lower(&self) {
        let mut bytes = [0; 64];
        // An eventfd is read at once; of a pipe that was raised several times more may be left. It fails when it is empty.
        while rustix::io::read(&self.watched, &mut bytes).is_ok_and(|count| count == bytes.len()) {}
    }
}

impl AsFd for Wakeup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.watched.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    fn is_readable(wakeup: &Wakeup) -> bool {
        let mut watched = [PollFd::new(wakeup, PollFlags::IN)];
        poll(&mut watched, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
    }

    #[test]
    fn it_is_readable_from_being_raised_until_it_is_lowered() {
        let wakeup = Wakeup::new().unwrap();
        assert!(!is_readable(&wakeup));
        // Lowering one that is not raised neither waits nor fails; raising it beyond what a pipe holds does not, either.
        for count in [0, 1, 2, 8, 9, 20_000] {
            (0..count).for_each(|_| wakeup.raise());
            assert_eq!(is_readable(&wakeup), count > 0);
            wakeup.lower();
            assert!(!is_readable(&wakeup), "raised {count} times");
        }
    }

    #[test]
    fn a_program_that_is_executed_does_not_inherit_it() {
        let wakeup = Wakeup::new().unwrap();
        assert!(rustix::io::fcntl_getfd(&wakeup).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
    }
}
