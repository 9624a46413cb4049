//! The error of a manifest that is damaged.

use crate::base::error::{Error, Result};

pub(super) const DAMAGED: &str = "the manifest of the archive is damaged";
const WAY_OUT: &str = "reindex() rebuilds it";

/// What was read of the manifest; a value that is none of the manifest's is damage.
pub(crate) fn or_damaged<T>(read: Result<T>) -> Result<T> {
    read.map_err(|error| error.or_damaged(DAMAGED, WAY_OUT))
}

/// The error that a reader of a damaged manifest gets.
pub(super) fn damaged(what: &str) -> Error {
    Error::Damaged { what: DAMAGED.to_owned(), reason: what.to_owned(), way_out: Some(WAY_OUT) }
}
