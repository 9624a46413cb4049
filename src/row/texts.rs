//! The four texts of a row, in one block of memory that a few rows share: rows are read by the million, and an
//! allocation a text was the largest part of what reading one cost.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Texts that share a block, at most, in bytes; longer ones have a block of their own. It bounds the memory of
/// other rows that one kept row holds.
const BLOCK_BYTES: usize = 2 << 10;

/// Source, type, reference and payload.
#[derive(Clone)]
pub(crate) struct Texts {
    block: Arc<str>,
    layout: Layout,
}

/// Where the texts of a row are in a block: one after the other; what is None takes nothing.
#[derive(Clone, Copy)]
struct Layout {
    start: usize,
    source_end: usize,
    kind_end: usize,
    ref_id_end: usize,
    end: usize,
    has_ref_id: bool,
    has_payload: bool,
}

/// The texts of a row before they are known to be UTF-8.
pub(crate) type RawTexts<'a> = (&'a [u8], &'a [u8], Option<&'a [u8]>, Option<&'a [u8]>);

impl Texts {
    pub(crate) fn new(source: &str, kind: &str, ref_id: Option<&str>, payload: Option<&str>) -> Self {
        let (ref_id_text, payload_text) = (ref_id.unwrap_or_default(), payload.unwrap_or_default());
        let layout =
            Layout::new(0, (source.as_bytes(), kind.as_bytes(), ref_id.map(str::as_bytes), payload.map(str::as_bytes)));
        let mut block = String::with_capacity(layout.end);
        block.extend([source, kind, ref_id_text, payload_text]);
        Self { block: block.into(), layout }
    }

    pub(crate) fn source(&self) -> &str {
        &self.block[self.layout.start..self.layout.source_end]
    }

    pub(crate) fn kind(&self) -> &str {
        &self.block[self.layout.source_end..self.layout.kind_end]
    }

    pub(crate) fn ref_id(&self) -> Option<&str> {
        self.layout.has_ref_id.then(|| &self.block[self.layout.kind_end..self.layout.ref_id_end])
    }

    pub(crate) fn payload(&self) -> Option<&str> {
        self.layout.has_payload.then(|| &self.block[self.layout.ref_id_end..self.layout.end])
    }

    fn all(&self) -> (&str, &str, Option<&str>, Option<&str>) {
        (self.source(), self.kind(), self.ref_id(), self.payload())
    }
}

impl PartialEq for Texts {
    fn eq(&self, other: &Self) -> bool {
        self.all() == other.all()
    }
}

impl Eq for Texts {}

impl Hash for Texts {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.all().hash(state);
    }
}

impl fmt::Debug for Texts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.all().fmt(formatter)
    }
}

impl Layout {
    fn new(start: usize, (source, kind, ref_id, payload): RawTexts<'_>) -> Self {
        let source_end = start + source.len();
        let kind_end = source_end + kind.len();
        let ref_id_end = kind_end + ref_id.map_or(0, <[u8]>::len);
        let end = ref_id_end + payload.map_or(0, <[u8]>::len);
        Self {
            start,
            source_end,
            kind_end,
            ref_id_end,
            end,
            has_ref_id: ref_id.is_some(),
            has_payload: payload.is_some(),
        }
    }

    /// Where each text begins and ends.
    fn parts(&self) -> [(usize, usize); 4] {
        [
            (self.start, self.source_end),
            (self.source_end, self.kind_end),
            (self.kind_end, self.ref_id_end),
            (self.ref_id_end, self.end),
        ]
    }
}

/// The texts of rows that are being read, each with `T`, until they are a block.
pub(crate) struct Gathering<T> {
    bytes: Vec<u8>,
    rows: Vec<(T, Layout)>,
}

impl<T> Default for Gathering<T> {
    fn default() -> Self {
        Self { bytes: Vec::new(), rows: Vec::new() }
    }
}

impl<T> Gathering<T> {
    /// Whether the next row belongs into another block.
    pub(crate) fn is_full(&self, next: RawTexts<'_>) -> bool {
        !self.rows.is_empty() && Layout::new(self.bytes.len(), next).end > BLOCK_BYTES
    }

    pub(crate) fn push(&mut self, of: T, found: RawTexts<'_>) {
        let layout = Layout::new(self.bytes.len(), found);
        let (source, kind, ref_id, payload) = found;
        for text in [source, kind, ref_id.unwrap_or_default(), payload.unwrap_or_default()] {
            self.bytes.extend_from_slice(text);
        }
        self.rows.push((of, layout));
    }

    /// Makes the block and calls `visit` with the rows in it. A text that is not UTF-8 is an error: whose, and which of
    /// the four.
    pub(crate) fn finish(&mut self, mut visit: impl FnMut(T, Texts)) -> Result<(), (T, usize)> {
        // Looked at once: the texts are all valid if the whole is and none ends inside a character.
        let block = std::str::from_utf8(&self.bytes).ok().filter(|block| {
            self.rows.iter().all(|(_, layout)| layout.parts().iter().all(|(_, end)| block.is_char_boundary(*end)))
        });
        let Some(block) = block.map(Arc::<str>::from) else { return Err(self.first_damaged()) };
        self.bytes.clear();
        for (of, layout) in self.rows.drain(..) {
            visit(of, Texts { block: Arc::clone(&block), layout });
        }
        Ok(())
    }

    fn first_damaged(&mut self) -> (T, usize) {
        let bytes = std::mem::take(&mut self.bytes);
        let damaged = |layout: &Layout| {
            layout.parts().iter().position(|(start, end)| std::str::from_utf8(&bytes[*start..*end]).is_err())
        };
        let index = self.rows.iter().position(|(_, layout)| damaged(layout).is_some()).unwrap_or_default();
        let (of, layout) = self.rows.swap_remove(index);
        (of, damaged(&layout).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Row = (String, String, Option<String>, Option<String>);

    fn rows() -> impl Strategy<Value = Vec<Row>> {
        let text = || prop_oneof![4 => ".{0,30}", 1 => "[a-é]{500,1500}"];
        let optional = move || proptest::option::of(text());
        proptest::collection::vec((text(), text(), optional(), optional()), 1..12)
    }

    fn found((source, kind, ref_id, payload): &Row) -> RawTexts<'_> {
        (
            source.as_bytes(),
            kind.as_bytes(),
            ref_id.as_deref().map(str::as_bytes),
            payload.as_deref().map(str::as_bytes),
        )
    }

    proptest! {
        #[test]
        fn texts_are_read_back_from_blocks_that_few_share(rows in rows()) {
            let mut gathering = Gathering::default();
            let mut read = Vec::new();
            for (number, row) in rows.iter().enumerate() {
                if gathering.is_full(found(row)) {
                    gathering.finish(|number, texts| read.push((number, texts))).unwrap();
                }
                gathering.push(number, found(row));
            }
            gathering.finish(|number, texts| read.push((number, texts))).unwrap();
            prop_assert_eq!(read.len(), rows.len());
            for (expected, (row, (number, texts))) in rows.iter().zip(&read).enumerate() {
                let (source, kind, ref_id, payload) = row;
                prop_assert_eq!(*number, expected);
                prop_assert_eq!(texts.all(), (source.as_str(), kind.as_str(), ref_id.as_deref(), payload.as_deref()));
                prop_assert_eq!(texts, &Texts::new(source, kind, ref_id.as_deref(), payload.as_deref()));
                prop_assert!(texts.block.len() <= BLOCK_BYTES.max(texts.layout.end - texts.layout.start));
            }
        }

        #[test]
        fn bytes_are_taken_if_each_text_is_valid(
            rows in proptest::collection::vec(proptest::collection::vec(
                proptest::collection::vec(prop_oneof![Just(0xc3), Just(0xa4), Just(b'a')], 0..3), 4), 1..3)
        ) {
            let mut gathering = Gathering::default();
            for (number, row) in rows.iter().enumerate() {
                gathering.push(number, (&row[0], &row[1], Some(&row[2]), Some(&row[3])));
            }
            let texts = rows.iter().enumerate().flat_map(|(number, row)| {
                row.iter().enumerate().map(move |(column, text)| (number, column, text))
            });
            let damaged = texts
                .filter(|(_, _, text)| std::str::from_utf8(text).is_err())
                .map(|(number, column, _)| (number, column))
                .next();
            prop_assert_eq!(gathering.finish(|_, _| ()).err(), damaged);
        }
    }
}
