//! Rows that a day's file held, and does not hold any more: what `reindex` accepted, and `verify` goes on to report until
//! the rows are there again.
//!
//! Nothing else says this, so that each list ends with a digest of the day and the ids.

use roaring::RoaringTreemap;
use rusqlite::{Connection, Row};

use crate::archive::manifest::damage::{DAMAGED, or_damaged};
use crate::archive::manifest::days::is_listed;
use crate::archive::manifest::values::to_bytes;
use crate::base::digest::Digest;
use crate::base::error::{Error, Result};
use crate::base::time::UtcDay;

/// The ids that are missing in the day's file.
pub(in crate::archive) fn load(connection: &Connection, day: UtcDay) -> Result<RoaringTreemap> {
    let mut statement = connection.prepare_cached("SELECT day, ids FROM archive_missing WHERE day = ?1")?;
    let mut rows = statement.query([day.to_string()])?;
    rows.next()?.map_or(Ok(RoaringTreemap::new()), |row| Ok(parsed(row)?.1))
}

/// Replaces them, in the caller's transaction.
pub(in crate::archive) fn save(connection: &Connection, day: UtcDay, ids: &RoaringTreemap) -> Result<()> {
    if ids.is_empty() {
        connection.prepare_cached("DELETE FROM archive_missing WHERE day = ?1")?.execute([day.to_string()])?;
    } else {
        let mut bytes = to_bytes(ids);
        bytes.extend(digest(day, &bytes).as_bytes());
        let mut statement = connection.prepare_cached("INSERT OR REPLACE INTO archive_missing VALUES (?1, ?2)")?;
        statement.execute((day.to_string(), bytes))?;
    }
    Ok(())
}

/// The lists that are damaged: where they are, and what is wrong.
pub(super) fn faults(connection: &Connection) -> Result<Vec<(i64, String)>> {
    let mut statement = connection.prepare_cached("SELECT day, ids, rowid FROM archive_missing")?;
    let mut rows = statement.query([])?;
    let mut faults = Vec::new();
    while let Some(row) = rows.next()? {
        let fault = match parsed(row) {
            Ok((day, _)) if is_listed(connection, day)? => continue,
            Ok((day, _)) => damaged(&format!("{day} is no archived day")).to_string(),
            Err(error) => error.to_string(),
        };
        faults.push((row.get(2)?, fault));
    }
    Ok(faults)
}

/// Forgets the lists that are damaged, in the caller's transaction.
pub(super) fn forget_damaged(connection: &Connection) -> Result<()> {
    for (place, _) in faults(connection)? {
        connection.execute("DELETE FROM archive_missing WHERE rowid = ?1", [place])?;
    }
    Ok(())
}

/// The day of a list, and its ids.
fn parsed(row: &Row<'_>) -> Result<(UtcDay, RoaringTreemap)> {
    let text = row.get_ref(0)?.as_bytes_or_null().map_err(rusqlite::Error::from)?.unwrap_or_default();
    let text = String::from_utf8_lossy(text);
    let day: UtcDay = text.parse().map_err(|_| damaged(&format!("{text:?} is no day")))?;
    let bytes = or_damaged(row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from).map_err(Into::into))?;
    let mut rest = bytes;
    let ids = RoaringTreemap::deserialize_from(&mut rest).map_err(|error| damaged(&format!("{day}: {error}")))?;
    // Lists that were written before lists had digests have none.
    let is_whole = rest.is_empty() || rest == digest(day, &bytes[..bytes.len() - rest.len()]).as_bytes();
    if is_whole { Ok((day, ids)) } else { Err(damaged(&format!("{day}: its digest is another"))) }
}

fn digest(day: UtcDay, ids: &[u8]) -> Digest {
    Digest::of(&[day.to_string().as_bytes(), ids].concat())
}

fn damaged(what: &str) -> Error {
    Error::Damaged {
        what: DAMAGED.to_owned(),
        reason: format!("the rows that are gone, {what}"),
        way_out: Some("reindex() forgets which rows these were"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::manifest::schema::SCHEMA;
    use crate::archive::manifest::values::set_of;

    #[test]
    fn every_flipped_bit_is_found_and_an_older_list_is_read() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(SCHEMA).unwrap();
        let day: UtcDay = "2026-01-02".parse().unwrap();
        let ids = set_of(&[3, 5, 1 << 40]);
        connection.execute("INSERT INTO archive_missing VALUES ('2026-01-02', ?1)", [to_bytes(&ids)]).unwrap();
        assert_eq!(load(&connection, day).unwrap(), ids);
        save(&connection, day, &ids).unwrap();
        assert_eq!(load(&connection, day).unwrap(), ids);
        let whole: Vec<u8> = connection.query_row("SELECT ids FROM archive_missing", [], |row| row.get(0)).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            connection.execute("UPDATE archive_missing SET ids = ?1", [flipped]).unwrap();
            assert!(matches!(load(&connection, day), Err(Error::Damaged { .. })), "bit {bit}");
            assert_eq!(faults(&connection).unwrap().len(), 1);
        }
        forget_damaged(&connection).unwrap();
        assert!(load(&connection, day).unwrap().is_empty() && faults(&connection).unwrap().is_empty());
    }
}
