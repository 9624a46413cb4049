//! `BlobStore`, `BlobIterator` and `normalize_blob_hash`.

use std::ffi::OsStr;
use std::marker::PhantomData;
use std::ptr;
use std::sync::{Mutex, PoisonError};

use pyo3::exceptions::{PyBufferError, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use super::convert::{FilePath, Record};
use crate::blob;
use crate::digest::Digest;
use crate::durable::Durability;
use crate::error::{Error, Result};

/// Content-addressed bytes under `<root>/<2 hex>/<62 hex>`, named by their sha256.
#[pyclass(frozen, module = "nerve_store._core")]
pub(super) struct BlobStore(blob::BlobStore);

#[pymethods]
impl BlobStore {
    #[new]
    #[pyo3(
        signature = (root, *, durability = Durability::Full, read_only = false),
        text_signature = "(root, *, durability='full', read_only=False)"
    )]
    fn new(py: Python<'_>, root: FilePath, durability: Durability, read_only: bool) -> PyResult<Self> {
        Ok(Self(py.detach(|| blob::BlobStore::new(&root.0, durability, read_only))?))
    }

    /// The directory, absolute.
    #[getter]
    fn root(&self) -> &OsStr {
        self.0.root().as_os_str()
    }

    /// Store `data` (text as UTF-8) and return its sha256, lowercase hex.
    fn write(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<String> {
        let digest = if let Ok(text) = data.cast::<PyString>() {
            let text = text.to_str()?;
            py.detach(|| self.0.write(text.as_bytes()))?
        } else if let Ok(bytes) = data.cast::<PyBytes>() {
            let bytes = bytes.as_bytes();
            py.detach(|| self.0.write(bytes))?
        } else {
            let exported = ExportedMemory::of(data)?;
            let memory = exported.shared();
            py.detach(|| memory.write_to(&self.0))?
        };
        Ok(digest.to_string())
    }

    /// The bytes under `hash`; None if there are none, or if it is no sha256.
    fn read<'py>(&self, py: Python<'py>, hash: &Bound<'py, PyString>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let Some(digest) = parse(hash) else { return Ok(None) };
        let Some(blob) = py.detach(|| self.0.open(&digest))? else { return Ok(None) };
        PyBytes::new_with(py, blob.size(), |bytes| Ok(py.detach(|| blob.read_into(bytes))?)).map(Some)
    }

    /// Whether the blob is there and its bytes match; `verify` False: whether a file is there.
    #[pyo3(signature = (hash, *, verify = true))]
    fn exists(&self, py: Python<'_>, hash: &Bound<'_, PyString>, verify: bool) -> PyResult<bool> {
        let Some(digest) = parse(hash) else { return Ok(false) };
        Ok(py.detach(|| self.0.exists(&digest, verify))?)
    }

    /// Remove the blob; False if there was none.
    fn delete(&self, py: Python<'_>, hash: &Bound<'_, PyString>) -> PyResult<bool> {
        let Some(digest) = parse(hash) else { return Ok(false) };
        Ok(py.detach(|| self.0.delete(&digest))?)
    }

    /// The blob's size in bytes, from the file system; `BlobNotFoundError` if there is none.
    fn size(&self, py: Python<'_>, hash: &Bound<'_, PyString>) -> PyResult<u64> {
        let size = match parse(hash) {
            Some(digest) => py.detach(|| self.0.size(&digest))?,
            None => None,
        };
        let not_found =
            || Error::BlobNotFound { hash: hash.to_string_lossy().into_owned(), path: self.0.root().to_owned() };
        Ok(size.ok_or_else(not_found)?)
    }

    /// How many blobs there are and how many bytes they hold; looks at every file.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        static RECORD: Record = Record::new("BlobStats");
        let stats = py.detach(|| self.0.stats())?;
        RECORD.create(py, (self.root(), stats.blob_count, stats.size))
    }

    fn __contains__(&self, py: Python<'_>, hash: &Bound<'_, PyString>) -> PyResult<bool> {
        self.exists(py, hash, false)
    }

    fn __iter__(&self) -> BlobIterator {
        BlobIterator(Mutex::new(self.0.digests()))
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!("BlobStore({})", self.root().into_pyobject(py)?.repr()?))
    }
}

/// The hashes of a blob store, in order.
#[pyclass(frozen, module = "nerve_store._core")]
pub(super) struct BlobIterator(Mutex<blob::BlobDigests>);

#[pymethods]
impl BlobIterator {
    fn __iter__(self_: PyRef<'_, Self>) -> PyRef<'_, Self> {
        self_
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<String>> {
        // The lock is taken and given back while detached, so that no thread waits for it with the interpreter in hand.
        let digest = py.detach(|| self.0.lock().unwrap_or_else(PoisonError::into_inner).next());
        Ok(digest.transpose()?.map(|digest| digest.to_string()))
    }
}

/// `text` as a lowercase sha256 in hex, or None if it is not 64 hexadecimal digits.
#[pyfunction]
pub(super) fn normalize_blob_hash(text: &Bound<'_, PyString>) -> Option<String> {
    parse(text).map(|digest| digest.to_string())
}

/// Text that is no UTF-8 (a lone surrogate) is no hash either.
fn parse(hash: &Bound<'_, PyString>) -> Option<Digest> {
    Digest::parse(hash.to_str().ok()?)
}

/// The exported memory of a Python object. The C API itself, because pyo3's buffers refuse what has no shape (ctypes).
struct ExportedMemory<'py> {
    view: Box<ffi::Py_buffer>,
    /// Only an attached thread holds one, and releases it.
    attached: PhantomData<Python<'py>>,
}

impl<'py> ExportedMemory<'py> {
    fn of(data: &Bound<'py, PyAny>) -> PyResult<Self> {
        let py = data.py();
        let mut view = Box::new(ffi::Py_buffer::new());
        // SAFETY: the thread is attached, the object alive, and the view stays at its address until it is released.
        if unsafe { ffi::PyObject_GetBuffer(data.as_ptr(), &raw mut *view, ffi::PyBUF_SIMPLE) } == 0 {
            return Ok(Self { view, attached: PhantomData });
        }
        let error = PyErr::fetch(py);
        if error.is_instance_of::<PyTypeError>(py) {
            let name = data.get_type().fully_qualified_name()?;
            return Err(PyTypeError::new_err(format!("data must be str or a bytes-like object, not {name}")));
        }
        if error.is_instance_of::<PyBufferError>(py) {
            return Err(PyValueError::new_err(format!("{}; pass bytes(data)", error.value(py))));
        }
        Err(error)
    }

    fn shared(&self) -> SharedMemory<'_> {
        // A simple view is C-contiguous, and its length is in bytes and not negative.
        let size = self.view.len.unsigned_abs();
        SharedMemory { address: self.view.buf.cast::<u8>().cast_const(), size, exported: PhantomData }
    }
}

impl Drop for ExportedMemory<'_> {
    fn drop(&mut self) {
        // SAFETY: the thread is attached, and the view was filled and not released before.
        unsafe { ffi::PyBuffer_Release(&raw mut *self.view) };
    }
}

/// Exported memory as a detached thread sees it: there, but another thread may change it at any time.
struct SharedMemory<'a> {
    address: *const u8,
    size: usize,
    exported: PhantomData<&'a ()>,
}

// SAFETY: the memory stays allocated while it is exported, whichever thread looks at it.
unsafe impl Sync for SharedMemory<'_> {}

impl SharedMemory<'_> {
    /// Copies the memory once, chunk by chunk, and stores the copy under the copy's own digest.
    fn write_to(&self, store: &blob::BlobStore) -> Result<Digest> {
        let mut chunk = vec![0; self.size.min(blob::CHUNK_BYTES)];
        if self.size == chunk.len() {
            self.copy_to(0, &mut chunk);
            return store.write(&chunk);
        }
        let mut writer = store.writer()?;
        for start in (0..self.size).step_by(blob::CHUNK_BYTES) {
            let part = &mut chunk[..(self.size - start).min(blob::CHUNK_BYTES)];
            self.copy_to(start, part);
            writer.write(part)?;
        }
        writer.finish()
    }

    /// Fills `target` from the memory that begins at `start`.
    fn copy_to(&self, start: usize, target: &mut [u8]) {
        assert!(start + target.len() <= self.size, "a copy from beyond the buffer");
        if target.is_empty() {
            return; // The memory of an empty buffer may be null.
        }
        // SAFETY: the part lies within the memory, and `target` is our own. Another thread may write to the source
        // meanwhile: no reference to it is made, each byte is read once, and any value of a byte is valid.
        unsafe { ptr::copy_nonoverlapping(self.address.add(start), target.as_mut_ptr(), target.len()) };
    }
}
