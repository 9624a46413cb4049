//! What a call that succeeded found wrong goes to Python's logger `nerve_store`.

use pyo3::prelude::*;

use crate::archive::{Problem, Reindexed};

/// The name of the logger.
const LOGGER: &str = "nerve_store";

/// Files that a job left aside.
pub(super) fn warn_of_problems(py: Python<'_>, problems: &[Problem]) {
    for problem in problems {
        warn(py, &format!("{}: {}", problem.path.display(), problem.reason));
    }
}

/// What a rebuild found missing, and what it changed.
pub(super) fn warn_of_rebuild(py: Python<'_>, done: &Reindexed) {
    for (day, count, ids) in &done.missing {
        warn(
            py,
            &format!("archive of {day}: {count} rows that it held are gone (ids from {} to {})", ids.first, ids.last),
        );
    }
    if let Some((count, ids)) = done.renumbered {
        let what = "rows of the database had ids of archived rows, or came after such a row, and have new ids";
        warn(py, &format!("{count} {what}, from {} to {}", ids.first, ids.last));
    }
}

/// The call is done: an error of a handler changes nothing about it.
fn warn(py: Python<'_>, message: &str) {
    let warned = py
        .import("logging")
        .and_then(|logging| logging.call_method1("getLogger", (LOGGER,)))
        .and_then(|logger| logger.call_method1("warning", ("%s", message)));
    if let Err(error) = warned {
        error.write_unraisable(py, None);
    }
}
