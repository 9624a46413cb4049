//! How followers learn of commits: of this process's at once, of other processes' by watching the database.

use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use crate::db::Watching;

/// What is told of changes besides the threads that wait for them; it neither blocks nor fails.
pub trait Listener: Send + Sync {
    /// There may be something new.
    fn notify(&self);
}

/// What followers of one log wait for.
pub(crate) struct Changes {
    count: AtomicU64,
    /// The last id, as it was announced last.
    last_id: AtomicI64,
    waiting: AtomicUsize,
    turn: Mutex<()>,
    changed: Condvar,
    listeners: Mutex<Vec<Weak<dyn Listener>>>,
    listener_count: AtomicUsize,
    watching: Mutex<Weak<Watching>>,
}

impl Default for Changes {
    fn default() -> Self {
        Self {
            count: AtomicU64::new(0),
            last_id: AtomicI64::new(i64::MIN),
            waiting: AtomicUsize::new(0),
            turn: Mutex::default(),
            changed: Condvar::new(),
            listeners: Mutex::default(),
            listener_count: AtomicUsize::new(0),
            watching: Mutex::new(Weak::new()),
        }
    }
}

impl Changes {
    /// Tells everyone who waits that there may be something new; `last_id` is the greatest id there now, if it is known.
    pub(crate) fn announce(&self, last_id: Option<i64>) {
        if let Some(last_id) = last_id {
            self.last_id.store(last_id, Ordering::SeqCst);
        }
        self.count.fetch_add(1, Ordering::SeqCst);
        // A follower that is not counted yet has not looked at the count yet, and will see that it is another one.
        if self.waiting.load(Ordering::SeqCst) > 0 {
            drop(lock(&self.turn));
            self.changed.notify_all();
        }
        if self.listener_count.load(Ordering::SeqCst) > 0 {
            let mut listeners = lock(&self.listeners);
            listeners.retain(|listener| listener.upgrade().inspect(|listener| listener.notify()).is_some());
            self.listener_count.store(listeners.len(), Ordering::SeqCst);
        }
    }

    /// Whether the last id is another one than was announced last. A lower one is news, too: another program has removed the
    /// newest rows, and appends at their ids. An announcement that is late makes for one look too many.
    pub(crate) fn is_news(&self, last_id: i64) -> bool {
        last_id != self.last_id.load(Ordering::SeqCst)
    }

    /// How often something was announced.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// Waits until more has been announced than `known`.
    pub(crate) fn wait(&self, known: u64, timeout: Duration) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let turn = lock(&self.turn);
        drop(self.changed.wait_timeout_while(turn, timeout, |()| self.count() == known));
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    /// Tells `listener` of what is announced from now on, for as long as it is there.
    pub(crate) fn listen(&self, listener: Weak<dyn Listener>) {
        let mut listeners = lock(&self.listeners);
        listeners.push(listener);
        self.listener_count.store(listeners.len(), Ordering::SeqCst);
    }

    /// The watch of the database, which all followers share; `begin` begins it. None if there is no thread for it.
    pub(crate) fn watching(
        &self,
        interval: Duration,
        begin: impl FnOnce() -> Option<Watching>,
    ) -> Option<Arc<Watching>> {
        let mut kept = lock(&self.watching);
        if let Some(watching) = kept.upgrade() {
            watching.hasten(interval);
            return Some(watching);
        }
        let watching = Arc::new(begin()?);
        *kept = Arc::downgrade(&watching);
        Some(watching)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
