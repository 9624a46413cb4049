//! Which rows a read wants, and the SQL that says so.

use rusqlite::types::ToSqlOutput;
use rusqlite::{Result, Statement};

use super::index;

/// The conditions of a read; every one that is given must hold.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Exactly this source.
    pub source: Option<String>,
    /// Exactly this type.
    pub kind: Option<String>,
    /// Exactly this reference.
    pub ref_id: Option<String>,
    /// Timestamps from here on, inclusive.
    pub since: Option<i64>,
    /// Timestamps up to here, inclusive.
    pub until: Option<i64>,
    /// Ids above this one.
    pub after_id: Option<i64>,
    /// Ids below this one.
    pub before_id: Option<i64>,
    /// The first so many rows of the order asked for.
    pub limit: Option<u64>,
    /// From the greatest id downwards.
    pub descending: bool,
}

enum Value<'a> {
    Text(&'a str),
    Integer(i64),
}

impl Filter {
    /// `SELECT <what> FROM logs …` with the conditions, the order and the limit, and its parameters to bind.
    pub(super) fn select(&self, what: &str) -> Select<'_> {
        let mut select = Select { sql: format!("SELECT {what} FROM logs"), values: Vec::new() };
        // The index module says which column it wants the planner to search by.
        let lead = index::lead(self);
        for (lead_of, condition, text) in [
            (index::Lead::Kind, "source =", &self.source),
            (index::Lead::Kind, "type =", &self.kind),
            (index::Lead::RefId, "ref_id =", &self.ref_id),
        ] {
            if let Some(text) = text {
                select.condition(lead == lead_of, condition, Value::Text(text));
            }
        }
        for (condition, bound) in [("timestamp >=", self.since), ("timestamp <=", self.until)] {
            if let Some(bound) = bound {
                select.condition(lead == index::Lead::Timestamp, condition, Value::Integer(bound));
            }
        }
        for (condition, bound) in [("id >", self.after_id), ("id <", self.before_id)] {
            if let Some(bound) = bound {
                select.condition(true, condition, Value::Integer(bound));
            }
        }
        select.sql.push_str(if self.descending { " ORDER BY id DESC" } else { " ORDER BY id" });
        if let Some(limit) = self.limit {
            select.values.push(Value::Integer(i64::try_from(limit).unwrap_or(i64::MAX)));
            select.sql.push_str(&format!(" LIMIT ?{}", select.values.len()));
        }
        select
    }
}

/// A statement that is not compiled yet.
pub(super) struct Select<'a> {
    pub(super) sql: String,
    values: Vec<Value<'a>>,
}

impl<'a> Select<'a> {
    /// Adds a condition; a unary plus keeps the planner from searching by a column.
    fn condition(&mut self, searchable: bool, condition: &str, value: Value<'a>) {
        self.values.push(value);
        let word = if self.values.len() == 1 { "WHERE" } else { "AND" };
        let plus = if searchable { "" } else { "+" };
        self.sql.push_str(&format!(" {word} {plus}{condition} ?{}", self.values.len()));
    }

    /// Binds the parameters to the compiled statement.
    pub(super) fn bind(&self, statement: &mut Statement<'_>) -> Result<()> {
        for (position, value) in self.values.iter().enumerate() {
            let value = match value {
                Value::Text(text) => ToSqlOutput::from(*text),
                Value::Integer(integer) => ToSqlOutput::from(*integer),
            };
            statement.raw_bind_parameter(position + 1, value)?;
        }
        Ok(())
    }
}
