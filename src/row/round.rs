//! The rounds of a run's thread: which rows count, and their numbers.

use crate::row::entry::LogEntry;
use crate::row::payload::{self, Payload};
use crate::row::{EVENT, MESSAGE, SOURCE};

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
