//! Workflow runs: their states, and the messages and rounds of their threads from which a daemon recovers.
//!
//! Invariant: the log row and the run's state commit together, or neither does.

mod delete;
mod payload;
mod query;
#[cfg(test)]
mod query_tests;
mod state;
mod stringify;
mod thread;

pub use crate::base::status::RunStatus;

pub use delete::delete_runs;
pub use payload::WholeNumber;
pub use query::{RunFilter, count_runs, query_runs};
pub use state::{Run, RunList, Transition, active_runs, all_runs, get_run, transition, transition_entry, upsert};
pub use thread::{
    Content, Round, Thread, ThreadMessage, Trigger, events, messages, round_count, rounds, trigger_payload,
};
