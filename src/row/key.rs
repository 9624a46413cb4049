//! How the index and the manifest of the archive name a text: by itself, or by its digest if it is long, so that what
//! they store and hold in memory is bounded by the number of rows, however long texts another program stores.

use std::borrow::Cow;

use crate::base::digest::Digest;

/// The longest text that is its own key, in bytes of UTF-8.
const LONGEST_KEY: usize = 512;
/// What the key of another text begins with. A text that begins with it is never its own key, so that no two texts have
/// the same key.
const DIGEST_MARK: &str = "\u{10ffff}sha256:";

/// The key of a reference, a source or a type.
pub(crate) fn index_key(text: &str) -> Cow<'_, str> {
    if text.len() <= LONGEST_KEY && !text.starts_with(DIGEST_MARK) {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(format!("{DIGEST_MARK}{}", Digest::of(text.as_bytes())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    proptest! {
        #[test]
        fn texts_have_keys_of_their_own(texts in proptest::collection::hash_set("(\u{10ffff}sha256:)?[a-é]{0,300}", 0..20)) {
            let mut all: HashSet<String> = texts;
            // Keys are texts, too.
            all.extend(all.clone().iter().map(|text| index_key(text).into_owned()));
            let keys: HashSet<_> = all.iter().map(|text| index_key(text)).collect();
            prop_assert_eq!(keys.len(), all.len());
            prop_assert!(keys.iter().all(|key| key.len() <= LONGEST_KEY));
        }
    }
}
