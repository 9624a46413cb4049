//! Removing. The shard's directory stays, however empty: writers rely on it.

use super::path::Place;
use super::{BlobStore, get};
use crate::digest::Digest;
use crate::durable;
use crate::error::Result;

impl BlobStore {
    /// Removes the blob; says whether there was one.
    pub fn delete(&self, digest: &Digest) -> Result<bool> {
        self.check_writable("delete a blob")?;
        let path = Place::of(&self.root, digest).file;
        match get::look(&path)? {
            Some(_) => self.watch(durable::remove(&path, self.durability)),
            None => Ok(false),
        }
    }
}
