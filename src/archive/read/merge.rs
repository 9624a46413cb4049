//! Rows of the log and of files as one: in the order of ids, each once.
//!
//! Invariant: what is in several places is returned once if it is the same in all of them, and an error if it is not: no
//! row hides another one. Of any number of files a few are open. A call that was interrupted can be repeated, and goes on
//! where it was.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use crate::archive::manifest::candidates::DayCandidate;
use crate::archive::manifest::catalog::Archive;
use crate::archive::read::cursor::{DayCursor, VisitRaw};
use crate::base::error::{Error, Result};
use crate::base::ids::IdSpan;
use crate::base::interrupt::shielded;
use crate::row::{Filter, LogEntry};

/// Files that are open at once, at the most.
const MOST_OPEN: usize = 64;

/// Merges rows of the log with those of files, which are opened when their turn comes.
pub(crate) struct Merge {
    /// What is still to come; without a limit.
    pub(crate) filter: Filter,
    pub(crate) live: VecDeque<LogEntry>,
    /// Files that have been begun; None: ended.
    cursors: Vec<Option<DayCursor>>,
    /// The place in the order of the next row of each cursor.
    heads: BinaryHeap<Reverse<(i64, usize)>>,
    /// Files that have not been begun; the next one last.
    waiting: Vec<DayCandidate>,
    /// Cursors whose next row is to be looked at.
    unseen: Vec<usize>,
    most_open: usize,
}

impl Merge {
    pub(crate) fn new(filter: Filter) -> Self {
        Self {
            filter: Filter { limit: None, ..filter },
            live: VecDeque::new(),
            cursors: Vec::new(),
            heads: BinaryHeap::new(),
            waiting: Vec::new(),
            unseen: Vec::new(),
            most_open: most_open(),
        }
    }

    /// Of what one transaction told.
    pub(crate) fn of(filter: Filter, candidates: Vec<DayCandidate>, live: VecDeque<LogEntry>) -> Self {
        let mut merge = Self::new(filter);
        merge.take_candidates(candidates);
        merge.live = live;
        merge
    }

    /// Calls `visit` with the first `limit` rows.
    pub(crate) fn each(mut self, archive: &Archive, limit: Option<u64>, visit: &mut dyn FnMut(LogEntry)) -> Result<()> {
        let mut left = limit.unwrap_or(u64::MAX);
        while left > 0
            && let Some(row) = self.next_row(archive)?
        {
            visit(row);
            left -= 1;
        }
        Ok(())
    }

    /// These are the files there are; those that have been begun are gone on with unless they were replaced.
    ///
    /// One that was replaced between the transaction that told of it and its opening is begun anew, too: the ids that are
    /// wanted of it were those of the file before.
    pub(crate) fn take_candidates(&mut self, candidates: Vec<DayCandidate>) {
        let is = |cursor: &DayCursor, candidate: &DayCandidate| {
            let told = &cursor.candidate().listed;
            let now = &candidate.listed;
            cursor.day() == now.day && cursor.sha256() == now.sha256 && told.sha256 == now.sha256
        };
        let begun = std::mem::take(&mut self.cursors).into_iter().flatten();
        let kept: Vec<_> = begun.filter(|cursor| candidates.iter().any(|candidate| is(cursor, candidate))).collect();
        self.waiting = candidates;
        self.waiting.retain(|candidate| !kept.iter().any(|cursor| is(cursor, candidate)));
        let descending = self.filter.descending;
        self.waiting.sort_by_cached_key(|candidate| {
            let span = candidate.listed.id_span.unwrap_or(IdSpan::ALL);
            // `!` reverses the order without overflow.
            if descending { span.last } else { !span.first }
        });
        self.heads.clear();
        self.cursors = kept.into_iter().map(Some).collect();
        self.unseen = (0..self.cursors.len()).collect();
    }

    /// Begins the files that may hold the next row.
    fn begin_waiting(&mut self, archive: &Archive) -> Result<()> {
        self.look_at_unseen(archive)?;
        while self.is_next_waiting() {
            self.begin_next(archive)?;
            self.look_at_unseen(archive)?;
        }
        Ok(())
    }

    /// Calls `visit` with the next rows, ascending, as long as they come from one file alone or until it breaks, and
    /// makes no entries of most of them. Returns whether it was called, or might have been.
    pub(crate) fn each_raw(&mut self, archive: &Archive, visit: &mut VisitRaw<'_>) -> Result<bool> {
        self.begin_waiting(archive)?;
        let Some(Reverse((head, index))) = self.heads.peek().copied() else { return Ok(false) };
        // The least id that another file or the log may have.
        let waiting = self.waiting.last().map(|candidate| candidate.listed.id_span.map_or(i64::MIN, |span| span.first));
        let end = waiting.into_iter().chain(self.live.front().map(|row| row.id)).min().unwrap_or(i64::MAX);
        if self.filter.descending || self.heads.len() > 1 || head >= end {
            return Ok(false);
        }
        let Some(cursor) = &mut self.cursors[index] else { return Ok(false) };
        self.heads.clear();
        self.unseen.push(index);
        let after_id = &mut self.filter.after_id;
        cursor.each_raw(archive, end, &mut |row| {
            *after_id = Some(row.id);
            visit(row)
        })?;
        Ok(true)
    }

    /// The next row.
    pub(crate) fn next_row(&mut self, archive: &Archive) -> Result<Option<LogEntry>> {
        self.begin_waiting(archive)?;
        let Some(next) = self.next_place() else { return Ok(None) };
        let is_next = self.live.front().is_some_and(|row| place(row.id, self.filter.descending) == next);
        let mut found = if is_next { self.live.pop_front() } else { None };
        let is_live = found.is_some();
        while let Some(Reverse((head, index))) = self.heads.peek().copied()
            && head == next
        {
            self.heads.pop();
            self.unseen.push(index);
            let row = self.cursors[index].as_mut().and_then(DayCursor::next_row);
            match (&found, row) {
                (Some(one), Some(other)) if *one != other => {
                    let first = if is_live { None } else { self.unseen.first().copied() };
                    return Err(shielded(|| self.conflict(archive, one.id, first, index)));
                }
                (None, row) => found = row,
                _ => {}
            }
        }
        if let Some(row) = &found {
            // Nothing with this id comes again, from wherever.
            let bound = if self.filter.descending { &mut self.filter.before_id } else { &mut self.filter.after_id };
            *bound = Some(row.id);
        }
        Ok(found)
    }

    /// Where the next row is in the order.
    fn next_place(&self) -> Option<i64> {
        let live = self.live.front().map(|row| place(row.id, self.filter.descending));
        let archived = self.heads.peek().map(|Reverse((head, _))| *head);
        live.into_iter().chain(archived).min()
    }

    /// Whether the next file may hold a row before, or with the id of, the next one.
    fn is_next_waiting(&self) -> bool {
        let Some(candidate) = self.waiting.last() else { return false };
        let Some(span) = candidate.listed.id_span else { return true };
        let first = if self.filter.descending { !span.last } else { span.first };
        self.next_place().is_none_or(|next| first <= next)
    }

    fn begin_next(&mut self, archive: &Archive) -> Result<()> {
        let Some(candidate) = self.waiting.last() else { return Ok(()) };
        let wanted = candidate.listed.id_span.zip(self.filter.ids());
        if wanted.and_then(|(span, wanted)| span.intersect(wanted)).is_none() {
            self.waiting.pop();
            return Ok(());
        }
        let open = archive.open_candidate(candidate)?;
        let (Some(candidate), Some(open)) = (self.waiting.pop(), open) else { return Ok(()) };
        self.make_room(None);
        let cursor = DayCursor::new(candidate, open, self.filter.clone());
        let index = self.cursors.iter().position(Option::is_none).unwrap_or(self.cursors.len());
        if index == self.cursors.len() {
            self.cursors.push(Some(cursor));
        } else {
            self.cursors[index] = Some(cursor);
        }
        self.unseen.push(index);
        Ok(())
    }

    fn look_at_unseen(&mut self, archive: &Archive) -> Result<()> {
        while let Some(index) = self.unseen.last() {
            self.look(archive, *index)?;
            self.unseen.pop();
        }
        Ok(())
    }

    /// Learns which row of a cursor is next, and lets go of one that has ended.
    fn look(&mut self, archive: &Archive, index: usize) -> Result<()> {
        if self.cursors[index].as_ref().is_some_and(|cursor| cursor.is_drained() && !cursor.is_open()) {
            self.make_room(Some(index));
        }
        let Some(cursor) = &mut self.cursors[index] else { return Ok(()) };
        match cursor.peek(archive)? {
            Some(id) => self.heads.push(Reverse((place(id, self.filter.descending), index))),
            None => self.cursors[index] = None,
        }
        Ok(())
    }

    /// Closes a file if as many are open as may be, another one than that of the cursor `but`.
    fn make_room(&mut self, but: Option<usize>) {
        let is_other = |(index, cursor): &(usize, &mut DayCursor)| Some(*index) != but && cursor.is_open();
        let cursors = self.cursors.iter_mut().enumerate();
        let open = cursors.filter_map(|(index, cursor)| Some((index, cursor.as_mut()?))).filter(is_other);
        let mut open: Vec<_> = open.map(|(_, cursor)| cursor).collect();
        if open.len() >= self.most_open
            && let Some(last) = open.last_mut()
        {
            last.close();
        }
    }

    /// The error that different rows have one id.
    fn conflict(&self, archive: &Archive, id: i64, first: Option<usize>, second: usize) -> Error {
        let cursor = |index: usize| self.cursors.get(index).and_then(Option::as_ref);
        let Some(second) = cursor(second) else { return Error::Internal };
        match first.and_then(cursor) {
            Some(first) => {
                let reason = format!(
                    "row {id} is another row in {}: one of the two files is another database's, or was written by one that was older than its archive; move one of them away",
                    first.path().display()
                );
                Error::IdConflict { path: second.path().to_owned(), reason }
            }
            None => match archive.open_candidate(second.candidate()) {
                Ok(Some(open)) => archive.conflict(open, id),
                Ok(None) => Error::Internal,
                Err(error) => error,
            },
        }
    }
}

/// Files that are open at once, where the system allows a process few.
fn most_open() -> usize {
    let allowed = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    // The rest of the process needs most of them.
    allowed.and_then(|allowed| usize::try_from(allowed / 8).ok()).map_or(MOST_OPEN, |most| most.clamp(1, MOST_OPEN))
}

/// Where a row is in the order: ascending either way.
fn place(id: i64, descending: bool) -> i64 {
    if descending { !id } else { id }
}
