//! Which rows count as rounds of their run's thread.

use crate::row::entry::LogEntry;
use crate::row::payload::{self, Payload};
use crate::row::{EVENT, MESSAGE, SOURCE};

/// Whether a row counts as a round: a message or an event whose payload is JSON and no start of a thread.
pub(crate) fn is_round(source: Option<&str>, kind: Option<&str>, payload: Option<&str>) -> bool {
    if source != Some(SOURCE) || !matches!(kind, Some(MESSAGE | EVENT)) {
        return false;
    }
    match payload.and_then(payload::parse) {
        None => false,
        Some(Payload::Object(object)) => {
            !payload::is_text(object.kind, "thread_start") && !payload::is_text(object.role, "__start__")
        }
        Some(Payload::Other) => true,
    }
}

/// The same of a row as it was read.
pub(crate) fn is_round_entry(entry: &LogEntry) -> bool {
    is_round(Some(entry.source()), Some(entry.kind()), entry.payload())
}
