//! Blobs as files: `BlobWriter`, and what `BlobStore.open` reads from.

use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use crate::base::digest::Digest;
use crate::base::error::Error;
use crate::blob;
use crate::blob::{CHUNK_BYTES, OpenBlob};
use crate::py::blob_write::{new_bytes, utf8};
use crate::py::call::{caught, detach};
use crate::py::memory::ExportedMemory;
use crate::py::own::Own;

type Writer = blob::BlobWriter<Arc<blob::BlobStore>>;

/// A file that becomes a blob when it is closed; `BlobStore.writer` makes it.
///
/// As a context manager it is closed at the end, or discarded if an exception comes: then nothing of it is left.
/// Nothing is acknowledged before `close`. Memory is constant, whatever the size.
#[pyclass(frozen, module = "nerve_store._core")]
pub(super) struct BlobWriter {
    state: Own<Writing>,
    verify: bool,
}

enum Writing {
    Open(Box<Writer>),
    Done(Digest),
    Discarded,
}

impl BlobWriter {
    pub(super) fn new(writer: Writer, verify: bool) -> Self {
        Self { state: Own::new(Writing::Open(Box::new(writer))), verify }
    }

    /// Any other thread's call has ended when this returns. Called while detached.
    fn finish(&self) -> crate::Result<Option<Digest>> {
        let mut state = self.state.lock()?;
        match std::mem::replace(&mut *state, Writing::Discarded) {
            Writing::Open(writer) => {
                let digest = writer.finish(self.verify)?;
                *state = Writing::Done(digest);
                Ok(Some(digest))
            }
            Writing::Done(digest) => {
                *state = Writing::Done(digest);
                Ok(Some(digest))
            }
            Writing::Discarded => Ok(None),
        }
    }

    fn add(&self, bytes: &[u8]) -> crate::Result<usize> {
        match &mut *self.state.lock()? {
            Writing::Open(writer) => writer.write(bytes).map(|()| bytes.len()),
            _ => Err(Error::Value("the writer is closed".into())),
        }
    }
}

#[pymethods]
impl BlobWriter {
    /// Add bytes (text as UTF-8) and return how many. What is stored is hashed as it is stored.
    fn write(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<usize> {
        if let Ok(text) = data.cast::<PyString>() {
            let text = utf8(text)?;
            return detach(py, || self.add(text));
        }
        if let Ok(bytes) = data.cast::<PyBytes>() {
            let bytes = bytes.as_bytes();
            return detach(py, || self.add(bytes));
        }
        let exported = ExportedMemory::of(data)?;
        let memory = exported.shared();
        // Copied piece by piece, so that what is hashed is what is written, even if the memory changes meanwhile.
        detach(py, || {
            let mut piece = vec![0; memory.size().min(CHUNK_BYTES)];
            for start in (0..memory.size()).step_by(CHUNK_BYTES) {
                let part = &mut piece[..(memory.size() - start).min(CHUNK_BYTES)];
                memory.copy_to(start, part);
                self.add(part)?;
            }
            if memory.size() == 0 {
                self.add(&[])?;
            }
            Ok(memory.size())
        })
    }

    /// Publish the blob; `hash` says its name. Does nothing if it was closed or discarded before.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        detach(py, || self.finish().map(drop))
    }

    /// Give the blob up: nothing of it is left. Does nothing if it was closed before.
    fn discard(&self, py: Python<'_>) {
        py.detach(|| {
            // A child leaves it to its parent.
            if let Ok(mut state) = self.state.lock()
                && matches!(&*state, Writing::Open(_))
            {
                *state = Writing::Discarded;
            }
        });
    }

    /// The sha256 of the blob, lowercase hex; a `ValueError` before it is published.
    #[getter]
    fn hash(&self, py: Python<'_>) -> PyResult<String> {
        match &*self.state.locked(py)? {
            Writing::Done(digest) => Ok(digest.to_string()),
            Writing::Open(_) => Err(PyValueError::new_err("the blob has no hash yet; close the writer first")),
            Writing::Discarded => Err(PyValueError::new_err("the blob was discarded and has no hash")),
        }
    }

    /// Whether it was closed or discarded, or is that of the process which forked this one.
    #[getter]
    fn closed(&self, py: Python<'_>) -> bool {
        !self.state.locked(py).is_ok_and(|state| matches!(&*state, Writing::Open(_)))
    }

    /// How many bytes were written.
    fn tell(&self, py: Python<'_>) -> PyResult<u64> {
        match &*self.state.locked(py)? {
            Writing::Open(writer) => Ok(writer.size()),
            _ => Err(PyValueError::new_err("the writer is closed")),
        }
    }

    /// Does nothing: a blob is durable when it is closed.
    #[expect(clippy::unused_self, reason = "files have it")]
    fn flush(&self) {}

    /// True.
    #[expect(clippy::unused_self, reason = "files have it")]
    fn writable(&self) -> bool {
        true
    }

    /// False.
    #[expect(clippy::unused_self, reason = "files have it")]
    fn readable(&self) -> bool {
        false
    }

    /// False.
    #[expect(clippy::unused_self, reason = "files have it")]
    fn seekable(&self) -> bool {
        false
    }

    fn __enter__(self_: PyRef<'_, Self>) -> PyRef<'_, Self> {
        self_
    }

    #[pyo3(signature = (exception_type, exception, traceback, /))]
    fn __exit__(
        &self,
        py: Python<'_>,
        exception_type: Option<&Bound<'_, PyAny>>,
        exception: Option<&Bound<'_, PyAny>>,
        traceback: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let _ = (exception, traceback);
        if exception_type.is_some() {
            self.discard(py);
            return Ok(());
        }
        self.close(py)
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let Ok(state) = self.state.locked(py) else { return "<BlobWriter, of the parent process>".into() };
        match &*state {
            Writing::Open(writer) => format!("<BlobWriter, {} bytes so far>", writer.size()),
            Writing::Done(digest) => format!("<BlobWriter, closed, {digest}>"),
            Writing::Discarded => "<BlobWriter, discarded>".into(),
        }
    }
}

/// The raw file under the `io.BufferedReader` that `BlobStore.open` returns.
#[pyclass(frozen, module = "nerve_store._core")]
pub(super) struct BlobReader(Own<Option<Reading>>);

struct Reading {
    blob: OpenBlob,
    chunk: Vec<u8>,
    at: usize,
    filled: usize,
    position: u64,
    /// The bytes are not the blob's: no more of them.
    failed: Option<(Digest, Digest, std::path::PathBuf)>,
}

impl BlobReader {
    pub(super) fn new(blob: OpenBlob) -> Self {
        let chunk = vec![0; blob.size().saturating_add(1).min(CHUNK_BYTES)];
        Self(Own::new(Some(Reading { blob, chunk, at: 0, filled: 0, position: 0, failed: None })))
    }
}

impl Reading {
    /// How many bytes are left.
    fn left(&self) -> usize {
        let size = u64::try_from(self.blob.size()).unwrap_or(u64::MAX);
        usize::try_from(size.saturating_sub(self.position)).unwrap_or(usize::MAX)
    }

    fn refill(&mut self) -> crate::Result<()> {
        if let Some((hash, actual, path)) = &self.failed {
            return Err(Error::BlobCorrupt { hash: *hash, actual: *actual, path: path.clone() });
        }
        (self.at, self.filled) = (0, 0);
        let read = self.blob.read_next(&mut self.chunk);
        if let Err(Error::BlobCorrupt { hash, actual, path }) = &read {
            self.failed = Some((*hash, *actual, path.clone()));
        }
        self.filled = read?;
        Ok(())
    }
}

fn closed() -> PyErr {
    PyValueError::new_err("I/O operation on closed file")
}

#[pymethods]
impl BlobReader {
    /// Fill `buffer` with the bytes at hand and return how many; 0 at the end, once all bytes were verified.
    fn readinto(&self, py: Python<'_>, buffer: &Bound<'_, PyAny>) -> PyResult<usize> {
        let exported = ExportedMemory::writable(buffer)?;
        let memory = exported.shared();
        detach(py, || {
            let mut state = self.0.lock()?;
            let Some(reading) = &mut *state else { return Ok(None) };
            if reading.at == reading.filled && memory.size() > 0 {
                reading.refill()?;
            }
            let count = memory.size().min(reading.filled - reading.at);
            memory.copy_from(&reading.chunk[reading.at..reading.at + count]);
            reading.at += count;
            reading.position += count as u64;
            Ok(Some(count))
        })?
        .ok_or_else(closed)
    }

    /// The remaining bytes; `BlobCorruptError` if the blob's bytes do not match.
    fn readall<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let left = detach(py, || Ok(self.0.lock()?.as_ref().map(Reading::left)))?.ok_or_else(closed)?;
        if left == 0 {
            // Nothing is left to verify what was read, if it was not: an empty file in the place of a blob.
            detach(py, || self.0.lock()?.as_mut().map_or(Ok(()), Reading::refill))?;
        }
        new_bytes(py, left, |target| {
            let fill = || {
                let mut filled = 0;
                while filled < target.len() {
                    let mut state = self.0.lock()?;
                    let Some(reading) = &mut *state else { break };
                    if reading.at == reading.filled {
                        reading.refill()?;
                    }
                    let chunk = &reading.chunk[reading.at..reading.filled];
                    let count = chunk.len().min(target.len() - filled);
                    if count == 0 {
                        break;
                    }
                    for (target, byte) in target[filled..].iter_mut().zip(&chunk[..count]) {
                        target.write(*byte);
                    }
                    reading.at += count;
                    reading.position += count as u64;
                    filled += count;
                }
                // Else another thread closed the file, or read from it.
                if filled == target.len() {
                    Ok(())
                } else {
                    Err(Error::Value("the file was read by another thread".into()))
                }
            };
            py.detach(|| caught(fill))
        })
    }

    /// How many bytes were read.
    fn tell(&self, py: Python<'_>) -> PyResult<u64> {
        // Attached, because `io.BufferedReader` asks while `BlobStore.open` makes it.
        self.0.locked(py)?.as_ref().map(|reading| reading.position).ok_or_else(closed)
    }

    /// Close the file.
    fn close(&self, py: Python<'_>) {
        // A child leaves it to its parent.
        drop(py.detach(|| self.0.lock().ok().and_then(|mut state| state.take())));
    }

    /// Whether it was closed, or is that of the process which forked this one.
    #[getter]
    fn closed(&self, py: Python<'_>) -> bool {
        py.detach(|| self.0.lock().map_or(true, |state| state.is_none()))
    }

    /// Does nothing.
    #[expect(clippy::unused_self, reason = "files have it")]
    fn flush(&self) {}

    /// True.
    #[expect(clippy::unused_self, reason = "files have it")]
    fn readable(&self) -> bool {
        true
    }

    /// False.
    #[expect(clippy::unused_self, reason = "files have it")]
    fn writable(&self) -> bool {
        false
    }

    /// False: bytes that are skipped could not be verified.
    #[expect(clippy::unused_self, reason = "files have it")]
    fn seekable(&self) -> bool {
        false
    }
}
