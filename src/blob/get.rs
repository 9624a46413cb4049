//! Reading: no byte leaves here that does not belong to the digest asked for.

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::path::Place;
use super::{BlobStore, CHUNK_BYTES, read_full};
use crate::digest::{Digest, Hasher};
use crate::durable;
use crate::error::{Error, Result};

const READ: &str = "read a blob";

/// A blob that is open for reading. It stays readable when it is replaced or deleted meanwhile.
pub struct OpenBlob {
    file: File,
    path: PathBuf,
    digest: Digest,
    size: u64,
}

impl OpenBlob {
    /// Its size in bytes. What no memory can hold counts as `usize::MAX`, which no allocation grants.
    pub fn size(&self) -> usize {
        usize::try_from(self.size).unwrap_or(usize::MAX)
    }

    /// Fills `buffer`, which is as long as [`OpenBlob::size`], and verifies it.
    pub fn read_into(mut self, buffer: &mut [u8]) -> Result<()> {
        let mut hasher = Hasher::new();
        let mut size = 0;
        for chunk in buffer.chunks_mut(CHUNK_BYTES) {
            let count = read_full(&mut self.file, chunk).map_err(|error| Error::io(&self.path, READ, &error))?;
            hasher.update(&chunk[..count]);
            size += count;
        }
        let actual = hasher.finish();
        if size == buffer.len() && actual == self.digest {
            return Ok(());
        }
        Err(Error::BlobCorrupt { hash: self.digest, actual, path: self.path })
    }
}

impl BlobStore {
    /// Opens the blob; None if there is none.
    pub fn open(&self, digest: &Digest) -> Result<Option<OpenBlob>> {
        let path = Place::of(&self.root, digest).file;
        let Some(file) = durable::open_regular(&path)? else { return Ok(None) };
        let size = file.metadata().map_err(|error| Error::io(&path, READ, &error))?.len();
        Ok(Some(OpenBlob { file, path, digest: *digest, size }))
    }

    /// The verified bytes of the blob; None if there is none.
    pub fn read(&self, digest: &Digest) -> Result<Option<Vec<u8>>> {
        let Some(blob) = self.open(digest)? else { return Ok(None) };
        let mut bytes = Vec::new();
        bytes
            .try_reserve_exact(blob.size())
            .map_err(|error| Error::errno(&blob.path, READ, libc::ENOMEM, error.to_string()))?;
        bytes.resize(blob.size(), 0);
        blob.read_into(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// Whether the blob is there and, with `verify`, its bytes have the digest.
    pub fn exists(&self, digest: &Digest, verify: bool) -> Result<bool> {
        if !verify {
            return Ok(self.size(digest)?.is_some());
        }
        let path = Place::of(&self.root, digest).file;
        let Some(file) = durable::open_regular(&path)? else { return Ok(false) };
        let actual = digest_of(&file).map_err(|error| Error::io(&path, READ, &error))?;
        Ok(actual == *digest)
    }

    /// The blob's size in bytes as the file system has it; None if there is none.
    pub fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        Ok(look(&Place::of(&self.root, digest).file)?.map(|metadata| metadata.len()))
    }
}

/// The digest of what is left to read of `file`.
pub(super) fn digest_of(mut file: &File) -> io::Result<Digest> {
    let mut hasher = Hasher::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let count = read_full(&mut file, &mut chunk)?;
        hasher.update(&chunk[..count]);
        if count < chunk.len() {
            return Ok(hasher.finish());
        }
    }
}

/// What the file system says of a blob's file; None if there is none. Anything but a regular file is an error.
pub(super) fn look(path: &Path) -> Result<Option<Metadata>> {
    const LOOK: &str = "look at a blob";
    match path.symlink_metadata() {
        Ok(metadata) if metadata.is_file() => Ok(Some(metadata)),
        Ok(metadata) => {
            let reason = format!("it is {}, not a regular file", durable::kind_name(metadata.file_type()));
            Err(Error::errno(path, LOOK, libc::EINVAL, reason))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(path, LOOK, &error)),
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
        let digest = store.write(bytes).unwrap();
        let path = Place::of(directory.path(), &digest).file;
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
        let mut buffer = vec![0; blob.size()];
        assert!(matches!(blob.read_into(&mut buffer), Err(Error::BlobCorrupt { .. })));
    }

    #[test]
    fn an_open_blob_outlives_its_deletion() {
        let (_directory, store, digest, _) = store_with(b"kept");
        let blob = store.open(&digest).unwrap().unwrap();
        assert!(store.delete(&digest).unwrap());
        assert!(!store.delete(&digest).unwrap());
        let mut buffer = vec![0; blob.size()];
        blob.read_into(&mut buffer).unwrap();
        assert_eq!(buffer, b"kept");
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
        assert!(matches!(store.write(b"x"), Err(Error::Io { .. })));
        assert!(path.is_symlink());
    }
}
