//! Where a blob lies: `<root>/<2 hex>/<62 hex>`, lowercase. The only place that knows the layout.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::digest::Digest;

/// How many shards there are: one for each value of the first two digits.
pub(super) const SHARDS: usize = 256;

/// Bytes that have no name yet. Hidden, and no two hex digits, so that nobody takes it for a shard.
const STAGING: &str = ".staging";

/// Where one blob lies.
pub(super) struct Place {
    /// The number of the shard, below [`SHARDS`].
    pub(super) shard_number: usize,
    /// The directory of the shard.
    pub(super) shard: PathBuf,
    /// The blob itself.
    pub(super) file: PathBuf,
}

impl Place {
    pub(super) fn of(root: &Path, digest: &Digest) -> Self {
        let text = digest.to_string();
        let (shard_name, file_name) = text.split_at(2);
        let shard = root.join(shard_name);
        let file = shard.join(file_name);
        let shard_number =
            shard_name.chars().filter_map(|digit| digit.to_digit(16)).fold(0, |sum, digit| sum * 16 + digit);
        Self { shard_number: shard_number as usize, shard, file }
    }
}

/// The directory of the shard with this number.
pub(super) fn shard(root: &Path, shard_number: usize) -> PathBuf {
    root.join(shard_name(shard_number))
}

/// The digest of the blob that has this file name in this shard; None if no blob is named so.
pub(super) fn digest(shard_number: usize, file_name: &OsStr) -> Option<Digest> {
    let file_name = file_name.to_str().filter(|name| !name.bytes().any(|byte| byte.is_ascii_uppercase()))?;
    Digest::parse(&(shard_name(shard_number) + file_name))
}

/// The directory where bytes are staged, on the same file system as the blobs.
pub(super) fn staging(root: &Path) -> PathBuf {
    root.join(STAGING)
}

fn shard_name(shard_number: usize) -> String {
    format!("{shard_number:02x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_and_its_name_agree() {
        for text in ["", "plan", "漢字"] {
            let digest = Digest::of(text.as_bytes());
            let place = Place::of(Path::new("/blobs"), &digest);
            let hex = digest.to_string();
            assert_eq!(place.file, Path::new("/blobs").join(&hex[..2]).join(&hex[2..]));
            assert_eq!(place.shard, shard(Path::new("/blobs"), place.shard_number));
            assert_eq!(super::digest(place.shard_number, place.file.file_name().unwrap()), Some(digest));
        }
    }

    #[test]
    fn strangers_are_no_blobs() {
        let hex = Digest::of(b"").to_string();
        let short = &hex[2..];
        for name in [hex.as_str(), &short[1..], &short.to_uppercase(), ".stage-x", "", "..", &format!("{short}.tmp")] {
            assert_eq!(digest(0xe3, OsStr::new(name)), None, "{name}");
        }
    }
}
