//! Reading: no byte leaves here that does not belong to the digest asked for.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use crate::base::digest::{Digest, Hasher};
use crate::base::error::{Error, Result};
use crate::base::io::read_full;
use crate::base::time::now_ns;
use crate::blob::path::Name;
use crate::blob::stamp::Stamp;
use crate::blob::store::{BlobStore, CHUNK_BYTES};

const READ: &str = "read a blob";

/// A blob that is open for reading. It stays readable when it is replaced or deleted meanwhile.
pub struct OpenBlob {
    file: File,
    root: Arc<Path>,
    digest: Digest,
    size: u64,
    hasher: Hasher,
    /// How many bytes were read and hashed.
    read: u64,
}

impl OpenBlob {
    fn path(&self) -> PathBuf {
        Name::of(&self.digest).path(&self.root)
    }

    /// Its size in bytes. What no memory can hold counts as `usize::MAX`, which no allocation grants.
    pub fn size(&self) -> usize {
        usize::try_from(self.size).unwrap_or(usize::MAX)
    }

    /// Fills `buffer`, which is as long as [`OpenBlob::size`], and verifies it.
    pub fn read_into(mut self, buffer: &mut [MaybeUninit<u8>]) -> Result<()> {
        for chunk in buffer.chunks_mut(CHUNK_BYTES) {
            if self.read_chunk(chunk)? < chunk.len() {
                break;
            }
        }
        self.verify()
    }

    /// Reads the next bytes until `chunk` is full or the blob has ended, and says how many there are. The last ones are
    /// returned only if all bytes together are the blob's: a caller that has read to the end has read what it asked for.
    pub fn read_next(&mut self, chunk: &mut [u8]) -> Result<usize> {
        let count = read_full(&mut &self.file, chunk).map_err(|error| Error::io(&self.path(), READ, &error))?;
        self.hasher.update(&chunk[..count]);
        self.read += count as u64;
        if count < chunk.len() || self.read >= self.size {
            self.verify()?;
        }
        Ok(count)
    }

    fn read_chunk(&mut self, chunk: &mut [MaybeUninit<u8>]) -> Result<usize> {
        let mut filled = 0;
        while filled < chunk.len() {
            match rustix::io::read(&self.file, &mut chunk[filled..]) {
                Ok(([], _)) => break,
                Ok((bytes, _)) => {
                    self.hasher.update(bytes);
                    filled += bytes.len();
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::io(&self.path(), READ, &errno.into())),
            }
        }
        self.read += filled as u64;
        Ok(filled)
    }

    fn verify(&self) -> Result<()> {
        let actual = self.hasher.clone().finish();
        if self.read == self.size && actual == self.digest {
            return Ok(());
        }
        Err(Error::BlobCorrupt { hash: self.digest, actual, path: self.path() })
    }
}

impl BlobStore {
    /// Opens the blob; None if there is none.
    pub fn open(&self, digest: &Digest) -> Result<Option<OpenBlob>> {
        let Some(root) = self.open_root()? else { return Ok(None) };
        let name = Name::of(digest);
        let Some((file, stat)) = root.open_regular(name.below())? else { return Ok(None) };
        let size = stat.st_size.unsigned_abs();
        Ok(Some(OpenBlob { file, root: Arc::clone(&self.root), digest: *digest, size, hasher: Hasher::new(), read: 0 }))
    }

    /// Opens the blob for a first try at reading it whole: if that fails, [`BlobStore::open`] says why. None if it does not
    /// lie where it lay when the store was opened.
    pub fn open_quickly(&self, digest: &Digest) -> Option<OpenBlob> {
        // Where the root lies is of no consequence: no bytes but the blob's leave here.
        let root = self.last_root()?;
        let name = Name::of(digest);
        let (file, size) = root.open_quickly(name.below())?;
        Some(OpenBlob { file, root: Arc::clone(&self.root), digest: *digest, size, hasher: Hasher::new(), read: 0 })
    }

    /// The verified bytes of the blob; None if there is none.
    pub fn read(&self, digest: &Digest) -> Result<Option<Vec<u8>>> {
        let Some(mut blob) = self.open(digest)? else { return Ok(None) };
        let size = blob.size();
        let mut bytes = Vec::new();
        bytes
            .try_reserve_exact(size)
            .map_err(|error| Error::errno(&self.path_of(digest), READ, libc::ENOMEM, error.to_string()))?;
        bytes.resize(size, 0);
        for chunk in bytes.chunks_mut(CHUNK_BYTES) {
            if blob.read_next(chunk)? < chunk.len() {
                break;
            }
        }
        blob.verify()?;
        Ok(Some(bytes))
    }

    /// Whether the blob is there and, with `verify`, its bytes have the digest.
    pub fn exists(&self, digest: &Digest, verify: bool) -> Result<bool> {
        if !verify {
            return Ok(self.size(digest)?.is_some());
        }
        let Some(root) = self.open_root()? else { return Ok(false) };
        let name = Name::of(digest);
        let since_ns = now_ns();
        let Some((file, stat)) = root.open_regular(name.below())? else { return Ok(false) };
        let actual = digest_of(&file).map_err(|error| Error::io(&name.path(&self.root), READ, &error))?;
        if actual != *digest {
            return Ok(false);
        }
        let stamp = Stamp::of(&stat);
        if self.cache.lookup(digest, &stamp).is_none() {
            self.cache.insert(digest, stamp, root.trust(since_ns), false);
        }
        Ok(true)
    }

    /// The blob's size in bytes as the file system has it; None if there is none.
    pub fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        let Some(root) = self.open_root()? else { return Ok(None) };
        let name = Name::of(digest);
        Ok(root.look(name.below())?.map(|stat| stat.st_size.unsigned_abs()))
    }

    /// Where the blob lies, or would lie.
    pub fn path_of(&self, digest: &Digest) -> PathBuf {
        Name::of(digest).path(&self.root)
    }
}

/// The digest of what is left to read of `file`.
pub(super) fn digest_of(file: &File) -> io::Result<Digest> {
    digest_with(file, |_| true).map(|digest| digest.unwrap_or_else(|| Digest::of(b"")))
}

/// The same; `step` is told how many bytes were read and says whether to go on. None if it did not.
pub(super) fn digest_with(mut file: &File, mut step: impl FnMut(usize) -> bool) -> io::Result<Option<Digest>> {
    let mut hasher = Hasher::new();
    let size = file.metadata()?.len();
    let mut chunk = vec![0; usize::try_from(size).unwrap_or(usize::MAX).saturating_add(1).min(CHUNK_BYTES)];
    loop {
        let count = read_full(&mut file, &mut chunk)?;
        hasher.update(&chunk[..count]);
        if !step(count) {
            return Ok(None);
        }
        if count < chunk.len() {
            return Ok(Some(hasher.finish()));
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests do to the files what others might")]
mod tests {
    use super::*;
    use crate::durable::Durability;
    use std::os::unix::fs::symlink;

    fn store_with(bytes: &[u8]) -> (tempfile::TempDir, BlobStore, Digest, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let store = BlobStore::new(directory.path(), Durability::Normal, false).unwrap();
        let digest = store.write(bytes, false).unwrap();
        let path = store.path_of(&digest);
        (directory, store, digest, path)
    }

    #[test]
    fn damage_is_found() {
        for bytes in [vec![7; 3], vec![7; CHUNK_BYTES], vec![7; 2 * CHUNK_BYTES + 1]] {
            let (_directory, store, digest, path) = store_with(&bytes);
            assert_eq!(store.read(&digest).unwrap(), Some(bytes.clone()));
            let mut flipped = bytes.clone();
            flipped[bytes.len() - 1] ^= 1;
            let longer = [bytes.as_slice(), b"x"].concat();
            for damaged in [flipped.as_slice(), &bytes[1..], &longer, b""] {
                std::fs::write(&path, damaged).unwrap();
                let mut blob = store.open(&digest).unwrap().unwrap();
                let mut chunk = vec![0; CHUNK_BYTES];
                assert!(matches!(
                    std::iter::repeat_with(|| blob.read_next(&mut chunk)).find(|read| !matches!(read, Ok(1..))),
                    Some(Err(Error::BlobCorrupt { .. }))
                ));
                let Err(Error::BlobCorrupt { hash, actual, .. }) = store.read(&digest) else { panic!("undetected") };
                assert_eq!((hash, actual), (digest, Digest::of(damaged)));
                assert!(!store.exists(&digest, true).unwrap());
                assert!(store.exists(&digest, false).unwrap());
                assert_eq!(store.size(&digest).unwrap(), Some(damaged.len() as u64));
            }
        }
    }

    #[test]
    fn a_file_that_shrinks_while_it_is_read_is_damaged_whatever_its_digest() {
        let (_directory, store, digest, path) = store_with(b"right");
        std::fs::write(&path, b"right and more").unwrap();
        let blob = store.open(&digest).unwrap().unwrap();
        std::fs::write(&path, b"right").unwrap();
        let mut buffer = vec![MaybeUninit::uninit(); blob.size()];
        assert!(matches!(blob.read_into(&mut buffer), Err(Error::BlobCorrupt { .. })));
    }

    #[test]
    fn an_open_blob_outlives_its_deletion() {
        let (_directory, store, digest, _) = store_with(b"kept");
        let mut blob = store.open(&digest).unwrap().unwrap();
        assert!(store.delete(&digest).unwrap());
        assert!(!store.delete(&digest).unwrap());
        let mut buffer = [0; 8];
        assert_eq!(blob.read_next(&mut buffer).unwrap(), 4);
        assert_eq!(&buffer[..4], b"kept");
        assert_eq!(store.read(&digest).unwrap(), None);
    }

    #[test]
    fn what_is_no_regular_file_is_an_error_and_stays() {
        let (directory, store, digest, path) = store_with(b"x");
        std::fs::rename(&path, directory.path().join("moved")).unwrap();
        symlink(directory.path().join("moved"), &path).unwrap();
        assert!(matches!(store.read(&digest), Err(Error::Io { .. })));
        assert!(matches!(store.exists(&digest, true), Err(Error::Io { .. })));
        assert!(matches!(store.exists(&digest, false), Err(Error::Io { .. })));
        assert!(matches!(store.size(&digest), Err(Error::Io { .. })));
        assert!(matches!(store.delete(&digest), Err(Error::Io { .. })));
        assert!(matches!(store.write(b"x", false), Err(Error::Io { .. })));
        assert!(path.is_symlink());
    }
}
