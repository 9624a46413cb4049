//! What is JSON and what is not, beside serde_json, at any depth.

use super::*;
use proptest::prelude::*;

fn is_json(text: &str) -> bool {
    Tokens::new(text).all(|token| token.is_ok())
}

#[test]
fn only_strict_json_is_json() {
    for text in [
        "null",
        "42",
        "[1,2,3]",
        "1e400",
        r#"{"a":"\ud800","b":1e400}"#,
        " {} ",
        r#"{"\ud800":1}"#,
        "-0",
        "-0.0e-0",
        "[]",
        "[[],{}]",
        "\"\u{7f}\u{2028}\"",
        "1E+5",
        "\t\r\n 1",
    ] {
        assert!(is_json(text), "{text}");
    }
    for text in [
        "",
        " ",
        "{not json",
        "{} x",
        "NaN",
        "-Infinity",
        "{'a':1}",
        "[1,]",
        "\u{feff}{}",
        "01",
        "-",
        "1.",
        ".5",
        "+1",
        "1e",
        "\"\u{1}\"",
        "{\"\u{1}\":1}",
        "{\"a\u{1f}\":1}",
        "{\"a\":1,}",
        "{,}",
        "[,]",
        "{\"a\"}",
        "{\"a\":}",
        "]",
        "}",
        "[}",
        "{]",
        "[1 2]",
        "nul",
        "nulll",
        "tru",
        "\"\\x\"",
        "\"\\u12g4\"",
        "\"\\u123\"",
        "\"\\u+123\"",
        "\"",
        "\u{a0}1",
        "{}\0",
        "[1]]",
        "{\"a\":1 \"b\":2}",
        "{1:2}",
        "\u{b}1",
    ] {
        assert!(!is_json(text), "{text:?}");
    }
}

#[test]
fn an_error_says_where() {
    let error = |text| Tokens::new(text).find_map(Result::err).unwrap();
    assert_eq!(error(r#"{"a":NaN}"#).at, 5);
    assert_eq!(error("{}x").at, 2);
    assert_eq!(error("[1").at, 2);
}

#[test]
fn any_depth_is_read_on_a_small_stack() {
    let read = || {
        let depth = 3_000_000;
        let text = "[{\"a\":".repeat(depth) + "1" + &"}]".repeat(depth);
        assert!(is_json(&text));
        assert!(!is_json(&text[..text.len() - 1]));
    };
    std::thread::Builder::new().stack_size(16 << 10).spawn(read).unwrap().join().unwrap();
}

#[test]
fn escapes_become_text() {
    let text = |token: &str| unescape(token).into_owned();
    assert_eq!(text(r#""\u00fc\n\/\"\\\u0000""#), "ü\n/\"\\\0".as_bytes());
    assert_eq!(text(r#""a\ud83d\ude00b""#), "a😀b".as_bytes());
    assert_eq!(text(r#""\ud83d""#), [0xed, 0xa0, 0xbd]);
    assert_eq!(text(r#""\ude00\ud83d""#), [0xed, 0xb8, 0x80, 0xed, 0xa0, 0xbd]);
    assert_eq!(text(r#""\ud83d\ud83d\ude00""#), [&[0xed, 0xa0, 0xbd], "😀".as_bytes()].concat());
}

proptest! {
    #[test]
    fn it_agrees_with_serde_json(text in "[\\[\\]{},:\" 0-9.eE+\\-a-u\\\\\u{0}-\u{20}]{0,12}|(\\[|\\]|\\{|\\}|,|:|\"a\"|1|null|-0| ){0,10}") {
        // serde_json does not look for control characters in names that it skips; this does.
        prop_assert_eq!(is_json(&text), serde_json::from_str::<serde_json::Value>(&text).is_ok() || {
            // Lone surrogates and numbers out of range are JSON, but not serde_json's.
            serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok() && is_json(&text)
        });
    }

    #[test]
    fn special_bytes_are_found_wherever_they_are(text in "[a-zü\u{1}\"\\\\\u{7f}\u{80}é]{0,40}") {
        let special = text.bytes().position(|byte| byte < 32 || byte == b'"' || byte == b'\\');
        prop_assert_eq!(plain_length(text.as_bytes()), special.unwrap_or(text.len()));
    }

    #[test]
    fn what_is_escaped_comes_back(text in any::<String>()) {
        let token = serde_json::to_string(&text).unwrap();
        prop_assert_eq!(&*unescape(&token), text.as_bytes());
    }
}
