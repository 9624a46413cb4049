//! Reading from sources that return less than was asked for.

use std::io;
use std::io::{ErrorKind, Read};

/// Calls `read` until `buffer` is full or the source has ended, and returns how many bytes there are. `read` fills the
/// beginning of what it is given and returns how much, 0 at the end.
pub(crate) fn fill<E>(buffer: &mut [u8], mut read: impl FnMut(&mut [u8]) -> Result<usize, E>) -> Result<usize, E> {
    let mut filled = 0;
    while filled < buffer.len() {
        match read(&mut buffer[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

/// Reads until `buffer` is full or `source` has ended, and returns how many bytes there are.
pub(crate) fn read_full(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    fill(buffer, |rest| {
        loop {
            match source.read(rest) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives its bytes one by one, and is interrupted before each.
    struct Slow(Vec<u8>, bool);

    impl Read for Slow {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                return Err(ErrorKind::Interrupted.into());
            }
            let Some(byte) = self.0.pop() else { return Ok(0) };
            buffer[0] = byte;
            Ok(1)
        }
    }

    #[test]
    fn a_slow_source_is_read_to_its_end_or_until_the_buffer_is_full() {
        let mut source = Slow(vec![3, 2, 1], false);
        let mut buffer = [0; 2];
        assert_eq!(read_full(&mut source, &mut buffer).unwrap(), 2);
        assert_eq!(buffer, [1, 2]);
        assert_eq!(read_full(&mut source, &mut buffer).unwrap(), 1);
        assert_eq!(buffer[0], 3);
        assert_eq!(read_full(&mut source, &mut buffer).unwrap(), 0);
    }
}
