//! The rows that changes of state log.

use crate::base::status::RunStatus;
use crate::row::{NewLogEntry, SOURCE};

/// The row that says that a run took a state.
pub fn state_entry<'a>(
    run_id: &'a str,
    status: RunStatus,
    payload: Option<&'a str>,
    timestamp: Option<i64>,
) -> NewLogEntry<'a> {
    NewLogEntry { source: SOURCE, kind: status.name(), ref_id: Some(run_id), payload, timestamp }
}
