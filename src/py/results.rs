//! Results on their way to Python: lists, tuples, dicts, records and instances of classes, in whose making no collection
//! of cycles begins (see [`uncollected`]) and no Python code runs.

use pyo3::PyClass;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::pyclass_init::PyClassInitializer;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList, PyTuple, PyType};

use crate::base::status::RunStatus;
use crate::py::interpreter::{self, uncollected};

/// A list.
pub(super) struct List<T>(pub(super) Vec<T>);

impl<'py, T: IntoPyObject<'py>> IntoPyObject<'py> for List<T> {
    type Target = PyList;
    type Output = Bound<'py, PyList>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Self::Output> {
        uncollected(py, || PyList::new(py, self.0))
    }
}

/// A tuple.
pub(super) struct Tuple<T>(pub(super) Vec<T>);

impl<'py, T: IntoPyObject<'py>> IntoPyObject<'py> for Tuple<T> {
    type Target = PyTuple;
    type Output = Bound<'py, PyTuple>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Self::Output> {
        uncollected(py, || PyTuple::new(py, self.0))
    }
}

/// A dict, in the order of the items.
pub(super) struct Dict<I>(pub(super) I);

impl<'py, K, V, I> IntoPyObject<'py> for Dict<I>
where
    I: IntoIterator<Item = (K, V)>,
    K: IntoPyObject<'py>,
    V: IntoPyObject<'py>,
{
    type Target = PyDict;
    type Output = Bound<'py, PyDict>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Self::Output> {
        uncollected(py, || {
            let dict = PyDict::new(py);
            self.0.into_iter().try_for_each(|(key, value)| dict.set_item(key, value))?;
            Ok(dict)
        })
    }
}

/// An instance of a class of this crate.
pub(super) struct New<T>(pub(super) T);

impl<'py, T: PyClass + Into<PyClassInitializer<T>>> IntoPyObject<'py> for New<T> {
    type Target = T;
    type Output = Bound<'py, T>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Self::Output> {
        uncollected(py, || Bound::new(py, self.0))
    }
}

/// Imports what results are made of, which takes some milliseconds and descriptors. Stores do it when they are opened:
/// a call that has changed something must not fail because its result cannot be made.
pub(super) fn import_records(py: Python<'_>) -> PyResult<()> {
    py.import("nerve_store.records").map(drop)
}

/// A class of `nerve_store.records`: a dataclass with slots and without `__post_init__`.
///
/// Its instances are filled slot by slot, which runs no Python code, takes a quarter of the time of a frozen dataclass's
/// own `__init__`, and gives the same.
pub(super) struct Record {
    name: &'static str,
    parts: PyOnceLock<Parts>,
}

struct Parts {
    class: Py<PyType>,
    /// `object.__new__`
    new: Py<PyAny>,
    /// The `__set__` of each slot, in the order of the fields.
    setters: Vec<Py<PyAny>>,
}

impl Record {
    pub(super) const fn new(name: &'static str) -> Self {
        Self { name, parts: PyOnceLock::new() }
    }

    fn parts(&self, py: Python<'_>) -> PyResult<&Parts> {
        self.parts.get_or_try_init(py, || {
            let class = imported_class(py, self.name)?;
            let mut setters = Vec::new();
            for name in class.getattr("__match_args__")?.cast::<PyTuple>()? {
                setters.push(class.getattr(name.cast()?)?.getattr("__set__")?.unbind());
            }
            let new = py.get_type::<PyAny>().getattr("__new__")?.unbind();
            Ok(Parts { class: class.unbind(), new, setters })
        })
    }

    pub(super) fn class<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyType>> {
        self.parts(py).map(|parts| parts.class.bind(py))
    }

    /// A new record with these fields, all of them, in their order.
    pub(super) fn create<'py>(
        &self,
        py: Python<'py>,
        fields: impl interpreter::Arguments<'py>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let parts = self.parts(py)?;
        uncollected(py, || {
            let fields = fields.into_tuple(py)?;
            if fields.len() != parts.setters.len() {
                return Err(PyTypeError::new_err(format!("{} has {} fields", self.name, parts.setters.len())));
            }
            let record = parts.new.bind(py).call1((&parts.class,))?;
            for (setter, field) in parts.setters.iter().zip(fields) {
                setter.bind(py).call1((&record, field))?;
            }
            Ok(record)
        })
    }
}

/// The member of `WorkflowRunStatus`.
pub(super) fn status_member(py: Python<'_>, status: RunStatus) -> PyResult<&Bound<'_, PyAny>> {
    static MEMBERS: PyOnceLock<Vec<(RunStatus, Py<PyAny>)>> = PyOnceLock::new();
    let members = MEMBERS.get_or_try_init(py, || {
        let class = imported_class(py, "WorkflowRunStatus")?;
        let member = |status: RunStatus| Ok((status, interpreter::call(&class, (status.name(),))?.unbind()));
        RunStatus::ALL.into_iter().map(member).collect::<PyResult<Vec<_>>>()
    })?;
    let member = members.iter().find(|(known, _)| *known == status);
    member.map(|(_, member)| member.bind(py)).ok_or_else(|| PyTypeError::new_err("WorkflowRunStatus lacks a state"))
}

fn imported_class<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyType>> {
    Ok(interpreter::imported(py, "nerve_store.records", name)?.cast_into::<PyType>()?)
}
