//! What the payloads of a run's rows say: messages, events, triggers.
//!
//! The predecessor reads them with `JSON.parse`: strict JSON of any depth, and of a repeated member the last one counts.
//! Values are handed on as they are written, so that nothing in them is lost.

use crate::row::json::{Malformed, is_integer};
use crate::row::payload::{self, is_number, is_string};

/// The members of an object that matter here.
#[derive(Default)]
pub(super) struct Object<'a> {
    pub(super) role: Option<&'a str>,
    pub(super) content: Option<&'a str>,
    pub(super) meta: Option<&'a str>,
    pub(super) kind: Option<&'a str>,
    pub(super) timestamp: Option<&'a str>,
    pub(super) prompt: Option<&'a str>,
    pub(super) max_rounds: Option<&'a str>,
    pub(super) dry_run: Option<&'a str>,
    pub(super) trigger_payload: Option<&'a str>,
}

impl<'a> Object<'a> {
    /// The object that `text` is; None if it is other JSON.
    pub(super) fn parse(text: &'a str) -> Result<Option<Self>, Malformed> {
        let mut object = Self::default();
        let shape = payload::members(text, |name, value| {
            let member = match name {
                b"role" => &mut object.role,
                b"content" => &mut object.content,
                b"meta" => &mut object.meta,
                b"type" => &mut object.kind,
                b"timestamp" => &mut object.timestamp,
                b"prompt" => &mut object.prompt,
                b"maxRounds" => &mut object.max_rounds,
                b"dryRun" => &mut object.dry_run,
                b"triggerPayload" => &mut object.trigger_payload,
                _ => return,
            };
            *member = Some(value);
        })?;
        Ok(shape.is_object.then_some(object))
    }

    /// The role and the content of a message.
    pub(super) fn message(&self) -> Option<(&'a str, &'a str)> {
        self.role.zip(self.content).filter(|(role, content)| is_string(Some(role)) && is_string(Some(content)))
    }

    /// The type of an event.
    pub(super) fn event_type(&self) -> Option<&'a str> {
        self.kind.filter(|kind| is_string(Some(kind)))
    }

    /// The prompt and the number of rounds of a trigger.
    pub(super) fn prompt(&self) -> Option<(&'a str, &'a str)> {
        self.prompt.zip(self.max_rounds).filter(|(prompt, rounds)| is_string(Some(prompt)) && is_number(Some(rounds)))
    }
}

/// An integer of any size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WholeNumber {
    /// One that fits.
    Small(i64),
    /// The digits of one that does not, with a minus sign if it is negative.
    Large(Box<str>),
}

/// A raw number as an integer, rounded towards zero; 0 for anything else, and for what is beyond every double.
pub(super) fn whole_number(value: Option<&str>) -> WholeNumber {
    let Some(value) = value.filter(|value| is_number(Some(value))) else { return WholeNumber::Small(0) };
    if let Ok(integer) = value.parse() {
        return WholeNumber::Small(integer);
    }
    if is_integer(value) {
        return WholeNumber::Large(value.into());
    }
    let number = value.parse::<f64>().map_or(0.0, f64::trunc);
    if number.abs() < 9e18 {
        WholeNumber::Small(number as i64)
    } else if number.is_finite() {
        WholeNumber::Large(format!("{number:.0}").into())
    } else {
        WholeNumber::Small(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_a_repeated_member_counts() {
        let object =
            Object::parse(r#"{"type":"a","content":"x","ty\u0070e":"b","role":"r","content":"y"}"#).unwrap().unwrap();
        assert_eq!((object.event_type(), object.message()), (Some("\"b\""), Some(("\"r\"", "\"y\""))));
        let spoiled = Object::parse(r#"{"role":"r","content":"x","content":1}"#).unwrap().unwrap();
        assert_eq!(spoiled.message(), None);
    }

    #[test]
    fn any_depth_and_nothing_after_the_value() {
        let nested =
            format!("{{\"role\":\"a\",\"content\":\"b\",\"meta\":{}{}}}", "[".repeat(5_000), "]".repeat(5_000));
        assert!(Object::parse(&nested).unwrap().unwrap().message().is_some());
        assert_eq!(Object::parse("{}\0").err().unwrap().at, 2);
        assert!(Object::parse("[]").unwrap().is_none());
    }

    #[test]
    fn timestamps_become_whole_numbers() {
        let small = |text| match whole_number(Some(text)) {
            WholeNumber::Small(number) => number,
            WholeNumber::Large(digits) => panic!("{digits}"),
        };
        for (text, expected) in [
            ("17", 17),
            ("1.9", 1),
            ("-1.9", -1),
            ("1.774e12", 1_774_000_000_000),
            ("\"17\"", 0),
            ("null", 0),
            ("1e999", 0),
            ("-0", 0),
        ] {
            assert_eq!(small(text), expected, "{text}");
        }
        let large = |text: &str| WholeNumber::Large(text.into());
        assert_eq!(whole_number(Some("9223372036854775808")), large("9223372036854775808"));
        assert_eq!(whole_number(Some("-1e19")), large("-10000000000000000000"));
        assert_eq!(whole_number(None), WholeNumber::Small(0));
    }
}
