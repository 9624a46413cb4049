//! The same work on many things, on all cores.
//!
//! The one pool of threads. A thread that the system refuses is done without: at the least, the calling thread does the
//! work. A panic in the work becomes [`Error::Internal`], whichever thread it was in.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::base::error::{Error, Result};
use crate::base::interrupt;
use crate::base::scope::{Handle, Scope, scope};

/// How often the calling thread looks up from waiting for results.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How many threads compute at once.
pub(crate) fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Starts `work` on `input` in a thread of `scope`. If the system refuses the thread, gives the input back: the caller does
/// the work itself.
pub(crate) fn start<'scope, I: Send + 'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    input: I,
    work: impl FnOnce(I) -> Result<T> + Send + 'scope,
) -> std::result::Result<Started<T>, I> {
    let (hand_over, handed) = channel();
    // What stops the call of the calling thread stops the work in the other one.
    let interruptions = interrupt::Scope::shared();
    let work = move || caught(|| handed.recv().map_err(|_| Error::Internal).and_then(work));
    match scope.spawn(move || interruptions.enter(work)) {
        Ok(thread) => match hand_over.send(input) {
            Ok(()) => Ok(Started(thread)),
            Err(refused) => Err(refused.0),
        },
        Err(_) => Err(input),
    }
}

/// A thread that was started.
pub(crate) struct Started<T>(Handle<Result<T>>);

impl<T> Started<T> {
    /// Waits for its end; in a child that was forked meanwhile it is an error.
    pub(crate) fn join(self) -> Result<T> {
        // What it ran catches its own panics.
        self.0.join()?
    }
}

/// Does `work` on each of `items`, by as many as `threads` threads, of which the calling one is one. Returns the results
/// in the order of the items, or the first error there was; then what is not begun is not done.
pub(crate) fn map<T: Sync, R: Send>(
    items: &[T],
    threads: usize,
    work: impl Fn(&T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(items.len()));
    let labour = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { return Ok(()) };
            let result = caught(|| work(item));
            if result.is_err() {
                next.store(items.len(), Ordering::Relaxed);
            }
            lock(&done).push((index, result));
        }
    };
    scope(|scope| {
        // Each ends by itself once nothing is left to do.
        let _started: Vec<_> =
            (1..threads.min(items.len())).map_while(|_| start(scope, (), |()| labour()).ok()).collect();
        labour()
    })?;
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_unstable_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Told to the calling thread of [`watched`].
pub(crate) enum News<R> {
    /// A result, in the order in which they were finished.
    Done(R),
    /// Some time has passed.
    Time,
}

/// Does `work` on each item that `next` gives, by as many as `threads` threads beside the calling one, which hears the
/// news: each result, and at the least every 50 ms that time has passed. An error ends it: one of the work, or one that
/// `hear` returns.
///
/// Long work asks its second argument from time to time whether it is still wanted. In a calling thread that had to do
/// the work itself, this is also where it hears the news.
pub(crate) fn watched<T, R: Send>(
    threads: usize,
    next: impl Fn() -> Option<T> + Sync,
    work: impl Fn(T, &dyn Fn() -> bool) -> Result<R> + Sync,
    mut hear: impl FnMut(News<R>) -> Result<()>,
) -> Result<()> {
    let is_wanted = AtomicBool::new(true);
    scope(|scope| {
        let (sender, results) = channel();
        let mut started = 0;
        for _ in 0..threads {
            let sender = sender.clone();
            let (next, work, is_wanted) = (&next, &work, &is_wanted);
            let labour = move |()| {
                let go_on = || is_wanted.load(Ordering::Relaxed);
                while go_on() {
                    let result = caught(|| next().map(|item| work(item, &go_on)).transpose());
                    let Some(result) = result.transpose() else { break };
                    if sender.send(result).is_err() {
                        break;
                    }
                }
                Ok(())
            };
            if start(scope, (), labour).is_err() {
                break;
            }
            started += 1;
        }
        drop(sender);
        if started == 0 {
            return alone(&next, &work, &mut hear);
        }
        let mut look = Look::new(&mut hear);
        let outcome = loop {
            let heard = match results.recv_timeout(LOOK_EVERY) {
                Ok(result) => result.and_then(|result| look.done(result)),
                Err(RecvTimeoutError::Timeout) => look.up(),
                Err(RecvTimeoutError::Disconnected) => break Ok(()),
            };
            if heard.is_err() {
                break heard;
            }
        };
        is_wanted.store(false, Ordering::Relaxed);
        outcome
    })
}

/// What the calling thread hears, and when it last heard that time has passed.
struct Look<H> {
    hear: H,
    last: Instant,
}

impl<H> Look<H> {
    fn new(hear: H) -> Self {
        Self { hear, last: Instant::now() }
    }

    /// Hears a result, and that time has passed if it has.
    fn done<R>(&mut self, result: R) -> Result<()>
    where
        H: FnMut(News<R>) -> Result<()>,
    {
        (self.hear)(News::Done(result))?;
        self.up()
    }

    fn up<R>(&mut self) -> Result<()>
    where
        H: FnMut(News<R>) -> Result<()>,
    {
        if self.last.elapsed() < LOOK_EVERY {
            return Ok(());
        }
        self.last = Instant::now();
        (self.hear)(News::Time)
    }
}

/// The same without any other thread.
fn alone<T, R>(
    next: &impl Fn() -> Option<T>,
    work: &impl Fn(T, &dyn Fn() -> bool) -> Result<R>,
    hear: &mut impl FnMut(News<R>) -> Result<()>,
) -> Result<()> {
    let looked = RefCell::new((Look::new(hear), Ok(())));
    let go_on = || {
        let (look, outcome) = &mut *looked.borrow_mut();
        if outcome.is_ok() {
            *outcome = look.up();
        }
        outcome.is_ok()
    };
    while let Some(result) = caught(|| next().map(|item| work(item, &go_on)).transpose()).transpose() {
        let (look, outcome) = &mut *looked.borrow_mut();
        std::mem::replace(outcome, Ok(()))?;
        look.done(result?)?;
    }
    Ok(())
}

/// Runs `work`; a panic is [`Error::Internal`].
fn caught<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    // What the work shares with others is locked, and taken over whatever its state; what it owns is dropped.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(Error::Internal))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_and_an_error_stops_the_rest() {
        let items: Vec<usize> = (0..1000).collect();
        for threads in [1, 2, 7] {
            assert_eq!(map(&items, threads, |item| Ok(item * 2)).unwrap()[999], 1998);
            let begun = AtomicUsize::new(0);
            let failed = map(&items, threads, |item| {
                begun.fetch_add(1, Ordering::Relaxed);
                if *item == 10 { Err(Error::Cancelled) } else { Ok(()) }
            });
            assert!(matches!(failed, Err(Error::Cancelled)));
            assert!(begun.load(Ordering::Relaxed) < 1000);
        }
        assert!(map(&[0_u8; 0], 4, |_| Ok(())).unwrap().is_empty());
    }

    /// How [`watched`] runs with this many threads: 0 is a system that refuses every one.
    fn watch(
        threads: usize,
        count: usize,
        work: impl Fn(usize, &dyn Fn() -> bool) -> Result<usize> + Sync,
        mut hear: impl FnMut(News<usize>) -> Result<()>,
    ) -> Result<Vec<usize>> {
        let left = AtomicUsize::new(0);
        let next = || Some(left.fetch_add(1, Ordering::Relaxed)).filter(|item| *item < count);
        let mut done = Vec::new();
        watched(threads, next, work, |news| {
            if let News::Done(item) = news {
                done.push(item);
            }
            hear(news)
        })?;
        done.sort_unstable();
        Ok(done)
    }

    #[test]
    fn a_watched_pool_does_everything_once_with_any_number_of_threads() {
        for threads in [0, 1, 2, 7] {
            let done = watch(threads, 300, |item, _| Ok(item * 2), |_| Ok(())).unwrap();
            assert_eq!(done, (0..300).map(|item| item * 2).collect::<Vec<_>>(), "{threads}");
            assert!(watch(threads, 0, |item, _| Ok(item), |_| Ok(())).unwrap().is_empty());
        }
    }

    #[test]
    fn time_passes_while_work_is_long_and_an_error_of_the_caller_ends_it() {
        for threads in [0, 1, 2] {
            let mut times = 0;
            let endless = |item, go_on: &dyn Fn() -> bool| {
                while go_on() {
                    thread::sleep(Duration::from_millis(1));
                }
                Ok(item)
            };
            let ended = watch(threads, 9, endless, |news| {
                times += usize::from(matches!(news, News::Time));
                if times == 3 { Err(Error::Cancelled) } else { Ok(()) }
            });
            assert!(matches!(ended, Err(Error::Cancelled)), "{threads}");
            assert_eq!(times, 3, "{threads}");
        }
    }

    #[test]
    fn time_passes_while_much_short_work_is_done() {
        for threads in [0, 1, 2] {
            let began = Instant::now();
            let short = |item, _: &dyn Fn() -> bool| {
                thread::sleep(Duration::from_millis(2));
                Ok(item)
            };
            let mut times = 0;
            watch(threads, 100, short, |news| {
                times += u128::from(matches!(news, News::Time));
                Ok(())
            })
            .unwrap();
            let expected = began.elapsed().as_millis() / LOOK_EVERY.as_millis();
            assert!(times >= 1 && times <= expected, "{times} of {expected}, {threads}");
        }
    }

    #[test]
    fn errors_and_panics_of_the_work_are_errors_of_the_whole() {
        for threads in [0, 1, 3] {
            let failed =
                watch(threads, 50, |item, _| if item == 7 { Err(Error::Cancelled) } else { Ok(item) }, |_| Ok(()));
            assert!(matches!(failed, Err(Error::Cancelled)), "{threads}");
            let panicked =
                watch(threads, 50, |item, _| if item == 7 { panic!("a fault") } else { Ok(item) }, |_| Ok(()));
            assert!(matches!(panicked, Err(Error::Internal)), "{threads}");
            let items: Vec<usize> = (0..50).collect();
            let panicked = map(&items, threads, |item| if *item == 7 { panic!("a fault") } else { Ok(*item) });
            assert!(matches!(panicked, Err(Error::Internal)), "{threads}");
        }
    }
}
