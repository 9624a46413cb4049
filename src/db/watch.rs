//! Learning that a database may have changed, without asking again and again.
//!
//! One thread a process watches the directories of all databases that are followed, by inotify: by path, since opening
//! and closing a file of SQLite's would drop this process's locks on it. What it learns of is that the write-ahead log
//! was written to. That comes *before* a commit: the frames are written first, then flushed, and then the commit is
//! published in shared memory, which no event tells. After an event the thread therefore looks at the database itself,
//! soon and then at growing distances.
//!
//! A file system that other machines write to tells nothing of that. There, and where inotify is not to be had, the
//! thread looks at intervals.
//!
//! Invariant: no lock of this module is held while a database is looked at, and a forked child waits for none of its
//! parent's.
use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::base::fork::Generation;
use crate::base::wakeup::Wakeup;
use crate::db::inotify::Directories;

/// The least time between two looks.
const GAP: Duration = Duration::from_micros(300);
/// Between two looks without an event, where every event is told.
const SURE: Duration = Duration::from_secs(1);
/// After so long without another event a commit is not waited for: the looks at intervals will find it.
const GIVEN_UP: Duration = Duration::from_secs(2);
/// How long a caller waits for another one that begins to watch. In a child of a fork that one may never end.
const PATIENCE: Duration = Duration::from_millis(100);

/// Looks at a database.
type Look = Arc<dyn Fn() + Send + Sync>;

/// This process's watcher, if it has one, and the process that made it.
static CURRENT: Mutex<Option<Weak<Watcher>>> = Mutex::new(None);

/// A database that is watched until this is dropped.
pub(crate) struct Watching {
    watcher: Arc<Watcher>,
    number: u64,
}

struct Watcher {
    generation: Generation,
    directories: Directories,
    /// Raised when there is something new in `state`.
    wake: Wakeup,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    watched: Vec<Watched>,
    last_number: u64,
    is_running: bool,
}

struct Watched {
    number: u64,
    directory: PathBuf,
    /// The write-ahead log's.
    name: OsString,
    /// What its events are known by; None: they are not told.
    watch: Option<i32>,
    /// Between two looks without an event.
    interval: Duration,
    last_event: Option<Instant>,
    next_look: Instant,
    look: Look,
}

impl Watching {
    /// Watches the database at `path` and calls `look` in another thread when it may have changed, and at least once an
    /// `interval` if changes may go untold. None if no thread is to be had.
    pub(crate) fn begin(path: &Path, interval: Duration, look: Look) -> Option<Self> {
        let watcher = Watcher::current()?;
        let number = watcher.add(path, interval, look)?;
        Some(Self { watcher, number })
    }

    /// Looks at least once an `interval` from now on, if changes may go untold.
    pub(crate) fn hasten(&self, interval: Duration) {
        let mut state = self.watcher.state();
        if let Some(watched) = state.watched.iter_mut().find(|watched| watched.number == self.number)
            && interval < watched.interval
        {
            watched.interval = interval;
            watched.next_look = watched.next_look.min(Instant::now() + watched.rest());
            drop(state);
            self.watcher.wake.raise();
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        if !self.watcher.generation.is_current() {
            return;
        }
        let mut state = self.watcher.state();
        let place = state.watched.iter().position(|watched| watched.number == self.number);
        let gone = place.map(|place| state.watched.swap_remove(place));
        let others = |watch| state.watched.iter().any(|watched| watched.watch == Some(watch));
        if let Some(watch) = gone.as_ref().and_then(|gone| gone.watch).filter(|watch| !others(*watch)) {
            self.watcher.directories.remove(watch);
        }
        drop(state);
        // What a look keeps is dropped without the lock.
        drop(gone);
        self.watcher.wake.raise();
    }
}

impl Watched {
    /// How long nothing is looked at while no event comes.
    fn rest(&self) -> Duration {
        if self.watch.is_some() { self.interval.max(SURE) } else { self.interval }
    }

    fn saw_event(&mut self, now: Instant) {
        self.last_event = Some(now);
        self.next_look = self.next_look.min(now + GAP);
    }

    /// A look begins now: says when the next is due.
    fn begin_look(&mut self, now: Instant) {
        let since = self.last_event.map(|event| now.duration_since(event)).filter(|since| *since < GIVEN_UP);
        if since.is_none() {
            self.last_event = None;
        }
        self.next_look = now + since.map_or(self.rest(), |since| (since / 4).max(GAP));
    }
}

impl Watcher {
    fn current() -> Option<Arc<Self>> {
        let began = Instant::now();
        let mut current = loop {
            match CURRENT.try_lock() {
                Ok(current) => break current,
                Err(TryLockError::Poisoned(poisoned)) => break poisoned.into_inner(),
                Err(TryLockError::WouldBlock) if began.elapsed() > PATIENCE => return None,
                Err(TryLockError::WouldBlock) => std::thread::sleep(GAP),
            }
        };
        let known = current.as_ref().and_then(Weak::upgrade).filter(|watcher| watcher.generation.is_current());
        if known.is_some() {
            return known;
        }
        let watcher = Arc::new(Self {
            generation: Generation::current(),
            directories: Directories::new(),
            wake: Wakeup::new().ok()?,
            state: Mutex::default(),
        });
        *current = Some(Arc::downgrade(&watcher));
        Some(watcher)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(self: &Arc<Self>, path: &Path, interval: Duration, look: Look) -> Option<u64> {
        let mut name = path.file_name()?.to_owned();
        name.push("-wal");
        let directory = path.parent()?.to_owned();
        let mut state = self.state();
        if !state.is_running {
            let watcher = Arc::clone(self);
            std::thread::Builder::new().name("nerve_store-watch".into()).spawn(move || watcher.run()).ok()?;
            state.is_running = true;
        }
        state.last_number += 1;
        let number = state.last_number;
        let watch = self.directories.add(&directory);
        let next_look = Instant::now();
        state.watched.push(Watched { number, directory, name, watch, interval, last_event: None, next_look, look });
        drop(state);
        self.wake.raise();
        Some(number)
    }

    /// Runs until nothing is watched any more.
    fn run(&self) {
        loop {
            let now = Instant::now();
            let mut due = Vec::new();
            let next = {
                let mut state = self.state();
                if state.watched.is_empty() {
                    state.is_running = false;
                    return;
                }
                for watched in state.watched.iter_mut().filter(|watched| watched.next_look <= now) {
                    watched.begin_look(now);
                    due.push(Arc::clone(&watched.look));
                }
                state.watched.iter().map(|watched| watched.next_look).min()
            };
            for look in due {
                // What a look finds wrong is found by those who read.
                let _ = catch_unwind(AssertUnwindSafe(|| look()));
            }
            self.wait(next.unwrap_or(now));
        }
    }

    /// Waits for events, until then at the most, and takes them in.
    fn wait(&self, until: Instant) {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        let mut readable = vec![PollFd::new(&self.wake, PollFlags::IN)];
        readable.extend(self.directories.fd().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        if poll(&mut readable, Some(&timeout)).is_err() {
            // Interrupted, or out of memory: no reason to turn in circles.
            std::thread::sleep(GAP);
        }
        self.wake.lower();
        let now = Instant::now();
        self.directories.take_events(&mut |event| {
            let mut state = self.state();
            for watched in &mut state.watched {
                let is_of_its_directory = event.watch.is_none() || watched.watch == event.watch;
                if is_of_its_directory && event.name.is_none_or(|name| watched.name == name) {
                    watched.saw_event(now);
                }
                if event.is_end && is_of_its_directory {
                    watched.watch = self.directories.add(&watched.directory);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    fn counting() -> (Arc<AtomicU64>, Look) {
        let count = Arc::new(AtomicU64::new(0));
        let theirs = Arc::clone(&count);
        (count, Arc::new(move || drop(theirs.fetch_add(1, Ordering::SeqCst))))
    }

    fn soon(is_so: impl Fn() -> bool) -> bool {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(10) {
            if is_so() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        false
    }

    #[test]
    #[cfg(all(target_os = "linux", not(feature = "portable")))]
    #[expect(clippy::disallowed_methods, reason = "the test writes as another program does")]
    fn a_write_is_looked_at_and_rest_comes_after_it() {
        let directory = tempfile::tempdir().unwrap();
        let (count, look) = counting();
        let _watching = Watching::begin(&directory.path().join("logs.db"), Duration::from_secs(3600), look).unwrap();
        assert!(soon(|| count.load(Ordering::SeqCst) == 1));
        for name in ["logs.db", "other.db-wal"] {
            std::fs::write(directory.path().join(name), b"x").unwrap();
        }
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(count.load(Ordering::SeqCst), 1, "another file is none of its business");
        for round in 0..3 {
            let before = count.load(Ordering::SeqCst);
            std::fs::write(directory.path().join("logs.db-wal"), vec![7; round]).unwrap();
            assert!(soon(|| count.load(Ordering::SeqCst) > before + 5));
            std::fs::remove_file(directory.path().join("logs.db-wal")).unwrap();
        }
        std::thread::sleep(GIVEN_UP + Duration::from_secs(1));
        let before = count.load(Ordering::SeqCst);
        assert!(before < 500, "{before} looks");
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(count.load(Ordering::SeqCst), before);
    }

    #[test]
    fn without_events_it_looks_at_intervals() {
        let (count, look) = counting();
        let nowhere = Path::new("/nowhere/logs.db");
        let watching = Watching::begin(nowhere, Duration::from_secs(3600), look).unwrap();
        watching.hasten(Duration::from_millis(5));
        assert!(soon(|| count.load(Ordering::SeqCst) > 5));
        drop(watching);
        std::thread::sleep(Duration::from_millis(20));
        let before = count.load(Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(count.load(Ordering::SeqCst), before);
    }

    #[test]
    fn a_look_that_panics_ends_nothing() {
        let (count, look) = counting();
        let panicking: Look = Arc::new(move || {
            look();
            panic!("of the test");
        });
        let _watching = Watching::begin(Path::new("/nowhere/else.db"), Duration::from_millis(1), panicking).unwrap();
        assert!(soon(|| count.load(Ordering::SeqCst) > 3));
    }
}
