//! The thread of a run: what a daemon reads to recover it, and what a person reads to follow it.

use crate::base::error::{Error, Result};
use crate::base::status::RunStatus;
use crate::row::payload::is_string;
use crate::row::{EVENT, Filter, LogEntry, MESSAGE, SOURCE};
use crate::store::LogStore;
use crate::workflow::payload::{Object, WholeNumber, whole_number};
use crate::workflow::stringify::stringify;

/// A message. Texts and values are JSON as it is written, so that nothing in them is lost.
#[derive(Clone, Debug)]
pub struct ThreadMessage {
    /// A JSON string.
    pub role: Box<str>,
    /// A JSON string, or a text of its own.
    pub content: Content,
    /// Any JSON.
    pub meta: Option<Box<str>>,
    /// The writer's own clock, in milliseconds; 0 when it gave no number.
    pub timestamp: WholeNumber,
}

/// What a message says.
#[derive(Clone, Debug)]
pub enum Content {
    /// A JSON string.
    Json(Box<str>),
    /// The text itself.
    Text(String),
}

/// A numbered round.
#[derive(Clone, Debug)]
pub struct Round {
    /// From 1, in the order of the log.
    pub round: u64,
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
        prompt: Box<str>,
        /// A JSON number.
        max_rounds: Box<str>,
        /// Whether nothing was to be done in earnest.
        dry_run: bool,
    },
    /// Another object, as JSON.
    Object(Box<str>),
}

/// What the rows of a thread say. A row affects none but itself.
#[derive(Clone, Debug)]
pub struct Thread<T> {
    /// What was found, each with the id of its row, in the order asked for.
    pub found: Vec<(i64, T)>,
    /// The ids of rows that cannot be read or whose payloads are no JSON, and why.
    pub malformed: Vec<(i64, String)>,
}

impl<T> Default for Thread<T> {
    fn default() -> Self {
        Self { found: Vec::new(), malformed: Vec::new() }
    }
}

impl<T> Thread<T> {
    fn add(&mut self, row: &LogEntry, read: impl FnOnce(&str, &Object<'_>) -> Option<T>) {
        let Some(text) = row.payload() else { return };
        match Object::parse(text) {
            Ok(object) => self.found.extend(object.and_then(|object| read(text, &object)).map(|found| (row.id, found))),
            Err(malformed) => self.malformed.push((row.id, malformed.to_string())),
        }
    }
}

/// The run's messages, in order.
pub fn messages(store: &LogStore, run_id: &str) -> Result<Thread<ThreadMessage>> {
    collect(store, run_id, MESSAGE, |_, object| message(object))
}

/// The run's command events, in order, each as the JSON object that it is.
pub fn events(store: &LogStore, run_id: &str) -> Result<Thread<Box<str>>> {
    collect(store, run_id, EVENT, |text, object| object.event_type().map(|_| text.into()))
}

/// How many rounds the run's thread has.
pub fn round_count(store: &LogStore, run_id: &str) -> Result<u64> {
    store.round_count(run_id)
}

/// The rounds numbered below `before` (0: all), newest first, from the `limit` newest numbers. One that is no message
/// takes a number but is not returned.
pub fn rounds(store: &LogStore, run_id: &str, before: u64, limit: u64) -> Result<Thread<Round>> {
    let mut thread = Thread::default();
    for (round, row) in store.round_rows(run_id, before, limit)? {
        thread.add(&row, |text, object| {
            let message = message(object).or_else(|| event_message(object, text, row.timestamp))?;
            Some(Round { round, timestamp: row.timestamp, message })
        });
    }
    Ok(thread)
}

/// What started the run, from its first `started` row: one at most. If that row has no payload, as that of a claim has
/// none, from the nearest `queued` row before it.
pub fn trigger_payload(store: &LogStore, run_id: &str) -> Result<Thread<Trigger>> {
    let mut thread = Thread::default();
    let mut first = |filter: Filter| {
        let (mut first, filter) = (None, Filter { limit: Some(1), ..filter });
        each_row(store, &filter, &mut |row| first = Some(row), &mut thread.malformed)?;
        Ok::<_, Error>(first)
    };
    let Some(mut row) = first(of_run(run_id, RunStatus::Started.name()))? else { return Ok(thread) };
    if row.payload().is_none() {
        let queued = of_run(run_id, RunStatus::Queued.name());
        match first(Filter { before_id: Some(row.id), descending: true, ..queued })? {
            Some(queued) => row = queued,
            None => return Ok(thread),
        }
    }
    thread.add(&row, |_, object| trigger(object));
    Ok(thread)
}

fn trigger(object: &Object<'_>) -> Option<Trigger> {
    if let Some(prompt) = prompt(object) {
        return Some(prompt);
    }
    let text = object.trigger_payload?;
    // It has been read as a part of the whole.
    let inner = Object::parse(text).ok()??;
    Some(prompt(&inner).unwrap_or_else(|| Trigger::Object(text.into())))
}

fn prompt(object: &Object<'_>) -> Option<Trigger> {
    let (prompt, max_rounds) = object.prompt()?;
    let dry_run = object.dry_run == Some("true");
    Some(Trigger::Prompt { prompt: prompt.into(), max_rounds: max_rounds.into(), dry_run })
}

fn message(object: &Object<'_>) -> Option<ThreadMessage> {
    let (role, content) = object.message()?;
    Some(ThreadMessage {
        role: role.into(),
        content: Content::Json(content.into()),
        meta: object.meta.map(Into::into),
        timestamp: whole_number(object.timestamp),
    })
}

/// A typed event in the form of a message: its type speaks unless it has a role, its text is its content or all of it.
fn event_message(object: &Object<'_>, text: &str, timestamp: i64) -> Option<ThreadMessage> {
    let kind = object.event_type()?;
    Some(ThreadMessage {
        role: object.role.filter(|role| is_string(Some(role))).unwrap_or(kind).into(),
        content: match object.content.filter(|content| is_string(Some(content))) {
            Some(content) => Content::Json(content.into()),
            None => Content::Text(stringify(text)),
        },
        meta: Some(text.into()),
        timestamp: WholeNumber::Small(timestamp),
    })
}

fn collect<T>(
    store: &LogStore,
    run_id: &str,
    kind: &str,
    read: impl Fn(&str, &Object<'_>) -> Option<T>,
) -> Result<Thread<T>> {
    let mut thread = Thread::default();
    let mut unreadable = Vec::new();
    each_row(store, &of_run(run_id, kind), &mut |row| thread.add(&row, &read), &mut unreadable)?;
    thread.malformed.extend(unreadable);
    thread.malformed.sort_by_key(|(id, _)| *id);
    Ok(thread)
}

/// Calls `visit` with each row that can be read; notes the others.
fn each_row(
    store: &LogStore,
    filter: &Filter,
    visit: &mut dyn FnMut(LogEntry),
    unreadable: &mut Vec<(i64, String)>,
) -> Result<()> {
    store.each_readable(filter, visit, &mut |id, error| unreadable.push((id, error.to_string())))
}

fn of_run(run_id: &str, kind: &str) -> Filter {
    Filter {
        ref_id: Some(run_id.to_owned()),
        source: Some(SOURCE.to_owned()),
        kind: Some(kind.to_owned()),
        ..Filter::default()
    }
}
