//! Which rows a read wants.

use rusqlite::types::ToSqlOutput;
use rusqlite::{Result, Statement};

use crate::base::ids::IdSpan;
use crate::base::time::TimeSpan;
use crate::row::RawRow;

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

impl Filter {
    /// The least id that can match; above [`Filter::last_id`] if none can.
    pub(crate) fn first_id(&self) -> i64 {
        self.after_id.map_or(i64::MIN, |id| id.saturating_add(1))
    }

    /// The greatest id that can match.
    pub(crate) fn last_id(&self) -> i64 {
        self.before_id.map_or(i64::MAX, |id| id.saturating_sub(1))
    }

    /// The ids that can match; None if none can.
    pub(crate) fn ids(&self) -> Option<IdSpan> {
        IdSpan::new(self.first_id(), self.last_id())
    }

    /// The same for the ids of a span, whatever its own bounds of ids are.
    #[must_use]
    pub(crate) fn within(self, ids: IdSpan) -> Self {
        Self { after_id: ids.first.checked_sub(1), before_id: ids.last.checked_add(1), ..self }
    }

    /// The times that can match; its first is after its last if none can.
    pub(crate) fn times(&self) -> TimeSpan {
        TimeSpan { first: self.since.unwrap_or(i64::MIN), last: self.until.unwrap_or(i64::MAX) }
    }

    /// Whether it asks for anything but ids.
    pub(crate) fn has_conditions(&self) -> bool {
        let Self { source, kind, ref_id, since, until, after_id: _, before_id: _, limit: _, descending: _ } = self;
        [source, kind, ref_id].iter().any(|text| text.is_some()) || since.is_some() || until.is_some()
    }

    /// Whether the row meets every condition; the limit aside.
    pub(crate) fn matches(&self, row: &RawRow<'_>) -> bool {
        let is = |wanted: &Option<String>, found| wanted.as_ref().is_none_or(|wanted| Some(wanted.as_bytes()) == found);
        let (source, kind, ref_id, _) = row.texts;
        (self.first_id()..=self.last_id()).contains(&row.id)
            && self.since.is_none_or(|bound| row.timestamp >= bound)
            && self.until.is_none_or(|bound| row.timestamp <= bound)
            && is(&self.ref_id, ref_id)
            && is(&self.kind, Some(kind))
            && is(&self.source, Some(source))
    }

    /// The conditions on the columns, not on the id, as SQL that begins with ` AND`; parameters from `first` on.
    pub(crate) fn conditions(&self, first: usize) -> Conditions<'_> {
        let mut conditions = Conditions { sql: String::new(), values: Vec::new(), first };
        for (condition, text) in [("source =", &self.source), ("type =", &self.kind), ("ref_id =", &self.ref_id)] {
            if let Some(text) = text {
                conditions.add(condition, Value::Text(text));
            }
        }
        for (condition, bound) in [("timestamp >=", self.since), ("timestamp <=", self.until)] {
            if let Some(bound) = bound {
                conditions.add(condition, Value::Integer(bound));
            }
        }
        conditions
    }
}

enum Value<'a> {
    Text(&'a str),
    Integer(i64),
}

/// Conditions and their parameters.
pub(crate) struct Conditions<'a> {
    pub(crate) sql: String,
    values: Vec<Value<'a>>,
    first: usize,
}

impl<'a> Conditions<'a> {
    fn add(&mut self, condition: &str, value: Value<'a>) {
        self.sql.push_str(&format!(" AND {condition} ?{}", self.first + self.values.len()));
        self.values.push(value);
    }

    /// Binds the parameters to the compiled statement.
    pub(crate) fn bind(&self, statement: &mut Statement<'_>) -> Result<()> {
        for (position, value) in (self.first..).zip(&self.values) {
            let value = match value {
                Value::Text(text) => ToSqlOutput::from(*text),
                Value::Integer(integer) => ToSqlOutput::from(*integer),
            };
            statement.raw_bind_parameter(position, value)?;
        }
        Ok(())
    }
}
