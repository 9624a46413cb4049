//! Reading rows back: all at once, counted, or page by page.

use rusqlite::Connection;

use super::entry::{COLUMNS, LogEntry};
use super::filter::Filter;
use crate::db::Database;
use crate::error::Result;

/// Rows that one step of [`Pages`] reads: enough to make the transaction's cost small, few enough to hold in memory.
const PAGE_ROWS: u64 = 512;

/// Every row that matches, in the filter's order.
pub fn query(database: &Database, filter: &Filter) -> Result<Vec<LogEntry>> {
    database.read("query", |connection| rows(connection, filter))
}

/// How many rows [`query`] would return.
pub fn count(database: &Database, filter: &Filter) -> Result<u64> {
    database.read("count", |connection| {
        // Without a limit the order is of no use, and SQLite drops it.
        let select = filter.select("1");
        let mut statement = connection.prepare_cached(&format!("SELECT count(*) FROM ({})", select.sql))?;
        select.bind(&mut statement)?;
        let mut rows = statement.raw_query();
        Ok(rows.next()?.map_or(Ok(0), |row| row.get(0))?)
    })
}

fn rows(connection: &Connection, filter: &Filter) -> Result<Vec<LogEntry>> {
    let mut entries = Vec::new();
    each_row(connection, filter, |entry| entries.push(entry))?;
    Ok(entries)
}

/// Calls `visit` with every row that matches, in the filter's order, in the caller's transaction.
pub(crate) fn each_row(connection: &Connection, filter: &Filter, mut visit: impl FnMut(LogEntry)) -> Result<()> {
    let select = filter.select(COLUMNS);
    let mut statement = connection.prepare_cached(&select.sql)?;
    select.bind(&mut statement)?;
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next()? {
        visit(LogEntry::from_row(row)?);
    }
    Ok(())
}

/// Rows that a span of ids may hold besides those asked for, as a multiple, before they are looked up one by one.
const SPARSE: i64 = 4;

/// The rows with these ids, which ascend, in the caller's transaction; ids that are gone are skipped.
pub(crate) fn by_ids(connection: &Connection, ids: &[i64]) -> Result<Vec<LogEntry>> {
    let (Some(first), Some(last)) = (ids.first(), ids.last()) else { return Ok(Vec::new()) };
    let mut entries = Vec::with_capacity(ids.len());
    let is_dense = (last - first) / SPARSE <= ids.len() as i64;
    let mut statement =
        connection.prepare_cached(&format!("SELECT {COLUMNS} FROM logs WHERE id BETWEEN ?1 AND ?2 ORDER BY id"))?;
    let spans = if is_dense { vec![(*first, *last)] } else { ids.iter().map(|id| (*id, *id)).collect() };
    for (first, last) in spans {
        let mut rows = statement.query([first, last])?;
        while let Some(row) = rows.next()? {
            if ids.binary_search(&row.get(0)?).is_ok() {
                entries.push(LogEntry::from_row(row)?);
            }
        }
    }
    Ok(entries)
}

/// The rows of a filter, page by page; no transaction is open between pages.
///
/// Rows never change and new ones get greater ids, so continuing after the last id is exact. Rows appended after
/// [`Pages::open`] are not included.
pub struct Pages {
    filter: Filter,
    /// Rows that may still be returned.
    left: u64,
}

impl Pages {
    /// The rows that match now; none is read yet.
    pub fn open(database: &Database, mut filter: Filter) -> Result<Self> {
        let last = database.read("query", |connection| {
            let mut statement = connection.prepare_cached("SELECT coalesce(max(id), 0) FROM logs")?;
            Ok(statement.query_row([], |row| row.get::<_, i64>(0))?)
        })?;
        let end = last.saturating_add(1);
        filter.before_id = Some(filter.before_id.map_or(end, |bound| bound.min(end)));
        Ok(Self { left: filter.limit.unwrap_or(u64::MAX), filter })
    }

    /// The next rows; none at the end.
    pub fn next_page(&mut self, database: &Database) -> Result<Vec<LogEntry>> {
        if self.left == 0 {
            return Ok(Vec::new());
        }
        let wanted = PAGE_ROWS.min(self.left);
        self.filter.limit = Some(wanted);
        let page = database.read("query", |connection| rows(connection, &self.filter))?;
        self.left -= page.len() as u64;
        match page.last() {
            Some(last) if page.len() as u64 == wanted => {
                let bound = if self.filter.descending { &mut self.filter.before_id } else { &mut self.filter.after_id };
                *bound = Some(last.id);
            }
            _ => self.left = 0,
        }
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::Config;
    use crate::log::{NewLogEntry, append_many};
    use proptest::prelude::*;

    type Row = (u8, u8, Option<u8>, i64);

    fn filled(rows: &[Row]) -> (tempfile::TempDir, Database, Vec<LogEntry>) {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::open(&directory.path().join("logs.db"), Config::default()).unwrap();
        let name = |number: &u8| ["a", "b", "c"][usize::from(*number % 3)];
        let entries: Vec<_> = rows
            .iter()
            .map(|(source, kind, ref_id, timestamp)| NewLogEntry {
                source: name(source),
                kind: name(kind),
                ref_id: ref_id.as_ref().map(name),
                payload: None,
                timestamp: Some(*timestamp),
            })
            .collect();
        let (first, _) = append_many(&database, entries.iter().copied(), None).unwrap();
        let stored = entries.iter().zip(first..).map(|(entry, id)| entry.stored(id)).collect();
        (directory, database, stored)
    }

    fn text() -> impl Strategy<Value = Option<String>> {
        proptest::option::of(prop_oneof![Just("a".to_owned()), Just("b".to_owned()), Just("x".to_owned())])
    }

    prop_compose! {
        fn filters()(source in text(), kind in text(), ref_id in text(),
            since in proptest::option::of(0_i64..20), until in proptest::option::of(0_i64..20),
            after_id in proptest::option::of(0_i64..40), before_id in proptest::option::of(0_i64..40),
            limit in proptest::option::of(0_u64..30), descending: bool) -> Filter {
            Filter { source, kind, ref_id, since, until, after_id, before_id, limit, descending }
        }
    }

    fn expected(entries: &[LogEntry], filter: &Filter) -> Vec<LogEntry> {
        let same = |wanted: &Option<String>, found: Option<&String>| wanted.is_none() || wanted.as_ref() == found;
        let matches = |entry: &&LogEntry| {
            same(&filter.source, Some(&entry.source))
                && same(&filter.kind, Some(&entry.kind))
                && same(&filter.ref_id, entry.ref_id.as_ref())
                && filter.since.is_none_or(|bound| entry.timestamp >= bound)
                && filter.until.is_none_or(|bound| entry.timestamp <= bound)
                && filter.after_id.is_none_or(|bound| entry.id > bound)
                && filter.before_id.is_none_or(|bound| entry.id < bound)
        };
        let mut found: Vec<_> = entries.iter().filter(matches).cloned().collect();
        if filter.descending {
            found.reverse();
        }
        found.truncate(filter.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap()));
        found
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn every_read_agrees_with_a_plain_scan(
            rows in proptest::collection::vec(any::<Row>().prop_map(|(a, b, c, timestamp)| (a, b, c, timestamp.rem_euclid(20))), 1..40),
            filters in proptest::collection::vec(filters(), 20),
        ) {
            let (_directory, database, entries) = filled(&rows);
            for filter in filters {
                let wanted = expected(&entries, &filter);
                prop_assert_eq!(&query(&database, &filter).unwrap(), &wanted);
                prop_assert_eq!(count(&database, &filter).unwrap(), wanted.len() as u64);
                let mut pages = Pages::open(&database, filter).unwrap();
                prop_assert_eq!(&pages.next_page(&database).unwrap(), &wanted);
            }
        }
    }

    #[test]
    fn pages_cover_everything_once_and_nothing_newer() {
        let rows: Vec<Row> = (0..1_300).map(|number| (0, 0, None, number)).collect();
        for descending in [false, true] {
            let (_directory, database, mut entries) = filled(&rows);
            let mut pages = Pages::open(&database, Filter { descending, ..Filter::default() }).unwrap();
            let newer = NewLogEntry { source: "new", kind: "", ref_id: None, payload: None, timestamp: Some(0) };
            append_many(&database, std::iter::once(newer), None).unwrap();
            let mut found = Vec::new();
            loop {
                let page = pages.next_page(&database).unwrap();
                if page.is_empty() {
                    break;
                }
                found.extend(page);
            }
            if descending {
                entries.reverse();
            }
            assert_eq!(found, entries);
        }
    }
}
