//! What `_replace` is to do with a field.

use pyo3::prelude::*;
use pyo3::types::PyEllipsis;

use crate::py::argument::{Arg, Named, Refusal};

/// A field's new value, if it gets one. `...` stands for none, since None is a value.
pub(super) enum Change<T> {
    Keep,
    To(Arg<T>),
}

impl<'a, 'py, T> FromPyObject<'a, 'py> for Change<T>
where
    T: FromPyObject<'a, 'py>,
    T::Error: Into<Refusal>,
{
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        if object.is_instance_of::<PyEllipsis>() { Ok(Self::Keep) } else { object.extract().map(Self::To) }
    }
}

impl<T> Named for Change<T> {
    type Value = Option<T>;

    fn named(self, name: &str) -> PyResult<Option<T>> {
        match self {
            Self::Keep => Ok(None),
            Self::To(value) => value.named(name).map(Some),
        }
    }
}
