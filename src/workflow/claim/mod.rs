//! Claims: which process works on a run, and until when it may.
//!
//! A claim's token is the id of the `started` row that it logged, so that a later claim of the run has a greater
//! one. The table `run_claims` keeps the newest claim of each run, and the state in which the claim left the run. A
//! run in another state was changed without the claim, by whatever program: the claim is lost.
//!
//! Invariant: a call that carries a claim looks at it in the transaction that writes, so that no change of a lost
//! claim is ever committed.

mod keep;
mod record;
mod take;
mod wait;

pub use keep::{Release, Renew};
pub use record::{Fence, RunClaim};
pub(super) use record::{Record, Seen, follow, forget, lose};
pub use take::{Take, is_any_free};
pub use wait::Waiting;

#[cfg(test)]
mod tests;
