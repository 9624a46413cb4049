//! The manifest: what each day's file holds, and which references occur in which day, in the database beside the log.
//!
//! Invariant: a file that an archive job has published is described by the day's row that is current, or by the one
//! that is pending, which is committed before the file is published. No row leaves the log before the file that holds it
//! is current.

use std::borrow::Cow;
use std::time::UNIX_EPOCH;

use roaring::RoaringTreemap;
use rusqlite::{Connection, Row};

use crate::archive::file::block;
use crate::archive::file::format::Format;
use crate::archive::file::summary::{Kinds, Summary};
use crate::archive::manifest::damage::{damaged, or_damaged};
use crate::archive::manifest::seen::{DayFile, Stamp};
use crate::archive::manifest::values::{from_bytes, parsed, to_bytes};
use crate::base::digest::Digest;
use crate::base::error::Result;
use crate::base::ids::IdSpan;
use crate::base::time::{MAX_TIMESTAMP, UtcDay};
use crate::row::{Filter, index_key};

/// Whether a day's row describes the file that is there, or the one that is about to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Current,
    Pending,
}

/// A day as it is listed, without what is only needed to read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) day: UtcDay,
    pub(crate) format: Format,
    pub(crate) row_count: u64,
    /// None if there are no rows.
    pub(crate) id_span: Option<IdSpan>,
    pub(crate) size: u64,
    pub(crate) sha256: Digest,
    /// When the file was published or taken in, in milliseconds since the epoch.
    pub(crate) archived_at: i64,
    /// Whether it holds rounds that the log's index has never seen.
    pub(crate) has_rounds: bool,
    pub(crate) kinds: Option<Kinds>,
}

const LISTED: &str = "day, format, row_count, first_id, last_id, size, sha256, archived_at, has_rounds, kinds";

impl Listed {
    /// A file that the manifest does not know.
    pub(crate) fn unlisted(summary: &Summary, has_rounds: bool) -> Self {
        Self {
            day: summary.day,
            format: summary.format,
            row_count: summary.row_count(),
            id_span: summary.id_span(),
            size: summary.size,
            sha256: summary.sha256,
            archived_at: 0,
            has_rounds,
            kinds: summary.kinds.clone(),
        }
    }

    /// A file that cannot be read, whose rows may have these ids.
    pub(crate) fn unreadable(day: UtcDay, format: Format, id_span: IdSpan) -> Self {
        let (size, sha256) = (0, Digest::of(b""));
        let id_span = Some(id_span);
        Self { day, format, row_count: 0, id_span, size, sha256, archived_at: 0, has_rounds: false, kinds: None }
    }

    /// Whether rows of this source and type can be in it.
    pub(crate) fn may_have(&self, source: Option<&str>, kind: Option<&str>) -> bool {
        let [source, kind] = [source, kind].map(|wanted| wanted.map(index_key));
        let fits = |wanted: &Option<Cow<'_, str>>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        self.kinds.as_ref().is_none_or(|kinds| kinds.iter().any(|pair| fits(&source, &pair.0) && fits(&kind, &pair.1)))
    }

    fn read(row: &Row<'_>) -> Result<Self> {
        or_damaged(Self::read_columns(row))
    }

    fn read_columns(row: &Row<'_>) -> Result<Self> {
        let kinds: Option<String> = row.get(9)?;
        let row_count = row.get(2)?;
        Ok(Self {
            day: parsed(row, 0, |text| text.parse().ok())?,
            format: parsed(row, 1, Format::from_name)?,
            row_count,
            id_span: if row_count > 0 { IdSpan::new(row.get(3)?, row.get(4)?) } else { None },
            size: row.get(5)?,
            sha256: parsed(row, 6, Digest::parse)?,
            archived_at: row.get(7)?,
            has_rounds: row.get(8)?,
            kinds: kinds.and_then(|kinds| serde_json::from_str(&kinds).ok()),
        })
    }
}

/// The days whose files are there, oldest first.
pub(crate) fn list(connection: &Connection) -> Result<Vec<Listed>> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT {LISTED} FROM archive_days WHERE state = 0 ORDER BY day"))?;
    let mut rows = statement.query([])?;
    let mut days = Vec::new();
    while let Some(row) = rows.next()? {
        days.push(Listed::read(row)?);
    }
    Ok(days)
}

/// The days whose rows the filter may want, by what the manifest says of them; with a reference, also which ids.
pub(crate) fn candidates(connection: &Connection, filter: &Filter) -> Result<Vec<(Listed, Option<RoaringTreemap>)>> {
    // CROSS JOIN keeps the order of the tables: a reference is looked up day by day.
    let (ids, join, condition) = match filter.ref_id {
        Some(_) => ("refs.ids", "CROSS JOIN archive_refs AS refs USING (day)", "AND ref_id = ?5"),
        None => ("NULL", "", ""),
    };
    let columns = LISTED.replace("first_id", "days.first_id");
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {columns}, {ids} FROM archive_days AS days {join} WHERE state = 0 AND row_count > 0
         AND days.first_id <= ?1 AND last_id >= ?2 AND day >= ?3 AND day <= ?4 {condition} ORDER BY day"
    ))?;
    let day_of = |timestamp: Option<i64>, otherwise: &str| match timestamp {
        Some(timestamp) => UtcDay::of(timestamp.clamp(0, MAX_TIMESTAMP)).map(|day| day.to_string()),
        None => Ok(otherwise.to_owned()),
    };
    statement.raw_bind_parameter(1, filter.last_id())?;
    statement.raw_bind_parameter(2, filter.first_id())?;
    statement.raw_bind_parameter(3, day_of(filter.since, "0")?)?;
    statement.raw_bind_parameter(4, day_of(filter.until, "9999-12-31")?)?;
    if let Some(ref_id) = &filter.ref_id {
        statement.raw_bind_parameter(5, &*index_key(ref_id))?;
    }
    let mut found: Vec<(Listed, Option<RoaringTreemap>)> = Vec::new();
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next()? {
        let wanted = filter.ref_id.as_ref().map(|_| from_bytes(row, 10)).transpose()?;
        match found.last_mut() {
            // Another part of the same day.
            Some((last, Some(known))) if last.day == parsed(row, 0, |text| text.parse().ok())? => {
                *known |= wanted.unwrap_or_default();
            }
            _ => {
                let listed = Listed::read(row)?;
                if listed.may_have(filter.source.as_deref(), filter.kind.as_deref()) {
                    found.push((listed, wanted));
                }
            }
        }
    }
    Ok(found)
}

/// Whether any day is listed, or any job was interrupted.
pub(crate) fn is_empty(connection: &Connection) -> Result<bool> {
    Ok(!connection.prepare_cached("SELECT 1 FROM archive_days LIMIT 1")?.exists([])?)
}

/// The days that are about to be published, or were when a job was interrupted.
pub(crate) fn pending(connection: &Connection) -> Result<Vec<UtcDay>> {
    let mut statement = connection.prepare_cached("SELECT day FROM archive_days WHERE state = 1 ORDER BY day")?;
    let mut rows = statement.query([])?;
    let mut days = Vec::new();
    while let Some(row) = rows.next()? {
        days.push(parsed(row, 0, |text| text.parse().ok())?);
    }
    Ok(days)
}

/// Whether the day's file is there.
pub(crate) fn is_listed(connection: &Connection, day: UtcDay) -> Result<bool> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM archive_days WHERE day = ?1 AND state = 0")?;
    Ok(statement.exists([day.to_string()])?)
}

/// Whether the manifest says anything of the day.
pub(crate) fn is_described(connection: &Connection, day: UtcDay) -> Result<bool> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM archive_days WHERE day = ?1")?;
    Ok(statement.exists([day.to_string()])?)
}

/// What is needed to tell whether a file is still what the manifest says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Described {
    pub(crate) file: DayFile,
    pub(crate) state: State,
    pub(crate) size: u64,
    /// See [`Listed::archived_at`].
    archived_at: i64,
}

impl Described {
    /// Whether a file in this state has the size that the manifest says, and was not changed since it was described.
    pub(crate) fn is_untouched(&self, stamp: Stamp) -> bool {
        let modified = stamp.modified.duration_since(UNIX_EPOCH).unwrap_or_default();
        let modified = i64::try_from(modified.as_millis()).unwrap_or(i64::MAX);
        stamp.size == self.size && modified <= self.archived_at
    }

    /// Whether rows with timestamps within these bounds can be in it.
    pub(crate) fn is_within(&self, filter: &Filter) -> bool {
        may_have_in_time(self.file.0, filter)
    }
}

/// Whether rows of the day can be within the filter's bounds of time.
pub(crate) fn may_have_in_time(day: UtcDay, filter: &Filter) -> bool {
    filter.since.is_none_or(|since| since <= day.last_timestamp())
        && filter.until.is_none_or(|until| until >= day.first_timestamp())
}

/// Every file that is there, or is about to be published, or was when a job was interrupted.
pub(crate) fn described(connection: &Connection) -> Result<Vec<Described>> {
    or_damaged(read_described(connection))
}

fn read_described(connection: &Connection) -> Result<Vec<Described>> {
    let mut statement = connection
        .prepare_cached("SELECT day, format, state, size, archived_at FROM archive_days ORDER BY day, state")?;
    let mut rows = statement.query([])?;
    let mut described = Vec::new();
    while let Some(row) = rows.next()? {
        described.push(Described {
            file: (parsed(row, 0, |text| text.parse().ok())?, parsed(row, 1, Format::from_name)?),
            state: if row.get::<_, i64>(2)? == State::Current as i64 { State::Current } else { State::Pending },
            size: row.get(3)?,
            archived_at: row.get(4)?,
        });
    }
    Ok(described)
}

/// Everything about the day's file.
pub(crate) fn load(connection: &Connection, day: UtcDay, state: State) -> Result<Option<Summary>> {
    or_damaged(read_summary(connection, day, state))
}

fn read_summary(connection: &Connection, day: UtcDay, state: State) -> Result<Option<Summary>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {LISTED}, raw_size, ids, blocks FROM archive_days JOIN archive_contents USING (day, state)
         WHERE day = ?1 AND state = ?2"
    ))?;
    let mut rows = statement.query((day.to_string(), state as i64))?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let listed = Listed::read(row)?;
    let ids = from_bytes(row, 11)?;
    // What reads are led by.
    let bounds = ids.min().zip(ids.max()).map(|(first, last)| (first.cast_signed(), last.cast_signed()));
    if listed.row_count != ids.len() || listed.id_span.map(Into::into) != bounds {
        return Err(damaged(&format!("the day {day} is listed with other rows than it has")));
    }
    let blocks = block::decode(row.get_ref(12)?.as_blob().map_err(rusqlite::Error::from)?);
    Ok(Some(Summary {
        day,
        format: listed.format,
        size: listed.size,
        raw_size: row.get(10)?,
        sha256: listed.sha256,
        ids,
        kinds: listed.kinds,
        blocks: blocks.ok_or_else(|| damaged("the table of blocks"))?,
    }))
}

/// Puts the day's row, in the caller's transaction.
pub(crate) fn save(
    connection: &Connection,
    summary: &Summary,
    state: State,
    archived_at: i64,
    has_rounds: bool,
) -> Result<()> {
    let span = summary.id_span().unwrap_or(IdSpan::of(0));
    let day = summary.day.to_string();
    let mut statement = connection.prepare_cached(
        "INSERT OR REPLACE INTO archive_days
         (day, state, format, row_count, first_id, last_id, size, raw_size, sha256, archived_at, has_rounds, kinds)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    )?;
    statement.execute(rusqlite::params![
        &day,
        state as i64,
        summary.format.name(),
        summary.row_count(),
        span.first,
        span.last,
        summary.size,
        summary.raw_size,
        summary.sha256.to_string(),
        archived_at,
        has_rounds,
        summary.kinds.as_ref().and_then(|kinds| serde_json::to_string(kinds).ok()),
    ])?;
    let mut statement = connection.prepare_cached("INSERT OR REPLACE INTO archive_contents VALUES (?1, ?2, ?3, ?4)")?;
    statement.execute((day, state as i64, to_bytes(&summary.ids), block::encode(&summary.blocks)))?;
    Ok(())
}

/// Whether the day's file holds rounds that the log's index has never seen.
pub(crate) fn has_rounds(connection: &Connection, day: UtcDay) -> Result<bool> {
    let mut statement = connection.prepare_cached("SELECT max(has_rounds) FROM archive_days WHERE day = ?1")?;
    let found = statement.query_row([day.to_string()], |row| row.get::<_, Option<bool>>(0)).map_err(Into::into);
    or_damaged(found).map(|has_rounds| has_rounds.unwrap_or(false))
}

/// The pending row becomes the current one, in the caller's transaction.
pub(crate) fn promote(connection: &Connection, day: UtcDay) -> Result<()> {
    forget(connection, day, State::Current)?;
    for table in TABLES_BY_STATE {
        let sql = format!("UPDATE {table} SET state = 0 WHERE day = ?1 AND state = 1");
        connection.prepare_cached(&sql)?.execute([day.to_string()])?;
    }
    Ok(())
}

/// Forgets the day's row.
pub(crate) fn forget(connection: &Connection, day: UtcDay, state: State) -> Result<()> {
    for table in TABLES_BY_STATE {
        let sql = format!("DELETE FROM {table} WHERE day = ?1 AND state = ?2");
        connection.prepare_cached(&sql)?.execute((day.to_string(), state as i64))?;
    }
    Ok(())
}

const TABLES_BY_STATE: [&str; 2] = ["archive_days", "archive_contents"];

/// Forgets a day whose file is gone.
pub(crate) fn forget_day(connection: &Connection, day: UtcDay) -> Result<()> {
    forget(connection, day, State::Current)?;
    forget(connection, day, State::Pending)?;
    for table in ["archive_refs", "archive_missing"] {
        connection.prepare_cached(&format!("DELETE FROM {table} WHERE day = ?1"))?.execute([day.to_string()])?;
    }
    Ok(())
}

/// Forgets every day.
pub(crate) fn forget_all(connection: &Connection) -> Result<()> {
    connection.execute_batch("DELETE FROM archive_days; DELETE FROM archive_contents; DELETE FROM archive_refs; DELETE FROM archive_missing;")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::file::block::Block;
    use crate::archive::manifest::refs;
    use crate::archive::manifest::schema::SCHEMA;
    use crate::archive::manifest::values::set_of;

    #[test]
    fn what_is_saved_is_loaded() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(SCHEMA).unwrap();
        let day: UtcDay = "2026-01-02".parse().unwrap();
        let summary = Summary {
            day,
            format: Format::Zstd,
            size: 70,
            raw_size: 700,
            sha256: Digest::of(b"x"),
            ids: set_of(&[3, 5, 1 << 40]),
            kinds: Some(vec![("s".into(), "t".into())]),
            blocks: vec![Block { offset: 0, stored_bytes: 70, row_count: 3, first_id: 3, checksum: 1 }],
        };
        save(&connection, &summary, State::Pending, 9, true).unwrap();
        assert!(list(&connection).unwrap().is_empty() && load(&connection, day, State::Current).unwrap().is_none());
        assert_eq!(load(&connection, day, State::Pending).unwrap(), Some(summary.clone()));
        assert_eq!(pending(&connection).unwrap(), [day]);
        promote(&connection, day).unwrap();
        let listed = list(&connection).unwrap();
        assert_eq!(listed, [Listed { archived_at: 9, ..Listed::unlisted(&summary, true) }]);
        assert_eq!((listed[0].id_span, has_rounds(&connection, day).unwrap()), (IdSpan::new(3, 1 << 40), true));
        refs::forget_rounds(&connection).unwrap();
        assert!(!has_rounds(&connection, day).unwrap());
        forget_day(&connection, day).unwrap();
        assert!(is_empty(&connection).unwrap() && load(&connection, day, State::Current).unwrap().is_none());
    }
}
