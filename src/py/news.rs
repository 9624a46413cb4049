//! How an event loop learns that there may be something new for its followers: for `nerve_store.aio`.

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use pyo3::prelude::*;

use crate::base::wakeup::Wakeup;
use crate::log::{Listener, listen};
use crate::py::log::LogStore;

/// A descriptor that is readable when a log may have changed; for `nerve_store.aio`.
#[pyclass(frozen, module = "nerve_store._core")]
pub(super) struct News(Arc<Signal>);

struct Signal {
    wakeup: Wakeup,
    /// Whether it was raised: so that many commits raise it once.
    is_given: AtomicBool,
}

impl Listener for Signal {
    fn notify(&self) {
        if !self.is_given.swap(true, Ordering::SeqCst) {
            self.wakeup.raise();
        }
    }
}

#[pymethods]
impl News {
    #[new]
    fn new(store: &LogStore) -> PyResult<Self> {
        store.log().database().check_open()?;
        let wakeup = Wakeup::new().map_err(std::io::Error::from)?;
        let signal = Arc::new(Signal { wakeup, is_given: AtomicBool::new(false) });
        let listener: Arc<dyn Listener> = signal.clone();
        let listener: Weak<dyn Listener> = Arc::downgrade(&listener);
        listen(store.log(), listener);
        Ok(Self(signal))
    }

    /// The descriptor that is readable when there may be something new.
    fn fileno(&self) -> RawFd {
        self.0.wakeup.as_fd().as_raw_fd()
    }

    /// Take the news in: what changes from now on makes the descriptor readable again.
    fn take(&self) {
        self.0.wakeup.lower();
        self.0.is_given.store(false, Ordering::SeqCst);
    }
}
