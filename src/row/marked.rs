//! Texts as the log on PostgreSQL stores them, which refuses NUL: `U+10FFFF 0` stands for it, and `U+10FFFF 1` for
//! `U+10FFFF` itself.

use std::borrow::Cow;

const MARK: char = '\u{10ffff}';
/// The first byte of the mark, which hardly any text has.
const FIRST: u8 = 0xf4;

/// What `text` is stored as.
pub(super) fn marked(text: &str) -> Cow<'_, str> {
    let is_plain = memchr::memchr2(0, FIRST, text.as_bytes()).is_none();
    if is_plain || !text.contains(['\0', MARK]) {
        return Cow::Borrowed(text);
    }
    let mut stored = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match character {
            '\0' => stored.extend([MARK, '0']),
            MARK => stored.extend([MARK, '1']),
            _ => stored.push(character),
        }
    }
    Cow::Owned(stored)
}

/// The bytes of the text that was stored as this one; those that are no text as they are.
pub fn unmarked_bytes(text: &[u8]) -> Cow<'_, [u8]> {
    match memchr::memchr(FIRST, text).map(|_| std::str::from_utf8(text).map(unmarked)) {
        Some(Ok(Cow::Owned(whole))) => Cow::Owned(whole.into_bytes()),
        _ => Cow::Borrowed(text),
    }
}

/// The text that was stored as this one.
pub(super) fn unmarked(text: &str) -> Cow<'_, str> {
    if memchr::memchr(FIRST, text.as_bytes()).is_none() || !text.contains(MARK) {
        return Cow::Borrowed(text);
    }
    let mut whole = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let stands_for = if character == MARK { characters.peek().copied() } else { None };
        match stands_for {
            Some('0') => whole.push('\0'),
            Some('1') => whole.push(MARK),
            // Another program's text is left as it is.
            _ => {
                whole.push(character);
                continue;
            }
        }
        characters.next();
    }
    Cow::Owned(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_no_text_of_ours_is_left_as_it_is() {
        for text in ["\u{10ffff}", "\u{10ffff}2", "a\u{10fffe}0", "\u{10ffff}\u{10ffff}"] {
            assert_eq!(unmarked(text), text);
        }
    }

    proptest! {
        #[test]
        fn texts_are_read_as_they_were(text in "[a\0\u{10ffff}\u{10fffe}01é]{0,12}") {
            let stored = text.replace(MARK, "\u{10ffff}1").replace('\0', "\u{10ffff}0");
            prop_assert_eq!(marked(&text), stored.as_str());
            prop_assert_eq!(unmarked(&stored), text.as_str());
            prop_assert_eq!(&unmarked_bytes(stored.as_bytes())[..], text.as_bytes());
            // What is no text is the caller's affair.
            let damaged = [stored.as_bytes(), b"\xff"].concat();
            prop_assert_eq!(&unmarked_bytes(&damaged)[..], &damaged[..]);
        }
    }
}
