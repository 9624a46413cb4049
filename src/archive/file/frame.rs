//! Decompressing a frame of a day's file, whose claims about its size may be false: what it takes follows what it gives.

use zstd::bulk::Decompressor;
use zstd::stream::raw::{Decoder, Operation};

use crate::archive::file::block::ZSTD_BLOCK_BYTES;
use crate::archive::file::line::MOST_LINE_BYTES;

/// Bytes that a frame may claim and get at once.
const TRUSTED_BYTES: u64 = 4 << 20;
/// Bytes that one step of a larger one decompresses.
const STEP_BYTES: usize = 1 << 20;
/// A frame ends with the line that fills it.
const MOST_FRAME_BYTES: u64 = (ZSTD_BLOCK_BYTES + MOST_LINE_BYTES) as u64;

/// Decompresses the one frame that `stored` is into `raw`; an error says what is wrong with it.
pub(crate) fn decompress(stored: &[u8], raw: &mut Vec<u8>) -> Result<(), String> {
    raw.clear();
    let claimed = zstd::zstd_safe::get_frame_content_size(stored).ok().flatten().ok_or("it has no size")?;
    if claimed > MOST_FRAME_BYTES {
        return Err(format!("it claims to hold {claimed} bytes, more than a block can"));
    }
    let claimed_bytes = usize::try_from(claimed).map_err(|_| "it is too large")?;
    if claimed > TRUSTED_BYTES {
        return decompress_in_steps(stored, raw, claimed_bytes);
    }
    reserve(raw, claimed_bytes)?;
    Decompressor::new()
        .and_then(|mut zstd| zstd.decompress_to_buffer(stored, raw))
        .map(drop)
        .map_err(|error| error.to_string())
}

fn decompress_in_steps(stored: &[u8], raw: &mut Vec<u8>, claimed: usize) -> Result<(), String> {
    let mut decoder = Decoder::new().map_err(|error| error.to_string())?;
    let mut rest = stored;
    let (mut step, mut is_finished) = (vec![0; STEP_BYTES], false);
    while !is_finished {
        let status = decoder.run_on_buffers(rest, &mut step).map_err(|error| error.to_string())?;
        if status.bytes_read == 0 && status.bytes_written == 0 {
            return Err("it is cut off".into());
        }
        rest = &rest[status.bytes_read..];
        is_finished = status.remaining == 0;
        let written = &step[..status.bytes_written];
        if raw.is_empty() && written.first().is_some_and(|byte| *byte != b'{') {
            return Err("it does not begin with a row".into());
        }
        if raw.len() + written.len() > claimed {
            return Err(format!("it holds more than the {claimed} bytes that it claims"));
        }
        if raw.capacity() - raw.len() < written.len() {
            // Doubled, but not beyond what is claimed.
            let wanted = (raw.len() * 2).max(raw.len() + written.len()).min(claimed);
            reserve(raw, wanted - raw.len())?;
        }
        raw.extend_from_slice(written);
    }
    if raw.len() == claimed && rest.is_empty() {
        Ok(())
    } else {
        Err(format!("it holds {} bytes and claims {claimed}", raw.len()))
    }
}

fn reserve(raw: &mut Vec<u8>, more: usize) -> Result<(), String> {
    raw.try_reserve_exact(more).map_err(|_| format!("there is no memory for {more} bytes of it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compressed(bytes: &[u8]) -> Vec<u8> {
        zstd::bulk::compress(bytes, 3).unwrap()
    }

    /// Sizes on both sides of what is trusted.
    fn contents() -> impl Iterator<Item = Vec<u8>> {
        [0, 1, 70_000, 4 << 20, (4 << 20) + 1, 9 << 20].into_iter().map(|size| {
            let mut bytes = vec![b'{'; size.min(1)];
            bytes.extend((bytes.len()..size).map(|index| (index % 251) as u8));
            bytes
        })
    }

    #[test]
    fn what_was_compressed_comes_back() {
        let mut raw = Vec::new();
        for content in contents() {
            decompress(&compressed(&content), &mut raw).unwrap();
            assert_eq!(raw, content);
        }
    }

    #[test]
    fn cut_frames_and_frames_with_something_after_them_are_refused() {
        for content in contents().filter(|content| content.len() > 1) {
            let frame = compressed(&content);
            let mut raw = Vec::new();
            assert!(decompress(&frame[..frame.len() - 1], &mut raw).is_err());
            assert!(decompress(&[&frame[..], b"x"].concat(), &mut raw).is_err());
        }
    }

    #[test]
    fn a_frame_that_lies_about_its_size_is_refused() {
        // The header of a single segment: the content size is in the bytes 5 to 8, or 5 to 12.
        let mut frame = compressed(&vec![b'{'; 9 << 20]);
        let size: [u8; 4] = u32::to_le_bytes(9 << 20);
        let at = frame.windows(4).position(|window| window == size).unwrap();
        for lie in [(9 << 20) - 1, (9 << 20) + 1, 1 << 29, u32::MAX] {
            frame[at..at + 4].copy_from_slice(&u32::to_le_bytes(lie));
            let mut raw = Vec::new();
            assert!(decompress(&frame, &mut raw).is_err(), "{lie}");
            assert!(raw.capacity() <= 40 << 20, "memory follows what is there: {}", raw.capacity());
        }
        let mut raw = Vec::new();
        assert!(decompress(&compressed(&vec![0; 16 << 20]), &mut raw).is_err());
        assert_eq!(raw.capacity(), 0, "the first bytes are no row's");
    }
}
