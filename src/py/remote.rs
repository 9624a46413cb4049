//! `LogStore`: days that lie in an object store. Python fetches them (`nerve_store.remote.days`); the core says which.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::archive::{ObjectState, Remote, RemoteObject};
use crate::base::digest::Digest;
use crate::base::error::{Error, Result};
use crate::base::interrupt::{INTERVAL, check_wait};
use crate::base::time::UtcDay;
use crate::durable::{self, DirectoryLock};
use crate::py::argument::{Arg, Seconds, Text, arguments};
use crate::py::call::{Long, read};
use crate::py::convert::{Count, date};
use crate::py::interpreter;
use crate::py::log::LogStore;
use crate::py::results::{List, New};

/// What fetches days, as Python has it.
pub(super) struct Fetcher(Arc<Py<PyAny>>);

impl Fetcher {
    /// Asks Python, in the calling thread, which is attached.
    fn ask(fetcher: &Py<PyAny>, py: Python<'_>, object: &RemoteObject) -> Result<Option<File>> {
        let ask = || {
            let arguments = (object.key.as_str(), object.size, object.sha256.to_string());
            let answer = interpreter::call_method(fetcher.bind(py), &PyString::new(py, "fetch"), arguments)?;
            answer.extract::<(String, String, i32)>()
        };
        // What Python raises has been told as one of these, unless it is a mistake of ours.
        let (kind, text, errno) = ask().map_err(|_| Error::Internal)?;
        let place = || PathBuf::from(format!("{}/{}", object.place, object.key));
        match &*kind {
            "path" => {
                let file = durable::open_regular(Path::new(&text));
                // From here on it may be dropped.
                interpreter::call_method(fetcher.bind(py), &PyString::new(py, "opened"), (text,))
                    .map_err(|_| Error::Internal)?;
                file
            }
            "unavailable" => Err(Error::Unavailable { place: object.url(), reason: text }),
            "damaged" => Err(Error::ArchiveCorrupt { path: place(), reason: text }),
            _ => Err(Error::errno(&place(), "fetch a day", errno, text)),
        }
    }
}

impl Remote for Fetcher {
    fn fetch(&self, object: &RemoteObject) -> Result<Option<File>> {
        let (sender, mut answers) = channel();
        let (fetcher, theirs) = (Arc::clone(&self.0), object.clone());
        // In a thread of its own, so that this one can be interrupted; what it fetches then is of use to the next call.
        let run = move || {
            let answer = interpreter::attach(|py| Self::ask(&fetcher, py, &theirs));
            // Without a receiver the call has ended.
            let _ = sender.send(answer.unwrap_or(Err(Error::Cancelled)));
        };
        if std::thread::Builder::new().name("nerve_store-fetch".into()).spawn(run).is_err() {
            return interpreter::attach(|py| Self::ask(&self.0, py, object)).unwrap_or(Err(Error::Cancelled));
        }
        loop {
            let receiver = &mut answers;
            // A consumer of `arrow()` may hold the interpreter.
            let next = interpreter::attach(|py| py.detach(move || receiver.recv_timeout(INTERVAL)));
            match next.ok_or(Error::Cancelled)? {
                Ok(answer) => return answer,
                Err(RecvTimeoutError::Timeout) => check_wait()?,
                Err(RecvTimeoutError::Disconnected) => return Err(Error::Internal),
            }
        }
    }
}

/// The lock of archive jobs, until it is released.
#[pyclass(frozen, module = "nerve_store._core")]
pub(super) struct ArchiveLock(Mutex<Option<DirectoryLock>>);

#[pymethods]
impl ArchiveLock {
    /// Let others have it.
    fn release(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

#[pymethods]
impl LogStore {
    /// Fetch days that lie in an object store by `remote.fetch`.
    fn _attach_remote(&self, remote: Bound<'_, PyAny>) {
        let remote = Arc::new(remote.unbind());
        if self.remote.set(Arc::clone(&remote)).is_ok() {
            self.store.archive().attach(Arc::new(Fetcher(remote)));
        }
    }

    /// What was attached, or None.
    #[getter]
    fn _remote(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.remote.get().map(|remote| remote.clone_ref(py))
    }

    /// The identity of the database, once it has one.
    #[getter]
    fn _identity(&self) -> Option<&str> {
        self.store.archive().identity()
    }

    /// The lock of archive jobs; `ArchiveBusyError` if another one has it for `wait` seconds.
    fn _lock_archive(&self, py: Python<'_>, wait: Arg<Seconds>) -> PyResult<New<ArchiveLock>> {
        arguments!(wait);
        let store = Arc::clone(&self.store);
        let lock =
            Long::reporting_to(None)?.of(&self.store).run(py, move |_| store.archive().lock_for_moving(wait.0))?;
        Ok(New(ArchiveLock(Mutex::new(Some(lock)))))
    }

    /// The objects that hold days, or may: (day, key, state, size, sha256).
    fn _objects<'py>(&self, py: Python<'py>) -> PyResult<List<Bound<'py, PyAny>>> {
        let objects = read(py, &self.store, |store| store.archive().objects())?;
        let object = |object: RemoteObject| {
            let day = date(py, object.day)?;
            let fields = (day, object.key, object.state.name(), object.size, object.sha256.to_string());
            Ok(fields.into_pyobject(py)?.into_any())
        };
        objects.into_iter().map(object).collect::<PyResult<_>>().map(List)
    }

    /// Note that an object is about to be sent; false if the day's file is another one by now.
    fn _begin_upload(
        &self,
        py: Python<'_>,
        day: Arg<UtcDay>,
        key: Arg<Text>,
        size: Arg<Count>,
        sha256: Arg<Text>,
        place: Arg<Text>,
    ) -> PyResult<bool> {
        arguments!(day, key, size, sha256, place);
        let sha256 = Digest::parse(&sha256).ok_or_else(|| Error::Value("sha256 is no digest".to_owned()))?;
        let object = RemoteObject {
            key: key.to_string(),
            day,
            state: ObjectState::Pending,
            size: size.0,
            sha256,
            place: place.to_string(),
        };
        self.note(py, move |archive| archive.begin_upload(&object))
    }

    /// Note that an object was read back and is the day's; false if the day's file is another one by now.
    fn _finish_upload(&self, py: Python<'_>, key: Arg<Text>) -> PyResult<bool> {
        arguments!(key);
        let key = key.to_string();
        self.note(py, move |archive| archive.finish_upload(&key))
    }

    /// Note that an object is to be deleted.
    fn _supersede_object(&self, py: Python<'_>, key: Arg<Text>) -> PyResult<()> {
        arguments!(key);
        let key = key.to_string();
        self.note(py, move |archive| archive.supersede_object(&key))
    }

    /// Forget an object.
    fn _forget_object(&self, py: Python<'_>, key: Arg<Text>) -> PyResult<()> {
        arguments!(key);
        let key = key.to_string();
        self.note(py, move |archive| archive.forget_object(&key))
    }

    /// Remove the file of a day that its current object holds; false if none does.
    fn _release_day(&self, py: Python<'_>, day: Arg<UtcDay>) -> PyResult<bool> {
        arguments!(day);
        self.note(py, move |archive| archive.release(day))
    }
}

impl LogStore {
    fn note<T: Send + 'static>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&crate::archive::Archive) -> Result<T> + Send + 'static,
    ) -> PyResult<T> {
        let store = Arc::clone(&self.store);
        Long::reporting_to(None)?.of(&self.store).run(py, move |_| work(store.archive()))
    }
}
