//! Workflow runs: their states and claims, batches of changes, and the messages and rounds of their threads from
//! which a daemon recovers.
//!
//! Invariant: the log row and the run's state commit together, or neither does.

mod append;
mod batch;
mod change;
mod claim;
mod delete;
mod entry;
mod payload;
mod put;
mod query;
#[cfg(test)]
mod query_tests;
mod state;
mod stringify;
mod thread;

pub use crate::base::status::RunStatus;

pub use append::{AppendClaimed, AppendOne};
pub use batch::{Batch, Step};
pub use change::{Create, Transition, Upsert, upsert};
pub use claim::{Fence, Release, Renew, RunClaim, Take, Waiting, is_any_free};
pub use delete::delete_runs;
pub use entry::state_entry;
pub use payload::WholeNumber;
pub use query::{RunFilter, count_runs, query_runs};
pub use state::{Run, RunList, active_runs, all_runs, get_run};
pub use stringify::stringify;
pub use thread::{
    Content, Round, Thread, ThreadMessage, Trigger, events, messages, round_count, rounds, trigger_payload,
};
