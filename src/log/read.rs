//! Reading rows back: all at once, counted, or page by page.

use std::ops::ControlFlow;
use std::sync::Arc;

use rusqlite::{Connection, Row};

use crate::base::error::Result;
use crate::base::ids::IdSpan;
use crate::index::bounds::rows_within;
use crate::index::lookup::candidates::is_dense;
use crate::log::core::Core;
use crate::row::{COLUMNS, Filter, LogEntry, RawRow};

/// Rows that one step of [`Pages`] reads: enough to make the transaction's cost small, few enough to hold in memory.
const PAGE_ROWS: u64 = 1_024;

/// Rows that one step of [`Pages::each_raw`] reads: it keeps no row, so that the transaction's time is the bound, some
/// 10 to 20 ms.
const RAW_PAGE_ROWS: u64 = 65_536;

/// Every row that matches, in the filter's order.
pub fn query(core: &Core, filter: &Filter) -> Result<Vec<LogEntry>> {
    let mut entries = Vec::new();
    each(core, filter, &mut |entry| entries.push(entry))?;
    Ok(entries)
}

/// Calls `visit` with every row that matches, in the filter's order; an error comes after the rows before it.
pub(crate) fn each(core: &Core, filter: &Filter, visit: &mut dyn FnMut(LogEntry)) -> Result<()> {
    core.read("query", |snapshot| snapshot.search(filter, visit))
}

/// From the least id to the greatest of the rows within the filter's bounds of ids, in the caller's transaction; None if
/// there are none.
pub(crate) fn ids(connection: &Connection, filter: &Filter) -> Result<Option<IdSpan>> {
    Ok(filter.ids().map(|ids| rows_within(connection, ids)).transpose()?.flatten())
}

/// From the least id to the greatest of the rows that may match, and how many match; None if these are fewer than `least` ids.
pub(crate) fn extent(core: &Core, filter: &Filter, least: u64) -> Result<Option<(IdSpan, u64)>> {
    core.read("query", |snapshot| {
        let span = ids(snapshot.connection(), filter)?.filter(|span| span.len() >= least);
        span.map(|span| Ok((span, snapshot.count(filter)?))).transpose()
    })
}

/// How many rows [`query`] would return.
pub fn count(core: &Core, filter: &Filter) -> Result<u64> {
    core.read("count", |snapshot| snapshot.count(filter))
}

/// The rows with these ids, which ascend, in the caller's transaction; ids that are gone are skipped.
pub(crate) fn by_ids(connection: &Connection, ids: &[i64]) -> Result<Vec<LogEntry>> {
    let mut entries = Vec::with_capacity(ids.len());
    each_by_ids(connection, ids, |row| {
        entries.push(LogEntry::from_row(row)?);
        Ok(())
    })?;
    Ok(entries)
}

/// Calls `visit` with the rows of [`by_ids`], whose columns are [`COLUMNS`].
pub(crate) fn each_by_ids(
    connection: &Connection,
    ids: &[i64],
    mut visit: impl FnMut(&Row<'_>) -> Result<()>,
) -> Result<()> {
    let (Some(first), Some(last)) = (ids.first(), ids.last()) else { return Ok(()) };
    let mut statement =
        connection.prepare_cached(&format!("SELECT {COLUMNS} FROM logs WHERE id BETWEEN ?1 AND ?2 ORDER BY id"))?;
    let spans = if is_dense(ids) { vec![(*first, *last)] } else { ids.iter().map(|id| (*id, *id)).collect() };
    let mut wanted = ids.iter().peekable();
    for (first, last) in spans {
        let mut rows = statement.query([first, last])?;
        while let Some(row) = rows.next()? {
            let id = row.get(0)?;
            while wanted.next_if(|wanted| **wanted < id).is_some() {}
            if wanted.next_if(|wanted| **wanted == id).is_some() {
                visit(row)?;
            }
        }
    }
    Ok(())
}

/// Calls `visit` with those of the ids, which ascend, that there are, in the caller's transaction.
pub(crate) fn each_id(connection: &Connection, ids: &[i64], mut visit: impl FnMut(i64)) -> Result<()> {
    let (Some(first), Some(last)) = (ids.first(), ids.last()) else { return Ok(()) };
    let mut statement = connection.prepare_cached("SELECT id FROM logs WHERE id BETWEEN ?1 AND ?2 ORDER BY id")?;
    let spans = if is_dense(ids) { vec![(*first, *last)] } else { ids.iter().map(|id| (*id, *id)).collect() };
    let mut wanted = ids.iter().peekable();
    for (first, last) in spans {
        let mut rows = statement.query([first, last])?;
        while let Some(row) = rows.next()? {
            let id = row.get(0)?;
            while wanted.next_if(|wanted| **wanted < id).is_some() {}
            if wanted.next_if(|wanted| **wanted == id).is_some() {
                visit(id);
            }
        }
    }
    Ok(())
}

/// The rows of a filter, page by page; no transaction is open between pages.
///
/// Rows never change and new ones get greater ids, so continuing after the last id is exact. Rows appended after
/// [`Pages::open`] are not included.
pub struct Pages {
    core: Arc<Core>,
    filter: Filter,
    /// Rows that may still be returned.
    left: u64,
}

impl Pages {
    /// The rows that match now; none is read yet.
    pub fn open(core: Arc<Core>, mut filter: Filter) -> Result<Self> {
        let last = core.database().read("query", |connection| {
            let mut statement = connection.prepare_cached("SELECT coalesce(max(id), 0) FROM logs")?;
            Ok(statement.query_row([], |row| row.get::<_, i64>(0))?)
        })?;
        // After the greatest id that there can be nothing new comes.
        if let Some(end) = last.checked_add(1) {
            filter.before_id = Some(filter.before_id.map_or(end, |bound| bound.min(end)));
        }
        Ok(Self { core, left: filter.limit.unwrap_or(u64::MAX), filter })
    }

    /// The rows that match and whose ids are in a span.
    pub(crate) fn within(core: Arc<Core>, filter: Filter, ids: IdSpan) -> Self {
        let left = filter.limit.unwrap_or(u64::MAX);
        Self { core, left, filter: filter.within(ids) }
    }

    /// Calls `visit` with the next rows, as SQLite holds them, until it breaks; returns whether there may be more. Rows
    /// that it was called with before an error do not come again.
    pub(crate) fn each_raw(&mut self, visit: &mut dyn FnMut(RawRow<'_>) -> Result<ControlFlow<()>>) -> Result<bool> {
        if self.left == 0 {
            return Ok(false);
        }
        let wanted = RAW_PAGE_ROWS.min(self.left);
        self.filter.limit = Some(wanted);
        let (mut count, mut last, mut is_stopped) = (0, None, false);
        let outcome = self.core.read("query", |snapshot| {
            snapshot.search_raw(&self.filter, &mut |row| {
                let flow = visit(row)?;
                (count, last, is_stopped) = (count + 1, Some(row.id), flow.is_break());
                Ok(flow)
            })
        });
        self.left -= count;
        if let Some(last) = last {
            let bound = if self.filter.descending { &mut self.filter.before_id } else { &mut self.filter.after_id };
            *bound = Some(last);
        }
        outcome?;
        if count < wanted && !is_stopped {
            self.left = 0;
        }
        Ok(self.left > 0)
    }

    /// The next rows; none at the end.
    pub fn next_page(&mut self) -> Result<Vec<LogEntry>> {
        if self.left == 0 {
            return Ok(Vec::new());
        }
        let wanted = PAGE_ROWS.min(self.left);
        self.filter.limit = Some(wanted);
        let page = query(&self.core, &self.filter)?;
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
    use crate::db::{Config, Database};
    use crate::log::{Log, LogConfig};
    use crate::row::NewLogEntry;
    use proptest::prelude::*;

    type Row = (u8, u8, Option<u8>, i64);

    fn opened(directory: &tempfile::TempDir, segment_rows: u64) -> Log {
        let config = LogConfig { segment_rows: Some(segment_rows), ..LogConfig::default() };
        Log::open(&directory.path().join("logs.db"), config, &mut |_, _| Ok(())).unwrap()
    }

    fn append(log: &Log, rows: &[Row]) -> Vec<LogEntry> {
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
        let first = log.append_many(&entries, None).unwrap();
        entries.iter().zip(first..).map(|(entry, id)| entry.stored(id)).collect()
    }

    fn name(number: &u8) -> &'static str {
        ["a", "b", "c"][usize::from(*number % 3)]
    }

    /// As another program does it, behind the index's back: on a connection of its own.
    fn run_sql(database: &Database, sql: &str) {
        database.write("test", None, |connection| Ok(connection.execute_batch(sql)?)).unwrap();
    }

    fn row() -> impl Strategy<Value = Row> {
        (any::<u8>(), any::<u8>(), any::<Option<u8>>(), 0_i64..20)
    }

    fn rows() -> impl Strategy<Value = Vec<Row>> {
        proptest::collection::vec(row(), 1..25)
    }

    fn stored(id: i64, (source, kind, ref_id, timestamp): &Row) -> LogEntry {
        let ref_id = ref_id.as_ref().map(name);
        NewLogEntry { source: name(source), kind: name(kind), ref_id, payload: None, timestamp: Some(*timestamp) }
            .stored(id)
    }

    /// The columns after the id, as SQL.
    fn values(row: &Row) -> String {
        let entry = stored(1, row);
        let ref_id = entry.ref_id().map_or("NULL".to_owned(), |ref_id| format!("'{ref_id}'"));
        format!("'{}', '{}', {ref_id}, NULL, {}", entry.source(), entry.kind(), entry.timestamp)
    }

    fn put(entries: &mut Vec<LogEntry>, entry: LogEntry) {
        entries.retain(|known| known.id != entry.id);
        entries.push(entry);
        entries.sort_by_key(|entry| entry.id);
    }

    fn text() -> impl Strategy<Value = Option<String>> {
        proptest::option::of(prop_oneof![Just("a".to_owned()), Just("b".to_owned()), Just("x".to_owned())])
    }

    prop_compose! {
        fn filters()(source in text(), kind in text(), ref_id in text(),
            since in proptest::option::of(0_i64..20), until in proptest::option::of(0_i64..20),
            after_id in proptest::option::of(0_i64..60), before_id in proptest::option::of(0_i64..60),
            limit in proptest::option::of(0_u64..30), descending: bool) -> Filter {
            Filter { source, kind, ref_id, since, until, after_id, before_id, limit, descending }
        }
    }

    fn expected(entries: &[LogEntry], filter: &Filter) -> Vec<LogEntry> {
        let same = |wanted: &Option<String>, found: Option<&str>| wanted.is_none() || wanted.as_deref() == found;
        let matches = |entry: &&LogEntry| {
            same(&filter.source, Some(entry.source()))
                && same(&filter.kind, Some(entry.kind()))
                && same(&filter.ref_id, entry.ref_id())
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

    /// What happens to the log between reads.
    #[derive(Clone, Debug)]
    enum Event {
        Append(Vec<Row>),
        AppendByAnotherWriter(Vec<Row>),
        AppendByAnotherProgram,
        Delete(i64),
        Update(i64, Row),
        Replace(i64, Row),
        Move(i64, i64),
        DeleteWithoutTriggers(i64),
        Seal,
        Reopen,
    }

    fn events() -> impl Strategy<Value = Event> {
        prop_oneof![
            3 => rows().prop_map(Event::Append),
            2 => rows().prop_map(Event::AppendByAnotherWriter),
            1 => Just(Event::AppendByAnotherProgram),
            1 => (1_i64..60).prop_map(Event::Delete),
            1 => (1_i64..60, row()).prop_map(|(id, row)| Event::Update(id, row)),
            1 => (1_i64..60, row()).prop_map(|(id, row)| Event::Replace(id, row)),
            1 => (1_i64..60, 1_i64..60).prop_map(|(id, to)| Event::Move(id, to)),
            1 => (1_i64..60).prop_map(Event::DeleteWithoutTriggers),
            1 => Just(Event::Seal),
            1 => Just(Event::Reopen),
        ]
    }

    fn cases() -> u32 {
        std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(64)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(cases()))]

        #[test]
        fn every_read_agrees_with_a_plain_scan(
            segment_rows in prop_oneof![2_u64..9, Just(4_096)],
            history in proptest::collection::vec((events(), proptest::collection::vec(filters(), 4)), 1..12),
        ) {
            let directory = tempfile::tempdir().unwrap();
            let mut log = opened(&directory, segment_rows);
            let other = opened(&directory, 3);
            let stranger = Database::open(&directory.path().join("logs.db"), Config::default()).unwrap();
            let mut entries: Vec<LogEntry> = Vec::new();
            for (event, filters) in history {
                match event {
                    Event::Append(rows) => entries.extend(append(&log, &rows)),
                    Event::AppendByAnotherWriter(rows) => entries.extend(append(&other, &rows)),
                    Event::AppendByAnotherProgram => {
                        run_sql(&stranger, "INSERT INTO logs (source, type, ref_id, timestamp) VALUES ('a', 'b', 'a', 7)");
                        entries.extend(query(&log, &Filter { descending: true, limit: Some(1), ..Filter::default() }).unwrap());
                    }
                    Event::Delete(id) => {
                        run_sql(&stranger, &format!("DELETE FROM logs WHERE id BETWEEN {id} AND {}", id + 4));
                        entries.retain(|entry| !(id..=id + 4).contains(&entry.id));
                    }
                    Event::Update(id, row) => {
                        run_sql(&stranger, &format!(
                            "UPDATE logs SET (source, type, ref_id, payload, timestamp) = ({}) WHERE id BETWEEN {id} AND {}",
                            values(&row), id + 2
                        ));
                        for entry in entries.iter_mut().filter(|entry| (id..=id + 2).contains(&entry.id)) {
                            *entry = stored(entry.id, &row);
                        }
                    }
                    Event::Replace(id, row) => {
                        run_sql(&stranger, &format!("INSERT OR REPLACE INTO logs VALUES ({id}, {})", values(&row)));
                        put(&mut entries, stored(id, &row));
                    }
                    Event::Move(id, to) => {
                        run_sql(&stranger, &format!("UPDATE OR REPLACE logs SET id = {to} WHERE id = {id}"));
                        if let Some(position) = entries.iter().position(|entry| entry.id == id) {
                            let moved = entries.remove(position);
                            let row = NewLogEntry {
                                source: moved.source(),
                                kind: moved.kind(),
                                ref_id: moved.ref_id(),
                                payload: None,
                                timestamp: Some(moved.timestamp),
                            };
                            put(&mut entries, row.stored(to));
                        }
                    }
                    Event::DeleteWithoutTriggers(id) => {
                        run_sql(&stranger, &format!(
                            "DROP TRIGGER log_row_deleted; DELETE FROM logs WHERE id BETWEEN {id} AND {}", id + 4
                        ));
                        entries.retain(|entry| !(id..=id + 4).contains(&entry.id));
                        prop_assert_eq!(count(&other, &Filter::default()).unwrap(), entries.len() as u64);
                        drop(log);
                        log = opened(&directory, segment_rows);
                    }
                    Event::Seal => {
                        log.write("test", None, |transaction| transaction.seal()).unwrap();
                        log.prune(None).unwrap();
                    }
                    Event::Reopen => {
                        drop(log);
                        log = opened(&directory, segment_rows);
                    }
                }
                for filter in filters {
                    let wanted = expected(&entries, &filter);
                    prop_assert_eq!(&query(&log, &filter).unwrap(), &wanted, "{:?}", filter);
                    prop_assert_eq!(count(&other, &filter).unwrap(), wanted.len() as u64, "{:?}", filter);
                    prop_assert_eq!(&Pages::open(Arc::clone(log.core()), filter).unwrap().next_page().unwrap(), &wanted);
                }
            }
        }
    }

    #[test]
    fn pages_cover_everything_once_and_nothing_newer() {
        let rows: Vec<Row> = (0..1_300).map(|number| (0, 0, None, number)).collect();
        for descending in [false, true] {
            let directory = tempfile::tempdir().unwrap();
            let log = opened(&directory, 100);
            let mut entries = append(&log, &rows);
            let mut pages = Pages::open(Arc::clone(log.core()), Filter { descending, ..Filter::default() }).unwrap();
            append(&log, &[(1, 1, None, 0)]);
            let mut found = Vec::new();
            loop {
                let page = pages.next_page().unwrap();
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
