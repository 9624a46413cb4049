//! Waiting for a run that can be claimed.

use std::time::Duration;

use crate::base::error::Result;
use crate::log::Core;
use crate::workflow::claim::take::{Take, is_any_free};

/// Waits up to `timeout` until a claim may take a run; says whether it may. A commit of this process ends the wait.
/// That of another process, a lease that runs out or a run that may begin is seen by the look at its end.
pub fn wait_for_run(log: &Core, take: &Take, timeout: Duration) -> Result<bool> {
    let changes = log.changes();
    let known = changes.count();
    if is_any_free(log.database(), take)? {
        return Ok(true);
    }
    if timeout.is_zero() {
        return Ok(false);
    }
    changes.wait(known, timeout);
    is_any_free(log.database(), take)
}
