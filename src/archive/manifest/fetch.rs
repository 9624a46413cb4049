//! Days whose files lie in an object store: opening them, and moving a file there. `manifest::remote` says which they are.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::archive::file::format::path_of;
use crate::archive::file::reader::DayReader;
use crate::archive::file::summary::Summary;
use crate::archive::manifest::catalog::Archive;
use crate::archive::manifest::days::{self, State};
use crate::archive::manifest::remote::{self, ObjectState, Remote, RemoteObject};
use crate::archive::manifest::seen::Examined;
use crate::base::digest::Digest;
use crate::base::error::{Error, Result};
use crate::base::interrupt::check_rows;
use crate::base::time::UtcDay;
use crate::durable;
use crate::durable::{DirectoryLock, Durability};

const OPERATION: &str = "note where a day is";
/// How often a file is fetched anew that was dropped from the cache before it was opened.
const TRIES: usize = 8;

impl Archive {
    /// Reads the days that lie in an object store from there; has no effect the second time.
    pub fn attach(&self, remote: Arc<dyn Remote>) {
        let _ = self.remote.set(remote);
    }

    /// Reads them from where the store of `other` does.
    pub fn attach_as(&self, other: &Self) {
        if let Some(remote) = other.remote.get() {
            self.attach(Arc::clone(remote));
        }
    }

    /// All objects that hold days, or may.
    pub fn objects(&self) -> Result<Vec<RemoteObject>> {
        self.log.database().read("read the manifest", remote::list)
    }

    /// Notes an object that is about to be sent; false if the day's file is another one by now. The caller holds the
    /// archive's lock.
    pub fn begin_upload(&self, object: &RemoteObject) -> Result<bool> {
        self.log.database().write(OPERATION, Some(Durability::Full), |connection| remote::begin(connection, object))
    }

    /// Notes that an object was read back, and is the day's; false if the day's file is another one by now. The caller
    /// holds the archive's lock.
    pub fn finish_upload(&self, key: &str) -> Result<bool> {
        self.log.database().write(OPERATION, Some(Durability::Full), |connection| remote::finish(connection, key))
    }

    /// Notes that an object is to be deleted. The caller holds the archive's lock.
    pub fn supersede_object(&self, key: &str) -> Result<()> {
        self.log.database().write(OPERATION, Some(Durability::Full), |connection| remote::supersede(connection, key))
    }

    /// Forgets an object. The caller holds the archive's lock.
    pub fn forget_object(&self, key: &str) -> Result<()> {
        self.log.database().write(OPERATION, Some(Durability::Full), |connection| remote::forget(connection, key))
    }

    /// Removes the file of a day that is the content of its current object; false if it is not. The caller holds the
    /// archive's lock.
    pub fn release(&self, day: UtcDay) -> Result<bool> {
        let released = self.log.database().read("read the manifest", |connection| {
            let listed = days::load(connection, day, State::Current)?;
            let is_pending = days::load(connection, day, State::Pending)?.is_some();
            let Some(listed) = listed.filter(|_| !is_pending) else { return Ok(None) };
            Ok(remote::of_file(connection, day, listed.sha256)?.map(|_| listed.format))
        })?;
        let Some(format) = released else { return Ok(false) };
        durable::remove(&path_of(self.directory(), day, format), Durability::Full)?;
        self.forget_seen();
        Ok(true)
    }

    /// The lock of archive jobs, for those who move files elsewhere.
    pub fn lock_for_moving(&self, wait: Duration) -> Result<DirectoryLock> {
        self.log.database().check_writable("archive")?;
        self.check_owner()?;
        self.lock(wait)
    }

    /// The identity of the database, once it has one.
    pub fn identity(&self) -> Option<&str> {
        self.identity.get().map(String::as_str)
    }

    /// The object that holds a file, if it is current.
    pub(in crate::archive) fn object_of(&self, day: UtcDay, sha256: Digest) -> Result<Option<RemoteObject>> {
        self.log.database().read("read the manifest", |connection| remote::of_file(connection, day, sha256))
    }

    /// Opens the file of a day that lies in an object store; None if none does.
    pub(in crate::archive) fn open_remote(&self, summary: &Summary) -> Result<Option<DayReader>> {
        let Some(object) = self.object_of(summary.day, summary.sha256)? else { return Ok(None) };
        self.open_object(&object).map(Some)
    }

    fn open_object(&self, object: &RemoteObject) -> Result<DayReader> {
        let file = self.fetch_object(object)?;
        DayReader::of(file, PathBuf::from(object.url()), object.day, remote::format_of(object))
    }

    /// The content of an object, as an open file.
    pub(in crate::archive) fn fetch_object(&self, object: &RemoteObject) -> Result<File> {
        let Some(remote) = self.remote.get() else {
            let reason = format!(
                "the day {} lies there, and this store was opened without it: open it as Store(directory, remote=…)",
                object.day
            );
            return Err(Error::Unavailable { place: object.url(), reason });
        };
        // It may take long, and is better not begun in the thread that looks at signals.
        check_rows(u64::MAX)?;
        for _ in 0..TRIES {
            if let Some(file) = remote.fetch(object)? {
                return Ok(file);
            }
        }
        let reason = "its file is dropped from the cache before it can be opened: give the cache more room".to_owned();
        Err(Error::Unavailable { place: object.url(), reason })
    }

    /// What an object holds, read from end to end.
    pub(in crate::archive) fn examine_object(&self, object: &RemoteObject) -> Result<Option<Arc<Examined>>> {
        Ok(self.read_opened(&|| self.open_object(object).map(Some))?.map(Arc::new))
    }

    /// The current objects of days.
    pub(in crate::archive) fn current_objects(&self) -> Result<Vec<RemoteObject>> {
        let mut objects = self.objects()?;
        objects.retain(|object| object.state == ObjectState::Current);
        Ok(objects)
    }
}
