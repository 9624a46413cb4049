//! Threads that borrow, as `std::thread::scope` has them, for work that calls back into its caller meanwhile.
//!
//! The caller's function may fork. In the child there is one thread alone, and the standard library's scope would wait
//! there for ever for the others.
#![expect(unsafe_code, reason = "threads that borrow")]

use std::any::Any;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::{io, thread};

use crate::base::error::{Error, Result};
use crate::base::fork::Generation;

/// Where threads are spawned that borrow what outlives the scope.
pub(crate) struct Scope<'scope, 'env: 'scope> {
    generation: Generation,
    running: Arc<Running>,
    scope: PhantomData<&'scope mut &'scope ()>,
    env: PhantomData<&'env mut &'env ()>,
}

#[derive(Default)]
struct Running {
    count: Mutex<usize>,
    ended: Condvar,
}

/// What a thread returned, or its panic; None while it runs.
type Outcome<T> = Mutex<Option<std::result::Result<T, Box<dyn Any + Send>>>>;

/// A thread of a scope.
pub(crate) struct Handle<T> {
    generation: Generation,
    running: Arc<Running>,
    outcome: Arc<Outcome<T>>,
}

/// Runs `body`, and returns once all threads that it spawned have ended; in a child that was forked in `body`, at once.
pub(crate) fn scope<'env, T>(body: impl for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> T) -> T {
    let scope =
        Scope { generation: Generation::current(), running: Arc::default(), scope: PhantomData, env: PhantomData };
    let outcome = catch_unwind(AssertUnwindSafe(|| body(&scope)));
    scope.running.wait_until(scope.generation, |count| count == 0);
    outcome.unwrap_or_else(|panic| resume_unwind(panic))
}

impl<'scope> Scope<'scope, '_> {
    /// Spawns a thread; an error if none can be had.
    pub(crate) fn spawn<T: Send + 'scope>(
        &'scope self,
        work: impl FnOnce() -> T + Send + 'scope,
    ) -> io::Result<Handle<T>> {
        let (running, outcome) = (Arc::clone(&self.running), Arc::new(Mutex::new(None)));
        let handle =
            Handle { generation: self.generation, running: Arc::clone(&running), outcome: Arc::clone(&outcome) };
        *lock(&running.count) += 1;
        let labour = move || {
            let done = catch_unwind(AssertUnwindSafe(work));
            *lock(&outcome) = Some(done);
            // What it holds may borrow, too.
            drop(outcome);
            running.end_one();
        };
        // SAFETY: `scope` does not return, nor unwind, before the count is 0, when nothing of the thread borrows any
        // more. In a forked child the thread does not exist.
        let spawned = unsafe { thread::Builder::new().name("nerve_store".into()).spawn_unchecked(labour) };
        match spawned {
            Ok(_) => Ok(handle),
            Err(error) => {
                self.running.end_one();
                Err(error)
            }
        }
    }
}

impl<T> Handle<T> {
    /// Waits for the thread's end; a panic in it goes on here. In a forked child it is an error.
    pub(crate) fn join(self) -> Result<T> {
        let Self { generation, running, outcome } = self;
        running.wait_until(generation, |_| lock(&outcome).is_some());
        if !generation.is_current() {
            return Err(Error::Forked { path: PathBuf::new() });
        }
        match lock(&outcome).take() {
            Some(Ok(value)) => Ok(value),
            Some(Err(panic)) => resume_unwind(panic),
            None => Err(Error::Internal),
        }
    }
}

impl Running {
    fn end_one(&self) {
        *lock(&self.count) -= 1;
        self.ended.notify_all();
    }

    /// A forked child does not wait, nor touch a lock that another thread may have held.
    fn wait_until(&self, generation: Generation, is_reached: impl Fn(usize) -> bool) {
        if generation.is_current() {
            let mut count = lock(&self.count);
            while !is_reached(*count) {
                count = self.ended.wait(count).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn threads_borrow_and_their_results_and_panics_come_back() {
        let texts = ["a".to_owned(), "bb".to_owned()];
        let ended = AtomicUsize::new(0);
        let lengths = scope(|scope| {
            let handles: Vec<_> = texts.iter().map(|text| scope.spawn(|| text.as_str()).unwrap()).collect();
            for _ in 0..10 {
                scope.spawn(|| ended.fetch_add(1, Ordering::Relaxed)).unwrap();
            }
            handles.into_iter().map(|handle| handle.join().unwrap().len()).collect::<Vec<_>>()
        });
        assert_eq!((lengths, ended.into_inner()), (vec![1, 2], 10));
        let panicked = catch_unwind(|| scope(|scope| scope.spawn(|| panic!("on purpose")).unwrap().join()));
        assert!(panicked.is_err());
    }

    #[test]
    fn a_forked_child_leaves_the_scope_without_its_threads() {
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let (is_child, pid) = scope(|scope| {
            let handle = scope.spawn(move || receiver.recv()).unwrap();
            // SAFETY: the child calls nothing but what follows, and ends.
            let pid = unsafe { libc::fork() };
            if pid == 0 {
                return (handle.join().is_err(), pid);
            }
            drop(sender);
            (false, pid)
        });
        if pid == 0 {
            // SAFETY: the call does not return.
            unsafe { libc::_exit(if is_child { 0 } else { 1 }) };
        }
        let mut status = -1;
        // SAFETY: the status is written to a variable of ours.
        unsafe { libc::waitpid(pid, &raw mut status, 0) };
        assert_eq!(status, 0);
    }
}
