//! The same work on many things, on all cores.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::base::error::Result;
use crate::base::interrupt::Scope;

/// How many threads compute at once.
pub(crate) fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
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
            let Some(item) = items.get(index) else { return };
            let result = work(item);
            if result.is_err() {
                next.store(items.len(), Ordering::Relaxed);
            }
            lock(&done).push((index, result));
        }
    };
    // The other threads end when this one's call is stopped.
    let interruptions = Scope::shared();
    thread::scope(|scope| {
        for _ in 1..threads.min(items.len()) {
            let interruptions = interruptions.clone();
            let helper = || interruptions.enter(labour);
            // A thread that cannot be had is done without.
            if thread::Builder::new().name("nerve_store".into()).spawn_scoped(scope, helper).is_err() {
                break;
            }
        }
        labour();
    });
    let mut done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    done.sort_unstable_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::Error;

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
}
