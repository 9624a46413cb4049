//! The tables beside the log that no index or archive could be asked for again: meta, runs, and whatever others there are.

use std::collections::HashMap;

use roaring::RoaringTreemap;
use rusqlite::Connection;
use rusqlite::types::{ToSql, Value};

use crate::base::error::Result;
use crate::base::status::RunStatus;
use crate::base::time::UtcDay;
use crate::index;
use crate::salvage::tree::Entry;

/// Tables that are built anew, or that SQLite keeps itself.
const DERIVED: [&str; 6] =
    ["log_ids", "archive_days", "archive_contents", "archive_refs", "archive_missing", "archive_owner"];

/// A table of the new database.
pub(super) struct Table {
    pub(super) name: String,
    column_count: usize,
    /// The column that is the row id; None: another one is, or none.
    rowid: Option<usize>,
    /// Where each column is in the record, in a table without row ids.
    order: Option<Vec<usize>>,
}

/// The tables to be filled from what is read.
pub(super) fn tables(connection: &Connection) -> Result<Vec<Table>> {
    let is_derived = |name: &str| index::schema::TABLES.contains(&name) || DERIVED.contains(&name);
    named(connection, &|name| name != "logs" && !is_derived(name))
}

/// The tables that tell of rounds: those of the log's index, from which it is made anew. Rounds whose rows are gone keep their
/// numbers so.
pub(super) fn tables_of_rounds(connection: &Connection) -> Result<Vec<Table>> {
    named(connection, &|name| ["log_fresh", "log_postings"].contains(&name))
}

fn named(connection: &Connection, is_wanted: &dyn Fn(&str) -> bool) -> Result<Vec<Table>> {
    let mut statement = connection.prepare(
        "SELECT name, wr FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND name NOT LIKE 'sqlite%'",
    )?;
    let named = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?)))?;
    let mut tables = Vec::new();
    for named in named {
        let (name, is_without_rowid) = named?;
        if !is_wanted(&name) {
            continue;
        }
        let mut columns = connection.prepare("SELECT type, pk FROM pragma_table_info(?1) ORDER BY cid")?;
        let columns: Vec<(String, usize)> =
            columns.query_map([&name], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<rusqlite::Result<_>>()?;
        let keys = columns.iter().filter(|(_, key)| *key > 0).count();
        let rowid = columns.iter().position(|(kind, key)| *key == 1 && kind == "INTEGER" && keys == 1);
        let order = is_without_rowid.then(|| {
            let mut order: Vec<usize> = (0..columns.len()).collect();
            order.sort_by_key(|&column| match columns[column].1 {
                0 => (1, column),
                key => (0, key),
            });
            order
        });
        let rowid = rowid.filter(|_| !is_without_rowid);
        tables.push(Table { name, column_count: columns.len(), rowid, order });
    }
    Ok(tables)
}

impl Table {
    /// Inserts an entry unless its key is there; false if it is none of this table.
    pub(super) fn insert(&self, connection: &Connection, entry: &Entry) -> Result<bool> {
        if entry.values.is_empty() || entry.values.len() > self.column_count || !self.may_be(&entry.values) {
            return Ok(false);
        }
        // A column that was added later is not in older records.
        let mut values = entry.values.clone();
        values.resize(self.column_count, Value::Null);
        if let Some(order) = &self.order {
            let mut sorted = vec![Value::Null; self.column_count];
            order.iter().zip(values).for_each(|(&column, value)| sorted[column] = value);
            values = sorted;
        }
        if let Some(rowid) = self.rowid {
            values[rowid] = Value::Integer(entry.rowid);
        }
        let places = vec!["?"; self.column_count].join(", ");
        let sql = format!("INSERT OR IGNORE INTO \"{}\" VALUES ({places})", self.name);
        let parameters: Vec<&dyn ToSql> = values.iter().map(|value| value as &dyn ToSql).collect();
        connection.prepare_cached(&sql)?.execute(&parameters[..])?;
        Ok(true)
    }

    /// Whether the values can be those of a record of the table, as far as is known of it.
    pub(super) fn may_be(&self, values: &[Value]) -> bool {
        let is_text = |value: &Value| matches!(value, Value::Text(_));
        match &*self.name {
            "meta" => values.len() == 2 && values.iter().all(is_text),
            "workflow_runs" => {
                let status = match values.get(2) {
                    Some(Value::Text(status)) => status.parse::<RunStatus>().is_ok(),
                    _ => false,
                };
                status
                    && values.len() >= 4
                    && values[..3].iter().all(is_text)
                    && matches!(values[3], Value::Integer(_) | Value::Real(_))
                    && matches!(values.get(4), None | Some(Value::Null | Value::Integer(_)))
            }
            "archive_expired" => self.expired(values).is_some(),
            "archive_expired_rounds" => {
                matches!(values, [Value::Text(_), Value::Integer(_), Value::Blob(ids)] if set_of(ids).is_some())
            }
            "log_fresh" => matches!(values, [Value::Null, Value::Blob(_)]),
            "log_postings" => matches!(
                values,
                [
                    Value::Text(_),
                    Value::Integer(_),
                    Value::Blob(_),
                    Value::Integer(1..),
                    Value::Integer(_),
                    Value::Null | Value::Blob(_)
                ]
            ),
            _ => true,
        }
    }

    /// The rows of an expired day, if it is the table of these.
    pub(super) fn expired(&self, values: &[Value]) -> Option<RoaringTreemap> {
        match values {
            [Value::Text(day), Value::Blob(ids), Value::Integer(_)]
                if self.name == "archive_expired" && day.parse::<UtcDay>().is_ok() =>
            {
                set_of(ids)
            }
            _ => None,
        }
    }

    /// Whether its records can be told from others' without the tree that leads to them.
    pub(super) fn is_known(&self) -> bool {
        matches!(&*self.name, "meta" | "workflow_runs")
    }
}

fn set_of(bytes: &[u8]) -> Option<RoaringTreemap> {
    RoaringTreemap::deserialize_from(bytes).ok()
}

/// The first pages of the trees by the names of their tables, from the records of the schema.
#[derive(Default)]
pub(super) struct Roots(HashMap<String, u32>);

impl Roots {
    /// Takes in an entry of the schema.
    pub(super) fn take(&mut self, entry: &Entry) {
        if let [Value::Text(kind), Value::Text(name), _, Value::Integer(root), ..] = &entry.values[..]
            && kind == "table"
            && let Ok(root) = u32::try_from(*root)
        {
            self.0.insert(name.clone(), root);
        }
    }

    pub(super) fn of(&self, table: &str) -> Option<u32> {
        self.0.get(table).copied()
    }
}
