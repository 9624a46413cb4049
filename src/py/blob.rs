//! `BlobStore`, `BlobIterator`, `blob_hash` and `normalize_blob_hash`.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyString};

use crate::base::digest::Digest;
use crate::base::error::{Error, quoted};
use crate::base::progress::Progress;
use crate::blob;
use crate::durable::Durability;
use crate::py::argument::{Arg, Flag, Refusal, arguments, named};
use crate::py::blob_stream::{BlobReader, BlobWriter};
use crate::py::blob_write;
use crate::py::blob_write::Data;
use crate::py::call::{Long, caught, detach};
use crate::py::convert::{FilePath, Span};
use crate::py::interpreter::{self, uncollected};
use crate::py::own::Own;
use crate::py::results::{List, New, Record, Tuple, import_records};

/// How much is read from the file behind `BlobStore.open` at a time.
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// Hashing so little takes less time than letting another thread run meanwhile.
const FEW_BYTES: usize = 2048;

/// Content-addressed bytes under `<root>/<2 hex>/<62 hex>`, named by their sha256.
///
/// Safe to share between threads and processes. Reads verify the digest and never return wrong bytes. `root` is
/// created by the first write.
///
/// `hash in store` is `exists(hash, verify=False)`. Iterating yields the hashes of all blobs, in order; a blob that is
/// written or deleted meanwhile may or may not come up.
#[pyclass(frozen, module = "nerve_store._core")]
pub(super) struct BlobStore(Arc<blob::BlobStore>);

impl BlobStore {
    pub(super) fn shared(&self) -> Arc<blob::BlobStore> {
        Arc::clone(&self.0)
    }
}

#[pymethods]
impl BlobStore {
    #[new]
    #[pyo3(
        signature = (root, *, durability = Arg::of(Durability::Full), read_only = Arg::OFF),
        text_signature = "(root, *, durability='full', read_only=False)"
    )]
    fn new(py: Python<'_>, root: Arg<FilePath>, durability: Arg<Durability>, read_only: Arg<Flag>) -> PyResult<Self> {
        arguments!(root, durability, read_only);
        let read_only = read_only.0;
        import_records(py)?;
        Ok(Self(Arc::new(detach(py, || blob::BlobStore::new(&root.0, durability, read_only))?)))
    }

    /// The directory, absolute.
    #[getter]
    fn root(&self) -> &OsStr {
        self.0.root().as_os_str()
    }

    /// Store `data` (text as UTF-8) and return its sha256, lowercase hex.
    ///
    /// Idempotent; a damaged copy is replaced. A blob that is there already is not read again if this object wrote or
    /// verified it and the file system says that it has not changed since; `verify` reads it all the same. With "full"
    /// durability the bytes and their directories are synced when this returns; after a flush that failed
    /// (`StoreIOError`) this object refuses further writes and deletions.
    ///
    /// Any C-contiguous buffer is taken as its bytes, without a copy if it is `bytes` or a view of them. Any other
    /// (`bytearray`, an array, a map of a file, and read-only views of them) is copied on the way, 256 KiB at a time:
    /// if it changes meanwhile, the stored blob is a mix of old and new bytes, always under the hash of that mix.
    #[pyo3(signature = (data, *, verify = Arg::OFF), text_signature = "($self, data, *, verify=False)")]
    fn write(&self, py: Python<'_>, data: &Bound<'_, PyAny>, verify: Arg<Flag>) -> PyResult<String> {
        arguments!(verify);
        let verify = verify.0;
        let data = Data::of(data.clone())?;
        let shared = data.shared()?;
        Ok(detach(py, || shared.write_to(&self.0, verify))?.to_string())
    }

    /// Store many items at once and return their hashes, in their order.
    ///
    /// Hashes on all cores; flushes are overlapped, and each directory is flushed once. All are durable when this
    /// returns; if it raises, some of them may have been stored, and none is acknowledged. The items are taken in
    /// portions of 64 MiB, so that a generator may yield any number.
    #[pyo3(signature = (items, *, verify = Arg::OFF), text_signature = "($self, items, *, verify=False)")]
    fn write_many(&self, items: &Bound<'_, PyAny>, verify: Arg<Flag>) -> PyResult<List<String>> {
        arguments!(verify);
        let verify = verify.0;
        let digests = blob_write::write_many(&self.0, items, verify)?;
        Ok(List(digests.iter().map(Digest::to_string).collect()))
    }

    /// Store the content of a file, in constant memory, and return its sha256, lowercase hex.
    ///
    /// `file` is a path, or an object whose `read(size)` returns bytes; such an object is read from where it stands,
    /// and stays open. A path that cannot be read is an `OSError`.
    #[pyo3(signature = (file, *, verify = Arg::OFF), text_signature = "($self, file, *, verify=False)")]
    fn write_file(&self, file: &Bound<'_, PyAny>, verify: Arg<Flag>) -> PyResult<String> {
        arguments!(verify);
        let verify = verify.0;
        Ok(blob_write::write_file(&self.0, file, verify)?.to_string())
    }

    /// A file to write to, whose content becomes a blob when it is closed.
    #[pyo3(signature = (*, verify = Arg::OFF), text_signature = "($self, *, verify=False)")]
    fn writer(&self, py: Python<'_>, verify: Arg<Flag>) -> PyResult<New<BlobWriter>> {
        arguments!(verify);
        let verify = verify.0;
        Ok(New(BlobWriter::new(detach(py, || blob::BlobWriter::new(Arc::clone(&self.0)))?, verify)))
    }

    /// The bytes under `hash`; None if there are none, or if it is no sha256. `BlobCorruptError` if they differ.
    fn read<'py>(&self, py: Python<'py>, hash: Arg<Hash<'py>>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        arguments!(hash);
        let Some(digest) = parse(&hash) else { return Ok(None) };
        if let Some(blob) = py.detach(|| self.0.open_quickly(&digest))
            && let Ok(bytes) =
                blob_write::new_bytes(py, blob.size(), |bytes| py.detach(|| caught(|| blob.read_into(bytes))))
        {
            return Ok(Some(bytes));
        }
        let Some(blob) = detach(py, || self.0.open(&digest))? else { return Ok(None) };
        blob_write::new_bytes(py, blob.size(), |bytes| py.detach(|| caught(|| blob.read_into(bytes)))).map(Some)
    }

    /// The blob as a file to read from, in constant memory; `BlobNotFoundError` if there is none.
    ///
    /// Bytes are verified as they are read. A blob of up to 256 KiB is verified before its first byte is returned. The
    /// last bytes of a larger one are withheld until all are verified: a caller that reads to the end has read the
    /// blob, or gets `BlobCorruptError`. Do not act on bytes before the end. The file cannot seek.
    fn open<'py>(&self, py: Python<'py>, hash: Arg<Hash<'py>>) -> PyResult<Bound<'py, PyAny>> {
        arguments!(hash);
        let opened = match parse(&hash) {
            Some(digest) => detach(py, || self.0.open(&digest))?,
            None => None,
        };
        let blob = opened.ok_or_else(|| self.not_found(&hash))?;
        static BUFFERED_READER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let buffered = interpreter::imported_once(py, &BUFFERED_READER, "io", "BufferedReader")?;
        uncollected(py, || interpreter::call(buffered, (BlobReader::new(blob), READ_BUFFER_BYTES)))
    }

    /// Whether the blob is there and its bytes match; `verify` False: whether a file is there.
    #[pyo3(signature = (hash, *, verify = Arg::ON), text_signature = "($self, hash, *, verify=True)")]
    fn exists(&self, py: Python<'_>, hash: Arg<Hash<'_>>, verify: Arg<Flag>) -> PyResult<bool> {
        arguments!(hash, verify);
        let verify = verify.0;
        let Some(digest) = parse(&hash) else { return Ok(false) };
        detach(py, || self.0.exists(&digest, verify))
    }

    /// Remove the blob; False if there was none.
    fn delete(&self, py: Python<'_>, hash: Arg<Hash<'_>>) -> PyResult<bool> {
        arguments!(hash);
        let Some(digest) = parse(&hash) else { return Ok(false) };
        detach(py, || self.0.delete(&digest))
    }

    /// Read every blob, on all cores.
    ///
    /// A damaged one is moved to `<root>/.quarantine` (not with `read_only`) and reported; the next write of its
    /// content heals it. What is no regular file, or cannot be read, is reported and stays where it is. `progress` is
    /// called with (done, total) bytes.
    #[pyo3(signature = (*, progress = None))]
    fn verify<'py>(&self, py: Python<'py>, progress: Option<Bound<'py, PyAny>>) -> PyResult<Bound<'py, PyAny>> {
        static REPORT: Record = Record::new("BlobVerifyReport");
        static PROBLEM: Record = Record::new("BlobProblem");
        let long = Long::reporting_to(progress)?;
        let (store, is_heard) = (Arc::clone(&self.0), long.is_heard());
        let verified = long.run(py, move |report| store.verify(is_heard, report))?;
        let problem = |problem: &blob::BlobProblem| {
            let (hash, actual) = (problem.hash.as_ref(), problem.actual.as_ref());
            let quarantine = problem.quarantine.as_ref().map(|path| path.as_os_str());
            let hashes = (hash.map(Digest::to_string), actual.map(Digest::to_string));
            PROBLEM.create(py, (hashes.0, problem.path.as_os_str(), problem.reason.as_str(), hashes.1, quarantine))
        };
        let problems = verified.problems.iter().map(problem).collect::<PyResult<Vec<_>>>()?;
        REPORT.create(py, (verified.blob_count, verified.size, Tuple(problems)))
    }

    /// Delete the blobs that are not in `keep` and were not written for `grace`, by default an hour.
    ///
    /// Writing a blob that is there renews its grace, also in another process: choose `grace` longer than it takes
    /// from a write until its hash can be in `keep`, and any number of writers may go on meanwhile. With no grace at
    /// all, there must be none. What is no sha256 in `keep` is a `ValueError`, and nothing is deleted. `progress` is
    /// called with (done, total) shards.
    #[pyo3(name = "_collect", signature = (keep, *, grace, dry_run, progress))]
    fn collect<'py>(
        &self,
        py: Python<'py>,
        keep: &Bound<'py, PyAny>,
        grace: Arg<Span>,
        dry_run: Arg<Flag>,
        progress: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        static REPORT: Record = Record::new("CollectReport");
        arguments!(grace, dry_run);
        let (grace, dry_run) = (grace.0, dry_run.0);
        let kept = kept(keep)?;
        let grace_ns = i128::try_from(grace.as_nanos()).unwrap_or(i128::MAX / 2);
        let store = Arc::clone(&self.0);
        let collect = move |report: &mut Progress<'_>| store.collect(kept, grace_ns, dry_run, report);
        let collected = Long::reporting_to(progress)?.run(py, collect)?;
        let missing = Tuple(collected.missing.iter().map(Digest::to_string).collect());
        let counts = (collected.deleted_count, collected.deleted_size, collected.kept_count, collected.young_count);
        REPORT.create(py, (counts.0, counts.1, counts.2, counts.3, missing, dry_run))
    }

    /// The blob's size in bytes, from the file system; `BlobNotFoundError` if there is none.
    fn size(&self, py: Python<'_>, hash: Arg<Hash<'_>>) -> PyResult<u64> {
        arguments!(hash);
        let size = match parse(&hash) {
            Some(digest) => detach(py, || self.0.size(&digest))?,
            None => None,
        };
        size.ok_or_else(|| self.not_found(&hash))
    }

    /// How many blobs there are and how many bytes they hold; looks at every file.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        static RECORD: Record = Record::new("BlobStats");
        let stats = detach(py, || self.0.stats())?;
        RECORD.create(py, (self.root(), stats.blob_count, stats.size))
    }

    /// Let go of the two directories that are kept open to save the way there; the next call opens them again.
    ///
    /// There is nothing else to close: no lock is held between calls, and nothing waits to be written.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.0.close());
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
    ) {
        let _ = (exception_type, exception, traceback);
        self.close(py);
    }

    fn __contains__(&self, py: Python<'_>, hash: Arg<Hash<'_>>) -> PyResult<bool> {
        arguments!(hash);
        let Some(digest) = parse(&hash) else { return Ok(false) };
        detach(py, || self.0.exists(&digest, false))
    }

    fn __iter__(&self) -> New<BlobIterator> {
        New(BlobIterator(Own::new(self.0.digests())))
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!("BlobStore({})", self.root().into_pyobject(py)?.repr()?))
    }
}

impl BlobStore {
    fn not_found(&self, hash: &Hash<'_>) -> PyErr {
        Error::BlobNotFound { hash: hash.to_string_lossy().into_owned(), path: self.0.root().to_owned() }.into()
    }
}

/// The hashes of a blob store, in order.
#[pyclass(frozen, module = "nerve_store._core")]
pub(super) struct BlobIterator(Own<blob::BlobDigests>);

#[pymethods]
impl BlobIterator {
    fn __iter__(self_: PyRef<'_, Self>) -> PyRef<'_, Self> {
        self_
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<String>> {
        // The lock is taken and given back while detached, so that no thread waits for it with the interpreter in hand.
        let digest = detach(py, || self.0.lock()?.next().transpose())?;
        Ok(digest.map(|digest| digest.to_string()))
    }
}

/// The sha256 of `data` (text as UTF-8), lowercase hex: the name that it has as a blob. Stores nothing.
#[pyfunction]
pub(super) fn blob_hash(py: Python<'_>, data: Bound<'_, PyAny>) -> PyResult<String> {
    let data = Data::of(data)?;
    let shared = data.shared()?;
    let digest = if shared.size() > FEW_BYTES { py.detach(|| shared.digest()) } else { shared.digest() };
    Ok(digest.to_string())
}

/// `text` as a lowercase sha256 in hex, or None if it is not 64 hexadecimal digits.
#[pyfunction]
pub(super) fn normalize_blob_hash(text: Arg<Hash<'_>>) -> PyResult<Option<String>> {
    arguments!(text);
    Ok(parse(&text).map(|digest| digest.to_string()))
}

/// A `str` that may be a hash.
pub(super) struct Hash<'py>(Bound<'py, PyString>);

impl<'py> std::ops::Deref for Hash<'py> {
    type Target = Bound<'py, PyString>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<'a, 'py> FromPyObject<'a, 'py> for Hash<'py> {
    type Error = Refusal;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> Result<Self, Refusal> {
        match object.cast::<PyString>() {
            Ok(hash) => Ok(Self(hash.to_owned())),
            Err(_) => Err(Refusal::not(&object, "str")),
        }
    }
}

/// The hashes of an argument `keep`.
pub(super) fn kept(keep: &Bound<'_, PyAny>) -> PyResult<HashSet<Digest>> {
    if keep.is_instance_of::<PyString>() {
        return Err(PyValueError::new_err("keep is the hashes to keep, not one string"));
    }
    let hashes = interpreter::items(keep)?.map_err(|_| Refusal::not(keep, "an iterable of hashes").about("keep"))?;
    let mut kept = HashSet::new();
    for hash in hashes {
        let hash = hash?;
        let hash: Hash<'_> = named(&hash, "a hash in keep")?;
        // A hash that is none names nothing to keep: the caller's list is wrong, and nothing is deleted by it.
        let wrong =
            || PyValueError::new_err(format!("keep holds what is no sha256: {}", quoted(&hash.to_string_lossy())));
        kept.insert(parse(&hash).ok_or_else(wrong)?);
    }
    Ok(kept)
}

/// Text that is no UTF-8 (a lone surrogate) is no hash either.
pub(super) fn parse(hash: &Hash<'_>) -> Option<Digest> {
    Digest::parse(hash.to_str().ok()?)
}
