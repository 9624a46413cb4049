//! What was seen of the archive's directory, so that a file is only read again when it has changed.

use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::archive::file::format::Format;
use crate::archive::file::remains::Remains;
use crate::archive::file::summary::{Part, Summary};
use crate::base::digest::Digest;
use crate::base::error::Error;
use crate::base::time::UtcDay;

/// A day and the format of a file of it.
pub(crate) type DayFile = (UtcDay, Format);

/// The files of the directory, in order.
pub(crate) type Files = Arc<[DayFile]>;

/// What tells one state of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) size: u64,
    pub(crate) modified: SystemTime,
    inode: u64,
}

impl Stamp {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        Self { size: metadata.len(), modified, inode: metadata.ino() }
    }
}

impl Stamp {
    /// The same of what another call says of the file.
    #[expect(clippy::unnecessary_cast, reason = "the types of the fields depend on the platform")]
    pub(crate) fn of_stat(stat: &rustix::fs::Stat) -> Self {
        let seconds = u64::try_from(stat.st_mtime as i64).unwrap_or(0);
        let nanoseconds = u32::try_from(stat.st_mtime_nsec as i64).unwrap_or(0);
        let modified = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds);
        Self { size: stat.st_size as u64, modified, inode: stat.st_ino as u64 }
    }
}

/// What was seen of the directory.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) listing: Option<(SystemTime, Files)>,
    /// Files that were read whole, because the manifest does not describe what they are.
    pub(crate) examined: HashMap<DayFile, (Stamp, Arc<Examined>)>,
    /// Files that were changed after the manifest described them, and are nevertheless what it says.
    pub(crate) unchanged: HashMap<DayFile, (Stamp, Digest)>,
    /// By what a file is and what the manifest says of it, whether it only has rows besides.
    pub(crate) grown: HashMap<DayFile, ((Digest, Digest), bool)>,
    /// The directory's mark, as of a state of its file.
    pub(crate) mark: Option<(Stamp, Arc<Mark>)>,
}

/// Whose archive it is, as a file in it says.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Mark {
    /// The identity of the database.
    pub(crate) id: String,
    /// Where the database was when the mark was made, as seen from the directory.
    pub(crate) database: String,
}

/// A file that was read from end to end.
pub(crate) enum Examined {
    Whole(Arc<Unlisted>),
    Damaged(Box<DamagedFile>),
}

/// A file that the manifest does not list.
pub(crate) struct Unlisted {
    pub(crate) summary: Summary,
    pub(crate) refs: Part,
}

/// A file that is damaged.
pub(crate) struct DamagedFile {
    /// What is wrong with it.
    pub(crate) error: Error,
    pub(crate) remains: Remains,
    /// The greatest id that had been given out when it was examined: no row in it has a greater one.
    pub(crate) bound: i64,
}
