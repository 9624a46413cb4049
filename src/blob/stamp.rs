//! What the file system says of a file, by which a change is noticed without reading it.

use rustix::fs::Stat;

/// In nanoseconds.
const SECOND: i128 = 1_000_000_000;

/// What changes when a file changes or is replaced by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) size: u64,
    /// When it was last written, in nanoseconds since the epoch.
    pub(super) modified_ns: i128,
    /// When it was last written, renamed, linked, or had its times set: what no program can set.
    pub(super) changed_ns: i128,
}

impl Stamp {
    #[expect(clippy::cast_lossless, reason = "the types differ between systems")]
    #[cfg_attr(target_os = "linux", expect(clippy::unnecessary_cast, reason = "elsewhere it is an i32"))]
    pub(super) fn of(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev as u64,
            inode: stat.st_ino,
            size: stat.st_size.unsigned_abs(),
            modified_ns: stat.st_mtime as i128 * SECOND + stat.st_mtime_nsec as i128,
            changed_ns: stat.st_ctime as i128 * SECOND + stat.st_ctime_nsec as i128,
        }
    }

    /// Whether both are of one file, with as many bytes.
    pub(super) fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode, self.size) == (other.device, other.inode, other.size)
    }
}
