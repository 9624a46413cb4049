//! A blob from a source that is read piece by piece, in constant memory: one thread reads and stages, another hashes.

use std::sync::mpsc;

use crate::base::digest::{Digest, Hasher};
use crate::base::error::Error;
use crate::base::io::fill;
use crate::base::parallel;
use crate::base::scope::scope;
use crate::blob::put::{BlobWriter, WRITE};
use crate::blob::store::{BlobStore, CHUNK_BYTES};

/// How much is read at a time, and how many pieces are on their way at once: 4 MiB together.
const PIECE_BYTES: usize = 1024 * 1024;
const PIECES: usize = 4;

/// Bytes, of which so many count.
type Piece = (Vec<u8>, usize);

impl BlobStore {
    /// Stores what `read` fills buffers with: it returns how many bytes it put there, 0 at the end.
    pub fn write_from<E: From<Error>>(
        &self,
        verify: bool,
        mut read: impl FnMut(&mut [u8]) -> Result<usize, E>,
    ) -> Result<Digest, E> {
        self.check_writable(WRITE)?;
        let mut first = vec![0; CHUNK_BYTES];
        let count = fill(&mut first, &mut read)?;
        if count < first.len() {
            return Ok(self.write(&first[..count], verify)?);
        }
        let mut writer = self.writer()?;
        let digest = scope(|scope| {
            let (pieces, to_hash) = mpsc::channel::<Piece>();
            let (used, to_fill) = mpsc::channel::<Vec<u8>>();
            let labour = move |(to_hash, used): (mpsc::Receiver<Piece>, mpsc::Sender<Vec<u8>>)| {
                let mut hasher = Hasher::new();
                for (piece, count) in to_hash {
                    hasher.update(&piece[..count]);
                    // It is not needed any more once the source has ended.
                    let _ = used.send(piece);
                }
                Ok(hasher.finish())
            };
            let Ok(hashing) = parallel::start(scope, (to_hash, used), labour) else {
                return pump(&mut writer, first, count, &mut read).map(|()| None);
            };
            let (mut piece, mut count) = (first, count);
            let mut made = 1;
            while count > 0 {
                writer.stage(&piece[..count])?;
                let is_last = count < piece.len();
                // It fails only if the other thread has died, which its join below tells.
                let _ = pieces.send((piece, count));
                if is_last {
                    break;
                }
                piece = if made < PIECES {
                    made += 1;
                    vec![0; PIECE_BYTES]
                } else {
                    to_fill.recv().unwrap_or_else(|_| vec![0; PIECE_BYTES])
                };
                piece.resize(PIECE_BYTES, 0);
                count = fill(&mut piece, &mut read)?;
            }
            drop(pieces);
            Ok(Some(hashing.join()?))
        })?;
        Ok(match digest {
            Some(digest) => writer.finish_as(digest, verify)?,
            None => writer.finish(verify)?,
        })
    }
}

/// The same in one thread, where no other can be had.
fn pump<E: From<Error>>(
    writer: &mut BlobWriter<&BlobStore>,
    mut piece: Vec<u8>,
    mut count: usize,
    read: &mut impl FnMut(&mut [u8]) -> Result<usize, E>,
) -> Result<(), E> {
    while count > 0 {
        writer.write(&piece[..count])?;
        count = fill(&mut piece, &mut *read)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::durable::Durability;

    #[test]
    fn any_size_in_any_pieces_is_stored_whole() {
        let directory = tempfile::tempdir().unwrap();
        let store = BlobStore::new(directory.path(), Durability::Normal, false).unwrap();
        for size in
            [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, CHUNK_BYTES + PIECE_BYTES, 7 * PIECE_BYTES + 5]
        {
            let bytes: Vec<u8> = (0..size).map(|at| (at * 31 % 251) as u8).collect();
            for most in [1000, 300_000, usize::MAX] {
                let mut rest = bytes.as_slice();
                let digest = store
                    .write_from::<Error>(false, |buffer| {
                        let count = rest.len().min(buffer.len()).min(most);
                        buffer[..count].copy_from_slice(&rest[..count]);
                        rest = &rest[count..];
                        Ok(count)
                    })
                    .unwrap();
                assert_eq!(digest, Digest::of(&bytes));
                assert_eq!(store.read(&digest).unwrap().unwrap(), bytes);
            }
            store.delete(&Digest::of(&bytes)).unwrap();
        }
    }

    #[test]
    fn a_source_that_fails_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let store = BlobStore::new(directory.path(), Durability::Normal, false).unwrap();
        let mut left = 5 * PIECE_BYTES;
        let failed = store.write_from::<Error>(false, |buffer| {
            let count = left.min(buffer.len());
            left -= count;
            if count == 0 { Err(Error::Cancelled) } else { Ok(count) }
        });
        assert!(matches!(failed, Err(Error::Cancelled)));
        assert_eq!(store.digests().count(), 0);
        let staging = directory.path().join(super::super::path::STAGING);
        assert_eq!(std::fs::read_dir(staging).unwrap().count(), 0);
    }
}
