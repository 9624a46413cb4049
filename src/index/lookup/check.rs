//! Looking rows up that the index proposes, and checking each against the whole filter.

use std::ops::ControlFlow;
use std::rc::Rc;

use rusqlite::types::Value;
use rusqlite::{CachedStatement, Connection, Row, Statement};

use crate::base::error::Result;
use crate::base::ids::IdSpan;
use crate::db::{Reached, each_record};
use crate::index::bounds::rows_within;
use crate::index::lookup::candidates::Candidate;
use crate::row::{COLUMNS, Conditions, Filter, RawRow};

/// Ids that one statement looks up.
const CHUNK_IDS: usize = 256;

/// Rows that are taken from pages at the least: of fewer, the preparations cost more than the rows.
const LEAST_ROWS_OF_PAGES: u64 = if cfg!(test) { 4 } else { 4_096 };

/// How many frames of the write-ahead log are looked at, one by one, before so many rows are taken from pages. Four rows
/// spare the time that a frame takes; rows whose pages are in the log spare none.
fn most_frames(rows: u64) -> u64 {
    if cfg!(test) { u64::MAX } else { rows / 16 }
}

/// Like [`Visit`].
pub(super) type VisitRaw<'a> = dyn FnMut(RawRow<'_>) -> Result<ControlFlow<()>> + 'a;

/// What is called with each row; no other one follows after a break.
pub(super) type Visit<'a> = dyn FnMut(&Row<'_>) -> Result<ControlFlow<()>> + 'a;

/// Looks candidates up and checks them against the whole filter, until the limit is reached.
pub(super) struct Check<'a> {
    connection: &'a Connection,
    conditions: Conditions<'a>,
    columns: &'a str,
    descending: bool,
    /// Each is prepared when it is first needed.
    span: Option<CachedStatement<'a>>,
    ids: Option<CachedStatement<'a>>,
    left: u64,
}

impl<'a> Check<'a> {
    pub(super) fn new(connection: &'a Connection, filter: &'a Filter, columns: &'a str) -> Self {
        Self {
            connection,
            conditions: filter.conditions(3),
            columns,
            descending: filter.descending,
            span: None,
            ids: None,
            left: filter.limit.unwrap_or(u64::MAX),
        }
    }

    /// Whether as many rows have been visited as the filter asks for.
    pub(super) fn has_enough(&self) -> bool {
        self.left == 0
    }

    /// Calls `visit` with the rows of the candidate that match, as far as the limit goes, or until it breaks.
    pub(super) fn run(&mut self, candidate: &Candidate, visit: &mut Visit<'_>) -> Result<()> {
        match candidate {
            Candidate::Span(span) => {
                let mut statement = match self.span.take() {
                    Some(statement) => statement,
                    None => self.prepare_span()?,
                };
                statement.raw_bind_parameter(1, span.first)?;
                statement.raw_bind_parameter(2, span.last)?;
                self.step(&mut statement, visit)?;
                self.span = Some(statement);
            }
            Candidate::Ids(ids) => {
                let mut statement = match self.ids.take() {
                    Some(statement) => statement,
                    None => self.prepare_ids()?,
                };
                for chunk in ids.chunks(CHUNK_IDS) {
                    let wanted: Rc<Vec<Value>> = Rc::new(chunk.iter().map(|id| Value::Integer(*id)).collect());
                    statement.raw_bind_parameter(1, wanted)?;
                    self.step(&mut statement, visit)?;
                }
                self.ids = Some(statement);
            }
        }
        Ok(())
    }

    /// The same for rows with all columns, as SQLite holds them. Those of long spans are taken from its pages.
    pub(super) fn run_raw(&mut self, candidate: &Candidate, filter: &Filter, visit: &mut VisitRaw<'_>) -> Result<()> {
        let by_statement = &mut |row: &Row<'_>| visit(RawRow::of(row)?);
        let Candidate::Span(span) = candidate else { return self.run(candidate, by_statement) };
        if span.len().min(self.left) < LEAST_ROWS_OF_PAGES {
            return self.run(candidate, by_statement);
        }
        // It may have no end, and a poll asks for what comes after the newest row.
        let Some(span) = rows_within(self.connection, *span)? else { return Ok(()) };
        let rows = span.len().min(self.left);
        if rows < LEAST_ROWS_OF_PAGES {
            return self.run(&Candidate::Span(span), by_statement);
        }
        let mut rest = Some(span);
        let left = &mut self.left;
        let table = ("logs", COLUMNS);
        let reached =
            each_record(self.connection, table, span, self.descending, most_frames(rows), &mut |id, record| {
                let Some(row) = RawRow::of_record(id, record) else {
                    return Ok(ControlFlow::Break(Reached::Unreadable));
                };
                rest = if self.descending {
                    id.checked_sub(1).and_then(|last| IdSpan::new(span.first, last))
                } else {
                    id.checked_add(1).and_then(|first| IdSpan::new(first, span.last))
                };
                if filter.matches(&row) {
                    *left = if visit(row)?.is_break() { 0 } else { *left - 1 };
                }
                Ok(if *left == 0 { ControlFlow::Break(Reached::End) } else { ControlFlow::Continue(()) })
            })?;
        match rest {
            Some(rest) if reached == Reached::Unreadable => {
                self.run(&Candidate::Span(rest), &mut |row| visit(RawRow::of(row)?))
            }
            _ => Ok(()),
        }
    }

    fn step(&mut self, statement: &mut Statement<'_>, visit: &mut Visit<'_>) -> Result<()> {
        let mut rows = statement.raw_query();
        while self.left > 0
            && let Some(row) = rows.next()?
        {
            self.left = if visit(row)?.is_break() { 0 } else { self.left - 1 };
        }
        Ok(())
    }

    fn prepare_span(&self) -> Result<CachedStatement<'a>> {
        let order = if self.descending { " DESC" } else { "" };
        self.prepare(&format!(
            "SELECT {} FROM logs WHERE id BETWEEN ?1 AND ?2{} ORDER BY id{order}",
            self.columns, self.conditions.sql
        ))
    }

    fn prepare_ids(&self) -> Result<CachedStatement<'a>> {
        self.prepare(&format!(
            "SELECT {} FROM rarray(?1) AS wanted CROSS JOIN logs ON logs.id = wanted.value WHERE true{}",
            self.columns, self.conditions.sql
        ))
    }

    fn prepare(&self, sql: &str) -> Result<CachedStatement<'a>> {
        let mut statement = self.connection.prepare_cached(sql)?;
        self.conditions.bind(&mut statement)?;
        Ok(statement)
    }
}
