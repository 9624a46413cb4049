//! Events of directories, where the system tells all that happens there.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use crate::base::fork::PrivateFd;

/// What happened in a directory.
pub(super) struct Event<'a> {
    /// In which; None: in some, and events were lost.
    pub(super) watch: Option<i32>,
    /// To which file; None: to the directory, or to any.
    pub(super) name: Option<&'a OsStr>,
    /// The directory is gone, and nothing more of it is told.
    pub(super) is_end: bool,
}

/// Directories that are watched.
pub(super) struct Directories(Option<PrivateFd>);

#[cfg(not(all(target_os = "linux", not(feature = "portable"))))]
impl Directories {
    pub(super) fn new() -> Self {
        Self(None)
    }

    #[expect(clippy::unused_self, reason = "as on Linux")]
    pub(super) fn add(&self, _: &Path) -> Option<i32> {
        None
    }

    #[expect(clippy::unused_self, reason = "as on Linux")]
    pub(super) fn remove(&self, _: i32) {}

    #[expect(clippy::unused_self, reason = "as on Linux")]
    pub(super) fn take_events(&self, _: &mut dyn FnMut(Event<'_>)) {}
}

impl Directories {
    /// Readable when there are events.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.0.as_ref().map(|inotify| inotify.as_fd())
    }
}

#[cfg(all(target_os = "linux", not(feature = "portable")))]
mod linux {
    use std::mem::MaybeUninit;
    use std::os::unix::ffi::OsStrExt;

    use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags};
    use rustix::fs::{inotify, statfs};

    use super::*;

    /// File systems that only this machine writes to: ext, XFS, Btrfs, tmpfs, overlays, F2FS, ZFS, bcachefs.
    const LOCAL: [u64; 8] =
        [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0x794c_7630, 0xf2f5_2010, 0x2fc1_2fc1, 0xca45_1a4e];

    impl Directories {
        /// None yet. Without inotify (a limit of the system's) none will ever be.
        pub(in crate::db) fn new() -> Self {
            Self(inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok().map(PrivateFd::new))
        }

        /// Watches a directory; None if not all that happens there would be told.
        pub(in crate::db) fn add(&self, directory: &Path) -> Option<i32> {
            let kind = statfs(directory).ok()?.f_type;
            let is_local = LOCAL.contains(&(u64::from_ne_bytes(kind.to_ne_bytes()) & 0xffff_ffff));
            let events = WatchFlags::MODIFY
                | WatchFlags::CREATE
                | WatchFlags::MOVED_TO
                | WatchFlags::DELETE_SELF
                | WatchFlags::MOVE_SELF
                | WatchFlags::ONLYDIR;
            inotify::add_watch(self.0.as_ref().filter(|_| is_local)?.as_fd(), directory, events).ok()
        }

        /// Ends the watch of a directory.
        pub(in crate::db) fn remove(&self, watch: i32) {
            if let Some(inotify) = &self.0 {
                // A directory that is gone is not watched any more.
                let _ = inotify::remove_watch(inotify.as_fd(), watch);
            }
        }

        /// Takes in the events that there are.
        pub(in crate::db) fn take_events(&self, take: &mut dyn FnMut(Event<'_>)) {
            let Some(inotify) = &self.0 else { return };
            let mut buffer = [MaybeUninit::uninit(); 4096];
            let mut reader = Reader::new(inotify.as_fd(), &mut buffer);
            // An error is the end: it would block.
            while let Ok(event) = reader.next() {
                let flags = event.events();
                take(Event {
                    watch: (!flags.contains(ReadFlags::QUEUE_OVERFLOW)).then_some(event.wd()),
                    name: event.file_name().map(|name| OsStr::from_bytes(name.to_bytes())),
                    is_end: flags.intersects(ReadFlags::IGNORED | ReadFlags::MOVE_SELF | ReadFlags::UNMOUNT),
                });
            }
        }
    }
}
