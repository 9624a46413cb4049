//! Frames of the write-ahead log, each written at once.
//!
//! SQLite writes a frame in two parts, the 24 bytes of its header and then its page, in one function with nothing in between.
//! A commit of a few pages spends as much time on the small writes as on the large ones. So the header of a frame that
//! follows another one is kept until its page comes, and the two are one system call. If that fails, SQLite learns it from
//! the second write in place of the first.
//!
//! SQLite also writes headers alone, over those of frames that it has written before. These do not lie where the frame before
//! them ended, and are not kept.
#![expect(unsafe_code, reason = "SQLite's system call")]

use std::cell::RefCell;
use std::ffi::{c_int, c_void};

/// Bytes of the header of a frame.
const HEADER_BYTES: usize = 24;

/// SQLite's smallest page.
const MIN_PAGE_BYTES: usize = 512;

#[derive(Default)]
struct Frames {
    state: State,
    /// The frame that is being written.
    buffer: Vec<u8>,
}

/// What the thread wrote last, if it was part of a frame; and where that ends.
#[derive(Clone, Copy, Default)]
enum State {
    #[default]
    Other,
    /// The header, which is in the file.
    Header(c_int, libc::off_t),
    /// The header, which is kept in the buffer.
    Kept(c_int, libc::off_t),
    /// The page.
    Frame(c_int, libc::off_t),
}

thread_local! {
    static FRAMES: RefCell<Frames> = const { RefCell::new(Frames { state: State::Other, buffer: Vec::new() }) };
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
    // At the end of the thread there is no place to keep a header.
    written.unwrap_or_else(|_| write_at(fd, bytes, offset))
}

impl Frames {
    fn write(&mut self, fd: c_int, bytes: &[u8], offset: libc::off_t) -> libc::ssize_t {
        let end = offset + bytes.len() as libc::off_t;
        let is_header = bytes.len() == HEADER_BYTES;
        let is_page = bytes.len() >= MIN_PAGE_BYTES;
        let (written, state) = match std::mem::take(&mut self.state) {
            State::Kept(at, begin) if (at, begin) == (fd, offset) && is_page => {
                (self.write_frame(fd, bytes, offset), State::Frame(fd, end))
            }
            State::Kept(at, begin) => {
                // It never comes to that; the header may not be lost.
                let header = std::mem::take(&mut self.buffer);
                if write_all(at, &header, begin - HEADER_BYTES as libc::off_t) < 0 {
                    return -1;
                }
                (write_at(fd, bytes, offset), State::Other)
            }
            State::Frame(at, begin) if (at, begin) == (fd, offset) && is_header => {
                self.buffer.clear();
                self.buffer.extend_from_slice(bytes);
                (HEADER_BYTES as libc::ssize_t, State::Kept(fd, end))
            }
            State::Header(at, begin) if (at, begin) == (fd, offset) && is_page => {
                (write_at(fd, bytes, offset), State::Frame(fd, end))
            }
            _ if is_header => (write_at(fd, bytes, offset), State::Header(fd, end)),
            _ => (write_at(fd, bytes, offset), State::Other),
        };
        if written == bytes.len() as libc::ssize_t {
            self.state = state;
        }
        written
    }

    /// Writes the header that is kept, and its page; returns how much of the page is written.
    fn write_frame(&mut self, fd: c_int, page: &[u8], offset: libc::off_t) -> libc::ssize_t {
        self.buffer.extend_from_slice(page);
        let begin = offset - HEADER_BYTES as libc::off_t;
        let written = write_at(fd, &self.buffer, begin);
        let Ok(count) = usize::try_from(written) else { return written };
        if let Some(count) = count.checked_sub(HEADER_BYTES).filter(|&count| count > 0) {
            return count.cast_signed();
        }
        // The disk is full, or nearly so.
        match write_all(fd, &self.buffer[count..HEADER_BYTES], begin + count as libc::off_t) {
            0 => write_at(fd, page, offset),
            failed => failed,
        }
    }
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
/// without the header that was kept.
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
        let header = vec![b'a' + frame as u8; HEADER_BYTES];
        let page = vec![b'A' + frame as u8; PAGE];
        let offset = (32 + frame * FRAME) as libc::off_t;
        for (bytes, offset) in [(&header, offset), (&page, offset + HEADER_BYTES as libc::off_t)] {
            // SAFETY: the bytes are there.
            let written = unsafe { pwrite(fd, bytes.as_ptr().cast(), bytes.len(), offset) };
            assert_eq!(written, bytes.len() as libc::ssize_t);
        }
        (header, page, offset)
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
        FRAMES.with_borrow_mut(|frames| frames.state = State::Frame(read_only.as_raw_fd(), next));
        let (header, page) = ([1_u8; HEADER_BYTES], [2_u8; PAGE]);
        // SAFETY: the bytes are there.
        unsafe {
            assert_eq!(pwrite(read_only.as_raw_fd(), header.as_ptr().cast(), HEADER_BYTES, next), 24);
            let after = next + HEADER_BYTES as libc::off_t;
            assert_eq!(pwrite(read_only.as_raw_fd(), page.as_ptr().cast(), PAGE, after), -1);
        }
        assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EBADF));
        assert!(matches!(FRAMES.with_borrow(|frames| frames.state), State::Other));
    }
}
