//! Deleting runs that have ended.

use crate::base::error::Result;
use crate::log::Core;
use crate::workflow::query::delete_some;

/// Runs that one transaction deletes, so that it holds the lock for moments.
const STEP_RUNS: u64 = 1_000;

/// Deletes the runs that are not active and took their state before this instant, of these workflows or of any; returns how
/// many. Their rows stay in the log. What one step has deleted stays deleted when a later one fails.
pub fn delete_runs(log: &Core, workflows: Option<&[String]>, before: i64) -> Result<u64> {
    let mut deleted = 0;
    loop {
        let step = log.write("delete workflow runs", None, |transaction| {
            delete_some(transaction.connection(), workflows, before, STEP_RUNS)
        })?;
        deleted += step;
        if step < STEP_RUNS {
            return Ok(deleted);
        }
    }
}
