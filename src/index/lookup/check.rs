//! Looking rows up that the index proposes, and checking each against the whole filter.

use std::ops::ControlFlow;
use std::rc::Rc;

use rusqlite::types::Value;
use rusqlite::{CachedStatement, Connection, Row, Statement};

use crate::base::error::Result;
use crate::row::Conditions;
use crate::row::Filter;

/// Ids that one statement looks up.
const CHUNK_IDS: usize = 256;

/// Rows that may match, all in the filter's order.
pub(crate) enum Candidate {
    /// Every row from the one id to the other.
    Span(i64, i64),
    /// These rows.
    Ids(Vec<i64>),
}

/// Looks candidates up and checks them against the whole filter, until the limit is reached.
pub(crate) struct Check<'a> {
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
    pub(crate) fn new(connection: &'a Connection, filter: &'a Filter, columns: &'a str) -> Self {
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

    pub(crate) fn run(
        &mut self,
        candidate: Candidate,
        visit: &mut dyn FnMut(&Row<'_>) -> Result<()>,
    ) -> Result<ControlFlow<()>> {
        match candidate {
            Candidate::Span(first, last) => {
                let mut statement = match self.span.take() {
                    Some(statement) => statement,
                    None => self.prepare_span()?,
                };
                statement.raw_bind_parameter(1, first)?;
                statement.raw_bind_parameter(2, last)?;
                let flow = step(&mut statement, &mut self.left, visit)?;
                self.span = Some(statement);
                Ok(flow)
            }
            Candidate::Ids(ids) => {
                let mut statement = match self.ids.take() {
                    Some(statement) => statement,
                    None => self.prepare_ids()?,
                };
                for chunk in ids.chunks(CHUNK_IDS) {
                    let wanted: Rc<Vec<Value>> = Rc::new(chunk.iter().map(|id| Value::Integer(*id)).collect());
                    statement.raw_bind_parameter(1, wanted)?;
                    if step(&mut statement, &mut self.left, visit)?.is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                self.ids = Some(statement);
                Ok(ControlFlow::Continue(()))
            }
        }
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

fn step(
    statement: &mut Statement<'_>,
    left: &mut u64,
    visit: &mut dyn FnMut(&Row<'_>) -> Result<()>,
) -> Result<ControlFlow<()>> {
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next()? {
        visit(row)?;
        *left -= 1;
        if *left == 0 {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}
