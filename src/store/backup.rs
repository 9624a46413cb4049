//! Backups: the database alone, or the whole directory.
//!
//! Invariants: what lies at the target is whole at every instant, or says that it is not; each row that was acknowledged
//! before the backup began is in it. So the database is copied first and published last: files only ever gain rows, and a
//! database that is older than the archive beside it is one that the store knows how to open.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::archive;
use crate::base::error::{Error, Result};
use crate::base::interrupt::check;
use crate::base::progress::Progress;
use crate::db::{Config, UNFINISHED_BACKUP, has_rollback_journal, look_into};
use crate::durable::{self, Copied, DirectoryLock, Durability, Staged, create_empty, is_same_file};
use crate::log;
use crate::store::handle::{LogStore, StoreConfig};

const OPERATION: &str = "back up";

/// What a backup did.
#[derive(Clone, Debug, Default)]
pub struct Backup {
    /// Where it is.
    pub path: PathBuf,
    /// Bytes of the copy of the database.
    pub database_bytes: u64,
    /// The greatest id that had been given out when the copy was made.
    pub last_id: Option<i64>,
    /// The day files.
    pub days: Copied,
    /// The blobs.
    pub blobs: Copied,
}

/// Copies the blobs into the directory that it is given, and tells how many bytes it has done.
pub type CopyBlobs<'a> = dyn FnMut(&Path, &mut dyn FnMut(u64) -> Result<()>) -> Result<Copied> + 'a;

/// A copy of the database that has no name yet.
struct CopiedDatabase {
    staged: Staged,
    size: u64,
    last_id: Option<i64>,
}

impl LogStore {
    /// Copies the database to the file at `target`, which may hold an older copy of it.
    pub fn backup_database(&self, target: &Path, progress: &mut Progress<'_>) -> Result<Backup> {
        self.log().database().check_open()?;
        self.check_apart(target)?;
        let target = resolved(target)?;
        self.check_place(&target)?;
        let directory = target.parent().unwrap_or(Path::new("/"));
        // A failure is of no consequence: the next backup tries again.
        let _ = durable::sweep_orphaned(directory);
        let copy = self.copy_database(directory, progress)?;
        self.check_copy(&copy, self.archive().directory())?;
        let backup =
            Backup { path: target.clone(), database_bytes: copy.size, last_id: copy.last_id, ..Backup::default() };
        self.check_place(&target)?;
        copy.staged.publish(&target, Durability::Full)?;
        Ok(backup)
    }

    /// Copies the database, the archive and the blobs to the directory `target`, which may hold an older backup; then only
    /// what is new is copied. `blob_bytes` is how much `copy_blobs` has to do.
    pub fn backup(
        &self,
        target: &Path,
        blob_bytes: u64,
        copy_blobs: &mut CopyBlobs<'_>,
        progress: &mut Progress<'_>,
    ) -> Result<Backup> {
        self.log().database().check_open()?;
        self.check_apart(target)?;
        durable::create_directories(target, Durability::Full)?;
        let target = std::fs::canonicalize(target).map_err(|error| Error::io(target, OPERATION, &error))?;
        if self.log().database().path().parent().is_some_and(|own| is_same_file(own, &target)) {
            return Err(Error::Value(format!("{} is the store itself: choose another target", target.display())));
        }
        let busy = || {
            let reason = "another backup is writing to it; wait for it to end".to_owned();
            Error::errno(&target, OPERATION, libc::EBUSY, reason)
        };
        let _lock = DirectoryLock::try_exclusive(&target)?.ok_or_else(busy)?;
        let database = target.join("logs.db");
        let mark = target.join(UNFINISHED_BACKUP);
        self.check_place(&database)?;
        if !database.exists() {
            create_empty(&mark, Durability::Full)?;
        }
        // Its owner holds the lock.
        for staging in ["", "archive/logs", "blobs/.staging"] {
            durable::sweep_staged(&target.join(staging))?;
        }
        let (mut done, file_bytes) = (0, self.archive().size()? + blob_bytes);
        let mut copy = self.copy_database(&target, &mut |copied, bytes| {
            done = copied;
            progress(copied, bytes + file_bytes)
        })?;
        let total = copy.size + file_bytes;
        let mut advance = |bytes: u64| {
            done += bytes;
            progress(done.min(total), total)
        };
        let archive = target.join("archive/logs");
        let (mut days, mut files) = self.archive().copy_to(&archive, &mut advance)?;
        while look_into(&copy.staged.path(), |connection| self.archive().has_lost_rows_of(connection))? {
            // A day expired before its file was copied. The database as it is now knows that.
            copy = self.copy_database(&target, &mut |_, _| check())?;
            let (later, now) = self.archive().copy_to(&archive, &mut |_| check())?;
            (days, files) = (days.and_then(later), now);
        }
        let blobs = copy_blobs(&target.join("blobs"), &mut advance)?;
        self.check_copy(&copy, &archive)?;
        let backup = Backup { path: target.clone(), database_bytes: copy.size, last_id: copy.last_id, days, blobs };
        // It may have been put to use meanwhile.
        self.check_place(&database)?;
        copy.staged.publish(&database, Durability::Full)?;
        durable::remove(&mark, Durability::Full)?;
        self.archive().remove_replaced(&archive, &files)?;
        progress(total, total)?;
        Ok(backup)
    }

    /// An error if the target is among the files of the store, where a backup would take those of jobs for its own.
    fn check_apart(&self, target: &Path) -> Result<()> {
        let own = self.log().database().path().parent().unwrap_or(Path::new("/"));
        let parts = ["archive", "blobs", "cache"].map(|part| own.join(part));
        let place = real(target)?;
        for part in parts.iter().map(PathBuf::as_path).chain([self.archive().directory()]) {
            if place.starts_with(real(part)?) {
                let reason = "is a part of the store: choose another target";
                return Err(Error::Value(format!("{} {reason}", place.display())));
            }
        }
        Ok(())
    }

    /// An error unless there is nothing at `target`, or a backup of this database that was not put to use since.
    fn check_place(&self, target: &Path) -> Result<()> {
        if std::fs::symlink_metadata(target).is_err() {
            return Ok(());
        }
        let own = self.log().database().path();
        if is_same_file(own, target) {
            return Err(Error::Value(format!("{} is the store itself: choose another target", target.display())));
        }
        let refused = |reason: &str| {
            Err(Error::errno(target, OPERATION, libc::EEXIST, format!("{reason}; choose another target")))
        };
        let found = look_into(target, |connection| {
            Ok((has_rollback_journal(connection)?, archive::identity_of(connection)?, log::last_given_id(connection)?))
        });
        let here = self
            .log()
            .database()
            .read(OPERATION, |connection| Ok((archive::identity_of(connection)?, log::last_given_id(connection)?)))?;
        match found {
            Ok((true, identity, last)) if identity.is_some() && identity == here.0 => {
                if last > here.1 {
                    refused("it is a newer backup than this database")
                } else {
                    Ok(())
                }
            }
            Ok((false, ..)) => {
                refused("it is a database in use, no backup: a backup that was opened for writing is one")
            }
            Err(error @ (Error::Cancelled | Error::Busy { .. } | Error::Io { .. })) => Err(error),
            Ok(_) | Err(_) => refused("it is no backup of this database"),
        }
    }

    fn copy_database(&self, directory: &Path, progress: &mut Progress<'_>) -> Result<CopiedDatabase> {
        let staged = Staged::create(directory)?;
        let size = self.log().database().copy_into(&staged, progress)?;
        let last = look_into(&staged.path(), log::last_given_id)?;
        Ok(CopiedDatabase { staged, size, last_id: (last != i64::MIN).then_some(last) })
    }

    /// An error if the copy is damaged, as the database then is.
    fn check_copy(&self, copy: &CopiedDatabase, archive: &Path) -> Result<()> {
        let config = StoreConfig {
            database: Config { read_only: true, busy_timeout: Duration::from_secs(5), ..Config::default() },
            segment_rows: None,
            archive_directory: Some(archive.to_owned()),
        };
        let problems = Self::open(&copy.staged.path(), config, &mut |_, _| check()).and_then(|opened| {
            opened.archive().attach_as(self.archive());
            let verified = Arc::clone(opened.archive()).verify_rows(&mut |_, _| check());
            opened.close()?;
            Ok(verified?.problems)
        });
        let first = match problems {
            Ok(problems) => match problems.into_iter().next() {
                None => return Ok(()),
                Some(problem) => problem.reason,
            },
            Err(Error::Corrupt { reason, .. }) => reason,
            Err(error) => return Err(error),
        };
        let reason = format!(
            "no backup was made, because the database is damaged ({first}); verify() says more, and salvage() saves what can be read"
        );
        Err(Error::corrupt(self.log().database().path(), reason))
    }
}

/// The absolute path, without symbolic links as far as it exists.
fn real(path: &Path) -> Result<PathBuf> {
    let path = std::path::absolute(path).map_err(|error| Error::io(path, OPERATION, &error))?;
    for ancestor in path.ancestors() {
        if let (Ok(found), Ok(rest)) = (std::fs::canonicalize(ancestor), path.strip_prefix(ancestor)) {
            return Ok(found.join(rest));
        }
    }
    Ok(path)
}

/// The absolute path of a file, whose directory is made if it is missing.
fn resolved(target: &Path) -> Result<PathBuf> {
    let failed = |error: &std::io::Error| Error::io(target, OPERATION, error);
    let target = std::path::absolute(target).map_err(|error| failed(&error))?;
    let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
        return Err(Error::Value(format!("no path of a file: {}", target.display())));
    };
    if target.is_dir() {
        return Err(Error::errno(
            &target,
            OPERATION,
            libc::EISDIR,
            "it is a directory: give the path of a file".into(),
        ));
    }
    durable::create_directories(parent, Durability::Full)?;
    Ok(std::fs::canonicalize(parent).map_err(|error| failed(&error))?.join(name))
}
