//! Values in the columns of the manifest's tables, and what a damaged one is called.

use roaring::RoaringTreemap;
use rusqlite::Row;

use crate::base::error::{Error, Result};

/// The set of ascending ids.
pub(crate) fn set_of(ids: &[i64]) -> RoaringTreemap {
    ids.iter().map(|id| id.cast_unsigned()).collect()
}

/// The bytes of a set, in the portable format of Roaring.
pub(crate) fn to_bytes(set: &RoaringTreemap) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(set.serialized_size());
    // Writing to a vector cannot fail.
    let _ = set.serialize_into(&mut bytes);
    bytes
}

/// The set in a column.
pub(crate) fn from_bytes(row: &Row<'_>, column: usize) -> Result<RoaringTreemap> {
    let bytes = row.get_ref(column)?.as_blob().map_err(rusqlite::Error::from)?;
    RoaringTreemap::deserialize_from(bytes).map_err(|error| damaged(&error.to_string()))
}

/// The text of a column, parsed.
pub(crate) fn parsed<T>(row: &Row<'_>, column: usize, parse: impl FnOnce(&str) -> Option<T>) -> Result<T> {
    let text = or_damaged(row.get_ref(column)?.as_str().map_err(rusqlite::Error::from).map_err(Into::into))?;
    parse(text).ok_or_else(|| damaged(text))
}

const DAMAGED: &str = "the manifest of the archive is damaged";
const WAY_OUT: &str = "reindex() rebuilds it";

/// What was read of the manifest; a value that is none of the manifest's is damage.
pub(crate) fn or_damaged<T>(read: Result<T>) -> Result<T> {
    read.map_err(|error| error.or_damaged(DAMAGED, WAY_OUT))
}

pub(crate) fn damaged(what: &str) -> Error {
    Error::Damaged { what: DAMAGED.to_owned(), reason: what.to_owned(), way_out: Some(WAY_OUT) }
}
