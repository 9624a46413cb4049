//! Arguments that take one value or a collection of them.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use crate::py::argument::{Refusal, Text};
use crate::py::interpreter;

/// One value or a collection of them.
pub(super) struct Several<T>(pub(super) Vec<T>);

impl<'a, 'py, T> FromPyObject<'a, 'py> for Several<T>
where
    T: for<'b> FromPyObject<'b, 'py, Error = Refusal>,
{
    type Error = Refusal;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> Result<Self, Refusal> {
        if object.is_instance_of::<PyString>() {
            return Ok(Self(vec![object.extract()?]));
        }
        let refused = || Refusal::not(&object, "str or a collection of them");
        if object.is_instance_of::<PyBytes>() {
            return Err(refused());
        }
        let items = interpreter::items(&object)?.map_err(|_| refused())?;
        let extracted = items.enumerate().map(|(index, item)| match item?.extract() {
            Err(Refusal::Raised(error)) => Err(Refusal::Raised(error)),
            Err(refusal) => Err(Refusal::Item(index, Box::new(refusal))),
            Ok(value) => Ok(value),
        });
        extracted.collect::<Result<_, _>>().map(Self)
    }
}

/// The texts, if any were given.
pub(super) fn names(workflow: Option<Several<Text>>) -> Option<Vec<String>> {
    workflow.map(|Several(names)| names.iter().map(|name| name.to_string()).collect())
}
