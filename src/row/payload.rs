//! What a payload says, as JSON: enough of it to tell messages, events and rounds apart, without building its values.
//!
//! The predecessor asks SQLite whether a payload is JSON and JavaScript what is in it. So: strict JSON, nested at most
//! as deep as SQLite reads; of a repeated key the last one counts; escaped lone surrogates and numbers beyond any range
//! are still JSON, and are handed on as they are written.

use std::borrow::Cow;
use std::fmt;
use std::io;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Serializer, Value};

/// SQLite's limit of nesting; deeper text is not JSON to it.
const MAX_DEPTH: usize = 1_000;

/// A payload that is JSON.
pub(crate) enum Payload<'a> {
    /// An object; boxed, because it is much larger than the rest.
    Object(Box<Object<'a>>),
    /// Anything else.
    Other,
}

/// The members of an object that matter here, each as it is written.
#[derive(Default)]
pub(crate) struct Object<'a> {
    pub(crate) role: Option<&'a RawValue>,
    pub(crate) content: Option<&'a RawValue>,
    pub(crate) meta: Option<&'a RawValue>,
    pub(crate) kind: Option<&'a RawValue>,
    pub(crate) timestamp: Option<&'a RawValue>,
    pub(crate) prompt: Option<&'a RawValue>,
    pub(crate) max_rounds: Option<&'a RawValue>,
    pub(crate) dry_run: Option<&'a RawValue>,
    pub(crate) trigger_payload: Option<&'a RawValue>,
}

/// Reads a payload; None if it is not JSON.
pub(crate) fn parse(text: &str) -> Option<Payload<'_>> {
    let is_object = text.trim_start_matches([' ', '\t', '\n', '\r']).starts_with('{');
    let payload = if is_object {
        Payload::Object(Box::new(serde_json::from_str(text).ok()?))
    } else {
        serde_json::from_str::<IgnoredAny>(text).ok()?;
        Payload::Other
    };
    (!is_too_deep(text)).then_some(payload)
}

/// Whether a raw value is a string.
pub(crate) fn is_string(value: Option<&RawValue>) -> bool {
    value.is_some_and(|value| value.get().starts_with('"'))
}

/// Whether a raw value is a number.
pub(crate) fn is_number(value: Option<&RawValue>) -> bool {
    value.is_some_and(|value| value.get().starts_with(|first: char| first == '-' || first.is_ascii_digit()))
}

/// Whether a raw value is the string `wanted`.
pub(crate) fn is_text(value: Option<&RawValue>, wanted: &str) -> bool {
    let Some(value) = value.filter(|value| value.get().starts_with('"')) else { return false };
    // A string with a lone surrogate does not parse, and is none of the words that are looked for.
    serde_json::from_str::<Cow<'_, str>>(value.get()).is_ok_and(|text| text == wanted)
}

/// A raw value as a raw object.
pub(crate) fn as_object(value: Option<&RawValue>) -> Option<Object<'_>> {
    serde_json::from_str(value.filter(|value| value.get().starts_with('{'))?.get()).ok()
}

/// A raw number in whole milliseconds, rounded towards zero; 0 for anything else.
pub(crate) fn milliseconds(value: Option<&RawValue>) -> i64 {
    let Some(value) = value.filter(|value| is_number(Some(value))) else { return 0 };
    value.get().parse::<i64>().unwrap_or_else(|_| value.get().parse::<f64>().unwrap_or(0.0) as i64)
}

/// The text that `JSON.stringify(JSON.parse(text))` gives, except that integers stay exact and the keys in their order.
/// What cannot be read as values (a lone surrogate, a number beyond any range) comes back as it is.
pub(crate) fn stringify(text: &str) -> String {
    let mut written = Vec::with_capacity(text.len());
    let mut deserializer = serde_json::Deserializer::from_str(text);
    deserializer.disable_recursion_limit(); // What gets here is nested at most MAX_DEPTH deep.
    let Ok(value) = Value::deserialize(&mut deserializer) else { return text.to_owned() };
    let mut serializer = Serializer::with_formatter(&mut written, JavaScript);
    match serde::Serialize::serialize(&value, &mut serializer).map(|()| String::from_utf8(written)) {
        Ok(Ok(written)) => written,
        _ => text.to_owned(),
    }
}

/// Compact, and floats as ECMAScript's `Number::toString` writes them.
struct JavaScript;

impl serde_json::ser::Formatter for JavaScript {
    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        writer.write_all(ryu_js::Buffer::new().format(value).as_bytes())
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Object<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
                let mut object = Object::default();
                while let Some(Key(key)) = map.next_key()? {
                    let member = match key {
                        Member::Role => &mut object.role,
                        Member::Content => &mut object.content,
                        Member::Meta => &mut object.meta,
                        Member::Type => &mut object.kind,
                        Member::Timestamp => &mut object.timestamp,
                        Member::Prompt => &mut object.prompt,
                        Member::MaxRounds => &mut object.max_rounds,
                        Member::DryRun => &mut object.dry_run,
                        Member::TriggerPayload => &mut object.trigger_payload,
                        Member::Other => {
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    *member = Some(map.next_value()?);
                }
                Ok(object)
            }
        }

        deserializer.deserialize_map(Members)
    }
}

enum Member {
    Role,
    Content,
    Meta,
    Type,
    Timestamp,
    Prompt,
    MaxRounds,
    DryRun,
    TriggerPayload,
    Other,
}

struct Key(Member);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;

        impl Visitor<'_> for Name {
            type Value = Key;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a member's name")
            }

            // As bytes, because a name may hold an escaped lone surrogate.
            fn visit_bytes<E: Error>(self, name: &[u8]) -> Result<Key, E> {
                Ok(Key(match name {
                    b"role" => Member::Role,
                    b"content" => Member::Content,
                    b"meta" => Member::Meta,
                    b"type" => Member::Type,
                    b"timestamp" => Member::Timestamp,
                    b"prompt" => Member::Prompt,
                    b"maxRounds" => Member::MaxRounds,
                    b"dryRun" => Member::DryRun,
                    b"triggerPayload" => Member::TriggerPayload,
                    _ => Member::Other,
                }))
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Key, E> {
                self.visit_bytes(name.as_bytes())
            }
        }

        deserializer.deserialize_bytes(Name)
    }
}

/// Whether valid JSON is nested deeper than [`MAX_DEPTH`].
fn is_too_deep(text: &str) -> bool {
    let is_opening = |byte: &&u8| matches!(byte, b'[' | b'{');
    if text.len() <= MAX_DEPTH || text.as_bytes().iter().filter(is_opening).nth(MAX_DEPTH).is_none() {
        return false;
    }
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return true;
                }
            }
            b']' | b'}' if !in_string => depth -= 1,
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_json(text: &str) -> bool {
        parse(text).is_some()
    }

    fn object(text: &str) -> Box<Object<'_>> {
        match parse(text) {
            Some(Payload::Object(object)) => object,
            _ => panic!("not an object: {text}"),
        }
    }

    #[test]
    fn only_strict_json_is_json() {
        for text in ["null", "42", "[1,2,3]", "1e400", r#"{"a":"\ud800","b":1e400}"#, " {} ", r#"{"\ud800":1}"#] {
            assert!(is_json(text), "{text}");
        }
        for text in ["", "{not json", "{} x", "NaN", "{'a':1}", "[1,]", "\u{feff}{}", "01"] {
            assert!(!is_json(text), "{text}");
        }
    }

    #[test]
    fn the_last_of_a_repeated_key_counts() {
        assert!(is_text(object(r#"{"type":"a","ty\u0070e":"thread_start"}"#).kind, "thread_start"));
    }

    #[test]
    fn nesting_is_limited_as_in_sqlite() {
        let nested = |depth: usize| format!("{{\"x\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
        assert!(is_json(&nested(MAX_DEPTH)));
        assert!(!is_json(&nested(MAX_DEPTH + 1)));
        assert!(is_json(&format!("[\"{}\"]", "[\\\"".repeat(2 * MAX_DEPTH))));
    }

    #[test]
    fn stringify_writes_what_javascript_writes() {
        for (text, expected) in [
            (r#"{"b": 1.0, "a": [1e21, 0.1, -0.0, 1.5e300]}"#, r#"{"b":1,"a":[1e+21,0.1,0,1.5e+300]}"#),
            ("{\"s\": \"\\u00fc\\u0001\\u2028\\/\"}", "{\"s\":\"ü\\u0001\u{2028}/\"}"),
            (r#"{"n": 9007199254740993}"#, r#"{"n":9007199254740993}"#),
            (r#"{"s":"\ud800"}"#, r#"{"s":"\ud800"}"#),
        ] {
            assert_eq!(stringify(text), expected);
        }
    }

    #[test]
    fn timestamps_become_whole_milliseconds() {
        let raw = |text: &str| milliseconds(Some(&*RawValue::from_string(text.to_owned()).unwrap()));
        assert_eq!(
            [raw("17"), raw("1.9"), raw("1.774e12"), raw("\"17\""), raw("null")],
            [17, 1, 1_774_000_000_000, 0, 0]
        );
    }
}
