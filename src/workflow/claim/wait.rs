//! Waiting for a run that can be claimed.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::base::error::Result;
use crate::log::Core;
use crate::workflow::claim::take::{Take, is_any_free};

/// Waits up to `timeout` until a claim may take a run; says whether it may. A commit of this process ends the wait.
/// That of another process, a lease that runs out or a run that may begin is seen by the look at its end.
pub fn wait_for_run(log: &Core, take: &Take, timeout: Duration) -> Result<bool> {
    let changes = log.changes();
    changes.waiting.fetch_add(1, Ordering::SeqCst);
    let known = changes.count();
    let mut is_free = is_any_free(log.database(), take);
    if matches!(is_free, Ok(false)) && !timeout.is_zero() {
        changes.wait(known, timeout);
        is_free = is_any_free(log.database(), take);
    }
    changes.waiting.fetch_sub(1, Ordering::SeqCst);
    is_free
}
