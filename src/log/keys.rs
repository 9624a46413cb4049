//! Idempotency keys: an append with a key that was given before appends nothing.
//!
//! Invariant: a key and its row commit together. A key stays while its row is in the log, and for seven days at the
//! least, so that a caller that does not know what became of its append may repeat it.

use rusqlite::{Connection, OptionalExtension};

use crate::base::digest::Digest;
use crate::base::error::{Error, Result, quoted};
use crate::base::time::now;
use crate::db::stored;
use crate::log::core::Core;
use crate::log::transaction::Transaction;
use crate::row::{NewLogEntry, check_name, index_key};

/// How long a key is remembered at the least, in milliseconds.
const REMEMBERED: i64 = 7 * 86_400_000;

/// Keys that are looked through in one read, and forgotten in one write transaction, at the most.
const PRUNED_AT_ONCE: i64 = 2_000;

/// Bytes of the digest that are kept.
const DIGEST_BYTES: usize = 16;

/// An idempotency key, checked.
#[derive(Clone, Debug)]
pub struct Key(Box<str>);

/// What is remembered of a key: the row that was appended with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownKey {
    /// Its id.
    pub id: i64,
    /// Its timestamp.
    pub timestamp: i64,
}

impl Key {
    /// The key, if it can be stored.
    pub fn checked(key: &str) -> Result<Self> {
        if key.is_empty() {
            return Err(Error::Value("key is empty".to_owned()));
        }
        check_name("key", key)?;
        Ok(Self(key.into()))
    }

    /// Bytes that it takes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.0.len()
    }

    /// The row that was appended with it; an error if that is another than `entry`.
    pub(crate) fn find(&self, transaction: &Transaction<'_>, entry: &NewLogEntry<'_>) -> Result<Option<KnownKey>> {
        let mut statement =
            transaction.connection().prepare_cached("SELECT id, timestamp, digest FROM append_keys WHERE key = ?1")?;
        let mut rows = statement.query([&*index_key(&self.0)])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let known = KnownKey { id: row.get(0)?, timestamp: row.get(1)? };
        if row.get_ref(2)?.as_blob().is_ok_and(|digest| digest == digest_of(entry)) {
            return Ok(Some(known));
        }
        Err(Error::Idempotency {
            key: self.0.to_string(),
            first_id: known.id,
            first: described(transaction, known.id)?,
            given: description(entry.source, entry.kind, entry.ref_id),
        })
    }

    /// Remembers the key of a row that the caller's transaction has appended.
    pub(crate) fn remember(&self, connection: &Connection, id: i64, entry: &NewLogEntry<'_>) -> Result<()> {
        let mut statement = connection.prepare_cached(
            "INSERT INTO append_keys (key, id, digest, timestamp, appended_at) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        stored(statement.execute((&*index_key(&self.0), id, digest_of(entry), entry.timestamp, now()?))?, 1)
    }
}

/// The row with the id, in words.
fn described(transaction: &Transaction<'_>, id: i64) -> Result<String> {
    if let Some(NewLogEntry { source, kind, ref_id, .. }) = transaction.waiting(id) {
        return Ok(description(source, kind, ref_id));
    }
    let mut statement =
        transaction.connection().prepare_cached("SELECT source, type, ref_id FROM logs WHERE id = ?1")?;
    let found = statement
        .query_row([id], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, Option<String>>(2)?))
        })
        .optional();
    Ok(match found {
        Ok(Some((source, kind, ref_id))) => description(&source, &kind, ref_id.as_deref()),
        _ => "a row that has left the database".to_owned(),
    })
}

fn description(source: &str, kind: &str, ref_id: Option<&str>) -> String {
    let ref_id = ref_id.map_or_else(|| "None".to_owned(), quoted);
    format!("source={}, type={}, ref_id={ref_id}", quoted(source), quoted(kind))
}

/// Tells apart what rows say, but for their timestamps.
fn digest_of(entry: &NewLogEntry<'_>) -> [u8; DIGEST_BYTES] {
    let texts = [Some(entry.source), Some(entry.kind), entry.ref_id, entry.payload];
    let mut hasher = crate::base::digest::Hasher::new();
    for text in texts {
        // No length is so great.
        hasher.update(&text.map_or(u64::MAX, |text| text.len() as u64).to_le_bytes());
        hasher.update(text.unwrap_or_default().as_bytes());
    }
    let digest: Digest = hasher.finish();
    let mut kept = [0; DIGEST_BYTES];
    kept.copy_from_slice(&digest.as_bytes()[..DIGEST_BYTES]);
    kept
}

/// Forgets the keys that have had their time and whose rows have left the log, in short transactions.
pub(crate) fn prune_keys(log: &Core) -> Result<()> {
    const OPERATION: &str = "forget keys";
    let before = now()?.saturating_sub(REMEMBERED);
    // Looked at again before they go: a row may be put back, which changes nothing about its key but when it goes.
    const GONE: &str = "appended_at < ?1 AND NOT EXISTS (SELECT 1 FROM logs WHERE logs.id = append_keys.id)";
    let mut after = String::new();
    loop {
        let last: Option<String> = log.database().read(OPERATION, |connection| {
            let sql = "SELECT max(key) FROM (SELECT key FROM append_keys WHERE key > ?1 ORDER BY key LIMIT ?2)";
            Ok(connection.prepare_cached(sql)?.query_row((&after, PRUNED_AT_ONCE), |row| row.get(0))?)
        })?;
        let Some(last) = last else { return Ok(()) };
        let range = format!("key > ?2 AND key <= ?3 AND {GONE}");
        let is_any_gone = log.database().read(OPERATION, |connection| {
            let sql = format!("SELECT 1 FROM append_keys WHERE {range}");
            Ok(connection.prepare_cached(&sql)?.exists((before, &after, &last))?)
        })?;
        if is_any_gone {
            log.database().write(OPERATION, Some(crate::durable::Durability::Normal), |connection| {
                let sql = format!("DELETE FROM append_keys WHERE {range}");
                connection.prepare_cached(&sql)?.execute((before, &after, &last))?;
                Ok(())
            })?;
        }
        after = last;
    }
}
