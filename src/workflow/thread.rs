//! The thread of a run: what a daemon reads to recover it, and what a person reads to follow it.

use serde_json::value::RawValue;

use crate::base::error::Result;
use crate::row::payload;
use crate::row::payload::{Object, Payload};
use crate::row::{EVENT, Filter, LogEntry, MESSAGE, SOURCE};
use crate::store::LogStore;

/// A message. Texts and values are JSON as it is written, so that nothing in them is lost.
#[derive(Clone, Debug)]
pub struct ThreadMessage {
    /// A JSON string.
    pub role: Box<RawValue>,
    /// A JSON string.
    pub content: Box<RawValue>,
    /// Any JSON.
    pub meta: Option<Box<RawValue>>,
    /// The writer's own clock, in milliseconds; 0 when it gave no number.
    pub timestamp: i64,
}

/// A numbered round.
#[derive(Clone, Debug)]
pub struct Round {
    /// From 1, in the order of the log.
    pub round: u64,
    /// The row.
    pub log_id: i64,
    /// The row's timestamp, in milliseconds.
    pub timestamp: i64,
    /// What it says.
    pub message: ThreadMessage,
}

/// What started a run.
#[derive(Clone, Debug)]
pub enum Trigger {
    /// A prompt and a number of rounds.
    Prompt {
        /// A JSON string.
        prompt: Box<RawValue>,
        /// A JSON number.
        max_rounds: Box<RawValue>,
        /// Whether nothing was to be done in earnest.
        dry_run: bool,
    },
    /// Another object.
    Object(Box<RawValue>),
}

/// The run's messages, in order.
pub fn messages(store: &LogStore, run_id: &str) -> Result<Vec<ThreadMessage>> {
    collect(store, run_id, MESSAGE, |text| match payload::parse(text) {
        Some(Payload::Object(object)) => message(&object),
        _ => None,
    })
}

/// The run's command events, in order, each as the JSON object that it is.
pub fn events(store: &LogStore, run_id: &str) -> Result<Vec<Box<RawValue>>> {
    collect(store, run_id, EVENT, |text| match payload::parse(text) {
        Some(Payload::Object(object)) if payload::is_string(object.kind) => raw(text),
        _ => None,
    })
}

/// How many rounds the run's thread has.
pub fn round_count(store: &LogStore, run_id: &str) -> Result<u64> {
    store.round_count(run_id)
}

/// The rounds numbered below `before` (0: all), newest first, from the `limit` newest numbers. One that is no message
/// takes a number but is not returned.
pub fn rounds(store: &LogStore, run_id: &str, before: u64, limit: u64) -> Result<Vec<Round>> {
    let rows = store.round_rows(run_id, before, limit)?;
    Ok(rows.into_iter().filter_map(|(number, row)| round(number, &row)).collect())
}

fn round(round: u64, entry: &LogEntry) -> Option<Round> {
    let Some(Payload::Object(object)) = entry.payload().and_then(payload::parse) else { return None };
    let message = message(&object).or_else(|| event_message(&object, entry))?;
    Some(Round { round, log_id: entry.id, timestamp: entry.timestamp, message })
}

/// What started the run, from its first `started` row.
pub fn trigger_payload(store: &LogStore, run_id: &str) -> Result<Option<Trigger>> {
    let filter = Filter { limit: Some(1), ..of_run(run_id, "started") };
    let first = store.query(&filter, true)?.pop();
    let text = first.as_ref().and_then(LogEntry::payload);
    let Some(Payload::Object(object)) = text.and_then(payload::parse) else { return Ok(None) };
    if let Some(prompt) = prompt(&object) {
        return Ok(Some(prompt));
    }
    let Some(inner) = payload::as_object(object.trigger_payload) else { return Ok(None) };
    Ok(prompt(&inner).or_else(|| object.trigger_payload.map(|inner| Trigger::Object(inner.to_owned()))))
}

fn prompt(object: &Object<'_>) -> Option<Trigger> {
    match (object.prompt, object.max_rounds) {
        (Some(prompt), Some(max_rounds))
            if payload::is_string(object.prompt) && payload::is_number(object.max_rounds) =>
        {
            Some(Trigger::Prompt {
                prompt: prompt.to_owned(),
                max_rounds: max_rounds.to_owned(),
                dry_run: object.dry_run.is_some_and(|value| value.get() == "true"),
            })
        }
        _ => None,
    }
}

fn message(object: &Object<'_>) -> Option<ThreadMessage> {
    match (object.role, object.content) {
        (Some(role), Some(content)) if payload::is_string(object.role) && payload::is_string(object.content) => {
            Some(ThreadMessage {
                role: role.to_owned(),
                content: content.to_owned(),
                meta: object.meta.map(RawValue::to_owned),
                timestamp: payload::milliseconds(object.timestamp),
            })
        }
        _ => None,
    }
}

/// A typed event in the form of a message: its type speaks unless it has a role, its text is its content or all of it.
fn event_message(object: &Object<'_>, entry: &LogEntry) -> Option<ThreadMessage> {
    let kind = object.kind.filter(|_| payload::is_string(object.kind))?;
    let text = entry.payload()?;
    let content = match object.content.filter(|_| payload::is_string(object.content)) {
        Some(content) => content.to_owned(),
        None => serde_json::value::to_raw_value(&payload::stringify(text)).ok()?,
    };
    Some(ThreadMessage {
        role: object.role.filter(|_| payload::is_string(object.role)).unwrap_or(kind).to_owned(),
        content,
        meta: raw(text),
        timestamp: entry.timestamp,
    })
}

fn collect<T>(store: &LogStore, run_id: &str, kind: &str, pick: impl Fn(&str) -> Option<T>) -> Result<Vec<T>> {
    let mut found = Vec::new();
    store.each(&of_run(run_id, kind), &mut |row| found.extend(row.payload().and_then(&pick)))?;
    Ok(found)
}

fn of_run(run_id: &str, kind: &str) -> Filter {
    Filter {
        ref_id: Some(run_id.to_owned()),
        source: Some(SOURCE.to_owned()),
        kind: Some(kind.to_owned()),
        ..Filter::default()
    }
}

fn raw(text: &str) -> Option<Box<RawValue>> {
    RawValue::from_string(text.to_owned()).ok()
}
