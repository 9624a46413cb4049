//! JSON to Python objects: those that `json.loads` builds, but strictly, at any depth, and with integers of any size.
//!
//! Nothing here recurses by the depth of a text. `json.loads` does, and on a thread with a small stack it ends the
//! process; it also refuses integers of more digits than `sys.set_int_max_str_digits` allows, 4,300 unless set.
#![expect(unsafe_code, reason = "objects that are made without a check of what they are")]

use pyo3::exceptions::{PyMemoryError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyInt, PyList};

use crate::py::interpreter;
use crate::row::Malformed;
use crate::row::json::{Token, Tokens, is_integer, unescape};

/// Digits that every interpreter converts, whatever limit is set (`sys.int_info.str_digits_check_threshold`).
const CHUNK_DIGITS: usize = 640;

/// The longest integer that is built, in a quarter of a second. One that fills a payload would take minutes.
const MAX_DIGITS: usize = 200_000;

/// The Python object of a JSON text. Text that is not JSON is a `json.JSONDecodeError`, a number of more than
/// [`MAX_DIGITS`] digits a `ValueError`, and what does not fit into memory a `MemoryError`.
pub(super) fn to_python<'py>(py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyAny>> {
    let mut open: Vec<Open<'py>> = Vec::new();
    let mut outermost = None;
    for token in Tokens::new(text) {
        let value = match token.map_err(|malformed| decode_error(py, text, malformed))? {
            token @ (Token::ObjectStart | Token::ArrayStart) => {
                open.try_reserve(1).map_err(|_| PyMemoryError::new_err(()))?;
                open.push(Open::new(py, token == Token::ObjectStart)?);
                continue;
            }
            Token::Key(key) => {
                if let Some(object) = open.last_mut() {
                    object.key = Some(string(py, key)?);
                }
                continue;
            }
            Token::ObjectEnd | Token::ArrayEnd => match open.pop() {
                Some(closed) => closed.object,
                None => continue,
            },
            Token::String(token) => string(py, token)?,
            Token::Number(token) if is_integer(token) => integer(py, token)?,
            Token::Number(token) => float(py, token.parse()?)?,
            Token::Bool(value) => PyBool::new(py, value).to_owned().into_any(),
            Token::Null => py.None().into_bound(py),
        };
        match open.last_mut() {
            Some(parent) => parent.put(value)?,
            None => outermost = Some(value),
        }
    }
    outermost.ok_or_else(|| PyValueError::new_err("not JSON"))
}

/// The integer of these digits, which may begin with a minus sign.
pub(super) fn integer<'py>(py: Python<'py>, token: &str) -> PyResult<Bound<'py, PyAny>> {
    if let Ok(small) = token.parse::<i64>() {
        // SAFETY: the interpreter is attached; a new reference or null comes back.
        return unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyLong_FromLongLong(small)) };
    }
    let digits = token.strip_prefix('-').unwrap_or(token);
    if digits.len() > MAX_DIGITS {
        let length = digits.len();
        return Err(PyValueError::new_err(format!("an integer of {length} digits; the most is {MAX_DIGITS}")));
    }
    let type_object = py.get_type::<PyInt>();
    // Parts of equal length, the least significant first, joined two by two: the multiplications are few and balanced.
    let mut parts = digits
        .as_bytes()
        .rchunks(CHUNK_DIGITS)
        .map(|part| type_object.call1((String::from_utf8_lossy(part),)))
        .collect::<PyResult<Vec<_>>>()?;
    let mut base = type_object.call1((10,))?.pow(CHUNK_DIGITS, py.None())?;
    while parts.len() > 1 {
        parts = parts
            .chunks(2)
            .map(|pair| match pair {
                [low, high] => high.mul(&base)?.add(low),
                _ => Ok(pair[0].clone()),
            })
            .collect::<PyResult<_>>()?;
        if parts.len() > 1 {
            base = base.mul(&base)?;
        }
    }
    let Some(whole) = parts.pop() else { return Err(PyValueError::new_err("no digits")) };
    if token.starts_with('-') { whole.neg() } else { Ok(whole) }
}

/// An object or array whose end has not been read.
struct Open<'py> {
    object: Bound<'py, PyAny>,
    key: Option<Bound<'py, PyAny>>,
}

impl<'py> Open<'py> {
    fn new(py: Python<'py>, is_object: bool) -> PyResult<Self> {
        // SAFETY: the interpreter is attached; a new reference or null comes back.
        let object = interpreter::uncollected(py, || unsafe {
            Bound::from_owned_ptr_or_err(py, if is_object { ffi::PyDict_New() } else { ffi::PyList_New(0) })
        })?;
        Ok(Self { object, key: None })
    }

    fn put(&mut self, value: Bound<'py, PyAny>) -> PyResult<()> {
        match self.key.take() {
            // SAFETY: only an object has keys, and `new` made it a dict.
            Some(key) => unsafe { self.object.cast_unchecked::<PyDict>() }.set_item(key, value),
            // SAFETY: `new` made it a list.
            None => unsafe { self.object.cast_unchecked::<PyList>() }.append(value),
        }
    }
}

fn string<'py>(py: Python<'py>, token: &str) -> PyResult<Bound<'py, PyAny>> {
    let text = unescape(token);
    // SAFETY: pointer and length are those of one slice, which is only read; a new reference or null comes back. Half a
    // surrogate pair, which a Python string may hold, takes the bytes that `surrogatepass` stands for.
    unsafe {
        let decoded =
            ffi::PyUnicode_DecodeUTF8(text.as_ptr().cast(), text.len().cast_signed(), c"surrogatepass".as_ptr());
        Bound::from_owned_ptr_or_err(py, decoded)
    }
}

fn float(py: Python<'_>, value: f64) -> PyResult<Bound<'_, PyAny>> {
    // SAFETY: the interpreter is attached; a new reference or null comes back.
    unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyFloat_FromDouble(value)) }
}

/// What `json.loads` raises, with the position in characters.
fn decode_error(py: Python<'_>, text: &str, malformed: Malformed) -> PyErr {
    let position = text.get(..malformed.at).map_or(0, |before| before.chars().count());
    let raised = interpreter::imported(py, "json", "JSONDecodeError")
        .and_then(|class| interpreter::call(&class, (malformed.reason, text, position)));
    match raised {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}
