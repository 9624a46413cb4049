//! Something that is not what it should be, as `verify` and a job report it.

use std::path::PathBuf;

use crate::base::ids::IdSpan;
use crate::base::time::UtcDay;

/// Something that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub path: PathBuf,
    /// The day, if it is a day's file.
    pub day: Option<UtcDay>,
    /// The ids of the rows concerned, first and last, if it is known which.
    pub ids: Option<IdSpan>,
    /// What is wrong, and the way out.
    pub reason: String,
}
