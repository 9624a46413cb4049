//! What Python hands over to be stored: memory, many of them, files.
#![expect(unsafe_code, reason = "`bytes` that are filled in place, and the memory of buffers")]

use std::fs::File;
use std::io::Read;
use std::mem::MaybeUninit;

use pyo3::exceptions::{PyBlockingIOError, PyOSError, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use crate::base::digest::Digest;
use crate::base::error::{Error, Result, words_of};
use crate::base::interrupt::check;
use crate::blob::{Batch, BlobStore, CHUNK_BYTES};
use crate::py::argument::{Refusal, named, not_text};
use crate::py::call::detach;
use crate::py::convert::FilePath;
use crate::py::interpreter;
use crate::py::memory::{ExportedMemory, SharedMemory};

/// How much of what `write_many` is given is held at once.
const BATCH_ITEMS: usize = 4096;
const BATCH_BYTES: usize = 64 * 1024 * 1024;

/// Signals are looked at each time so many bytes were read from a file.
const BYTES_BETWEEN_SIGNALS: usize = 16 * 1024 * 1024;

/// An object whose bytes are to be stored.
pub(super) enum Data<'py> {
    Text(Bound<'py, PyString>),
    Bytes(Bound<'py, PyBytes>),
    Exported(ExportedMemory<'py>),
}

impl<'py> Data<'py> {
    pub(super) fn of(data: Bound<'py, PyAny>) -> PyResult<Self> {
        let data = match data.cast_into::<PyBytes>() {
            Ok(bytes) => return Ok(Self::Bytes(bytes)),
            Err(error) => error.into_inner(),
        };
        match data.cast_into::<PyString>() {
            Ok(text) => Ok(Self::Text(text)),
            Err(error) => ExportedMemory::of(&error.into_inner()).map(Self::Exported),
        }
    }

    /// Its memory, for detached threads.
    pub(super) fn shared(&self) -> PyResult<Shared<'_>> {
        Ok(match self {
            Self::Text(text) => Shared::Fixed(utf8(text)?),
            Self::Bytes(bytes) => Shared::Fixed(bytes.as_bytes()),
            Self::Exported(memory) if memory.is_of_bytes() => {
                // SAFETY: `bytes` never change.
                Shared::Fixed(unsafe { memory.shared().bytes() })
            }
            Self::Exported(memory) => Shared::Changeable(memory.shared()),
        })
    }
}

/// Text as UTF-8.
pub(super) fn utf8<'a>(text: &'a Bound<'_, PyString>) -> PyResult<&'a [u8]> {
    text.to_str().map(str::as_bytes).map_err(|error| not_text(text.py(), error).about("data"))
}

/// The memory of an object.
#[derive(Clone, Copy)]
pub(super) enum Shared<'a> {
    /// It never changes.
    Fixed(&'a [u8]),
    /// Another thread may change it at any time.
    Changeable(SharedMemory<'a>),
}

impl Shared<'_> {
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Fixed(bytes) => bytes.len(),
            Self::Changeable(memory) => memory.size(),
        }
    }

    pub(super) fn digest(&self) -> Digest {
        match self {
            Self::Fixed(bytes) => Digest::of(bytes),
            // SAFETY: nothing but a hash comes of it: that of a mix of bytes, if another thread writes meanwhile.
            Self::Changeable(memory) => Digest::of(unsafe { memory.bytes() }),
        }
    }

    /// Stores the bytes. Memory that another thread may change is copied once, piece by piece, and the copy is stored
    /// under the copy's own digest.
    pub(super) fn write_to(&self, store: &BlobStore, verify: bool) -> Result<Digest> {
        let memory = match self {
            Self::Fixed(bytes) => return store.write(bytes, verify),
            Self::Changeable(memory) => memory,
        };
        let mut chunk = vec![0; memory.size().min(CHUNK_BYTES)];
        if memory.size() == chunk.len() {
            memory.copy_to(0, &mut chunk);
            return store.write(&chunk, verify);
        }
        let mut writer = store.writer()?;
        for start in (0..memory.size()).step_by(CHUNK_BYTES) {
            let part = &mut chunk[..(memory.size() - start).min(CHUNK_BYTES)];
            memory.copy_to(start, part);
            writer.write(part)?;
        }
        writer.finish(verify)
    }
}

/// Stores many objects.
pub(super) fn write_many(store: &BlobStore, items: &Bound<'_, PyAny>, verify: bool) -> PyResult<Vec<Digest>> {
    let (py, items) = (items.py(), several(items)?);
    let mut batch = Batch::new(store, verify);
    // Those that are written on their own, and where they belong.
    let mut single = Vec::new();
    let mut waiting: Vec<Data<'_>> = Vec::new();
    let mut waiting_bytes = 0;
    let mut flush = |waiting: &mut Vec<Data<'_>>| {
        let memory = waiting.iter().map(Data::shared).collect::<PyResult<Vec<_>>>()?;
        let copies: Vec<_> = memory.iter().map(copied).collect();
        let bytes: Vec<&[u8]> = memory
            .iter()
            .zip(&copies)
            .map(|(memory, copy)| match (memory, copy) {
                (Shared::Fixed(bytes), _) => *bytes,
                (_, copy) => copy.as_deref().unwrap_or_default(),
            })
            .collect();
        detach(py, || batch.add(&bytes))?;
        waiting.clear();
        Ok::<_, PyErr>(())
    };
    for (count, item) in items.enumerate() {
        let at = |error| in_items(py, count, error);
        let data = Data::of(item?).map_err(at)?;
        let shared = data.shared().map_err(at)?;
        if matches!(shared, Shared::Changeable(_)) && shared.size() > CHUNK_BYTES {
            single.push((count, detach(py, || shared.write_to(store, verify))?));
        } else {
            waiting_bytes += shared.size();
            waiting.push(data);
        }
        if waiting.len() >= BATCH_ITEMS || waiting_bytes >= BATCH_BYTES {
            flush(&mut waiting)?;
            waiting_bytes = 0;
        }
    }
    flush(&mut waiting)?;
    let mut digests = detach(py, || batch.finish())?;
    for (index, digest) in single {
        digests.insert(index, digest);
    }
    Ok(digests)
}

/// The items of an argument `items`.
pub(super) fn several<'py>(items: &Bound<'py, PyAny>) -> PyResult<interpreter::Items<'py>> {
    if items.is_instance_of::<PyString>() || items.is_instance_of::<PyBytes>() {
        return Err(PyTypeError::new_err("items are several, each str or bytes-like; write() takes one"));
    }
    interpreter::items(items)?
        .map_err(|_| Refusal::not(items, "an iterable of str or bytes-like objects").about("items"))
}

/// The same exception, saying which of the items it is about.
pub(super) fn in_items(py: Python<'_>, index: usize, error: PyErr) -> PyErr {
    let message = || format!("items[{index}]: {}", error.value(py));
    if error.get_type(py).is(py.get_type::<PyTypeError>()) {
        PyTypeError::new_err(message())
    } else if error.get_type(py).is(py.get_type::<PyValueError>()) {
        PyValueError::new_err(message())
    } else {
        error
    }
}

fn copied(memory: &Shared<'_>) -> Option<Vec<u8>> {
    let Shared::Changeable(memory) = memory else { return None };
    let mut copy = vec![0; memory.size()];
    memory.copy_to(0, &mut copy);
    Some(copy)
}

/// Stores what a file holds: a path, or an object that is open for reading bytes.
pub(super) fn write_file(store: &BlobStore, file: &Bound<'_, PyAny>, verify: bool) -> PyResult<Digest> {
    let py = file.py();
    if file.hasattr("read")? {
        let read = interpreter::attribute(file, &PyString::new(py, "read"))?.unbind();
        return py.detach(|| {
            store.write_from(verify, |buffer| {
                check()?;
                interpreter::attach(|py| read_into(py, &read, buffer)).ok_or(Error::Cancelled)?
            })
        });
    }
    let path: FilePath = named(file, "file")?;
    let failed = |error: std::io::Error| {
        let reason = error.raw_os_error().map_or_else(|| error.to_string(), system_words);
        PyOSError::new_err((error.raw_os_error(), reason, path.0.as_os_str().to_owned()))
    };
    let mut read = 0;
    py.detach(|| {
        let mut source = File::open(&path.0).map_err(failed)?;
        store.write_from(verify, |buffer| {
            loop {
                match source.read(buffer) {
                    Ok(count) => {
                        read += count;
                        if read >= BYTES_BETWEEN_SIGNALS {
                            read = 0;
                            check_signals()?;
                        }
                        return Ok(count);
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {
                        check_signals()?;
                    }
                    Err(error) => return Err(failed(error)),
                }
            }
        })
    })
}

/// Looks at signals, and whether the call is interrupted, while detached.
fn check_signals() -> PyResult<()> {
    check()?;
    interpreter::attach(interpreter::check_signals).ok_or(Error::Cancelled)?
}

/// The system's words for an error number, as Python has them.
fn system_words(errno: i32) -> String {
    words_of(&std::io::Error::from_raw_os_error(errno))
}

/// Reads from a Python file; 0 at its end.
fn read_into(py: Python<'_>, read: &Py<PyAny>, buffer: &mut [u8]) -> PyResult<usize> {
    let got = &interpreter::call(read.bind(py), (buffer.len(),))?;
    if got.is_none() {
        return Err(PyBlockingIOError::new_err("the file has no bytes at hand; it must block"));
    }
    if got.is_instance_of::<PyString>() {
        return Err(PyTypeError::new_err("the file must be open for reading bytes, not text"));
    }
    let exported = ExportedMemory::of(got)?;
    let memory = exported.shared();
    let target = buffer
        .get_mut(..memory.size())
        .ok_or_else(|| PyValueError::new_err("the file's read() returned more than it was asked for"))?;
    memory.copy_to(0, target);
    Ok(memory.size())
}

/// A `bytes` of this size, allocated once and not filled before `fill` does, which fills it wholly or fails.
pub(super) fn new_bytes<'py>(
    py: Python<'py>,
    size: usize,
    fill: impl FnOnce(&mut [MaybeUninit<u8>]) -> Result<()>,
) -> PyResult<Bound<'py, PyBytes>> {
    let length = ffi::Py_ssize_t::try_from(size).unwrap_or(ffi::Py_ssize_t::MAX);
    // SAFETY: the thread is attached; without a source the bytes are allocated and left as they are.
    let object = unsafe {
        let pointer = ffi::PyBytes_FromStringAndSize(std::ptr::null(), length);
        Bound::from_owned_ptr_or_err(py, pointer)?.cast_into_unchecked::<PyBytes>()
    };
    if size > 0 {
        // SAFETY: the object is new and ours alone, and has `size` bytes at this address (an empty one is shared).
        let memory = unsafe {
            std::slice::from_raw_parts_mut(ffi::PyBytes_AsString(object.as_ptr()).cast::<MaybeUninit<u8>>(), size)
        };
        fill(memory)?;
    } else {
        fill(&mut [])?;
    }
    Ok(object)
}
