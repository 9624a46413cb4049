//! Rows that are appended once, by their key, or only while a claim is valid.

use crate::base::error::Result;
use crate::log::{Key, Operation, Transaction};
use crate::row::{LogEntry, NewLogEntry, OwnedEntry};
use crate::workflow::claim::Fence;

/// Appends a row while its claim is valid, unless its key was given before; answers with the row, or the one that
/// the key was given with first.
#[derive(Clone, Debug)]
pub struct AppendOne {
    /// The row, checked.
    pub entry: OwnedEntry,
    /// Its key.
    pub key: Option<Key>,
    /// The claim that it carries.
    pub claim: Option<Fence>,
}

impl Operation for AppendOne {
    type Answer = LogEntry;

    const NAME: &'static str = "append";

    fn apply(&self, transaction: &mut Transaction<'_>) -> Result<LogEntry> {
        check_claim(self.claim.as_ref(), transaction)?;
        let entry = self.entry.borrow();
        let Some(key) = &self.key else {
            return Ok(self.entry.clone().into_stored(transaction.insert_soon(&self.entry)?));
        };
        if let Some(known) = key.find(transaction, &entry)? {
            return Ok(NewLogEntry { timestamp: Some(known.timestamp), ..entry }.stored(known.id));
        }
        let id = transaction.insert_soon(&self.entry)?;
        key.remember(transaction.connection(), id, &entry)?;
        Ok(self.entry.clone().into_stored(id))
    }

    fn bytes(&self) -> usize {
        self.entry.borrow().text_bytes() + self.key.as_ref().map_or(0, Key::bytes)
    }
}

/// Appends rows while their claim is valid; answers with the id of the first, and how many there are.
#[derive(Clone, Debug)]
pub struct AppendClaimed {
    /// The rows, checked; at least one.
    pub entries: Vec<OwnedEntry>,
    /// The claim that they carry.
    pub claim: Fence,
}

impl Operation for AppendClaimed {
    type Answer = (i64, usize);

    const NAME: &'static str = "append";

    fn apply(&self, transaction: &mut Transaction<'_>) -> Result<(i64, usize)> {
        check_claim(Some(&self.claim), transaction)?;
        Ok((append_all(transaction, &self.entries)?, self.entries.len()))
    }

    fn bytes(&self) -> usize {
        self.entries.iter().map(|entry| entry.borrow().text_bytes()).sum()
    }
}

/// Appends rows; returns the id of the first.
pub(super) fn append_all(transaction: &mut Transaction<'_>, entries: &[OwnedEntry]) -> Result<i64> {
    if let [entry] = entries {
        return transaction.insert_soon(entry);
    }
    let rows: Vec<NewLogEntry<'_>> = entries.iter().map(OwnedEntry::borrow).collect();
    let last = transaction.insert(&rows)?;
    Ok(last - i64::try_from(rows.len()).unwrap_or(i64::MAX) + 1)
}

pub(super) fn check_claim(claim: Option<&Fence>, transaction: &Transaction<'_>) -> Result<()> {
    match claim {
        Some(claim) => claim.check(transaction.connection(), transaction.path()).map(drop),
        None => Ok(()),
    }
}
