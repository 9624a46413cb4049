//! What belongs to one thread at a time of the process that made it.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use pyo3::sync::MutexExt;

use crate::base::error::Result;
use crate::base::fork::Generation;

/// A locked state. A forked child waits for no lock, since a thread of the parent may have held it, and gets an error.
pub(super) struct Own<T> {
    state: Mutex<T>,
    generation: Generation,
}

impl<T> Own<T> {
    pub(super) fn new(state: T) -> Self {
        Self { state: Mutex::new(state), generation: Generation::current() }
    }

    /// While detached.
    pub(super) fn lock(&self) -> Result<MutexGuard<'_, T>> {
        self.generation.check(Path::new(""))?;
        Ok(self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// While attached; waits detached.
    pub(super) fn locked(&self, py: Python<'_>) -> Result<MutexGuard<'_, T>> {
        self.generation.check(Path::new(""))?;
        Ok(self.state.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner))
    }
}
