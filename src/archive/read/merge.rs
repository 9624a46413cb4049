//! The rows of the log and of the archive as one: in the order of ids, each once.
//!
//! Why nothing is missed while a job moves rows: one transaction tells the rows of the log and the files there are, and
//! files are opened after it. A row that the transaction saw in the log is taken from there; one that it did not see had
//! been deleted before, after its file was published; and a file only ever gains rows. What is in both is returned once.

use std::collections::VecDeque;
use std::sync::Arc;

use roaring::RoaringTreemap;

use crate::archive::manifest::catalog::{Archive, DayCandidate};
use crate::archive::read::cursor::DayCursor;
use crate::base::error::{Error, Result};
use crate::base::ids::IdSpan;
use crate::log::Snapshot;
use crate::row::{Filter, LogEntry};

/// Rows of the log that one transaction reads.
const LIVE_PAGE: u64 = 1_024;
/// Rows that one step returns.
const PAGE_ROWS: u64 = 1_024;

impl Archive {
    /// Every row of the log and the archive that matches, in the filter's order.
    pub fn query(&self, filter: &Filter) -> Result<Vec<LogEntry>> {
        let mut rows = Vec::new();
        self.each(filter, &mut |row| rows.push(row))?;
        Ok(rows)
    }

    /// Calls `visit` with every row that matches, in the filter's order.
    pub fn each(&self, filter: &Filter, visit: &mut dyn FnMut(LogEntry)) -> Result<()> {
        let found = self.log.read("query", |snapshot| {
            let candidates = self.candidates(snapshot.connection(), filter)?;
            if candidates.is_empty() {
                snapshot.search(filter, &mut *visit)?;
                return Ok(None);
            }
            let mut live = VecDeque::new();
            snapshot.search(filter, |row| live.push_back(row))?;
            Ok(Some((candidates, live)))
        })?;
        let Some((candidates, live)) = found else { return Ok(()) };
        Merge::of(filter.clone(), candidates, live).each(self, filter.limit, visit)
    }

    /// Calls `visit` with the rows in the candidates' files whose ids are among `ids`, in order.
    pub(crate) fn each_of(
        &self,
        mut candidates: Vec<DayCandidate>,
        ids: &RoaringTreemap,
        visit: &mut dyn FnMut(LogEntry),
    ) -> Result<()> {
        for candidate in &mut candidates {
            candidate.wanted = Some(match candidate.wanted.take() {
                Some(wanted) => wanted & ids,
                None => ids.clone(),
            });
        }
        candidates.retain(|candidate| candidate.wanted.as_ref().is_some_and(|wanted| !wanted.is_empty()));
        Merge::of(Filter::default(), candidates, VecDeque::new()).each(self, None, visit)
    }

    /// How many rows [`Archive::query`] would return.
    pub fn count(self: &Arc<Self>, filter: &Filter) -> Result<u64> {
        let counted = self.log.read("count", |snapshot| {
            let candidates = self.candidates(snapshot.connection(), filter)?;
            let Some(archived) = counted_by_id(snapshot, filter, &candidates)? else { return Ok(None) };
            Ok(Some(snapshot.count(filter)? + archived))
        })?;
        if let Some(count) = counted {
            return Ok(count);
        }
        let mut rows = UnionPages::open(Arc::clone(self), filter.clone())?;
        let mut count = 0;
        while rows.next_row()?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    /// The rows of the log and the archive, as [`crate::log::ReadPage`].
    pub fn read_page(&self, filter: &Filter) -> Result<(Vec<LogEntry>, i64)> {
        let (candidates, end, live) = self.log.read("follow", |snapshot| {
            let candidates = self.candidates(snapshot.connection(), filter)?;
            let end = end(snapshot, &candidates)?;
            let mut live = VecDeque::new();
            snapshot.search(filter, |row| live.push_back(row))?;
            Ok((candidates, end, live))
        })?;
        if candidates.is_empty() {
            return Ok((live.into(), end));
        }
        let upto_end = Filter { before_id: end.checked_add(1), ..filter.clone() };
        let mut rows = Vec::new();
        Merge::of(upto_end, candidates, live).each(self, filter.limit, &mut |row| rows.push(row))?;
        Ok((rows, end))
    }
}

/// How many rows of the candidates match and are not in the log, if their ids alone tell.
fn counted_by_id(snapshot: &Snapshot<'_>, filter: &Filter, candidates: &[DayCandidate]) -> Result<Option<u64>> {
    if candidates.is_empty() {
        return Ok(Some(0));
    }
    let is_by_id = filter.source.is_none()
        && filter.kind.is_none()
        && filter.limit.is_none()
        && candidates.iter().all(|candidate| candidate.is_within(filter.since, filter.until));
    if !is_by_id {
        return Ok(None);
    }
    let mut archived = RoaringTreemap::new();
    for candidate in candidates {
        let ids = candidate.ids(snapshot.connection())?;
        archived |= match &candidate.wanted {
            Some(wanted) => wanted & &ids,
            None => ids,
        };
    }
    let bound = |id: i64| u64::try_from(id).unwrap_or(0);
    archived.remove_range(..bound(filter.first_id()));
    if filter.last_id() < i64::MAX {
        archived.remove_range(bound(filter.last_id().saturating_add(1))..);
    }
    let mut live = 0;
    let mut statement = snapshot.connection().prepare_cached("SELECT count(*) FROM logs WHERE id BETWEEN ?1 AND ?2")?;
    let mut ids = archived.iter().peekable();
    while let Some(first) = ids.next() {
        let mut last = first;
        while ids.next_if_eq(&(last + 1)).is_some() {
            last += 1;
        }
        live += statement.query_row([first.cast_signed(), last.cast_signed()], |row| row.get::<_, u64>(0))?;
    }
    Ok(Some(archived.len() - live))
}

/// The greatest id given out so far, here or in the files.
fn end(snapshot: &Snapshot<'_>, candidates: &[DayCandidate]) -> Result<i64> {
    let archived = candidates.iter().filter_map(|candidate| Some(candidate.listed.id_span?.last)).max();
    Ok(snapshot.last_given_id()?.max(archived.unwrap_or(i64::MIN)))
}

/// The rows of a filter, page by page, in memory that does not grow; no transaction is open between pages.
///
/// Rows appended after [`UnionPages::open`] are not included.
pub struct UnionPages {
    archive: Arc<Archive>,
    merge: Merge,
    /// Rows that may still be returned.
    left: u64,
    /// Where to go on reading the log; None: it has been read to its end.
    live: Option<Filter>,
}

impl UnionPages {
    /// The rows that match now; none is read yet.
    pub fn open(archive: Arc<Archive>, mut filter: Filter) -> Result<Self> {
        let end = archive.log.read("query", |snapshot| {
            let candidates = archive.candidates(snapshot.connection(), &filter)?;
            end(snapshot, &candidates)
        })?;
        // After the greatest id that there can be nothing new comes.
        if let Some(end) = end.checked_add(1) {
            filter.before_id = Some(filter.before_id.map_or(end, |bound| bound.min(end)));
        }
        let left = filter.limit.take().unwrap_or(u64::MAX);
        Ok(Self { archive, live: Some(filter.clone()), merge: Merge::new(filter), left })
    }

    /// The next rows; none at the end.
    pub fn next_page(&mut self) -> Result<Vec<LogEntry>> {
        let mut page = Vec::new();
        while (page.len() as u64) < PAGE_ROWS {
            match self.next_row() {
                Ok(Some(row)) => page.push(row),
                Ok(None) => break,
                // An interrupted read goes on after these rows.
                Err(Error::Paused | Error::Cancelled | Error::TimedOut) if !page.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(page)
    }

    fn next_row(&mut self) -> Result<Option<LogEntry>> {
        if self.left == 0 {
            return Ok(None);
        }
        self.merge.skip_returned()?;
        if self.merge.live.is_empty()
            && let Some(filter) = self.live.clone()
        {
            self.read_live(filter)?;
        }
        let row = self.merge.next_row(&self.archive)?;
        self.left = if row.is_some() { self.left - 1 } else { 0 };
        Ok(row)
    }

    /// Reads on in the log; the same transaction tells which files there are by now.
    fn read_live(&mut self, mut filter: Filter) -> Result<()> {
        filter.limit = Some(LIVE_PAGE.min(self.left));
        let archive = &self.archive;
        let (live, candidates) = archive.log.read("query", |snapshot| {
            let mut live = VecDeque::new();
            snapshot.search(&filter, |row| live.push_back(row))?;
            Ok((live, archive.candidates(snapshot.connection(), &self.merge.filter)?))
        })?;
        self.live = match live.back() {
            Some(last) if Some(live.len() as u64) == filter.limit => {
                let bound = if filter.descending { &mut filter.before_id } else { &mut filter.after_id };
                *bound = Some(last.id);
                Some(filter)
            }
            _ => None,
        };
        self.merge.live = live;
        self.merge.take_candidates(candidates);
        Ok(())
    }
}

/// Merges rows of the log with those of files, which are opened when their turn comes.
struct Merge {
    /// What is still to come; without a limit.
    filter: Filter,
    live: VecDeque<LogEntry>,
    open: Vec<DayCursor>,
    /// Files that are not open yet; the next one last.
    waiting: Vec<DayCandidate>,
    /// The id of the last row, until no other row has it.
    returned: Option<i64>,
}

impl Merge {
    fn new(filter: Filter) -> Self {
        Self {
            filter: Filter { limit: None, ..filter },
            live: VecDeque::new(),
            open: Vec::new(),
            waiting: Vec::new(),
            returned: None,
        }
    }

    /// Of what one transaction told.
    fn of(filter: Filter, candidates: Vec<DayCandidate>, live: VecDeque<LogEntry>) -> Self {
        let mut merge = Self::new(filter);
        merge.take_candidates(candidates);
        merge.live = live;
        merge
    }

    /// Calls `visit` with the first `limit` rows.
    fn each(mut self, archive: &Archive, limit: Option<u64>, visit: &mut dyn FnMut(LogEntry)) -> Result<()> {
        let mut left = limit.unwrap_or(u64::MAX);
        while left > 0
            && let Some(row) = self.next_row(archive)?
        {
            visit(row);
            left -= 1;
        }
        Ok(())
    }

    /// These are the files there are; those that are open already stay open unless they were replaced.
    fn take_candidates(&mut self, candidates: Vec<DayCandidate>) {
        let is = |cursor: &DayCursor, candidate: &DayCandidate| {
            (cursor.day(), cursor.sha256()) == (candidate.listed.day, candidate.listed.sha256)
        };
        self.open.retain(|cursor| candidates.iter().any(|candidate| is(cursor, candidate)));
        self.waiting = candidates;
        self.waiting.retain(|candidate| !self.open.iter().any(|cursor| is(cursor, candidate)));
        let descending = self.filter.descending;
        self.waiting.sort_unstable_by_key(|candidate| {
            let span = candidate.listed.id_span.unwrap_or(IdSpan::ALL);
            // `!` reverses the order without overflow.
            if descending { span.last } else { !span.first }
        });
    }

    /// The next row. An interrupted call changes nothing, and can be repeated.
    fn next_row(&mut self, archive: &Archive) -> Result<Option<LogEntry>> {
        self.skip_returned()?;
        let mut best = self.best()?;
        while self.is_next_waiting(best.map(|(id, _)| id)) {
            self.open_next(archive)?;
            best = self.best()?;
        }
        let Some((id, source)) = best else { return Ok(None) };
        let row = match source {
            Some(cursor) => self.open[cursor].next_row()?,
            None => self.live.pop_front(),
        };
        // Nothing with this id comes again, from wherever.
        let bound = if self.filter.descending { &mut self.filter.before_id } else { &mut self.filter.after_id };
        *bound = Some(id);
        self.returned = Some(id);
        Ok(row)
    }

    /// Passes over what else has the id that was returned last.
    fn skip_returned(&mut self) -> Result<()> {
        let Some(id) = self.returned else { return Ok(()) };
        while self.live.front().is_some_and(|row| row.id == id) {
            self.live.pop_front();
        }
        for cursor in &mut self.open {
            while cursor.peek()? == Some(id) {
                cursor.next_row()?;
            }
        }
        self.returned = None;
        Ok(())
    }

    /// The next id, and which cursor has it; the log's row is preferred to a file's.
    fn best(&mut self) -> Result<Option<(i64, Option<usize>)>> {
        let mut best = self.live.front().map(|row| (row.id, None));
        for (index, cursor) in self.open.iter_mut().enumerate() {
            let Some(id) = cursor.peek()? else { continue };
            let is_before = best.is_none_or(|(best, _)| if self.filter.descending { id > best } else { id < best });
            if is_before {
                best = Some((id, Some(index)));
            }
        }
        Ok(best)
    }

    /// Whether the next file may hold a row before `id`.
    fn is_next_waiting(&self, id: Option<i64>) -> bool {
        let Some(span) = self.waiting.last().and_then(|candidate| candidate.listed.id_span) else { return false };
        id.is_none_or(|id| if self.filter.descending { span.last >= id } else { span.first <= id })
    }

    fn open_next(&mut self, archive: &Archive) -> Result<()> {
        let Some(candidate) = self.waiting.pop() else { return Ok(()) };
        let wanted = candidate.listed.id_span.zip(self.filter.ids());
        if wanted.and_then(|(span, wanted)| span.intersect(wanted)).is_none() {
            return Ok(());
        }
        if let Some(open) = archive.open_candidate(&candidate)? {
            let wanted = candidate.wanted.map(|ids| ids.iter().map(u64::cast_signed).collect());
            self.open.push(DayCursor::new(open, self.filter.clone(), wanted));
        }
        // Those that have ended only cost time.
        let mut index = 0;
        while index < self.open.len() {
            if self.open[index].peek()?.is_none() { drop(self.open.swap_remove(index)) } else { index += 1 }
        }
        Ok(())
    }
}
