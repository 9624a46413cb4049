//! Rows as PostgreSQL takes them: an array a column, in its binary form.

use crate::row::entry::NewLogEntry;
use crate::row::is_round;
use crate::row::marked::marked;

/// PostgreSQL's numbers of the types of elements.
const BOOL: u32 = 16;
const INT8: u32 = 20;
const TEXT: u32 = 25;

/// The columns, in their order: source, type, `ref_id`, payload, timestamp, and whether it is a round.
const ELEMENTS: [u32; 6] = [TEXT, TEXT, TEXT, TEXT, INT8, BOOL];
const NULL: i32 = -1;

/// Rows, column by column.
#[derive(Clone, Debug, Default)]
pub struct Arrays {
    /// The elements, each with its length in front.
    columns: [Vec<u8>; ELEMENTS.len()],
    rows: usize,
    payload_bytes: usize,
}

impl Arrays {
    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Bytes of the payloads together.
    pub fn payload_bytes(&self) -> usize {
        self.payload_bytes
    }

    /// Adds a row that was checked.
    pub fn push(&mut self, row: &NewLogEntry<'_>) {
        let [sources, kinds, refs, payloads, timestamps, rounds] = &mut self.columns;
        push_text(sources, Some(row.source));
        push_text(kinds, Some(row.kind));
        push_text(refs, row.ref_id);
        push_text(payloads, row.payload);
        push(timestamps, &row.timestamp.unwrap_or_default().to_be_bytes());
        push(rounds, &[is_round(Some(row.source), Some(row.kind), row.payload).into()]);
        self.rows += 1;
        self.payload_bytes += row.payload.map_or(0, str::len);
    }

    /// Adds the rows of another.
    pub fn extend(&mut self, other: &Self) {
        for (column, more) in self.columns.iter_mut().zip(&other.columns) {
            column.extend_from_slice(more);
        }
        self.rows += other.rows;
        self.payload_bytes += other.payload_bytes;
    }

    /// Each array with its header.
    pub fn encoded(&self) -> [Vec<u8>; ELEMENTS.len()] {
        std::array::from_fn(|column| encoded(ELEMENTS[column], self.rows, &self.columns[column]))
    }
}

/// An array of `count` elements. One without any has no dimension.
fn encoded(element: u32, count: usize, elements: &[u8]) -> Vec<u8> {
    const MAY_HAVE_NULLS: u32 = 1;
    const FIRST_INDEX: u32 = 1;
    let mut bytes = Vec::with_capacity(20 + elements.len());
    let dimensions = u32::from(count > 0);
    for number in [dimensions, MAY_HAVE_NULLS, element] {
        bytes.extend(number.to_be_bytes());
    }
    if count > 0 {
        bytes.extend(u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend(FIRST_INDEX.to_be_bytes());
    }
    bytes.extend_from_slice(elements);
    bytes
}

fn push(column: &mut Vec<u8>, element: &[u8]) {
    column.extend(i32::try_from(element.len()).unwrap_or(i32::MAX).to_be_bytes());
    column.extend_from_slice(element);
}

fn push_text(column: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => push(column, marked(text).as_bytes()),
        None => column.extend(NULL.to_be_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::{EVENT, SOURCE};

    fn row<'a>(kind: &'a str, ref_id: Option<&'a str>, payload: Option<&'a str>) -> NewLogEntry<'a> {
        NewLogEntry { source: SOURCE, kind, ref_id, payload, timestamp: Some(258) }
    }

    #[test]
    fn rows_are_arrays() {
        let mut arrays = Arrays::default();
        arrays.push(&row(EVENT, None, Some("{}")));
        let mut others = Arrays::default();
        others.push(&row("é\0", Some(""), None));
        arrays.extend(&others);
        assert_eq!((arrays.len(), arrays.payload_bytes()), (2, 2));
        let [_, kinds, refs, payloads, timestamps, rounds] = arrays.encoded();
        let expected = |element: u32, elements: &[u8]| {
            let header = [1, 1, element, 2, 1].into_iter().flat_map(u32::to_be_bytes);
            header.chain(elements.iter().copied()).collect::<Vec<u8>>()
        };
        let event = [&[0, 0, 0, EVENT.len() as u8][..], EVENT.as_bytes(), &[0, 0, 0, 7], "é\u{10ffff}0".as_bytes()];
        assert_eq!(kinds, expected(25, &event.concat()));
        assert_eq!(refs, expected(25, &[255, 255, 255, 255, 0, 0, 0, 0]));
        assert_eq!(payloads, expected(25, &[0, 0, 0, 2, b'{', b'}', 255, 255, 255, 255]));
        assert_eq!(timestamps, expected(20, &[[0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 1, 2]; 2].concat()));
        assert_eq!(rounds, expected(16, &[0, 0, 0, 1, 1, 0, 0, 0, 1, 0]));
    }

    #[test]
    fn no_row_is_no_dimension() {
        assert_eq!(Arrays::default().encoded()[4], [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 20]);
    }
}
