//! A value that one thread has at a time. Unlike those for a mutex, waits for it can be interrupted.

use std::ops::{Deref, DerefMut};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::base::error::Result;
use crate::base::interrupt::{INTERVAL, check_wait, is_interruptible};

pub(super) struct Turns<T> {
    state: Mutex<State<T>>,
    returned: Condvar,
}

struct State<T> {
    /// None while a thread has it.
    free: Option<Box<T>>,
    /// Threads that wait: where there is none, giving it back costs no system call.
    waiting: usize,
}

/// The value, until this is dropped.
pub(super) struct Turn<'a, T> {
    turns: &'a Turns<T>,
    /// None only while it is dropped.
    value: Option<Box<T>>,
}

impl<T> Turns<T> {
    pub(super) fn new(value: T) -> Self {
        let state = State { free: Some(Box::new(value)), waiting: 0 };
        Self { state: Mutex::new(state), returned: Condvar::new() }
    }

    /// The value, unless another thread has it.
    pub(super) fn try_take(&self) -> Option<Turn<'_, T>> {
        let value = self.lock().free.take()?;
        Some(Turn { turns: self, value: Some(value) })
    }

    /// Waits for the value; an error if the call was interrupted meanwhile.
    pub(super) fn take(&self) -> Result<Turn<'_, T>> {
        let mut state = self.lock();
        loop {
            if let Some(value) = state.free.take() {
                return Ok(Turn { turns: self, value: Some(value) });
            }
            state.waiting += 1;
            if is_interruptible() {
                let (guard, waited) =
                    self.returned.wait_timeout(state, INTERVAL).unwrap_or_else(PoisonError::into_inner);
                state = guard;
                state.waiting -= 1;
                if waited.timed_out() && state.free.is_none() {
                    drop(state);
                    check_wait()?;
                    state = self.lock();
                }
            } else {
                state = self.returned.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.waiting -= 1;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Deref for Turn<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_deref().unwrap_or_else(|| unreachable!("it is there until the drop"))
    }
}

impl<T> DerefMut for Turn<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_deref_mut().unwrap_or_else(|| unreachable!("it is there until the drop"))
    }
}

impl<T> Drop for Turn<'_, T> {
    fn drop(&mut self) {
        let mut state = self.turns.lock();
        state.free = self.value.take();
        let is_awaited = state.waiting > 0;
        drop(state);
        if is_awaited {
            self.turns.returned.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;
    use crate::base::error::Error;
    use crate::base::interrupt::{Scope, Stop};

    #[test]
    fn one_thread_has_it_at_a_time() {
        let turns = Turns::new(0_u32);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..1_000 {
                        let mut turn = turns.take().unwrap();
                        let seen = *turn;
                        std::thread::yield_now();
                        *turn = seen + 1;
                    }
                });
            }
        });
        assert_eq!(*turns.take().unwrap(), 8_000);
    }

    #[test]
    fn a_wait_is_stopped_and_takes_nothing_with_it() {
        let turns = Turns::new(());
        let stop = Arc::new(Stop::default());
        let held = turns.take().unwrap();
        let (sender, receiver) = channel();
        std::thread::scope(|scope| {
            let asked = Scope { stop: Some(Arc::clone(&stop)), ..Scope::default() };
            scope.spawn(|| sender.send(asked.enter(|| turns.take().map(drop))).unwrap());
            assert!(receiver.recv_timeout(2 * INTERVAL).is_err(), "it waits");
            stop.ask();
            assert!(matches!(receiver.recv_timeout(Duration::from_secs(10)), Ok(Err(Error::Cancelled))));
        });
        drop(held);
        turns.take().unwrap();
    }

    #[test]
    fn a_panic_gives_it_back() {
        let turns = Turns::new(7);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _turn = turns.take().unwrap();
            panic!("on purpose");
        }));
        assert!(panicked.is_err());
        assert_eq!(*turns.take().unwrap(), 7);
    }
}
