//! Sets of rows as bytes: compressed bitmaps of the distance from a first id; and the postings of a segment.

use roaring::RoaringBitmap;

use crate::base::error::{Error, Result};
use crate::row::index_key;

/// In place of a length: the rounds are all of the rows.
const ALL: u32 = u32::MAX;

/// The bytes of the ascending `offsets`, in the portable format of Roaring.
pub(crate) fn encode(offsets: &[u32]) -> Vec<u8> {
    let mut bytes = Vec::new();
    append(&mut bytes, offsets);
    bytes
}

fn append(bytes: &mut Vec<u8>, offsets: &[u32]) {
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
    const WITHOUT_RUNS: u32 = 12_346;
    const WITH_RUNS: u32 = 12_347;
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

/// Where a reference occurs in a segment: offsets from the segment's first id, ascending.
#[derive(Default)]
pub(crate) struct Posting {
    pub(crate) ids: Vec<u32>,
    /// Those that are rounds.
    pub(crate) rounds: Vec<u32>,
}

/// Appends the posting of `ref_id` to the bytes of a segment.
pub(crate) fn append_posting(bytes: &mut Vec<u8>, ref_id: &str, posting: &Posting) {
    append_part(bytes, |bytes| bytes.extend_from_slice(ref_id.as_bytes()));
    append_part(bytes, |bytes| append(bytes, &posting.ids));
    if posting.rounds == posting.ids {
        bytes.extend_from_slice(&ALL.to_le_bytes());
    } else {
        append_part(bytes, |bytes| append(bytes, &posting.rounds));
    }
}

/// A part with its length in front.
fn append_part(bytes: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = bytes.len();
    bytes.extend_from_slice(&[0; 4]);
    write(bytes);
    let length = u32::try_from(bytes.len() - start - 4).unwrap_or(ALL - 1);
    bytes[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

/// Calls `visit` with each posting in the bytes of a segment.
pub(crate) fn each_posting(
    mut bytes: &[u8],
    mut visit: impl FnMut(&str, RoaringBitmap, Option<RoaringBitmap>),
) -> Result<()> {
    while !bytes.is_empty() {
        let length = take_length(&mut bytes)?;
        let ref_id = std::str::from_utf8(take(&mut bytes, length)?).map_err(|error| damaged(&error.to_string()))?;
        let length = take_length(&mut bytes)?;
        let ids = decode(take(&mut bytes, length)?)?;
        let rounds = match take_length(&mut bytes)? {
            ALL => None,
            length => Some(decode(take(&mut bytes, length)?)?),
        };
        visit(ref_id, ids, rounds);
    }
    Ok(())
}

/// The bytes of a segment with each reference named by its key; None if each is.
pub(crate) fn rekeyed(mut bytes: &[u8]) -> Result<Option<Vec<u8>>> {
    let (mut new, mut is_changed) = (Vec::new(), false);
    while !bytes.is_empty() {
        let length = take_length(&mut bytes)?;
        let ref_id = std::str::from_utf8(take(&mut bytes, length)?).map_err(|error| damaged(&error.to_string()))?;
        let key = index_key(ref_id);
        is_changed |= key != ref_id;
        append_part(&mut new, |new| new.extend_from_slice(key.as_bytes()));
        let length = take_length(&mut bytes)?;
        let ids = take(&mut bytes, length)?;
        append_part(&mut new, |new| new.extend_from_slice(ids));
        match take_length(&mut bytes)? {
            ALL => new.extend_from_slice(&ALL.to_le_bytes()),
            length => {
                let rounds = take(&mut bytes, length)?;
                append_part(&mut new, |new| new.extend_from_slice(rounds));
            }
        }
    }
    Ok(is_changed.then_some(new))
}

fn take_length(bytes: &mut &[u8]) -> Result<u32> {
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(|| damaged("it is cut off"))?;
    *bytes = rest;
    Ok(u32::from_le_bytes(*length))
}

fn take<'a>(bytes: &mut &'a [u8], length: u32) -> Result<&'a [u8]> {
    let (part, rest) = bytes.split_at_checked(length as usize).ok_or_else(|| damaged("it is cut off"))?;
    *bytes = rest;
    Ok(part)
}

const DAMAGED: &str = "the index of the log is damaged";
const WAY_OUT: &str = "reindex() rebuilds it";

/// The error that a reader of damaged bytes gets.
pub(crate) fn damaged(reason: &str) -> Error {
    Error::Damaged { what: DAMAGED.to_owned(), reason: reason.to_owned(), way_out: Some(WAY_OUT) }
}

/// What was read of the index; a value that is none of the index's is damage.
pub(crate) fn or_damaged<T>(read: Result<T>) -> Result<T> {
    read.map_err(|error| error.or_damaged(DAMAGED, WAY_OUT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn offsets() -> impl Strategy<Value = Vec<u32>> {
        proptest::collection::btree_set(0_u32..5_000, 0..200).prop_map(|set| set.into_iter().collect())
    }

    #[test]
    fn long_references_get_their_keys() {
        let long = "x".repeat(1_000);
        let bytes = |long: &str| {
            let mut bytes = Vec::new();
            append_posting(&mut bytes, "a", &Posting { ids: vec![1, 2], rounds: vec![2] });
            append_posting(&mut bytes, long, &Posting { ids: vec![0, 9], rounds: vec![0, 9] });
            append_posting(&mut bytes, "b", &Posting { ids: vec![3], rounds: vec![] });
            bytes
        };
        let key = index_key(&long);
        assert_eq!(rekeyed(&bytes(&long)).unwrap(), Some(bytes(&key)));
        assert_eq!(rekeyed(&bytes("short")).unwrap(), None);
        for length in 1..bytes(&long).len() {
            let _ = rekeyed(&bytes(&long)[..length]);
        }
    }

    proptest! {
        #[test]
        fn postings_are_read_back(postings in proptest::collection::vec((".*", offsets(), offsets(), any::<bool>()), 0..6)) {
            let mut bytes = Vec::new();
            for (ref_id, ids, rounds, all) in &postings {
                let rounds = if *all { ids.clone() } else { rounds.clone() };
                append_posting(&mut bytes, ref_id, &Posting { ids: ids.clone(), rounds });
            }
            let mut found = Vec::new();
            each_posting(&bytes, |ref_id, ids, rounds| {
                let rounds = rounds.unwrap_or_else(|| ids.clone());
                found.push((ref_id.to_owned(), ids.iter().collect::<Vec<_>>(), rounds.iter().collect::<Vec<_>>()));
            }).unwrap();
            let expected: Vec<_> = postings
                .into_iter()
                .map(|(ref_id, ids, rounds, all)| { let rounds = if all { ids.clone() } else { rounds }; (ref_id, ids, rounds) })
                .collect();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn a_header_says_how_many_ids_there_are(
            ids in proptest::collection::btree_set(prop_oneof![0_u32..300, 0_u32..5_000, any::<u32>()], 0..400),
            run in proptest::option::of((0_u32..200_000, 1_u32..70_000)),
        ) {
            let mut ids = ids;
            ids.extend(run.into_iter().flat_map(|(first, count)| first..first + count));
            let ids: Vec<u32> = ids.into_iter().collect();
            let bytes = encode(&ids);
            prop_assert_eq!(cardinality(&bytes).unwrap(), ids.len() as u64);
            for length in 0..bytes.len().min(40) {
                let _ = cardinality(&bytes[..length]);
            }
        }

        #[test]
        fn damage_is_an_error_and_no_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = each_posting(&bytes, |_, _, _| {});
            let mut whole = Vec::new();
            append_posting(&mut whole, "run", &Posting { ids: vec![1, 2], rounds: vec![2] });
            bytes.truncate(whole.len());
            whole[..bytes.len()].copy_from_slice(&bytes);
            let _ = each_posting(&whole, |_, _, _| {});
        }
    }
}
