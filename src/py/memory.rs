//! The memory of Python objects that export it. The C API itself, because pyo3's buffers refuse what has no shape
//! (ctypes).
#![expect(unsafe_code, reason = "the memory of Python's buffers")]

use std::marker::PhantomData;
use std::ptr;

use pyo3::exceptions::{PyBufferError, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyMemoryView};

use crate::py::argument::Refusal;

/// The exported memory of a Python object.
pub(super) struct ExportedMemory<'py> {
    view: Box<ffi::Py_buffer>,
    is_of_bytes: bool,
    /// Only an attached thread holds one, and releases it.
    attached: PhantomData<Python<'py>>,
}

impl<'py> ExportedMemory<'py> {
    /// Memory to read from.
    pub(super) fn of(data: &Bound<'py, PyAny>) -> PyResult<Self> {
        Self::export(data, ffi::PyBUF_SIMPLE).map_err(|error| {
            let py = data.py();
            if error.is_instance_of::<PyTypeError>(py) {
                return Refusal::not(data, "str or a bytes-like object").about("data");
            }
            if error.is_instance_of::<PyBufferError>(py) || error.is_instance_of::<PyValueError>(py) {
                return PyValueError::new_err(format!("data is not at hand in one piece: {}", error.value(py)));
            }
            error
        })
    }

    /// Memory to write to.
    pub(super) fn writable(target: &Bound<'py, PyAny>) -> PyResult<Self> {
        Self::export(target, ffi::PyBUF_WRITABLE)
    }

    fn export(data: &Bound<'py, PyAny>, flags: std::ffi::c_int) -> PyResult<Self> {
        let mut view = Box::new(ffi::Py_buffer::new());
        // SAFETY: the thread is attached, the object alive, and the view stays at its address until it is released.
        if unsafe { ffi::PyObject_GetBuffer(data.as_ptr(), &raw mut *view, flags) } == 0 {
            let is_of_bytes = data.cast::<PyMemoryView>().is_ok_and(|view| is_over_bytes(view));
            return Ok(Self { view, is_of_bytes, attached: PhantomData });
        }
        Err(PyErr::fetch(data.py()))
    }

    /// Whether it is that of a `bytes`, which never changes. To be read-only says less: a read-only view of an array
    /// changes with the array, a read-only map with its file.
    pub(super) fn is_of_bytes(&self) -> bool {
        self.is_of_bytes
    }

    /// The memory, for other threads to look at while it is exported.
    pub(super) fn shared(&self) -> SharedMemory<'_> {
        // A simple view is C-contiguous, and its length is in bytes and not negative.
        let size = self.view.len.unsigned_abs();
        SharedMemory { address: self.view.buf.cast::<u8>(), size, exported: PhantomData }
    }
}

impl Drop for ExportedMemory<'_> {
    fn drop(&mut self) {
        // SAFETY: the thread is attached, and the view was filled and not released before.
        unsafe { ffi::PyBuffer_Release(&raw mut *self.view) };
    }
}

fn is_over_bytes(view: &Bound<'_, PyMemoryView>) -> bool {
    view.getattr("obj").is_ok_and(|owner| owner.is_exact_instance_of::<PyBytes>())
}

/// Exported memory as a detached thread sees it: there, but another thread may change it at any time.
#[derive(Clone, Copy)]
pub(super) struct SharedMemory<'a> {
    address: *mut u8,
    size: usize,
    exported: PhantomData<&'a ()>,
}

// SAFETY: the memory stays allocated while it is exported, whichever thread looks at it.
unsafe impl Send for SharedMemory<'_> {}
// SAFETY: the same.
unsafe impl Sync for SharedMemory<'_> {}

impl<'a> SharedMemory<'a> {
    /// How many bytes there are.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// The bytes themselves, without a copy.
    ///
    /// # Safety
    ///
    /// They are hashed and written to files, never interpreted: whatever a byte's value, it is a valid one. A caller
    /// who has reason to believe that others write to them meanwhile copies them instead.
    pub(super) unsafe fn bytes(self) -> &'a [u8] {
        if self.size == 0 {
            return &[]; // The memory of an empty buffer may be null.
        }
        // SAFETY: the memory is allocated and initialized while it is exported, which it is for `'a`.
        unsafe { std::slice::from_raw_parts(self.address, self.size) }
    }

    /// Fills `target` from the memory that begins at `start`.
    pub(super) fn copy_to(&self, start: usize, target: &mut [u8]) {
        assert!(start + target.len() <= self.size, "a copy from beyond the buffer");
        if target.is_empty() {
            return;
        }
        // SAFETY: the part lies within the memory, and `target` is our own. Another thread may write to the source
        // meanwhile: no reference to it is made, each byte is read once, and any value of a byte is valid.
        unsafe { ptr::copy_nonoverlapping(self.address.add(start).cast_const(), target.as_mut_ptr(), target.len()) };
    }

    /// Fills the beginning of the memory, which was exported as writable.
    pub(super) fn copy_from(&self, source: &[u8]) {
        assert!(source.len() <= self.size, "a copy beyond the buffer");
        if source.is_empty() {
            return;
        }
        // SAFETY: the part lies within the memory, which is writable, and `source` is our own.
        unsafe { ptr::copy_nonoverlapping(source.as_ptr(), self.address, source.len()) };
    }
}
