//! The rows of the log and of the archive as one: in the order of ids, each once.
//!
//! Why nothing is missed while a job moves rows: one transaction tells the rows of the log and the files there are, and
//! files are opened after it. A row that the transaction saw in the log is taken from there; one that it did not see had
//! been deleted before, after its file was published; and a file only ever gains rows.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use roaring::RoaringTreemap;

use crate::archive::manifest::candidates::DayCandidate;
use crate::archive::manifest::catalog::Archive;
use crate::archive::manifest::overlap::live_among;
use crate::archive::read::cursor::VisitRaw;
use crate::archive::read::merge::Merge;
use crate::base::error::{Error, Result};
use crate::base::ids::IdSpan;
use crate::base::interrupt::check_rows;
use crate::log::{self, FollowedPage, Snapshot};
use crate::row::{Filter, LogEntry, RawRow};

/// Rows of the log that one transaction reads.
const LIVE_PAGE: u64 = 1_024;
/// Rows that one step returns.
const PAGE_ROWS: u64 = 1_024;

/// How long a follower puts up with a file that cannot be read, after it was changed: it may be in the middle of being
/// written.
const REWRITTEN: Duration = Duration::from_secs(5);

impl Archive {
    /// Every row of the log and the archive that matches, in the filter's order.
    pub fn query(&self, filter: &Filter) -> Result<Vec<LogEntry>> {
        let mut rows = Vec::new();
        self.each(filter, &mut |row| rows.push(row))?;
        Ok(rows)
    }

    /// Calls `visit` with every row that matches, in the filter's order.
    pub fn each(&self, filter: &Filter, visit: &mut dyn FnMut(LogEntry)) -> Result<()> {
        self.each_found(filter, visit, |snapshot, visit| snapshot.search(filter, visit))
    }

    /// Like [`Self::each`]; rows of the log that cannot be read go to `unreadable`, each with its id.
    pub(crate) fn each_readable(
        &self,
        filter: &Filter,
        visit: &mut dyn FnMut(LogEntry),
        unreadable: &mut dyn FnMut(i64, Error),
    ) -> Result<()> {
        self.each_found(filter, visit, |snapshot, visit| snapshot.search_readable(filter, visit, unreadable))
    }

    fn each_found(
        &self,
        filter: &Filter,
        visit: &mut dyn FnMut(LogEntry),
        search: impl FnOnce(&Snapshot<'_>, &mut dyn FnMut(LogEntry)) -> Result<()>,
    ) -> Result<()> {
        let found = self.log.read("query", |snapshot| {
            let candidates = self.candidates(snapshot, filter)?;
            if candidates.is_empty() {
                search(snapshot, &mut *visit)?;
                return Ok(None);
            }
            let archived = candidates.iter().map(DayCandidate::known_rows).sum::<u64>();
            check_rows(archived.min(filter.limit.unwrap_or(u64::MAX)))?;
            let mut live = VecDeque::new();
            search(snapshot, &mut |row| live.push_back(row))?;
            Ok(Some((candidates, live)))
        })?;
        let Some((candidates, live)) = found else { return Ok(()) };
        Merge::of(filter.clone(), candidates, live).each(self, filter.limit, visit)
    }

    /// Calls `visit` with the rows in the candidates' files whose ids are among `ids`, in order.
    pub(in crate::archive) fn each_of(
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
            let candidates = self.candidates(snapshot, filter)?;
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

    /// From the least id to the greatest of the rows that may match, in the log and in the archive, and about how many
    /// there are; None if these are fewer than `least` ids, or if most files have rows of about the same ids, so that each
    /// would be opened wherever some of these rows are read.
    pub(crate) fn extent(&self, filter: &Filter, least: u64) -> Result<Option<(IdSpan, u64)>> {
        let Some(ids) = filter.ids() else { return Ok(None) };
        self.log.read("query", |snapshot| {
            let candidates = self.candidates(snapshot, filter)?;
            let live = log::ids(snapshot.connection(), filter)?;
            let spans = || candidates.iter().filter_map(|candidate| candidate.listed.id_span?.intersect(ids));
            let Some(span) = spans().chain(live).reduce(IdSpan::union) else { return Ok(None) };
            let covered = spans().fold(0, |total: u64, span| total.saturating_add(span.len()));
            if span.len() < least || covered / 2 > span.len() {
                return Ok(None);
            }
            let rows: u64 = candidates.iter().map(|candidate| candidate.listed.row_count).sum();
            Ok(Some((span, rows + snapshot.count(filter)?)))
        })
    }

    /// The rows of the log and the archive, as [`crate::log::ReadPage`].
    pub fn read_page(&self, filter: &Filter) -> Result<FollowedPage> {
        match self.read_page_now(filter) {
            // The next page is read from the same place.
            Err(Error::ArchiveCorrupt { path, .. }) if is_being_written(&path) => {
                Ok(FollowedPage { rows: Vec::new(), last: filter.after_id.unwrap_or(i64::MIN), is_partial: true })
            }
            page => page,
        }
    }

    fn read_page_now(&self, filter: &Filter) -> Result<FollowedPage> {
        let (candidates, end, live) = self.log.read("follow", |snapshot| {
            let candidates = self.candidates(snapshot, filter)?;
            let end = end(snapshot, &candidates)?;
            let mut live = VecDeque::new();
            snapshot.search(filter, |row| live.push_back(row))?;
            Ok((candidates, end, live))
        })?;
        if candidates.is_empty() {
            return Ok(FollowedPage { rows: live.into(), last: end, is_partial: false });
        }
        let upto_end = Filter { before_id: end.checked_add(1), ..filter.clone() };
        let mut rows = Vec::new();
        let merged = Merge::of(upto_end, candidates, live).each(self, filter.limit, &mut |row| rows.push(row));
        match (merged, rows.last().map(|row| row.id)) {
            (Ok(()), _) => Ok(FollowedPage { rows, last: end, is_partial: false }),
            // The rows before it are returned first.
            (Err(Error::ArchiveCorrupt { .. } | Error::IdConflict { .. }), Some(last)) => {
                Ok(FollowedPage { rows, last, is_partial: true })
            }
            (Err(error), _) => Err(error),
        }
    }
}

fn is_being_written(path: &std::path::Path) -> bool {
    let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified());
    modified.is_ok_and(|modified| modified.elapsed().is_ok_and(|elapsed| elapsed < REWRITTEN))
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
    let (mut archived, mut total) = (RoaringTreemap::new(), 0);
    for candidate in candidates {
        let ids = candidate.ids(snapshot.connection())?;
        let ids = match &candidate.wanted {
            Some(wanted) => wanted & &ids,
            None => ids,
        };
        total += ids.len();
        archived |= ids;
    }
    if archived.len() != total {
        // Some ids are in two files.
        return Ok(None);
    }
    let bound = |id: i64| u64::try_from(id).unwrap_or(0);
    archived.remove_range(..bound(filter.first_id()));
    if filter.last_id() < i64::MAX {
        archived.remove_range(bound(filter.last_id().saturating_add(1))..);
    }
    // What the log has as well is compared where the rows are read.
    Ok(live_among(snapshot.connection(), &archived)?.is_empty().then(|| archived.len()))
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
            let candidates = archive.candidates(snapshot, &filter)?;
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

    /// Calls `visit` with the next rows until it breaks, without making entries of most; returns whether there may be
    /// more. Rows that it was called with before an error do not come again.
    pub(crate) fn each_raw(&mut self, visit: &mut VisitRaw<'_>) -> Result<bool> {
        let mut is_broken = false;
        while !is_broken {
            if self.left == 0 {
                return Ok(false);
            }
            self.read_on()?;
            let left = &mut self.left;
            let is_of_one_file = self.merge.each_raw(&self.archive, &mut |row| {
                *left -= 1;
                let then = visit(row)?;
                is_broken = then.is_break() || *left == 0;
                Ok(if is_broken { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })?;
            if !is_of_one_file {
                let Some(row) = self.next_row()? else { return Ok(false) };
                is_broken = visit(RawRow::from(&row))?.is_break();
            }
        }
        Ok(true)
    }

    fn next_row(&mut self) -> Result<Option<LogEntry>> {
        if self.left == 0 {
            return Ok(None);
        }
        self.read_on()?;
        let row = self.merge.next_row(&self.archive)?;
        self.left = if row.is_some() { self.left - 1 } else { 0 };
        Ok(row)
    }

    /// Reads on in the log if its rows so far have been returned; the same transaction tells which files there are by
    /// now.
    fn read_on(&mut self) -> Result<()> {
        if !self.merge.live.is_empty() {
            return Ok(());
        }
        let Some(mut filter) = self.live.clone() else { return Ok(()) };
        filter.limit = Some(LIVE_PAGE.min(self.left));
        let archive = &self.archive;
        let (live, candidates) = archive.log.read("query", |snapshot| {
            let mut live = VecDeque::new();
            snapshot.search(&filter, |row| live.push_back(row))?;
            Ok((live, archive.candidates(snapshot, &self.merge.filter)?))
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
