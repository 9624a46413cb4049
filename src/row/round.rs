//! The rounds of a run's thread: which rows count, and their numbers.
//!
//! The predecessor asks SQLite (`json_valid`, `json_extract`): strict JSON, nested at most 1,000 deep, up to the first
//! NUL of the text; of a repeated member the first one counts. What a round then says is read by JavaScript, with rules
//! of its own (`workflow/payload`).

use crate::row::entry::LogEntry;
use crate::row::kinds::{EVENT, MESSAGE, SOURCE};
use crate::row::payload::{is_text, members};

/// SQLite's limit of nesting; deeper text is not JSON to it.
const MAX_DEPTH: usize = 1_000;

/// A round of a run, by its number: 1 for the oldest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NumberedRound {
    /// Its number among the rounds of its run.
    pub number: u64,
    /// The id of its row, which may have left the database.
    pub id: i64,
}

/// Whether a row counts as a round: a message or an event whose payload is JSON and no start of a thread.
pub(crate) fn is_round(source: Option<&str>, kind: Option<&str>, payload: Option<&str>) -> bool {
    source == Some(SOURCE) && matches!(kind, Some(MESSAGE | EVENT)) && payload.is_some_and(continues_a_thread)
}

/// The same of a row as it was read.
pub(crate) fn is_round_entry(entry: &LogEntry) -> bool {
    is_round(Some(entry.source()), Some(entry.kind()), entry.payload())
}

fn continues_a_thread(payload: &str) -> bool {
    let text = match memchr::memchr(0, payload.as_bytes()) {
        Some(end) => &payload[..end],
        None => payload,
    };
    let (mut kind, mut role) = (None, None);
    let shape = members(text, |name, value| match name {
        b"type" => kind = kind.or(Some(value)),
        b"role" => role = role.or(Some(value)),
        _ => {}
    });
    shape.is_ok_and(|shape| shape.depth <= MAX_DEPTH) && !is_text(kind, "thread_start") && !is_text(role, "__start__")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_event_round(payload: &str) -> bool {
        is_round(Some(SOURCE), Some(EVENT), Some(payload))
    }

    #[test]
    fn rounds_are_what_sqlite_says() {
        for payload in [
            "null",
            "1e400",
            "{}",
            "[]",
            r#"{"type":"a","type":"thread_start"}"#,
            r#"{"type":null,"type":"thread_start"}"#,
            r#"{"type":"thread_start\u0000"}"#,
            "{\"type\":\"t\"}\0{",
            "1\0",
            r#"{"role":"\ud800"}"#,
            r#"[{"type":"thread_start"}]"#,
        ] {
            assert!(is_event_round(payload), "{payload:?}");
        }
        for payload in [
            "",
            "NaN",
            "{\"a\u{1}\":1}",
            "{\"a\":\"\u{1}\"}",
            r#"{"type":"thread_start","type":"t"}"#,
            "\0{}",
            r#"{"ty\u0070e":"thread\u005fstart"}"#,
            r#"{"role":"__start__","role":"a"}"#,
            "{\"type\":\"thread_start\"}\0",
        ] {
            assert!(!is_event_round(payload), "{payload:?}");
        }
    }

    #[test]
    fn nesting_is_limited_as_in_sqlite() {
        let nested = |depth: usize| format!("{{\"x\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
        assert!(is_event_round(&nested(MAX_DEPTH)));
        assert!(!is_event_round(&nested(MAX_DEPTH + 1)));
        assert!(is_event_round(&format!("[\"{}\"]", "[\\\"".repeat(2 * MAX_DEPTH))));
    }
}
