//! What a verification reports.

use std::path::Path;

use crate::archive::problem::Problem;
use crate::base::error::{Error, Result};
use crate::base::time::UtcDay;

/// What was checked, and what was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Rows of sealed segments that were read in the database.
    pub row_count: u64,
    /// Segments that were checked.
    pub segment_count: u64,
    /// Files that were read.
    pub day_count: u64,
    /// Rows that were read in files.
    pub archived_row_count: u64,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

impl Verified {
    pub(super) fn add(&mut self, other: Self) {
        self.row_count += other.row_count;
        self.segment_count += other.segment_count;
        self.day_count += other.day_count;
        self.archived_row_count += other.archived_row_count;
        self.problems.extend(other.problems);
    }

    /// What was read of the file or directory at `path`; None if it cannot be read, which is a problem.
    pub(super) fn unless_unreadable<T>(&mut self, path: &Path, outcome: Result<T>) -> Result<Option<T>> {
        match outcome {
            Err(error) if error.is_unreadable_at(path) => {
                let (path, reason) = (path.to_owned(), error.to_string());
                self.problems.push(Problem { path, day: None, ids: None, reason });
                Ok(None)
            }
            outcome => outcome.map(Some),
        }
    }

    /// What was read; what is damaged becomes a problem, and other errors stop the verification.
    pub(super) fn unless_damaged<T>(&mut self, day: Option<UtcDay>, outcome: Result<T>) -> Result<Option<T>> {
        let (path, reason) = match outcome {
            Ok(value) => return Ok(Some(value)),
            Err(Error::ArchiveCorrupt { path, reason } | Error::Archive { path, reason }) => (path, reason),
            // Something in the place of the file that is no file, or that cannot be read.
            Err(Error::Io { path, reason, .. }) if day.is_some() => (path, reason),
            Err(error) => return Err(error),
        };
        self.problems.push(Problem { path, day, ids: None, reason });
        Ok(None)
    }
}
