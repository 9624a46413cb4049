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
    if !shorten(context, checkpoints, writer)? {
        return Ok(false);
    }
    let directory = context.path.parent().and_then(Path::to_str).filter(|path| path.len() <= MAX_DIRECTORY_BYTES);
    let deadline = Instant::now() + context.busy_timeout;
    loop {
        let rebuilt = {
            let _held = checkpoints.hold()?;
            writer.take()?.rebuild(brief(context), directory)
        };
        match rebuilt {
            // It begins with the write lock, which another process has.
            Err(Error::Busy { .. }) if Instant::now() < deadline => {
                std::thread::sleep(PAUSE);
                check_wait()?;
            }
            Err(Error::Busy { path, operation, .. }) => {
                return Err(Error::Busy { path, operation, timeout: context.busy_timeout });
            }
            Err(error) => return Err(error),
            Ok(()) => return shorten(context, checkpoints, writer),
        }
    }
}

/// Carries the whole write-ahead log over, which shortens the file to its pages; false if an open read is in the way.
pub(super) fn shorten(context: Context<'_>, checkpoints: &Checkpoints, writer: &Turns<Writer>) -> Result<bool> {
    let deadline = Instant::now() + context.busy_timeout.min(PATIENCE);
    loop {
        let is_emptied = {
            // The files do not become shorter beside a checkpoint.
            let _held = checkpoints.hold()?;
            writer.take()?.empty_the_log(brief(context))?
        };
        if is_emptied || Instant::now() >= deadline {
            return Ok(is_emptied);
        }
        std::thread::sleep(PAUSE);
        check_wait()?;
    }
}

/// The same, for an attempt that waits for a moment only.
fn brief(context: Context<'_>) -> Context<'_> {
    Context { busy_timeout: context.busy_timeout.min(ATTEMPT), ..context }
}
