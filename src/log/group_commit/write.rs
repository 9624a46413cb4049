//! What a leader does in the transaction: its own work, and that of others, in the order of the queue.

use std::sync::Arc;

use crate::base::error::Result;
use crate::log::insert::first_of;
use crate::log::operation::{Answer, Done, Shared, Work};
use crate::log::transaction::Transaction;
use crate::row::{NewLogEntry, OwnedEntry};

/// The leader's own work, which is not copied.
#[derive(Clone, Copy)]
pub(in crate::log) enum Own<'a> {
    Rows(&'a [NewLogEntry<'a>]),
    Operation(&'a Arc<dyn Shared>),
}

impl Own<'_> {
    /// What is being done, for errors.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Rows(_) => "append",
            Self::Operation(operation) => operation.name(),
        }
    }

    /// For the queue.
    pub(super) fn to_work(self) -> Work {
        match self {
            Self::Rows(rows) => Work::Rows(rows.iter().map(OwnedEntry::from).collect()),
            Self::Operation(operation) => Work::Operation(Arc::clone(operation)),
        }
    }
}

/// What became of a work.
pub(in crate::log) enum Outcome {
    /// The id of the first row.
    First(i64),
    Answer(Answer),
}

impl Outcome {
    /// For a caller that gave its work away.
    pub(super) fn of(self, work: Work) -> Done {
        match (self, work) {
            (Self::First(first_id), Work::Rows(rows)) => Done::Rows { first_id, rows },
            (Self::First(first_id), Work::Operation(_)) => Done::Rows { first_id, rows: Vec::new() },
            (Self::Answer(answer), _) => Done::Answer(answer),
        }
    }
}

/// Does the leader's own work. The outer error is one of the transaction.
pub(super) fn apply_own(transaction: &mut Transaction<'_>, own: Own<'_>) -> Result<Result<Outcome>> {
    match own {
        Own::Rows(rows) => Ok(Ok(Outcome::First(first_of(transaction.insert(rows)?, rows.len())))),
        Own::Operation(operation) => Ok(operation.perform(transaction)?.map(Outcome::Answer)),
    }
}

/// Does the works of others. Rows that follow each other go in one go, so that small jobs share statements as large
/// ones do.
pub(super) fn apply<'a>(
    transaction: &mut Transaction<'_>,
    works: impl Iterator<Item = &'a Work>,
) -> Result<Vec<Result<Outcome>>> {
    let mut outcomes = Vec::new();
    // Rows that wait, and how many of them are whose.
    let mut rows: Vec<NewLogEntry<'_>> = Vec::new();
    let mut counts: Vec<usize> = Vec::new();
    for work in works {
        match work {
            Work::Rows(more) => {
                rows.extend(more.iter().map(OwnedEntry::borrow));
                counts.push(more.len());
            }
            Work::Operation(operation) => {
                insert(transaction, &mut rows, &mut counts, &mut outcomes)?;
                outcomes.push(operation.perform(transaction)?.map(Outcome::Answer));
            }
        }
    }
    insert(transaction, &mut rows, &mut counts, &mut outcomes)?;
    Ok(outcomes)
}

fn insert(
    transaction: &mut Transaction<'_>,
    rows: &mut Vec<NewLogEntry<'_>>,
    counts: &mut Vec<usize>,
    outcomes: &mut Vec<Result<Outcome>>,
) -> Result<()> {
    if counts.is_empty() {
        return Ok(());
    }
    if transaction.has_triggers()? {
        // They may insert rows between those of one caller and of the next.
        for count in counts.drain(..) {
            let own: Vec<_> = rows.drain(..count).collect();
            let first = if own.is_empty() { 0 } else { first_of(transaction.insert(&own)?, count) };
            outcomes.push(Ok(Outcome::First(first)));
        }
        return Ok(());
    }
    let mut next = if rows.is_empty() { 0 } else { first_of(transaction.insert(rows)?, rows.len()) };
    rows.clear();
    outcomes.extend(counts.drain(..).map(|count| {
        let first = next;
        next += count.cast_signed() as i64;
        Ok(Outcome::First(first))
    }));
    Ok(())
}
