//! The days that lie in an object store: which object holds each of them.
//!
//! Invariants: an object is noted before it is sent, and becomes a day's current one only after it was read back; the file
//! of a day is removed only after that. The table is made with the first of its rows, so that most databases have none.

use std::fs::File;

use rusqlite::{Connection, OptionalExtension, Params, Row};

use crate::archive::file::format::Format;
use crate::archive::manifest::days;
use crate::archive::manifest::expired;
use crate::archive::manifest::seen::DayFile;
use crate::archive::manifest::values::parsed;
use crate::base::digest::Digest;
use crate::base::error::{Error, Result};
use crate::base::time::UtcDay;

/// Why an object is not read.
pub(in crate::archive) const LOST: &str =
    "the manifest does not describe this day any more; reindex() or the next archive job lists it anew";

const TABLE: &str = "
CREATE TABLE IF NOT EXISTS archive_remote (
  day    TEXT NOT NULL,
  key    TEXT NOT NULL,
  state  INTEGER NOT NULL,
  size   INTEGER NOT NULL,
  sha256 TEXT NOT NULL,
  place  TEXT NOT NULL,
  PRIMARY KEY (day, key)
) WITHOUT ROWID";

/// What an object is to its day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectState {
    /// It was read back, and is what the day's file was.
    Current,
    /// It is about to be sent, or was when a job was interrupted.
    Pending,
    /// Another one has taken its place, or the day was expired: it is to be deleted.
    Superseded,
}

impl ObjectState {
    const ALL: [Self; 3] = [Self::Current, Self::Pending, Self::Superseded];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Pending => "pending",
            Self::Superseded => "superseded",
        }
    }
}

/// An object that holds the file of a day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteObject {
    /// Its name below the place.
    pub key: String,
    /// The day.
    pub day: UtcDay,
    /// What it is to the day.
    pub state: ObjectState,
    /// Bytes.
    pub size: u64,
    /// Of its content.
    pub sha256: Digest,
    /// Where it was sent to, without credentials.
    pub place: String,
}

impl RemoteObject {
    /// Its address.
    pub(crate) fn url(&self) -> String {
        format!("{}/{}", self.place, self.key)
    }

    /// Whether its day has a file of its own among these.
    pub(in crate::archive) fn has_file(&self, files: &[DayFile]) -> bool {
        files.iter().any(|file| file.0 == self.day)
    }

    fn read(row: &Row<'_>) -> Result<Self> {
        Ok(Self {
            key: parsed(row, 0, |text| Some(text.to_owned()))?,
            day: parsed(row, 1, |text| text.parse().ok())?,
            state: parsed(row, 2, |number| {
                ObjectState::ALL.into_iter().find(|state| number == (*state as i64).to_string())
            })?,
            size: parsed(row, 3, |number| number.parse().ok())?,
            sha256: parsed(row, 4, Digest::parse)?,
            place: parsed(row, 5, |text| Some(text.to_owned()))?,
        })
    }
}

/// Where files of days are fetched from.
pub trait Remote: Send + Sync {
    /// A file with the object's content, whose sha256 was compared; None if another process dropped it at once.
    fn fetch(&self, object: &RemoteObject) -> Result<Option<File>>;
}

/// All objects, by day.
pub(in crate::archive) fn list(connection: &Connection) -> Result<Vec<RemoteObject>> {
    let mut objects = selected(connection, "ORDER BY day, key", [])?;
    for object in &mut objects {
        if expired::is_expired(connection, object.day)? {
            object.state = ObjectState::Superseded;
        }
    }
    Ok(objects)
}

/// The object that holds a file of the day with this digest, if there is one.
pub(in crate::archive) fn of_file(
    connection: &Connection,
    day: UtcDay,
    sha256: Digest,
) -> Result<Option<RemoteObject>> {
    let condition = "WHERE day = ?1 AND sha256 = ?2 AND state = 0";
    Ok(selected(connection, condition, [day.to_string(), sha256.to_string()])?.pop())
}

/// The objects of days that the manifest does not describe any more, because another program emptied it.
pub(in crate::archive) fn undescribed(connection: &Connection) -> Result<Vec<RemoteObject>> {
    let condition = "WHERE state = 0 AND day NOT IN (SELECT day FROM archive_days) ORDER BY day";
    let mut objects = selected(connection, condition, [])?;
    let mut expired = Vec::new();
    for object in &objects {
        expired.push(expired::is_expired(connection, object.day)?);
    }
    let mut expired = expired.into_iter();
    objects.retain(|_| expired.next() == Some(false));
    Ok(objects)
}

fn selected(connection: &Connection, which: &str, values: impl Params) -> Result<Vec<RemoteObject>> {
    let mut objects = Vec::new();
    if !is_there(connection)? {
        return Ok(objects);
    }
    let mut statement = connection.prepare_cached(&format!(
        "SELECT key, day, CAST(state AS TEXT), CAST(size AS TEXT), sha256, place FROM archive_remote {which}"
    ))?;
    let mut rows = statement.query(values)?;
    while let Some(row) = rows.next()? {
        objects.push(RemoteObject::read(row)?);
    }
    Ok(objects)
}

/// Notes an object that is about to be sent, in the caller's transaction; false if the day's file is another one by now.
pub(in crate::archive) fn begin(connection: &Connection, object: &RemoteObject) -> Result<bool> {
    if !is_file_of_day(connection, object)? {
        return Ok(false);
    }
    connection.execute_batch(TABLE)?;
    connection.execute(
        "INSERT OR REPLACE INTO archive_remote (key, day, state, size, sha256, place) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        rusqlite::params![
            object.key,
            object.day.to_string(),
            object.state as i64,
            object.size,
            object.sha256.to_string(),
            object.place
        ],
    )?;
    Ok(true)
}

/// An object that was noted has been read back: it is the day's current one, and the others of the day are superseded, in
/// the caller's transaction; false if the day's file is another one by now.
pub(in crate::archive) fn finish(connection: &Connection, key: &str) -> Result<bool> {
    let object = list(connection)?.into_iter().find(|object| object.key == key);
    let Some(object) = object.filter(|object| object.state != ObjectState::Superseded) else { return Ok(false) };
    if !is_file_of_day(connection, &object)? {
        return Ok(false);
    }
    connection.execute(
        "UPDATE archive_remote SET state = iif(key = ?1, 0, 2) WHERE day = ?2",
        (key, object.day.to_string()),
    )?;
    Ok(true)
}

/// Notes that an object is to be deleted, in the caller's transaction.
pub(in crate::archive) fn supersede(connection: &Connection, key: &str) -> Result<()> {
    connection.execute("UPDATE archive_remote SET state = 2 WHERE key = ?1", [key])?;
    Ok(())
}

/// Forgets an object, in the caller's transaction.
pub(in crate::archive) fn forget(connection: &Connection, key: &str) -> Result<()> {
    connection.execute("DELETE FROM archive_remote WHERE key = ?1", [key])?;
    Ok(())
}

/// The error that the manifest does not say what an object holds.
pub(in crate::archive) fn lost(object: &RemoteObject) -> Error {
    Error::ArchiveCorrupt { path: object.url().into(), reason: LOST.to_owned() }
}

/// The format that the name of an object tells.
pub(in crate::archive) fn format_of(object: &RemoteObject) -> Format {
    if object.key.ends_with(Format::Zstd.name()) { Format::Zstd } else { Format::Plain }
}

fn is_file_of_day(connection: &Connection, object: &RemoteObject) -> Result<bool> {
    let listed = days::load(connection, object.day, days::State::Current)?;
    Ok(listed.is_some_and(|listed| (listed.sha256, listed.size) == (object.sha256, object.size)))
}

fn is_there(connection: &Connection) -> Result<bool> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM sqlite_schema WHERE name = 'archive_remote'")?;
    Ok(statement.query_row([], |_| Ok(())).optional()?.is_some())
}
