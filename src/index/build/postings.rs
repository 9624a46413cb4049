//! The postings of a segment as bytes: each reference with the offsets of its rows, and which of them are rounds.

use smallvec::SmallVec;

use crate::base::error::Result;
use crate::index::build::bytes::{damaged, take, take_length};
use crate::index::build::offsets::{Offsets, append};
use crate::row::index_key;

/// The most offsets that a posting holds without memory of its own.
const FEW: usize = 4;

/// In place of a length: the rounds are all of the rows.
const ALL: u32 = u32::MAX;

/// Where a reference occurs in a segment: offsets from the segment's first id, ascending.
#[derive(Default)]
pub(crate) struct Posting {
    pub(crate) ids: SmallVec<[u32; FEW]>,
    /// Those that are rounds.
    pub(crate) rounds: SmallVec<[u32; FEW]>,
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

/// Calls `visit` with each posting in the bytes of a segment: the reference's key, its rows, and those that are rounds
/// unless all are.
pub(crate) fn each_posting<'a>(
    mut bytes: &'a [u8],
    mut visit: impl FnMut(&'a str, Offsets<'a>, Option<Offsets<'a>>),
) -> Result<()> {
    while !bytes.is_empty() {
        let length = take_length(&mut bytes)?;
        let ref_id = std::str::from_utf8(take(&mut bytes, length)?).map_err(|error| damaged(&error.to_string()))?;
        let length = take_length(&mut bytes)?;
        let ids = Offsets::read(take(&mut bytes, length)?)?;
        let rounds = match take_length(&mut bytes)? {
            ALL => None,
            length => Some(Offsets::read(take(&mut bytes, length)?)?),
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use smallvec::smallvec;

    fn offsets() -> impl Strategy<Value = Vec<u32>> {
        proptest::collection::btree_set(0_u32..5_000, 0..200).prop_map(|set| set.into_iter().collect())
    }

    #[test]
    fn long_references_get_their_keys() {
        let long = "x".repeat(1_000);
        let bytes = |long: &str| {
            let mut bytes = Vec::new();
            append_posting(&mut bytes, "a", &Posting { ids: smallvec![1, 2], rounds: smallvec![2] });
            append_posting(&mut bytes, long, &Posting { ids: smallvec![0, 9], rounds: smallvec![0, 9] });
            append_posting(&mut bytes, "b", &Posting { ids: smallvec![3], rounds: smallvec![] });
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
                append_posting(&mut bytes, ref_id, &Posting { ids: ids.clone().into(), rounds: rounds.into() });
            }
            let mut found = Vec::new();
            each_posting(&bytes, |ref_id, ids, rounds| {
                let rounds: Vec<_> = rounds.as_ref().unwrap_or(&ids).iter().collect();
                found.push((ref_id.to_owned(), ids.iter().collect::<Vec<_>>(), rounds));
            }).unwrap();
            let expected: Vec<_> = postings
                .into_iter()
                .map(|(ref_id, ids, rounds, all)| { let rounds = if all { ids.clone() } else { rounds }; (ref_id, ids, rounds) })
                .collect();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn damage_is_an_error_and_no_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = each_posting(&bytes, |_, _, _| {});
            let mut whole = Vec::new();
            append_posting(&mut whole, "run", &Posting { ids: smallvec![1, 2], rounds: smallvec![2] });
            bytes.truncate(whole.len());
            whole[..bytes.len()].copy_from_slice(&bytes);
            let _ = each_posting(&whole, |_, _, _| {});
        }
    }
}
