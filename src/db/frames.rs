//! Frames of the write-ahead log, those of a commit written at once.
//!
//! SQLite writes a frame in two parts, the 24 bytes of its header and then its page, in one function with nothing in between.
//! A commit of a few pages spends most of its time on these system calls. So the header of a frame that follows another one is
//! kept until its page comes, and while a transaction commits, both are kept until the frame that ends the commit, or until
//! there are many. If that write fails, SQLite learns it from the last of its own in place of an earlier one.
//!
//! Nothing reads frames that are kept: SQLite's index of the log names those of a commit only after the last is written, and
//! those of a transaction that is larger than the cache, which it reads again before the commit, are not kept.
//!
//! SQLite also writes headers alone, over those of frames that it has written before, and pages alone. These do not lie where
//! the frame before them ended, and are not kept.
#![expect(unsafe_code, reason = "SQLite's system call")]

use std::cell::RefCell;
use std::ffi::{c_int, c_void};
use std::mem;

/// Bytes of the header of a frame.
const HEADER_BYTES: usize = 24;

/// Where in the header of the frame that ends a commit the size of the database is; elsewhere there are zeros.
const END_OF_COMMIT: std::ops::Range<usize> = 4..8;

/// SQLite's smallest page.
const MIN_PAGE_BYTES: usize = 512;

/// Bytes that are written once so many are kept.
const ENOUGH_BYTES: usize = 256 << 10;

/// The frames that are being written.
#[derive(Default)]
pub(super) struct Frames {
    last: Last,
    /// What is kept, up to the end of `last`.
    kept: Vec<u8>,
    /// Whether frames are kept, and not headers alone.
    is_commit: bool,
}

/// What was written last, or is kept, if it was part of a frame; and where that ends.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Last {
    #[default]
    Other,
    /// A header, and whether its frame ends a commit.
    Header(Place, bool),
    /// A page.
    Page(Place),
}

/// A descriptor and an offset.
type Place = (c_int, libc::off_t);

thread_local! {
    static FRAMES: RefCell<Frames> =
        const { RefCell::new(Frames { last: Last::Other, kept: Vec::new(), is_commit: false }) };
}

/// Runs `commit`, a commit of one connection; `frames` is the connection's.
pub(super) fn together<T>(frames: &mut Frames, commit: impl FnOnce() -> T) -> T {
    struct Lent<'a>(&'a mut Frames);
    impl Lent<'_> {
        fn exchange(&mut self) {
            let _ = FRAMES.try_with(|own| mem::swap(&mut *own.borrow_mut(), self.0));
        }
    }
    impl Drop for Lent<'_> {
        fn drop(&mut self) {
            self.exchange();
            if !self.0.kept.is_empty() {
                // The commit has failed, and its transaction is rolled back.
                self.0.kept.clear();
                self.0.last = Last::Other;
            }
        }
    }
    frames.is_commit = true;
    let mut lent = Lent(frames);
    lent.exchange();
    commit()
}

/// `pwrite`, as SQLite calls it.
pub(super) unsafe extern "C" fn pwrite(
    fd: c_int,
    bytes: *const c_void,
    count: usize,
    offset: libc::off_t,
) -> libc::ssize_t {
    // SAFETY: the arguments are SQLite's.
    let bytes = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), count) };
    let written = FRAMES.try_with(|frames| frames.borrow_mut().write(fd, bytes, offset));
    // At the end of the thread there is no place to keep anything.
    written.unwrap_or_else(|_| write_at(fd, bytes, offset))
}

impl Frames {
    fn write(&mut self, fd: c_int, bytes: &[u8], offset: libc::off_t) -> libc::ssize_t {
        let all = bytes.len().cast_signed();
        let end = (fd, offset + bytes.len() as libc::off_t);
        let is_header = bytes.len() == HEADER_BYTES;
        let last = mem::take(&mut self.last);
        let next = match last {
            Last::Page(place) if place == (fd, offset) && is_header => {
                self.kept.extend_from_slice(bytes);
                self.last = Last::Header(end, ends_commit(bytes));
                return all;
            }
            Last::Header(place, ends_commit) if place == (fd, offset) && bytes.len() >= MIN_PAGE_BYTES => {
                if !self.kept.is_empty() {
                    self.kept.extend_from_slice(bytes);
                    let goes_on = self.is_commit && !ends_commit && self.kept.len() < ENOUGH_BYTES;
                    if !goes_on && self.write_kept(end) < 0 {
                        return -1;
                    }
                    self.last = Last::Page(end);
                    return all;
                }
                Last::Page(end)
            }
            _ if is_header => Last::Header(end, ends_commit(bytes)),
            _ => Last::Other,
        };
        // What is kept lies elsewhere.
        if let Last::Header(place, _) | Last::Page(place) = last
            && self.write_kept(place) < 0
        {
            return -1;
        }
        let written = write_at(fd, bytes, offset);
        if written == all {
            self.last = next;
        }
        written
    }

    /// Writes what is kept and ends at the place: 0; or drops it: -1, with the system's `errno`.
    fn write_kept(&mut self, (fd, end): Place) -> libc::ssize_t {
        let outcome = write_all(fd, &self.kept, end - self.kept.len() as libc::off_t);
        self.kept.clear();
        outcome
    }
}

fn ends_commit(header: &[u8]) -> bool {
    header[END_OF_COMMIT] != [0; 4]
}

/// Writes all of it: 0; or fails: -1, with the system's `errno`.
fn write_all(fd: c_int, mut bytes: &[u8], mut offset: libc::off_t) -> libc::ssize_t {
    while !bytes.is_empty() {
        let Some(rest) = usize::try_from(write_at(fd, bytes, offset)).ok().and_then(|count| bytes.get(count..)) else {
            return -1;
        };
        if rest.len() == bytes.len() {
            // SAFETY: the place is the thread's own.
            unsafe { *libc::__errno_location() = libc::ENOSPC };
            return -1;
        }
        offset += (bytes.len() - rest.len()) as libc::off_t;
        bytes = rest;
    }
    0
}

/// One system call, which may write less. It is repeated here if a signal interrupts it: SQLite would repeat its page alone,
/// without what was kept.
fn write_at(fd: c_int, bytes: &[u8], offset: libc::off_t) -> libc::ssize_t {
    loop {
        // SAFETY: the descriptor is SQLite's, and the bytes are there.
        let written = unsafe { libc::pwrite(fd, bytes.as_ptr().cast(), bytes.len(), offset) };
        if written >= 0 || std::io::Error::last_os_error().kind() != std::io::ErrorKind::Interrupted {
            return written;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::FileExt;

    use super::*;

    const PAGE: usize = 4_096;
    const FRAME: usize = HEADER_BYTES + PAGE;

    /// Writes the frame with this number as SQLite does; returns its header, its page and where it begins.
    fn put(fd: c_int, frame: usize) -> (Vec<u8>, Vec<u8>, libc::off_t) {
        try_put(fd, frame, true).unwrap()
    }

    /// The same for a frame that ends a commit, or does not; None if SQLite learns of a failure.
    fn try_put(fd: c_int, frame: usize, ends_commit: bool) -> Option<(Vec<u8>, Vec<u8>, libc::off_t)> {
        let mut header = vec![b'a' + (frame % 26) as u8; HEADER_BYTES];
        if !ends_commit {
            header[END_OF_COMMIT].fill(0);
        }
        let page = vec![b'A' + (frame % 26) as u8; PAGE];
        let offset = offset(frame);
        for (bytes, offset) in [(&header, offset), (&page, offset + HEADER_BYTES as libc::off_t)] {
            // SAFETY: the bytes are there.
            let written = unsafe { pwrite(fd, bytes.as_ptr().cast(), bytes.len(), offset) };
            if written < 0 {
                return None;
            }
            assert_eq!(written, bytes.len() as libc::ssize_t);
        }
        Some((header, page, offset))
    }

    fn offset(frame: usize) -> libc::off_t {
        (32 + frame * FRAME) as libc::off_t
    }

    fn length(file: &std::fs::File) -> libc::off_t {
        file.metadata().unwrap().len() as libc::off_t
    }

    fn read(file: &std::fs::File, bytes: usize, offset: libc::off_t) -> Vec<u8> {
        let mut found = vec![0; bytes];
        file.read_exact_at(&mut found, offset as u64).unwrap();
        found
    }

    #[test]
    fn frames_are_as_sqlite_wrote_them() {
        let file = tempfile::tempfile().unwrap();
        for frame in 0..4 {
            let (header, page, offset) = put(file.as_raw_fd(), frame);
            assert_eq!(read(&file, FRAME, offset), [header, page].concat());
        }
        // The first frame again, as after a checkpoint; and the header of another one alone.
        put(file.as_raw_fd(), 0);
        let alone = [b'z'; HEADER_BYTES];
        let offset = (32 + 2 * FRAME) as libc::off_t;
        // SAFETY: the bytes are there.
        assert_eq!(unsafe { pwrite(file.as_raw_fd(), alone.as_ptr().cast(), HEADER_BYTES, offset) }, 24);
        assert_eq!(read(&file, HEADER_BYTES, offset), alone);
    }

    #[test]
    fn a_header_without_its_page_is_written_before_anything_else() {
        let file = tempfile::tempfile().unwrap();
        let fd = file.as_raw_fd();
        let (_, _, offset) = put(fd, 0);
        let next = offset + FRAME as libc::off_t;
        let header = [b'h'; HEADER_BYTES];
        // SAFETY: the bytes are there.
        unsafe {
            assert_eq!(pwrite(fd, header.as_ptr().cast(), HEADER_BYTES, next), 24);
            assert_eq!(file.metadata().unwrap().len() as libc::off_t, next, "it is kept");
            assert_eq!(pwrite(fd, b"else".as_ptr().cast(), 4, 0), 4);
        }
        assert_eq!(read(&file, HEADER_BYTES, next), header);
        assert_eq!(read(&file, 4, 0), b"else");
    }

    #[test]
    fn a_frame_that_cannot_be_written_is_an_error_of_its_page() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (_, _, offset) = put(file.as_raw_fd(), 0);
        let next = offset + FRAME as libc::off_t;
        let read_only = std::fs::File::open(file.path()).unwrap();
        FRAMES.with_borrow_mut(|frames| frames.last = Last::Page((read_only.as_raw_fd(), next)));
        let (header, page) = ([1_u8; HEADER_BYTES], [2_u8; PAGE]);
        // SAFETY: the bytes are there.
        unsafe {
            assert_eq!(pwrite(read_only.as_raw_fd(), header.as_ptr().cast(), HEADER_BYTES, next), 24);
            let after = next + HEADER_BYTES as libc::off_t;
            assert_eq!(pwrite(read_only.as_raw_fd(), page.as_ptr().cast(), PAGE, after), -1);
        }
        assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EBADF));
        FRAMES.with_borrow(|frames| assert!(frames.last == Last::Other && frames.kept.is_empty()));
    }

    #[test]
    fn the_frames_of_a_commit_are_written_with_its_last() {
        let file = tempfile::tempfile().unwrap();
        let fd = file.as_raw_fd();
        let mut own = Frames::default();
        let commit = |frames: &mut Frames, numbers: std::ops::Range<usize>| {
            together(frames, || {
                let last = numbers.end - 1;
                let put = numbers.map(|frame| (try_put(fd, frame, frame == last).unwrap(), length(&file)));
                put.collect::<Vec<_>>()
            })
        };
        // Of the first commit it is not known that its first bytes are those of a frame.
        let mut frames = commit(&mut own, 0..3);
        assert_eq!(frames.iter().map(|(_, length)| *length).collect::<Vec<_>>(), [offset(1), offset(1), offset(3)]);
        // Another thread's commit, since they take turns.
        let next = std::thread::scope(|threads| threads.spawn(|| commit(&mut own, 3..7)).join().unwrap());
        assert_eq!(
            next.iter().map(|(_, length)| *length).collect::<Vec<_>>(),
            [offset(3), offset(3), offset(3), offset(7)]
        );
        frames.extend(next);
        for ((header, page, offset), _) in frames {
            assert_eq!(read(&file, FRAME, offset), [header, page].concat());
        }
    }

    #[test]
    fn what_is_kept_of_a_commit_has_a_bound() {
        let file = tempfile::tempfile().unwrap();
        together(&mut Frames::default(), || {
            for frame in 0..200 {
                let (header, page, offset) = try_put(file.as_raw_fd(), frame, false).unwrap();
                let missing = offset + FRAME as libc::off_t - length(&file);
                assert!(missing < ENOUGH_BYTES as libc::off_t, "{missing} bytes are kept");
                assert!(missing > 0 || read(&file, FRAME, offset) == [header, page].concat());
            }
        });
    }

    #[test]
    fn frames_of_a_commit_that_ends_without_its_last_are_gone() {
        let file = tempfile::tempfile().unwrap();
        let fd = file.as_raw_fd();
        let mut own = Frames::default();
        together(&mut own, || put(fd, 0));
        together(&mut own, || try_put(fd, 1, false).unwrap());
        assert_eq!(length(&file), offset(1));
        // Another connection's frame is in that place now.
        let (header, page, _) = put(fd, 1);
        together(&mut own, || put(fd, 2));
        assert_eq!(read(&file, FRAME, offset(1)), [header, page].concat());
    }

    #[test]
    fn a_page_that_is_written_again_comes_after_what_is_kept() {
        let file = tempfile::tempfile().unwrap();
        let fd = file.as_raw_fd();
        together(&mut Frames::default(), || {
            put(fd, 0);
            try_put(fd, 1, false).unwrap();
            let again = [b'!'; PAGE];
            // SAFETY: the bytes are there.
            let written = unsafe { pwrite(fd, again.as_ptr().cast(), PAGE, offset(1) + HEADER_BYTES as libc::off_t) };
            assert_eq!(written, PAGE as libc::ssize_t);
            put(fd, 2);
            assert_eq!(read(&file, PAGE, offset(1) + HEADER_BYTES as libc::off_t), again);
        });
    }

    #[test]
    fn a_commit_that_cannot_be_written_is_an_error_of_its_last_page() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut own = Frames::default();
        together(&mut own, || put(file.as_raw_fd(), 0));
        let read_only = std::fs::File::open(file.path()).unwrap();
        own.last = Last::Page((read_only.as_raw_fd(), offset(1)));
        together(&mut own, || {
            assert!(try_put(read_only.as_raw_fd(), 1, false).is_some(), "it is kept");
            assert!(try_put(read_only.as_raw_fd(), 2, true).is_none());
        });
        assert_eq!(length(file.as_file()), offset(1));
    }
}
