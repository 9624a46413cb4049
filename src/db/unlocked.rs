//! Reading without locks, where none can be made: on a read-only file system, or as a user who may only read.
//!
//! In WAL mode a reader needs the `-shm` file, which the last process to close a database removes. Where it cannot be made
//! again, SQLite reads the database file alone (`immutable=1`), never looks whether it changes, and ignores the write-ahead
//! log, as it ignores the rollback journal of a change that was cut off. That is right as long as the two hold nothing and
//! the file stays as it is, which is looked at before and after each read.

use std::fs::{self, File, Metadata};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::Access;
use rustix::io::Errno;

use crate::base::error::Error;
use crate::db::failure::{Context, refusal};

const LOG: &str = "-wal";
const JOURNAL: &str = "-journal";

/// A database file that no process writes to, as it was when it was looked at.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Still {
    /// Device, file, bytes, and when they and the file's attributes were changed.
    identity: [u64; 2],
    size: u64,
    changed: [i64; 4],
}

impl Still {
    /// The file at `path`; None if its write-ahead log or its journal holds something, or if one of them cannot be looked
    /// at.
    pub(super) fn of(path: &Path) -> Option<Self> {
        if !is_empty_or_missing(&beside(path, LOG)) || may_be_hot(&beside(path, JOURNAL)) {
            return None;
        }
        let file: Metadata = fs::symlink_metadata(path).ok().filter(Metadata::is_file)?;
        Some(Self {
            identity: [file.dev(), file.ino()],
            size: file.size(),
            changed: [file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec()],
        })
    }

    /// Whether it still is as it was.
    pub(super) fn holds(&self, path: &Path) -> bool {
        Self::of(path).as_ref() == Some(self)
    }
}

/// Why this process cannot make files in the directory of `path`; None if it can.
pub(super) fn obstacle(path: &Path) -> Option<Errno> {
    refusal(path.parent().unwrap_or(path), Access::WRITE_OK | Access::EXEC_OK)
}

/// The name by which SQLite opens the file without locks.
pub(super) fn uri(path: &Path) -> PathBuf {
    let mut uri = String::from("file://");
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'-' | b'.' | b'_' | b'~' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => uri.push(char::from(*byte)),
            other => uri.push_str(&format!("%{other:02X}")),
        }
    }
    PathBuf::from(uri + "?immutable=1")
}

/// Why a database cannot be read here although it could be, were there a place for locks.
pub(super) fn needs_locks(context: Context<'_>, obstacle: Errno) -> Error {
    let journal = beside(context.path, JOURNAL);
    let what = if may_be_hot(&journal) {
        format!("{} is of a change that was cut off, which cannot be undone here", journal.display())
    } else {
        format!(
            "{} holds commits, and its index {} can be neither opened nor made by this user",
            beside(context.path, LOG).display(),
            beside(context.path, "-shm").display(),
        )
    };
    let reason = format!(
        "{what}: copy both files to a directory that can be written, or let a user who may write here open and close the store"
    );
    Error::errno(context.path, context.operation, obstacle.raw_os_error(), reason)
}

/// For a read during which the file changed.
pub(super) fn changed(context: Context<'_>) -> Error {
    let reason = "another process began to write while it was read without locks; read again".to_owned();
    Error::errno(context.path, context.operation, libc::EAGAIN, reason)
}

fn is_empty_or_missing(path: &Path) -> bool {
    match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.is_file() && metadata.len() == 0,
        Err(error) => error.kind() == ErrorKind::NotFound,
    }
}

/// Whether a rollback journal may be that of a change that was cut off; the first byte of one that is over is zero.
fn may_be_hot(path: &Path) -> bool {
    let mut first = [0];
    match File::open(path).and_then(|mut journal| journal.read_exact(&mut first)) {
        Ok(()) => first != [0],
        Err(error) => !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::UnexpectedEof),
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test makes files as other programs do")]
mod tests {
    use super::*;

    #[test]
    fn a_uri_escapes_what_has_a_meaning_in_it() {
        assert_eq!(uri(Path::new("/a b/ü%?#/logs.db")), Path::new("file:///a%20b/%C3%BC%25%3F%23/logs.db?immutable=1"));
    }

    #[test]
    fn what_holds_is_a_file_without_a_log() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("logs.db");
        fs::write(&path, "x").unwrap();
        let still = Still::of(&path).unwrap();
        assert!(still.holds(&path));
        fs::write(beside(&path, "-wal"), "").unwrap();
        assert!(still.holds(&path));
        fs::write(beside(&path, "-wal"), "commits").unwrap();
        assert!(!still.holds(&path) && Still::of(&path).is_none());
        fs::remove_file(beside(&path, "-wal")).unwrap();
        for (journal, holds) in [("", true), ("\0\0\0", true), ("\u{d9}", false)] {
            fs::write(beside(&path, "-journal"), journal).unwrap();
            assert_eq!(still.holds(&path), holds, "{journal:?}");
        }
        fs::remove_file(beside(&path, "-journal")).unwrap();
        fs::write(&path, "xy").unwrap();
        assert!(!still.holds(&path));
    }
}
