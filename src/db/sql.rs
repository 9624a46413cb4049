//! The users' own SQL: one statement that reads, and nothing else.

use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, ErrorCode, Statement};

use crate::base::error::{Error, Result, quoted};
use crate::db::failure::words_of;

/// Parameters of a statement.
pub enum SqlParams {
    /// For `?` and `?N`, in order.
    Positional(Vec<Value>),
    /// For `:name`, `@name` and `$name`; the names without their sign.
    Named(Vec<(String, Value)>),
}

/// Pragmas that only tell something.
const READING_PRAGMAS: [&str; 11] = [
    "application_id",
    "collation_list",
    "compile_options",
    "function_list",
    "index_info",
    "index_list",
    "page_count",
    "table_info",
    "table_list",
    "table_xinfo",
    "user_version",
];

/// Lets a connection compile nothing but what reads the main database.
pub(super) fn restrict(connection: &mut Connection) -> rusqlite::Result<()> {
    connection.authorizer(Some(|context: AuthContext<'_>| match context.action {
        // The transaction around the statement is ours; a user's BEGIN fails in it, a COMMIT is refused by `run`.
        AuthAction::Select | AuthAction::Read { .. } | AuthAction::Recursive | AuthAction::Transaction { .. } => {
            Authorization::Allow
        }
        AuthAction::Function { function_name } if !function_name.eq_ignore_ascii_case("load_extension") => {
            Authorization::Allow
        }
        AuthAction::Pragma { pragma_name, .. } if READING_PRAGMAS.contains(&pragma_name) => Authorization::Allow,
        _ => Authorization::Deny,
    }))
}

/// What a statement returned.
pub struct NamedRows {
    /// The names of the columns, which may repeat.
    pub names: Vec<String>,
    /// A value a column.
    pub rows: Vec<Vec<Value>>,
}

/// The rows of `query`.
pub(super) fn run(connection: &Connection, query: &str, params: &SqlParams) -> Result<Vec<Vec<Value>>> {
    prepared(connection, query).and_then(|mut statement| rows(&mut statement, params)).map_err(refuse)
}

/// The same, with the names of the columns.
pub(super) fn run_named(connection: &Connection, query: &str, params: &SqlParams) -> Result<NamedRows> {
    let read = || {
        let mut statement = prepared(connection, query)?;
        let rows = rows(&mut statement, params)?;
        // Only now: when it first steps, SQLite compiles a statement anew if the schema has changed. A name that is no
        // UTF-8, at which rusqlite panics, comes from the schema alone, and `restrict` lets no such name through.
        Ok(NamedRows { names: statement.column_names().map(str::to_owned).collect(), rows })
    };
    read().map_err(refuse)
}

fn prepared<'a>(connection: &'a Connection, query: &str) -> Result<Statement<'a>> {
    let statement = connection.prepare(query)?;
    if statement.column_count() == 0 {
        return Err(Error::Value("query: sql() runs one statement that returns rows".into()));
    }
    Ok(statement)
}

fn rows(statement: &mut Statement<'_>, params: &SqlParams) -> Result<Vec<Vec<Value>>> {
    bind(statement, params)?;
    let mut rows = statement.raw_query();
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let width = row.as_ref().column_count();
        let mut values = Vec::with_capacity(width);
        for column in 0..width {
            values.push(match row.get_ref(column)? {
                ValueRef::Null => Value::Null,
                ValueRef::Integer(value) => Value::Integer(value),
                ValueRef::Real(value) => Value::Real(value),
                // Text that is no UTF-8 comes as the bytes that it is.
                ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
                    Ok(text) => Value::Text(text.to_owned()),
                    Err(_) => Value::Blob(bytes.to_vec()),
                },
                ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
            });
        }
        found.push(values);
    }
    Ok(found)
}

fn bind(statement: &mut Statement<'_>, params: &SqlParams) -> Result<()> {
    let wanted = statement.parameter_count();
    match params {
        SqlParams::Positional(values) => {
            if values.len() != wanted {
                return Err(Error::Value(format!(
                    "params: the statement takes {wanted} parameters, {} were given",
                    values.len()
                )));
            }
            for (position, value) in values.iter().enumerate() {
                statement.raw_bind_parameter(position + 1, value)?;
            }
        }
        SqlParams::Named(values) => {
            for position in 1..=wanted {
                let Some(name) = statement.parameter_name(position).map(|name| name[1..].to_owned()) else {
                    return Err(Error::Value(format!("params: parameter {position} has no name; give a sequence")));
                };
                let Some((_, value)) = values.iter().find(|(given, _)| *given == name) else {
                    return Err(Error::Value(format!("params: no value for the parameter {}", quoted(&name))));
                };
                statement.raw_bind_parameter(position, value)?;
            }
        }
    }
    Ok(())
}

/// What the statement itself did wrong is the caller's `Value` error; what the file or the system did stays as it is.
fn refuse(error: Error) -> Error {
    let Error::Sqlite(failure) = error else { return error };
    match failure.sqlite_error_code() {
        Some(ErrorCode::AuthorizationForStatementDenied | ErrorCode::ReadOnly) => {
            Error::Value("query: sql() only reads; the statement would do something else".into())
        }
        Some(ErrorCode::Unknown | ErrorCode::TypeMismatch | ErrorCode::ParameterOutOfRange | ErrorCode::TooBig)
        | None => Error::Value(format!("query: {}", words_of(&failure))),
        Some(_) => Error::Sqlite(failure),
    }
}
