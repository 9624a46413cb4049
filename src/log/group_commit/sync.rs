//! The primitives that the queue stands on: the standard library's, or loom's where its models run ([`super::models`]).

#[cfg(all(test, loom))]
pub(crate) use loom::sync::{Arc, Condvar, Mutex, MutexGuard};
#[cfg(not(all(test, loom)))]
pub(crate) use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use std::sync::PoisonError;

/// Nothing panics while it holds a lock of the queue.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for a moment; also says whether it is over. A model's moments take no time.
pub(crate) fn wait_briefly<'a, T>(condition: &Condvar, guard: MutexGuard<'a, T>) -> (MutexGuard<'a, T>, bool) {
    #[cfg(all(test, loom))]
    {
        let _ = condition;
        (guard, true)
    }
    #[cfg(not(all(test, loom)))]
    {
        use crate::base::interrupt::INTERVAL;
        let (guard, waited) = condition.wait_timeout(guard, INTERVAL).unwrap_or_else(PoisonError::into_inner);
        (guard, waited.timed_out())
    }
}

pub(crate) fn wait<'a, T>(condition: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condition.wait(guard).unwrap_or_else(PoisonError::into_inner)
}
