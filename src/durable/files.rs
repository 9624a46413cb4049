//! Files and directories by their paths.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::durability::Durability;
use super::sync::sync_parent;
use crate::base::error::{Error, Result};

/// Creates `directory` and what is missing above it, each with mode 0700 and, when full, synced into its parent.
pub fn create_directories(directory: &Path, durability: Durability) -> Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    if let Some(parent) = directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        create_directories(parent, durability)?;
    }
    match DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => sync_parent(directory, durability),
        // Another process was faster; or it is no directory, which is the caller's error.
        Err(error) if error.kind() == ErrorKind::AlreadyExists && directory.is_dir() => Ok(()),
        Err(error) => Err(Error::io(directory, "create a directory", &error)),
    }
}

/// Removes a file; says whether there was one.
pub fn remove(path: &Path, durability: Durability) -> Result<bool> {
    match std::fs::remove_file(path) {
        Ok(()) => sync_parent(path, durability).map(|()| true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io(path, "remove a file", &error)),
    }
}

/// Opens a regular file for reading; None if there is nothing. A symbolic link is not followed, and anything but a
/// regular file is an error (opening a fifo does not block).
pub fn open_regular(path: &Path) -> Result<Option<File>> {
    let opened =
        OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC).open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            return Err(Error::errno(
                path,
                "open a file",
                libc::ELOOP,
                "it is a symbolic link, which is not followed".into(),
            ));
        }
        Err(error) => return Err(Error::io(path, "open a file", &error)),
    };
    let kind = file.metadata().map_err(|error| Error::io(path, "look at a file", &error))?.file_type();
    if kind.is_file() {
        return Ok(Some(file));
    }
    let errno = if kind.is_dir() { libc::EISDIR } else { libc::EINVAL };
    Err(Error::errno(path, "open a file", errno, format!("it is {}, not a regular file", kind_name(kind))))
}

/// What kind of file it is, for a message.
pub fn kind_name(kind: std::fs::FileType) -> &'static str {
    if kind.is_dir() {
        "a directory"
    } else if kind.is_symlink() {
        "a symbolic link"
    } else if kind.is_file() {
        "a regular file"
    } else {
        "a special file"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn directories_are_private() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("a/b");
        create_directories(&deep, Durability::Full).unwrap();
        create_directories(&deep, Durability::Full).unwrap();
        assert_eq!(std::fs::metadata(&deep).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn only_regular_files_are_opened() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("file"), b"").unwrap();
        symlink(path("file"), path("link")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, path("fifo"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(open_regular(&path("file")).unwrap().is_some());
        assert!(open_regular(&path("missing")).unwrap().is_none());
        for name in ["link", "fifo", "."] {
            assert!(matches!(open_regular(&path(name)), Err(Error::Io { .. })), "{name}");
        }
    }
}
