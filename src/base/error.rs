//! The one error type of the core. Each variant carries the facts as fields and prints them on one line, with the way
//! out; `py::error` turns each into its Python exception.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::base::digest::Digest;
use crate::base::status::RunStatus;

/// The result of every fallible function of the core.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that can go wrong.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The store was used after `close`.
    #[error("the store is closed; open it again")]
    Closed {
        /// The database.
        path: PathBuf,
    },
    /// A forked child used the handle of its parent.
    #[error("this process was forked from the one that opened the store; open the store again in the child")]
    Forked {
        /// The database or directory.
        path: PathBuf,
    },
    /// A forked child cannot use SQLite at all: a thread of its parent hung in a system call of SQLite at the fork.
    #[error(
        "this process was forked while another thread hung in a system call of SQLite, and cannot open stores; fork again"
    )]
    ForkedAmidWork {
        /// The database.
        path: PathBuf,
    },
    /// Another connection held the lock for too long.
    #[error("still locked by another process after {timeout:?} ({operation}); try again, or raise busy_timeout")]
    Busy {
        /// The database.
        path: PathBuf,
        /// What was being done.
        operation: &'static str,
        /// How long was waited.
        timeout: Duration,
    },
    /// The disk, the quota or the file size limit is exhausted.
    #[error("no space left ({operation}); nothing was acknowledged: free some space and try again")]
    Full {
        /// The file or directory.
        path: PathBuf,
        /// What was being done.
        operation: &'static str,
        /// The system's error number: ENOSPC, EDQUOT or EFBIG.
        errno: i32,
    },
    /// A file that is open was moved, removed or replaced: what would be written now, no later opening would find.
    #[error(
        "{} {what} ({operation}): nothing is acknowledged; put the file back, or close the store and open it again",
        path.display()
    )]
    Moved {
        /// The database, or its write-ahead log.
        path: PathBuf,
        /// What was being done.
        operation: &'static str,
        /// What was found at the path.
        what: &'static str,
    },
    /// The system refused or failed an operation.
    #[error("{operation}: {reason}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was being done.
        operation: &'static str,
        /// The system's error number.
        errno: i32,
        /// The system's or SQLite's words.
        reason: String,
    },
    /// A flush failed: the bytes or directory entries may be lost, and a second flush would not tell. Raised by
    /// `durable` alone; a handle that gets it is poisoned.
    #[error("{operation}: {reason}")]
    Flush {
        /// The file or directory.
        path: PathBuf,
        /// What was being done.
        operation: &'static str,
        /// The system's error number, which may be ENOSPC.
        errno: i32,
        /// The system's words.
        reason: String,
    },
    /// A flush failed earlier, so that it is unknown what is on the disk.
    #[error(
        "an earlier flush to disk failed ({reason}); this handle refuses further writes: close it and open it again"
    )]
    Poisoned {
        /// The database.
        path: PathBuf,
        /// What the failed flush reported.
        reason: String,
        /// The system's error number of the failed flush.
        errno: i32,
    },
    /// A file is not what it should be.
    #[error("{}: {reason}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Something inside a database is not what it should be; `db` adds the path, which makes it [`Error::Corrupt`].
    #[error("{what}: {reason}{}", way_out.map(|way_out| format!("; {way_out}")).unwrap_or_default())]
    Damaged {
        /// The row or structure.
        what: String,
        /// What is wrong with it.
        reason: String,
        /// What to do about it, where something can be done.
        way_out: Option<&'static str>,
    },
    /// The database belongs to a newer version or to another application.
    #[error("{}: {reason}; it was left untouched", path.display())]
    SchemaVersion {
        /// The database.
        path: PathBuf,
        /// The version in the file.
        found: i32,
        /// The newest version known here.
        supported: i32,
        /// Which of the two it is, and the way out.
        reason: String,
    },
    /// A run cannot take the state asked for.
    #[error("run {}: {reason}", quoted(run_id))]
    IllegalTransition {
        /// The run.
        run_id: String,
        /// Its state; None: there is no such run.
        from: Option<RunStatus>,
        /// The state asked for.
        to: RunStatus,
        /// What would have been allowed.
        allowed: Vec<RunStatus>,
        /// The sentence for people.
        reason: String,
    },
    /// A run that was to be created is there already.
    #[error("run {} is there already ({}, {status}); {way_out}", quoted(run_id), quoted(workflow))]
    RunExists {
        /// The run.
        run_id: String,
        /// The workflow that it is a run of.
        workflow: String,
        /// Its state.
        status: RunStatus,
        /// What to do about it.
        way_out: &'static str,
    },
    /// The claim that a call carried is not its run's newest any more.
    #[error(
        "the claim {token} on run {} is lost: {reason}; nothing was changed, and the run is not the claimant's any more",
        quoted(run_id)
    )]
    ClaimLost {
        /// The run.
        run_id: String,
        /// The claim's token.
        token: i64,
        /// What became of it.
        reason: String,
    },
    /// An idempotency key was given again, with another row.
    #[error(
        "key {} was given with row {first_id} ({first}), and now with another row ({given}); a key belongs to one row: choose another",
        quoted(key)
    )]
    Idempotency {
        /// The key.
        key: String,
        /// The id of the row that it was given with.
        first_id: i64,
        /// What is known of that row.
        first: String,
        /// The row that it is given with now.
        given: String,
    },
    /// The archive cannot do what was asked.
    #[error("{}: {reason}", path.display())]
    Archive {
        /// The file or directory.
        path: PathBuf,
        /// Why, and the way out.
        reason: String,
    },
    /// Rows of the log and of a file have the same id.
    #[error("{}: {reason}", path.display())]
    IdConflict {
        /// The file.
        path: PathBuf,
        /// Which ids, and the way out.
        reason: String,
    },
    /// What is needed lies in another place, which cannot be reached.
    #[error("{place}: {reason}")]
    Unavailable {
        /// The place, as a URL without credentials.
        place: String,
        /// Why, and the way out.
        reason: String,
    },
    /// Another archive job is under way.
    #[error("another archive job is under way in {}; wait for it to end", path.display())]
    ArchiveBusy {
        /// The archive directory.
        path: PathBuf,
    },
    /// An archive file is damaged.
    #[error("{}: {reason}", path.display())]
    ArchiveCorrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the line.
        reason: String,
    },
    /// A blob's bytes do not have its digest.
    #[error(
        "{}: the bytes on disk have the sha256 {actual}, not {hash}; write the content again to repair it",
        path.display()
    )]
    BlobCorrupt {
        /// The digest asked for.
        hash: Digest,
        /// The digest found.
        actual: Digest,
        /// The file.
        path: PathBuf,
    },
    /// There is no such blob.
    #[error("no blob under {}", quoted(hash))]
    BlobNotFound {
        /// What was asked for.
        hash: String,
        /// Where it would be, or the store's root.
        path: PathBuf,
    },
    /// An argument is out of its range.
    #[error("{0}")]
    Value(String),
    /// The call was cancelled, or its progress report asked to stop.
    #[error("the call was cancelled")]
    Cancelled,
    /// The call paused before it had changed anything; its caller begins it again. Never leaves the bindings.
    #[error("the call paused")]
    Paused,
    /// A statement took longer than it was allowed to.
    #[error("the statement did not end within its timeout")]
    TimedOut,
    /// An error of SQLite that has not been given its place yet; `db` turns it into one of the others.
    #[error(transparent)]
    Sqlite(Arc<rusqlite::Error>),
    /// A panic: in the leader of a shared commit, or in a thread of a pool.
    #[error("an internal error ended the work that the call was part of; please report it")]
    Internal,
}

/// What the system says of a file or directory that cannot be read while others can: of another kind, of another user, or
/// damaged on the disk.
const UNREADABLE: &[i32] = &[
    libc::EISDIR,
    libc::ELOOP,
    libc::EINVAL,
    libc::EACCES,
    libc::EPERM,
    libc::EIO,
    libc::EBADMSG,
    #[cfg(target_os = "linux")]
    libc::EUCLEAN,
    libc::ENXIO,
    libc::ENODEV,
];

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(Arc::new(error))
    }
}

impl Error {
    /// The error of a system call on `path`; a full disk becomes [`Error::Full`].
    pub fn io(path: &Path, operation: &'static str, error: &io::Error) -> Self {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        Self::errno(path, operation, errno, words_of(error))
    }

    /// The same from a bare error number.
    pub fn errno(path: &Path, operation: &'static str, errno: i32, reason: String) -> Self {
        let path = path.to_owned();
        match errno {
            libc::ENOSPC | libc::EDQUOT | libc::EFBIG => Self::Full { path, operation, errno },
            _ => Self::Io { path, operation, errno, reason },
        }
    }

    /// A failed flush of `path`.
    pub fn flush(path: &Path, operation: &'static str, error: &io::Error) -> Self {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        Self::Flush { path: path.to_owned(), operation, errno, reason: words_of(error) }
    }

    /// The same error, but for a value in the database that is none of ours: that is damage to `what`.
    pub(crate) fn or_damaged(self, what: &str, way_out: &'static str) -> Self {
        match self {
            Self::Sqlite(error) if error.sqlite_error().is_none() => {
                Self::Damaged { what: what.to_owned(), reason: error.to_string(), way_out: Some(way_out) }
            }
            other => other,
        }
    }

    /// Whether it says that one file or directory cannot be read, and not that nothing can.
    pub(crate) fn is_unreadable(&self) -> bool {
        matches!(self, Self::Io { errno, .. } if UNREADABLE.contains(errno))
    }

    /// The same of what is at `path`, or below it.
    pub(crate) fn is_unreadable_at(&self, path: &Path) -> bool {
        self.is_unreadable() && matches!(self, Self::Io { path: found, .. } if found.starts_with(path))
    }

    /// A file that is not what it should be.
    pub fn corrupt(path: &Path, reason: impl Into<String>) -> Self {
        Self::Corrupt { path: path.to_owned(), reason: reason.into() }
    }
}

/// The system's words for an error, without the number, which Python shows by itself.
pub(crate) fn words_of(error: &io::Error) -> String {
    let words = error.to_string();
    words.rsplit_once(" (os error").map_or(words.clone(), |(words, _)| words.to_owned())
}

/// What a message shows of a text of the user's, which may have 64 KiB: on one line, with the escapes that Python has.
pub(crate) fn quoted(text: &str) -> String {
    const MOST: usize = 64;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", escaped(&text[..end])),
        None => escaped(text),
    }
}

fn escaped(text: &str) -> String {
    let shown = format!("{text:?}");
    let mut whole = String::with_capacity(shown.len());
    let mut rest = shown.as_str();
    while let Some((before, escape)) = rest.split_once('\\') {
        whole.push_str(before);
        let code = match escape.strip_prefix("u{").and_then(|escape| escape.split_once('}')) {
            Some((digits, after)) => u32::from_str_radix(digits, 16).ok().map(|code| (code, after)),
            None => escape.strip_prefix('0').map(|after| (0, after)),
        };
        rest = match code {
            Some((code, after)) => {
                whole.push_str(&match code {
                    0..0x100 => format!("\\x{code:02x}"),
                    0x100..0x1_0000 => format!("\\u{code:04x}"),
                    _ => format!("\\U{code:08x}"),
                });
                after
            }
            None => {
                let (plain, after) = escape.split_at(1);
                whole.push('\\');
                whole.push_str(plain);
                after
            }
        };
    }
    whole + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_shown_as_python_would_on_one_line() {
        for (text, shown) in [
            ("run-1", r#""run-1""#),
            ("é\u{1f600}", "\"é\u{1f600}\""),
            ("a\0\u{7}\n\t\r", r#""a\x00\x07\n\t\r""#),
            ("\u{200b}\u{e0001}\u{85}", r#""\u200b\U000e0001\x85""#),
            (r#"'"\"#, r#""'\"\\""#),
            (r"\u{7}\0", r#""\\u{7}\\0""#),
            ("\\\0", r#""\\\x00""#),
        ] {
            assert_eq!(quoted(text), shown);
        }
        assert_eq!(quoted(&"é".repeat(65)), format!("\"{}\"…", "é".repeat(64)));
    }

    #[test]
    fn the_words_of_the_system_have_no_number() {
        assert_eq!(words_of(&io::Error::from_raw_os_error(libc::ENOENT)), "No such file or directory");
        assert_eq!(words_of(&io::Error::other("of ours")), "of ours");
    }
}
