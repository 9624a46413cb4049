//! How an event loop learns that there may be something new for its followers: for `nerve_store.aio`.

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use pyo3::prelude::*;
use rustix::event::{EventfdFlags, eventfd};

use crate::base::fork::PrivateFd;
use crate::log::{Listener, listen};
use crate::py::log::LogStore;

/// A descriptor that is readable when a log may have changed; for `nerve_store.aio`.
#[pyclass(frozen, module = "nerve_store._core")]
pub(super) struct News(Arc<Signal>);

struct Signal {
    fd: PrivateFd,
    /// Whether the descriptor is readable: so that many commits write to it once.
    is_given: AtomicBool,
}

impl Listener for Signal {
    fn notify(&self) {
        if !self.is_given.swap(true, Ordering::SeqCst) {
            // Fails only when it is at its greatest value, and then it is readable.
            let _ = rustix::io::write(self.fd.as_fd(), &1_u64.to_ne_bytes());
        }
    }
}

#[pymethods]
impl News {
    #[new]
    fn new(store: &LogStore) -> PyResult<Self> {
        store.log().database().check_open()?;
        let fd =
            PrivateFd::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(std::io::Error::from)?);
        let signal = Arc::new(Signal { fd, is_given: AtomicBool::new(false) });
        let listener: Arc<dyn Listener> = signal.clone();
        let listener: Weak<dyn Listener> = Arc::downgrade(&listener);
        listen(store.log(), listener);
        Ok(Self(signal))
    }

    /// The descriptor that is readable when there may be something new.
    fn fileno(&self) -> RawFd {
        self.0.fd.as_fd().as_raw_fd()
    }

    /// Take the news in: what changes from now on makes the descriptor readable again.
    fn take(&self) {
        // It is not readable if this was called without news; nothing else can fail.
        let _ = rustix::io::read(self.0.fd.as_fd(), &mut [0; 8]);
        self.0.is_given.store(false, Ordering::SeqCst);
    }
}
