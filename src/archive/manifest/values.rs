//! Values in the columns of the manifest's tables.

use roaring::RoaringTreemap;
use rusqlite::Row;

use crate::archive::manifest::damage::{damaged, or_damaged};
use crate::base::error::Result;

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
    let bytes = or_damaged(row.get_ref(column)?.as_blob().map_err(rusqlite::Error::from).map_err(Into::into))?;
    RoaringTreemap::deserialize_from(bytes).map_err(|error| damaged(&error.to_string()))
}

/// The text of a column, parsed.
pub(crate) fn parsed<T>(row: &Row<'_>, column: usize, parse: impl FnOnce(&str) -> Option<T>) -> Result<T> {
    let text = or_damaged(row.get_ref(column)?.as_str().map_err(rusqlite::Error::from).map_err(Into::into))?;
    parse(text).ok_or_else(|| damaged(text))
}
