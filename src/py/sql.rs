//! `LogStore`: the users' own SQL.

use std::fmt::Display;

use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBool, PyBytes, PyFloat, PyInt, PyMapping, PyString, PyTuple};
use rusqlite::types::Value;

use crate::base::error::Result;
use crate::base::interrupt::INTERVAL;
use crate::db::{Database, SqlParams};
use crate::py::argument::{Arg, Refusal, Seconds, Text, arguments, named, type_name};
use crate::py::call::read_within;
use crate::py::convert::Integer;
use crate::py::interpreter;
use crate::py::log::LogStore;
use crate::py::results::List;
use crate::store;

#[pymethods]
impl LogStore {
    /// The rows of one read-only SQL statement, on a connection of its own.
    ///
    /// Tables: `logs`, `meta`, `workflow_runs`. Parameters are positional (`?`) or named (`:name`, without the colon
    /// in the mapping). A statement that would write, attach or change settings is a `ValueError`, and so is one that
    /// SQLite cannot compile. After `timeout` seconds, which may be a fraction, the statement ends with
    /// `QueryTimeoutError`; Ctrl-C ends it at once.
    #[pyo3(signature = (query, params = None, *, timeout = None), text_signature = "($self, query, params=(), *, timeout=None)")]
    fn sql<'py>(
        &self,
        py: Python<'py>,
        query: Arg<Text>,
        params: Option<&Bound<'py, PyAny>>,
        timeout: Option<Arg<Seconds>>,
    ) -> PyResult<List<Bound<'py, PyTuple>>> {
        sql_rows(py, self.run_sql(py, query, params, timeout, Database::sql)?)
    }

    /// `sql`, and the names of its columns, which may repeat. For the command line.
    #[pyo3(signature = (query, params = None, *, timeout = None), text_signature = "($self, query, params=(), *, timeout=None)")]
    fn _sql_with_names<'py>(
        &self,
        py: Python<'py>,
        query: Arg<Text>,
        params: Option<&Bound<'py, PyAny>>,
        timeout: Option<Arg<Seconds>>,
    ) -> PyResult<(List<String>, List<Bound<'py, PyTuple>>)> {
        let found = self.run_sql(py, query, params, timeout, Database::sql_with_names)?;
        Ok((List(found.names), sql_rows(py, found.rows)?))
    }
}

impl LogStore {
    fn run_sql<T: Send + 'static>(
        &self,
        py: Python<'_>,
        query: Arg<Text>,
        params: Option<&Bound<'_, PyAny>>,
        timeout: Option<Arg<Seconds>>,
        run: fn(&Database, &str, &SqlParams) -> Result<T>,
    ) -> PyResult<T> {
        arguments!(query, timeout);
        let params = sql_params(params)?;
        let query = query.to_string();
        let read = move |store: &store::LogStore| run(store.log().database(), &query, &params);
        read_within(py, INTERVAL, timeout.map(|timeout| timeout.0), &self.store, read)
    }
}

fn sql_rows(py: Python<'_>, rows: Vec<Vec<Value>>) -> PyResult<List<Bound<'_, PyTuple>>> {
    let row = |values: Vec<Value>| {
        let values = values.into_iter().map(|value| sql_result(py, value));
        PyTuple::new(py, values.collect::<PyResult<Vec<_>>>()?)
    };
    interpreter::uncollected(py, || rows.into_iter().map(row).collect::<PyResult<_>>()).map(List)
}

fn sql_params(params: Option<&Bound<'_, PyAny>>) -> PyResult<SqlParams> {
    let Some(params) = params else { return Ok(SqlParams::Positional(Vec::new())) };
    if params.is_instance_of::<PyString>() || params.is_instance_of::<PyBytes>() {
        return Err(Refusal::not(params, "a sequence or a mapping of values").about("params"));
    }
    if let Ok(mapping) = params.cast::<PyMapping>() {
        let items = mapping.items()?.iter().map(|item| {
            let (name, value): (Bound<'_, PyAny>, Bound<'_, PyAny>) = item.extract()?;
            let name = named::<Text>(&name, "params: a name")?.to_string();
            let value = sql_value(&value, &name)?;
            Ok((name, value))
        });
        return Ok(SqlParams::Named(items.collect::<PyResult<_>>()?));
    }
    let items = interpreter::items(params)?;
    let items = items.map_err(|_| Refusal::not(params, "a sequence or a mapping of values").about("params"))?;
    let values = items.enumerate().map(|(index, value)| sql_value(&value?, index));
    Ok(SqlParams::Positional(values.collect::<PyResult<_>>()?))
}

/// The value of the parameter `place`.
fn sql_value(value: &Bound<'_, PyAny>, place: impl Display) -> PyResult<Value> {
    if value.is_none() {
        Ok(Value::Null)
    } else if value.is_instance_of::<PyBool>() {
        Ok(Value::Integer(value.extract::<bool>()?.into()))
    } else if value.is_instance_of::<PyInt>() {
        Ok(Value::Integer(named::<Integer>(value, &format!("params[{place}]"))?.0))
    } else if let Ok(float) = value.cast::<PyFloat>() {
        Ok(Value::Real(float.value()))
    } else if value.is_instance_of::<PyString>() {
        Ok(Value::Text(named::<Text>(value, &format!("params[{place}]"))?.to_string()))
    } else if value.is_instance_of::<PyBytes>() {
        Ok(Value::Blob(value.extract::<PyBackedBytes>()?.to_vec()))
    } else {
        let found = type_name(value);
        Err(PyTypeError::new_err(format!("params[{place}] must be None, int, float, str or bytes, not {found}")))
    }
}

fn sql_result(py: Python<'_>, value: Value) -> PyResult<Bound<'_, PyAny>> {
    match value {
        Value::Null => Ok(py.None().into_bound(py)),
        Value::Integer(integer) => integer.into_bound_py_any(py),
        Value::Real(real) => real.into_bound_py_any(py),
        Value::Text(text) => text.into_bound_py_any(py),
        Value::Blob(bytes) => Ok(PyBytes::new(py, &bytes).into_any()),
    }
}
