//! Ending a call before its work is done.
//!
//! A call can be stopped, can run out of time, and can be paused so that its caller looks at what happened meanwhile, such
//! as a signal. Work that takes long looks at [`check`], work that waits at [`check_wait`], both at least every
//! [`INTERVAL`]. The state belongs to the thread that works. [`Scope::enter`] sets it for a call.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::base::error::{Error, Result};

/// How long work goes on at the most before it looks whether it is interrupted.
pub const INTERVAL: Duration = Duration::from_millis(25);

/// Reading so many rows takes about half of an interval, or longer.
const LONG_ROWS: u64 = 16_384;

/// Asks work to end, from any thread.
#[derive(Debug, Default)]
pub struct Stop(AtomicBool);

impl Stop {
    /// Asks for the end.
    pub fn ask(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the end was asked for.
    pub fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What interrupts the work of a call.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// Ends the work with [`Error::Cancelled`].
    pub stop: Option<Arc<Stop>>,
    /// Ends the work with [`Error::TimedOut`].
    pub deadline: Option<Instant>,
    /// Ends the work with [`Error::Paused`]; the caller can begin it again.
    pub pause: Option<Pause>,
    /// The work is nearly done: it is stopped only while it waits.
    pub is_finishing: bool,
}

/// When a call pauses.
#[derive(Clone, Copy, Debug)]
pub struct Pause {
    /// From here on.
    pub at: Instant,
    /// Only while it waits: what it has begun must be finished.
    pub only_waits: bool,
    /// Whether this thread has any reason to pause; asked once it is time.
    pub is_wanted: fn() -> bool,
    /// When the call began to wait, in this attempt or an earlier one.
    pub waits_since: Option<Instant>,
}

thread_local! {
    static SCOPE: RefCell<Scope> = const { RefCell::new(Scope { stop: None, deadline: None, pause: None, is_finishing: false }) };
}

impl Scope {
    /// The scope of the calling thread, for work that it has other threads do. They do not pause.
    pub fn shared() -> Self {
        SCOPE.with_borrow(|scope| Self {
            stop: scope.stop.clone(),
            deadline: scope.deadline,
            pause: None,
            is_finishing: scope.is_finishing,
        })
    }

    /// Does `work` in this scope.
    pub fn enter<T>(self, work: impl FnOnce() -> T) -> T {
        self.enter_and_leave(work).0
    }

    /// The same; also returns the scope as the work left it.
    pub fn enter_and_leave<T>(self, work: impl FnOnce() -> T) -> (T, Self) {
        struct Leave(Option<Scope>);
        impl Drop for Leave {
            fn drop(&mut self) {
                if let Some(outer) = self.0.take() {
                    SCOPE.set(outer);
                }
            }
        }
        let mut leave = Leave(Some(SCOPE.replace(self)));
        let value = work();
        let outer = leave.0.take().unwrap_or_default();
        (value, SCOPE.replace(outer))
    }
}

/// An error if the work is to end. Called within a transaction, too: the error rolls it back.
pub fn check() -> Result<()> {
    check_scope(false)
}

/// The same for work that waits and has begun nothing yet.
pub fn check_wait() -> Result<()> {
    check_scope(true)
}

/// An error if the call is to pause while it reads so many rows: better now than when some have been read in vain.
pub fn check_rows(rows: u64) -> Result<()> {
    if rows < LONG_ROWS {
        return Ok(());
    }
    SCOPE.with_borrow(|scope| match scope.pause {
        Some(pause) if !pause.only_waits && (pause.is_wanted)() => Err(Error::Paused),
        _ => Ok(()),
    })
}

/// Whether [`check_wait`] can be an error, now or later.
pub fn is_interruptible() -> bool {
    SCOPE.with_borrow(|scope| scope.stop.is_some() || scope.deadline.is_some() || scope.pause.is_some())
}

/// When the call began to wait: now, unless an earlier attempt of it has waited already.
pub fn waits_since() -> Instant {
    SCOPE.with_borrow_mut(|scope| match &mut scope.pause {
        Some(pause) => *pause.waits_since.get_or_insert_with(Instant::now),
        None => Instant::now(),
    })
}

/// Does `work`, such as the commit of several callers' rows, without any interruption.
pub fn shielded<T>(work: impl FnOnce() -> T) -> T {
    if is_interruptible() { Scope::default().enter(work) } else { work() }
}

/// Does `work`, which waits for something after what the call is for has been done: until `deadline` at the latest, and
/// until an [`INTERVAL`] from now where the call pauses.
pub fn afterwards<T>(deadline: Instant, work: impl FnOnce() -> T) -> T {
    let mut scope = SCOPE.with_borrow(Scope::clone);
    scope.deadline = Some(scope.deadline.map_or(deadline, |earlier| earlier.min(deadline)));
    scope.pause = scope.pause.map(|pause| Pause { at: Instant::now() + INTERVAL, only_waits: true, ..pause });
    scope.enter(work)
}

/// Does `work`, the last part of a step, which is stopped only while it waits.
pub fn finishing<T>(work: impl FnOnce() -> T) -> T {
    Scope { is_finishing: true, ..Scope::shared() }.enter(work)
}

fn check_scope(waits: bool) -> Result<()> {
    SCOPE.with_borrow_mut(|scope| {
        if (waits || !scope.is_finishing) && scope.stop.as_ref().is_some_and(|stop| stop.is_asked()) {
            return Err(Error::Cancelled);
        }
        if scope.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(Error::TimedOut);
        }
        match scope.pause {
            Some(pause) if (waits || !pause.only_waits) && Instant::now() >= pause.at => {
                if (pause.is_wanted)() {
                    return Err(Error::Paused);
                }
                scope.pause = None;
                Ok(())
            }
            _ => Ok(()),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pausing(only_waits: bool, is_wanted: fn() -> bool) -> Scope {
        let pause = Pause { at: Instant::now(), only_waits, is_wanted, waits_since: None };
        Scope { pause: Some(pause), ..Scope::default() }
    }

    #[test]
    fn without_a_scope_nothing_is_interrupted() {
        assert!(!is_interruptible());
        check().unwrap();
        check_wait().unwrap();
    }

    #[test]
    fn a_stop_and_a_deadline_end_work_and_waits() {
        let stop = Arc::new(Stop::default());
        Scope { stop: Some(Arc::clone(&stop)), ..Scope::default() }.enter(|| {
            check().unwrap();
            stop.ask();
            assert!(matches!(check(), Err(Error::Cancelled)));
            assert!(matches!(check_wait(), Err(Error::Cancelled)));
            shielded(|| check().unwrap());
            finishing(|| {
                check().unwrap();
                assert!(matches!(check_wait(), Err(Error::Cancelled)));
            });
            assert!(matches!(Scope::shared().enter(check), Err(Error::Cancelled)));
        });
        check().unwrap();
        let late = Scope { deadline: Some(Instant::now()), ..Scope::default() };
        assert!(matches!(late.enter(check), Err(Error::TimedOut)));
    }

    #[test]
    fn a_pause_that_is_only_for_waits_lets_work_go_on() {
        pausing(true, || true).enter(|| {
            check().unwrap();
            assert!(matches!(check_wait(), Err(Error::Paused)));
        });
        assert!(matches!(pausing(false, || true).enter(check), Err(Error::Paused)));
    }

    #[test]
    fn a_read_of_many_rows_pauses_before_it_begins() {
        let later = |only_waits, is_wanted| {
            let pause =
                Pause { at: Instant::now() + Duration::from_secs(3_600), only_waits, is_wanted, waits_since: None };
            Scope { pause: Some(pause), ..Scope::default() }
        };
        later(false, || true).enter(|| {
            check().unwrap();
            check_rows(LONG_ROWS - 1).unwrap();
            assert!(matches!(check_rows(LONG_ROWS), Err(Error::Paused)));
            shielded(|| check_rows(LONG_ROWS).unwrap());
        });
        later(true, || true).enter(|| check_rows(LONG_ROWS).unwrap());
        later(false, || false).enter(|| check_rows(LONG_ROWS).unwrap());
        check_rows(LONG_ROWS).unwrap();
    }

    #[test]
    fn a_thread_without_a_reason_never_pauses() {
        pausing(false, || false).enter(|| {
            check_wait().unwrap();
            assert!(!is_interruptible());
        });
    }

    #[test]
    fn the_time_of_waiting_is_kept_between_attempts() {
        let (first, scope) = pausing(true, || true).enter_and_leave(waits_since);
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(scope.enter(waits_since), first);
    }

    #[test]
    fn what_waits_after_a_call_has_an_interval_of_its_own() {
        let later = Instant::now() + Duration::from_secs(10);
        pausing(false, || true).enter(|| {
            assert!(check_wait().is_err());
            afterwards(later, || {
                check_wait().unwrap();
                std::thread::sleep(INTERVAL);
                check().unwrap();
                assert!(matches!(check_wait(), Err(Error::Paused)));
            });
            afterwards(Instant::now(), || assert!(matches!(check_wait(), Err(Error::TimedOut))));
        });
        afterwards(later, || check_wait().unwrap());
    }

    #[test]
    fn a_panic_leaves_the_scope() {
        let panicked = std::panic::catch_unwind(|| pausing(false, || true).enter(|| panic!("on purpose")));
        assert!(panicked.is_err());
        check().unwrap();
    }
}
