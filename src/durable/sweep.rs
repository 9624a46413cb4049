//! Removing the staged files of writers that were killed.

use std::path::Path;

use rustix::fs::Stat;

use super::directory::Directory;
use super::staged::STAGING_PREFIX;
use crate::base::error::Result;
use crate::base::time::now_ns;

/// The writer of a staged file that was not written to for so long is dead.
const ORPHANED_AFTER_NS: i128 = 24 * 60 * 60 * 1_000_000_000;

/// Removes the staged files in `directory` whose writers were killed. The caller holds the lock under which files are
/// staged there, so that no writer is alive.
pub fn sweep_staged(directory: &Path) -> Result<()> {
    sweep(directory, None)
}

/// Removes the staged files in `directory` that were not written to for a day: their writers are dead.
pub fn sweep_orphaned(directory: &Path) -> Result<()> {
    sweep(directory, Some(now_ns() - ORPHANED_AFTER_NS))
}

/// Removes the staged files in `directory`: all, or those that were last written before a time.
fn sweep(directory: &Path, before_ns: Option<i128>) -> Result<()> {
    let Some(directory) = Directory::open(directory)? else { return Ok(()) };
    for (name, _) in directory.entries()? {
        let Some(name) = name.to_str().ok().filter(|name| name.starts_with(STAGING_PREFIX)) else { continue };
        let is_old = |stat: Stat| before_ns.is_none_or(|before| i128::from(stat.st_mtime) * 1_000_000_000 < before);
        if directory.stat(name)?.is_some_and(is_old) {
            directory.remove(name)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sweep_takes_staged_files_alone() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(".stage-abc"), b"torn").unwrap();
        std::fs::write(directory.path().join("2026-01-01.jsonl"), b"").unwrap();
        sweep_staged(directory.path()).unwrap();
        let left: Vec<_> =
            std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["2026-01-01.jsonl"]);
    }

    #[test]
    fn an_orphan_is_known_by_its_age() {
        let directory = tempfile::tempdir().unwrap();
        let opened = Directory::open(directory.path()).unwrap().unwrap();
        for name in [".stage-old", ".stage-young", "foreign"] {
            std::fs::write(directory.path().join(name), b"").unwrap();
        }
        for name in [".stage-old", "foreign"] {
            opened.touch(name, now_ns() - ORPHANED_AFTER_NS - 2_000_000_000).unwrap();
        }
        sweep_orphaned(directory.path()).unwrap();
        let mut left: Vec<_> =
            std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort_unstable();
        assert_eq!(left, [".stage-young", "foreign"]);
    }
}
