//! Sets of rows as bytes: compressed bitmaps of the distance from a first id, in the portable format of Roaring.
//!
//! Most sets are few offsets of 16 bits. Their bytes are written and read here without a bitmap in memory, for a segment
//! may have as many sets as rows; they are the same bytes as `roaring` would write.
//!
//! Format: <https://github.com/RoaringBitmap/RoaringFormatSpec>

use roaring::RoaringBitmap;

use crate::base::error::Result;
use crate::index::build::bytes::{damaged, take, take_length};

/// What a set begins with if no container is a list of runs.
const WITHOUT_RUNS: u32 = 12_346;
/// What it begins with otherwise; the number of containers less one is in the upper 16 bits.
const WITH_RUNS: u32 = 12_347;
/// The most offsets that a container lists one by one.
const MOST_LISTED: usize = 4_096;
/// Where the only container begins that lists its offsets.
const LIST_START: u32 = 16;

/// The bytes of the ascending `offsets`, in the portable format of Roaring.
pub(crate) fn encode(offsets: &[u32]) -> Vec<u8> {
    let mut bytes = Vec::new();
    append(&mut bytes, offsets);
    bytes
}

/// Appends what [`encode`] returns.
pub(super) fn append(bytes: &mut Vec<u8>, offsets: &[u32]) {
    if append_few(bytes, offsets) {
        return;
    }
    // Ascending offsets cannot be refused, and writing to a vector cannot fail.
    let mut set = RoaringBitmap::from_sorted_iter(offsets.iter().copied()).unwrap_or_default();
    set.optimize();
    let _ = set.serialize_into(bytes);
}

/// The set in `bytes`.
pub(crate) fn decode(bytes: &[u8]) -> Result<RoaringBitmap> {
    RoaringBitmap::deserialize_from(bytes).map_err(|error| damaged(&error.to_string()))
}

/// How many ids the set in `bytes` has, from its header alone: the format lists the size of each container there.
pub(crate) fn cardinality(bytes: &[u8]) -> Result<u64> {
    let mut rest = bytes;
    let cookie = take_length(&mut rest)?;
    let containers = if cookie == WITHOUT_RUNS {
        take_length(&mut rest)?
    } else if cookie & 0xffff == WITH_RUNS {
        let containers = (cookie >> 16) + 1;
        // Which of them are lists of runs.
        take(&mut rest, containers.div_ceil(8))?;
        containers
    } else {
        return Err(damaged("it is no set"));
    };
    // Each is a key and a size less one, in 16 bits.
    let (header, []) = take(&mut rest, containers.saturating_mul(4))?.as_chunks::<4>() else {
        return Err(damaged("it is cut off"));
    };
    Ok(header.iter().map(|[_, _, low, high]| u64::from(u16::from_le_bytes([*low, *high])) + 1).sum())
}

/// The ids of a set, ascending.
pub(crate) fn ids(first_id: i64, set: &RoaringBitmap) -> impl DoubleEndedIterator<Item = i64> + ExactSizeIterator {
    set.iter().map(move |offset| first_id.saturating_add(i64::from(offset)))
}

/// Appends a set of one container without making a bitmap; says whether it could.
fn append_few(bytes: &mut Vec<u8>, offsets: &[u32]) -> bool {
    let (Some(last), count @ 1..=MOST_LISTED) = (offsets.last(), offsets.len()) else { return false };
    if *last > u32::from(u16::MAX) || !offsets.is_sorted_by(|one, next| one < next) {
        return false;
    }
    let low = |number: usize| (number as u16).to_le_bytes();
    let runs = offsets.chunk_by(|one, next| one + 1 == *next);
    let run_count = runs.clone().count();
    if 2 * count <= 2 + 4 * run_count {
        bytes.extend(WITHOUT_RUNS.to_le_bytes());
        bytes.extend(1_u32.to_le_bytes());
        bytes.extend(low(0));
        bytes.extend(low(count - 1));
        bytes.extend(LIST_START.to_le_bytes());
        bytes.extend(offsets.iter().flat_map(|offset| low(*offset as usize)));
    } else {
        bytes.extend(WITH_RUNS.to_le_bytes());
        bytes.push(1);
        bytes.extend(low(0));
        bytes.extend(low(count - 1));
        bytes.extend(low(run_count));
        for run in runs {
            bytes.extend(low(run[0] as usize));
            bytes.extend(low(run.len() - 1));
        }
    }
    true
}

/// A set that is read from its bytes.
pub(crate) enum Offsets<'a> {
    /// Ascending, each in 16 bits.
    Listed(&'a [[u8; 2]]),
    /// Any other.
    Bitmap(RoaringBitmap),
}

impl<'a> Offsets<'a> {
    /// The set in `bytes`, as [`decode`] finds it.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self> {
        match listed(bytes) {
            Some(offsets) => Ok(Self::Listed(offsets)),
            None => decode(bytes).map(Self::Bitmap),
        }
    }

    /// The offsets, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> {
        let (listed, bitmap) = match self {
            Self::Listed(offsets) => (*offsets, None),
            Self::Bitmap(set) => (&[][..], Some(set)),
        };
        listed.iter().map(|offset| u16::from_le_bytes(*offset).into()).chain(bitmap.into_iter().flatten())
    }

    /// The ids, of which the set tells the distances from `first_id`.
    pub(crate) fn ids(&self, first_id: i64) -> impl Iterator<Item = i64> {
        self.iter().map(move |offset| first_id.saturating_add(offset.into()))
    }

    /// The greatest.
    pub(crate) fn last(&self) -> Option<u32> {
        match self {
            Self::Listed(offsets) => offsets.last().map(|offset| u16::from_le_bytes(*offset).into()),
            Self::Bitmap(set) => set.max(),
        }
    }

    /// The set as a bitmap.
    pub(crate) fn into_bitmap(self) -> RoaringBitmap {
        match self {
            Self::Listed(_) => self.iter().collect(),
            Self::Bitmap(set) => set,
        }
    }
}

/// The offsets in `bytes` if they are one container that lists them.
fn listed(bytes: &[u8]) -> Option<&[[u8; 2]]> {
    let (header, listed) = bytes.split_first_chunk::<{ LIST_START as usize }>()?;
    let [a, b, c, d, 1, 0, 0, 0, 0, 0, low, high, e, f, g, h] = *header else { return None };
    if u32::from_le_bytes([a, b, c, d]) != WITHOUT_RUNS || u32::from_le_bytes([e, f, g, h]) != LIST_START {
        return None;
    }
    let (offsets, []) = listed.as_chunks() else { return None };
    let is_whole = offsets.len() == usize::from(u16::from_le_bytes([low, high])) + 1 && offsets.len() <= MOST_LISTED;
    let is_ascending = || offsets.is_sorted_by(|one, next| u16::from_le_bytes(*one) < u16::from_le_bytes(*next));
    (is_whole && is_ascending()).then_some(offsets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What Roaring itself writes.
    fn by_roaring(offsets: &[u32]) -> Vec<u8> {
        let mut set = RoaringBitmap::from_sorted_iter(offsets.iter().copied()).unwrap();
        set.optimize();
        let mut bytes = Vec::new();
        set.serialize_into(&mut bytes).unwrap();
        bytes
    }

    fn sets() -> impl Strategy<Value = Vec<u32>> {
        let ids = proptest::collection::btree_set(
            prop_oneof![0_u32..30, 0_u32..300, 0_u32..5_000, 65_500_u32..65_600, any::<u32>()],
            0..400,
        );
        let runs = proptest::collection::vec((0_u32..200_000, prop_oneof![40 => 1_u32..6, 1 => 1_u32..70_000]), 0..3);
        (ids, runs).prop_map(|(mut ids, runs)| {
            ids.extend(runs.into_iter().flat_map(|(first, count)| first..first + count));
            ids.into_iter().collect()
        })
    }

    proptest! {
        #[test]
        fn the_bytes_are_those_of_roaring(offsets in prop_oneof![sets(), proptest::collection::btree_set(0_u32..40, 0..12).prop_map(|set| set.into_iter().collect())]) {
            let bytes = encode(&offsets);
            prop_assert_eq!(&bytes, &by_roaring(&offsets));
            let set = Offsets::read(&bytes).unwrap();
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), offsets.clone());
            prop_assert_eq!(set.last(), offsets.last().copied());
            prop_assert_eq!(set.into_bitmap(), decode(&bytes).unwrap());
        }

        #[test]
        fn damaged_bytes_are_what_roaring_says(
            offsets in proptest::collection::btree_set(0_u32..5_000, 1..20),
            place in any::<proptest::sample::Index>(),
            byte in any::<u8>(),
            length in any::<proptest::sample::Index>(),
        ) {
            let mut bytes = encode(&offsets.into_iter().collect::<Vec<_>>());
            let place = place.index(bytes.len());
            bytes[place] = byte;
            bytes.truncate(length.index(bytes.len() + 1).max(place));
            match (Offsets::read(&bytes), decode(&bytes)) {
                (Ok(set), Ok(expected)) => prop_assert_eq!(set.into_bitmap(), expected),
                (Err(_), Err(_)) => {}
                (set, expected) => prop_assert!(false, "{} {}", set.is_ok(), expected.is_ok()),
            }
        }

        #[test]
        fn a_header_says_how_many_ids_there_are(
            ids in sets(),
        ) {
            let bytes = encode(&ids);
            prop_assert_eq!(cardinality(&bytes).unwrap(), ids.len() as u64);
            for length in 0..bytes.len().min(40) {
                let _ = cardinality(&bytes[..length]);
            }
        }
    }
}
