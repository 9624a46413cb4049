//! A payload as JSON: the members of its outermost object, each as it is written.

use std::borrow::Cow;

use crate::row::json::{Malformed, Token, Tokens, unescape};

/// What a payload that is JSON is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) is_object: bool,
    /// How deep its objects and arrays are nested; 0 for a text, a number, a truth value or null.
    pub(crate) depth: usize,
}

/// Reads the whole payload, and calls `visit` with the decoded name and the raw value of each member of its outermost
/// object, in their order, a repeated one each time.
pub(crate) fn members<'a>(text: &'a str, mut visit: impl FnMut(&[u8], &'a str)) -> Result<Shape, Malformed> {
    let mut tokens = Tokens::new(text);
    let mut shape = Shape { is_object: false, depth: 0 };
    let mut member: Option<(Cow<'a, [u8]>, usize)> = None;
    while let Some(token) = tokens.next() {
        let depth = tokens.depth();
        shape.depth = shape.depth.max(depth);
        match token? {
            Token::ObjectStart if depth == 1 => shape.is_object = true,
            Token::Key(key) if depth == 1 => member = Some((unescape(key), tokens.position())),
            // A value of the outermost object, whole now.
            _ if depth == 1 => {
                if let Some((name, after_colon)) = member.take() {
                    let value = &text[after_colon..tokens.position()];
                    visit(&name, value.trim_ascii_start());
                }
            }
            _ => {}
        }
    }
    Ok(shape)
}

/// Whether a raw value is a string.
pub(crate) fn is_string(value: Option<&str>) -> bool {
    value.is_some_and(|value| value.starts_with('"'))
}

/// Whether a raw value is a number.
pub(crate) fn is_number(value: Option<&str>) -> bool {
    value.is_some_and(|value| value.starts_with(|first: char| first == '-' || first.is_ascii_digit()))
}

/// Whether a raw value is the string `wanted`.
pub(crate) fn is_text(value: Option<&str>, wanted: &str) -> bool {
    value.is_some_and(|value| value.starts_with('"') && *unescape(value) == *wanted.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Vec<(String, &str)> {
        let mut found = Vec::new();
        let shape =
            members(text, |name, value| found.push((String::from_utf8_lossy(name).into_owned(), value))).unwrap();
        assert!(shape.is_object);
        found
    }

    #[test]
    fn members_are_those_of_the_outermost_object_as_they_are_written() {
        let text = " { \"a\" : [ {\"b\":1} ] , \"\\u0062\":\t-1.50 ,\"c\":{\"a\":{}},\"a\":\"x\" } ";
        let expected = [("a", "[ {\"b\":1} ]"), ("b", "-1.50"), ("c", "{\"a\":{}}"), ("a", "\"x\"")];
        assert_eq!(all(text), expected.map(|(name, value)| (name.to_owned(), value)));
    }

    #[test]
    fn what_is_no_object_has_no_members() {
        for (text, depth) in [("1", 0), ("[{\"a\":1}]", 2), ("\"{}\"", 0), ("null", 0), ("[]", 1)] {
            let shape = members(text, |_, _| panic!("a member of {text}")).unwrap();
            assert_eq!(shape, Shape { is_object: false, depth });
        }
        assert_eq!(members("{\"a\":[[]]}", |_, _| ()).unwrap(), Shape { is_object: true, depth: 3 });
    }

    #[test]
    fn text_is_compared_decoded() {
        assert!(is_text(Some(r#""thread\u005fstart""#), "thread_start"));
        assert!(!is_text(Some(r#""thread_start\u0000""#), "thread_start"));
        assert!(!is_text(Some("1"), "1"));
        assert!(!is_text(None, ""));
    }
}
