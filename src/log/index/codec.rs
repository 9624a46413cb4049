//! Sets of rows as bytes: compressed bitmaps of the distance from the segment's first id.

use roaring::RoaringBitmap;
use rusqlite::types::Type;

use crate::error::{Error, Result};

/// The bytes of the ascending `offsets`, in the portable format of Roaring.
pub(super) fn encode(offsets: &[u32]) -> Vec<u8> {
    let mut set: RoaringBitmap = offsets.iter().copied().collect();
    set.optimize();
    let mut bytes = Vec::with_capacity(set.serialized_size());
    // Writing to a vector cannot fail.
    let _ = set.serialize_into(&mut bytes);
    bytes
}

/// The set in `bytes`.
pub(super) fn decode(bytes: &[u8]) -> Result<RoaringBitmap> {
    RoaringBitmap::deserialize_from(bytes).map_err(|error| {
        let reason = format!("the index of the log is damaged ({error}); reindex() rebuilds it");
        Error::Sqlite(rusqlite::Error::FromSqlConversionFailure(0, Type::Blob, reason.into()))
    })
}

/// The ids of a set in the segment that begins with `first_id`, ascending.
pub(super) fn ids(first_id: i64, set: &RoaringBitmap) -> impl DoubleEndedIterator<Item = i64> + ExactSizeIterator {
    set.iter().map(move |offset| first_id + i64::from(offset))
}
