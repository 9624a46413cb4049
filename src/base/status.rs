//! The states of a workflow run, and what may follow what.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

/// A state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RunStatus {
    /// Waits for its turn.
    Queued,
    /// Works.
    Started,
    /// Ended well.
    Completed,
    /// Ended with an error of its own.
    Failed,
    /// Its process died.
    Crashed,
    /// Was stopped, to be resumed.
    Interrupted,
    /// Was discarded before it began.
    Dropped,
    /// Was ended from outside.
    Killed,
}

use RunStatus::{Completed, Crashed, Dropped, Failed, Interrupted, Killed, Queued, Started};

impl RunStatus {
    /// Every state.
    pub const ALL: [Self; 8] = [Queued, Started, Completed, Failed, Crashed, Interrupted, Dropped, Killed];

    /// Its name in the database and in Python.
    pub fn name(self) -> &'static str {
        match self {
            Queued => "queued",
            Started => "started",
            Completed => "completed",
            Failed => "failed",
            Crashed => "crashed",
            Interrupted => "interrupted",
            Dropped => "dropped",
            Killed => "killed",
        }
    }

    /// Whether it waits or works.
    pub fn is_active(self) -> bool {
        matches!(self, Queued | Started)
    }

    /// Nothing follows.
    pub fn is_terminal(self) -> bool {
        matches!(self, Completed | Failed | Dropped | Killed)
    }

    /// The states that may follow, besides itself: repeating a state is always allowed.
    pub fn followers(self) -> &'static [Self] {
        match self {
            Queued => &[Started, Dropped, Killed, Interrupted, Failed],
            Started => &[Completed, Failed, Crashed, Interrupted, Dropped, Killed],
            Crashed | Interrupted => &[Started, Queued, Completed, Failed, Dropped, Killed],
            Completed | Failed | Dropped | Killed => &[],
        }
    }

    /// Whether a run in this state may take the state `next`.
    pub fn may_become(self, next: Self) -> bool {
        self == next || self.followers().contains(&next)
    }
}

/// Whether a run waits or works, in SQL over the column `status` of `workflow_runs`. Written as what is not active, so that
/// a run in an unknown state counts as active: it is reported, and its rows stay.
///
/// It is the condition of an index, so that each change of a run looks at it. Written with `NOT IN`, SQLite would make a
/// table of the states anew for each look.
pub(crate) static IS_ACTIVE: LazyLock<String> = LazyLock::new(|| condition("status <> ", " AND "));

/// Whether a run has ended, in the same way.
pub(crate) static IS_ENDED: LazyLock<String> = LazyLock::new(|| condition("status = ", " OR "));

fn condition(comparison: &str, connective: &str) -> String {
    let inactive = RunStatus::ALL.into_iter().filter(|status| !status.is_active());
    let comparisons: Vec<_> = inactive.map(|status| format!("{comparison}'{status}'")).collect();
    format!("({})", comparisons.join(connective))
}

impl fmt::Display for RunStatus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for RunStatus {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|status| status.name() == text).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for status in RunStatus::ALL {
            assert_eq!(status.name().parse(), Ok(status));
        }
        assert!("paused".parse::<RunStatus>().is_err());
    }

    #[test]
    fn only_terminal_states_have_no_followers() {
        for status in RunStatus::ALL {
            assert_eq!(status.is_terminal(), status.followers().is_empty());
            assert!(status.may_become(status));
        }
    }

    #[test]
    fn a_started_run_cannot_be_queued_nor_a_queued_one_crash() {
        assert!(!Started.may_become(Queued));
        assert!(!Queued.may_become(Crashed) && !Queued.may_become(Completed));
        assert!(Crashed.may_become(Queued) && Interrupted.may_become(Started));
        assert!(!Crashed.may_become(Interrupted));
    }
}
