//! Where a blob lies: `<root>/<2 hex>/<62 hex>`, lowercase. The only place that knows the layout.

use std::path::{Path, PathBuf};

use crate::base::digest::Digest;

/// How many shards there are: one for each value of the first two digits.
pub(super) const SHARDS: usize = 256;

/// Bytes that have no name yet. Hidden, and no two hex digits, so that it is not taken for a shard.
pub(super) const STAGING: &str = ".staging";

/// Damaged blobs that were moved aside, under their digest.
pub(super) const QUARANTINE: &str = ".quarantine";

/// How the names of blobs begin: two digits and a slash.
const SHARD_DIGITS: usize = 2;

/// The name of one blob.
pub(super) struct Name {
    /// The shard, a slash, the name within the shard.
    below: [u8; 65],
    shard_number: usize,
}

impl Name {
    pub(super) fn of(digest: &Digest) -> Self {
        let mut below = [b'/'; 65];
        let digits = digest.digits();
        below[..SHARD_DIGITS].copy_from_slice(&digits[..SHARD_DIGITS]);
        below[SHARD_DIGITS + 1..].copy_from_slice(&digits[SHARD_DIGITS..]);
        Self { below, shard_number: shard_number(digest) }
    }

    /// The way from the root.
    pub(super) fn below(&self) -> &str {
        std::str::from_utf8(&self.below).unwrap_or_default()
    }

    /// The name of the shard.
    pub(super) fn shard(&self) -> &str {
        &self.below()[..SHARD_DIGITS]
    }

    /// The number of the shard.
    pub(super) fn shard_number(&self) -> usize {
        self.shard_number
    }

    /// The name within the shard.
    pub(super) fn file(&self) -> &str {
        &self.below()[SHARD_DIGITS + 1..]
    }

    /// Where the blob lies.
    pub(super) fn path(&self, root: &Path) -> PathBuf {
        root.join(self.below())
    }
}

/// The number of the blob's shard, below [`SHARDS`].
pub(super) fn shard_number(digest: &Digest) -> usize {
    usize::from(digest.as_bytes()[0])
}

/// The name of the shard with this number.
pub(super) fn shard_name(shard_number: usize) -> String {
    format!("{shard_number:02x}")
}

/// The digest of the blob that has this file name in this shard; None if no blob is named so.
pub(super) fn digest(shard_number: usize, file_name: &[u8]) -> Option<Digest> {
    let file_name = std::str::from_utf8(file_name).ok()?;
    if file_name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return None;
    }
    Digest::parse(&(shard_name(shard_number) + file_name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_and_its_name_agree() {
        for text in ["", "plan", "漢字"] {
            let digest = Digest::of(text.as_bytes());
            let name = Name::of(&digest);
            let hex = digest.to_string();
            assert_eq!(name.path(Path::new("/blobs")), Path::new("/blobs").join(&hex[..2]).join(&hex[2..]));
            assert_eq!(name.shard(), shard_name(shard_number(&digest)));
            assert_eq!(super::digest(shard_number(&digest), name.file().as_bytes()), Some(digest));
        }
    }

    #[test]
    fn strangers_are_no_blobs() {
        let hex = Digest::of(b"").to_string();
        let short = &hex[2..];
        for name in [hex.as_str(), &short[1..], &short.to_uppercase(), ".stage-x", "", "..", &format!("{short}.tmp")] {
            assert_eq!(digest(0xe3, name.as_bytes()), None, "{name}");
        }
        assert_eq!(digest(0xe3, &[0xff; 62]), None);
    }
}
