//! Giving all free space of a database back at once.
//!
//! SQLite writes the live pages to a temporary file, from there to the write-ahead log, and a checkpoint carries them over
//! and shortens the file. That checkpoint waits until no process reads what was there before. It is tried for a moment at
//! a time, and appends go on between: a read that stays open for long must not keep them waiting.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::base::error::{Error, Result};
use crate::base::interrupt::check_wait;
use crate::db::checkpoints::Checkpoints;
use crate::db::failure::Context;
use crate::db::turn::Turns;
use crate::db::writer::Writer;

/// How long one attempt may keep the writer, and how long the writer is then left to others.
const ATTEMPT: Duration = Duration::from_millis(50);
const PAUSE: Duration = Duration::from_millis(50);

/// How long the attempts go on, unless the store waits for less.
const PATIENCE: Duration = Duration::from_secs(2);

/// The longest directory in which SQLite can name a temporary file.
const MAX_DIRECTORY_BYTES: usize = 480;

/// Rewrites the database without its free pages; says whether the file has become shorter. It has not if an open read
/// is in the way: before anything is done, or after the rewriting, in which case a later checkpoint shortens it.
pub(super) fn vacuum(context: Context<'_>, checkpoints: &Checkpoints, writer: &Turns<Writer>) -> Result<bool> {
    let brief = Context { busy_timeout: ATTEMPT, ..context };
    let with_writer = |attempt: &dyn Fn(&mut Writer) -> Result<bool>| {
        // The files do not become shorter beside a checkpoint.
        let _held = checkpoints.hold();
        attempt(&mut *writer.take()?)
    };
    let is_log_empty = || persist(context.busy_timeout, || with_writer(&|writer| writer.empty_the_log(brief)));
    if !is_log_empty()? {
        return Ok(false);
    }
    let directory = context.path.parent().and_then(Path::to_str).filter(|path| path.len() <= MAX_DIRECTORY_BYTES);
    let deadline = Instant::now() + context.busy_timeout;
    loop {
        match with_writer(&|writer| writer.rebuild(brief, directory).map(|()| true)) {
            // It begins with the write lock, which another process has.
            Err(Error::Busy { .. }) if Instant::now() < deadline => {
                std::thread::sleep(PAUSE);
                check_wait()?;
            }
            Err(Error::Busy { path, operation, .. }) => {
                return Err(Error::Busy { path, operation, timeout: context.busy_timeout });
            }
            Err(error) => return Err(error),
            Ok(_) => break,
        }
    }
    is_log_empty()
}

/// Repeats `attempt`, with pauses, until it succeeds or the patience is at its end.
fn persist(busy_timeout: Duration, mut attempt: impl FnMut() -> Result<bool>) -> Result<bool> {
    let deadline = Instant::now() + busy_timeout.min(PATIENCE);
    loop {
        if attempt()? {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        std::thread::sleep(PAUSE);
        check_wait()?;
    }
}
