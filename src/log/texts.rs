//! The four texts of a row in one allocation: rows are read by the million, and an allocation a text was the largest
//! part of what reading one cost.

use std::fmt;

/// Source, type, reference and payload.
///
/// Each row has a block of its own: a block for a page of rows would be cheaper still, but one row that somebody keeps
/// would keep the whole page.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Texts {
    /// One after the other; what is None takes nothing.
    block: Box<str>,
    source_end: usize,
    kind_end: usize,
    ref_id_end: usize,
    has_ref_id: bool,
    has_payload: bool,
}

impl Texts {
    pub(super) fn new(source: &str, kind: &str, ref_id: Option<&str>, payload: Option<&str>) -> Self {
        let (source_end, kind_end, ref_id_end, length) =
            ends([source.len(), kind.len(), ref_id.map_or(0, str::len), payload.map_or(0, str::len)]);
        let mut block = String::with_capacity(length);
        for text in [source, kind, ref_id.unwrap_or_default(), payload.unwrap_or_default()] {
            block.push_str(text);
        }
        let (has_ref_id, has_payload) = (ref_id.is_some(), payload.is_some());
        Self { block: block.into_boxed_str(), source_end, kind_end, ref_id_end, has_ref_id, has_payload }
    }

    /// The same from bytes; None if one of them is not UTF-8.
    pub(super) fn from_utf8(source: &[u8], kind: &[u8], ref_id: Option<&[u8]>, payload: Option<&[u8]>) -> Option<Self> {
        let (source_end, kind_end, ref_id_end, length) =
            ends([source.len(), kind.len(), ref_id.map_or(0, <[u8]>::len), payload.map_or(0, <[u8]>::len)]);
        let mut block = Vec::with_capacity(length);
        for text in [source, kind, ref_id.unwrap_or_default(), payload.unwrap_or_default()] {
            block.extend_from_slice(text);
        }
        // Looked at once instead of four times: texts are all valid if the whole is and none ends inside a character.
        let block = if block.is_ascii() {
            // SAFETY: ASCII is UTF-8. Most texts are, and this looks at 32 bytes at a time.
            unsafe { String::from_utf8_unchecked(block) }
        } else {
            String::from_utf8(block).ok()?
        };
        let block = block.into_boxed_str();
        if ![source_end, kind_end, ref_id_end].iter().all(|end| block.is_char_boundary(*end)) {
            return None;
        }
        let (has_ref_id, has_payload) = (ref_id.is_some(), payload.is_some());
        Some(Self { block, source_end, kind_end, ref_id_end, has_ref_id, has_payload })
    }

    pub(super) fn source(&self) -> &str {
        &self.block[..self.source_end]
    }

    pub(super) fn kind(&self) -> &str {
        &self.block[self.source_end..self.kind_end]
    }

    pub(super) fn ref_id(&self) -> Option<&str> {
        self.has_ref_id.then(|| &self.block[self.kind_end..self.ref_id_end])
    }

    pub(super) fn payload(&self) -> Option<&str> {
        self.has_payload.then(|| &self.block[self.ref_id_end..])
    }
}

/// Where texts of these lengths end.
fn ends(lengths: [usize; 4]) -> (usize, usize, usize, usize) {
    let [source, kind, ref_id, payload] = lengths;
    (source, source + kind, source + kind + ref_id, source + kind + ref_id + payload)
}

impl fmt::Debug for Texts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        (self.source(), self.kind(), self.ref_id(), self.payload()).fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn texts_are_read_back(
            source in ".*", kind in ".*", ref_id in proptest::option::of(".*"), payload in proptest::option::of(".*"),
        ) {
            let texts = Texts::new(&source, &kind, ref_id.as_deref(), payload.as_deref());
            prop_assert_eq!((texts.source(), texts.kind()), (source.as_str(), kind.as_str()));
            prop_assert_eq!((texts.ref_id(), texts.payload()), (ref_id.as_deref(), payload.as_deref()));
            let bytes = |text: &Option<String>| text.clone().map(String::into_bytes);
            let same = Texts::from_utf8(
                source.as_bytes(), kind.as_bytes(), bytes(&ref_id).as_deref(), bytes(&payload).as_deref(),
            );
            prop_assert_eq!(same, Some(texts));
        }

        #[test]
        fn bytes_are_taken_if_each_text_is_valid(
            texts in proptest::collection::vec(proptest::collection::vec(prop_oneof![Just(0xc3), Just(0xa4), Just(b'a')], 0..3), 4)
        ) {
            let are_valid = texts.iter().all(|text| std::str::from_utf8(text).is_ok());
            let taken = Texts::from_utf8(&texts[0], &texts[1], Some(&texts[2]), Some(&texts[3]));
            prop_assert_eq!(taken.is_some(), are_valid);
        }
    }
}
