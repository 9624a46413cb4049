//! What SQLite's format says of pages and cells: <https://sqlite.org/fileformat2.html>.

use crate::base::ids::IdSpan;

/// The kind of a page of a table that leads to others.
pub(crate) const INTERIOR_TABLE: u8 = 5;
/// The kind of a page of an index that leads to others.
pub(crate) const INTERIOR_INDEX: u8 = 2;
/// The kind of a page with rows.
pub(crate) const LEAF_TABLE: u8 = 13;
/// The kind of a page with the last entries of an index.
pub(crate) const LEAF_INDEX: u8 = 10;

/// No tree is deeper.
pub(crate) const MOST_DEPTH: usize = 24;

/// A number of up to nine bytes, and how many there are.
#[inline]
pub(crate) fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(9).enumerate() {
        if index == 8 {
            return Some((value << 8 | u64::from(*byte), 9));
        }
        value = value << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((value, index + 1));
        }
    }
    None
}

/// Four bytes as a number; 0 where there are none.
pub(crate) fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |word| u32::from_be_bytes([word[0], word[1], word[2], word[3]]))
}

/// How many bytes a value of this kind has in a record; None if there is no such kind.
#[inline]
pub(crate) fn value_bytes(kind: u64) -> Option<u64> {
    match kind {
        0 | 8 | 9 => Some(0),
        1..=4 => Some(kind),
        5 => Some(6),
        6 | 7 => Some(8),
        10 | 11 => None,
        _ => Some((kind - 12) / 2),
    }
}

/// The integer of these bytes; None without any.
#[inline]
pub(crate) fn integer(bytes: &[u8]) -> Option<i64> {
    let sign = if bytes.first()? & 0x80 == 0 { 0 } else { -1_i64 };
    Some(bytes.iter().fold(sign, |value, byte| value << 8 | i64::from(*byte)))
}

/// How many bytes of a record are in its cell; the others overflow into pages of their own. `usable` are the bytes of a page
/// that hold data.
pub(crate) fn local_bytes(record_bytes: usize, usable: usize, is_index: bool) -> usize {
    let most = if is_index { (usable - 12) * 64 / 255 - 23 } else { usable - 35 };
    let least = (usable - 12) * 32 / 255 - 23;
    match record_bytes {
        all if all <= most => all,
        all => Some(least + (all - least) % (usable - 4)).filter(|local| *local <= most).unwrap_or(least),
    }
}

/// Which row ids can be below a page: above the first, up to the second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds(pub(crate) Option<i64>, pub(crate) Option<i64>);

impl Bounds {
    /// Any.
    pub(crate) const NONE: Self = Self(None, None);

    pub(crate) fn contain(self, rowid: i64) -> bool {
        self.0.is_none_or(|after| rowid > after) && self.1.is_none_or(|last| rowid <= last)
    }

    /// Whether any id of the span can be there.
    pub(crate) fn meet(self, ids: IdSpan) -> bool {
        self.0.is_none_or(|after| ids.last > after) && self.1.is_none_or(|last| ids.first <= last)
    }
}

/// The header of a page of a tree.
#[derive(Clone, Copy)]
pub(crate) struct PageHeader {
    pub(crate) kind: u8,
    cell_count: usize,
    /// The last child.
    pub(crate) right: u32,
    /// Where the places of the cells are.
    places: usize,
}

impl PageHeader {
    /// That of the page with this number; None if it is none of a tree.
    pub(crate) fn of(page: &[u8], number: u32) -> Option<Self> {
        let start = if number == 1 { 100 } else { 0 };
        let kind = *page.get(start)?;
        let is_interior = match kind {
            INTERIOR_INDEX | INTERIOR_TABLE => true,
            LEAF_INDEX | LEAF_TABLE => false,
            _ => return None,
        };
        let cell_count = usize::from(u16::from_be_bytes([*page.get(start + 3)?, *page.get(start + 4)?]));
        let places = start + if is_interior { 12 } else { 8 };
        let right = if is_interior { word(page, start + 8) } else { 0 };
        (places + 2 * cell_count <= page.len()).then_some(Self { kind, cell_count, right, places })
    }

    /// Each cell, to the end of the page; None where there can be none.
    pub(crate) fn cells(self, page: &[u8]) -> impl DoubleEndedIterator<Item = Option<&[u8]>> {
        let end = self.places + 2 * self.cell_count;
        page[self.places..end].as_chunks::<2>().0.iter().map(move |place| {
            let place = usize::from(u16::from_be_bytes(*place));
            if place < end { None } else { page.get(place..) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_one_to_nine_bytes() {
        assert_eq!(varint(&[0x7f]), Some((127, 1)));
        assert_eq!(varint(&[0x81, 0x00, 0xff]), Some((128, 2)));
        assert_eq!(varint(&[0xff; 9]), Some((u64::MAX, 9)));
        assert_eq!(varint(&[0x81]), None);
        assert_eq!(varint(&[]), None);
    }
}
