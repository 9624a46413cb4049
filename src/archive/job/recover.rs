//! Resolving what an interrupted job left: a file that was about to be published either was or was not.

use crate::archive::file::format;
use crate::archive::file::format::Format;
use crate::archive::manifest::catalog::Archive;
use crate::archive::manifest::days::State;
use crate::archive::manifest::{days, expired};
use crate::base::error::{Error, Result};
use crate::durable;
use crate::durable::Durability;

impl Archive {
    /// A publication that was interrupted has either happened or not.
    pub(crate) fn recover(&self) -> Result<()> {
        for day in self.log.database().read("read the manifest", expired::pending)? {
            self.remove_expired(day)?;
        }
        for day in self.log.database().read("read the manifest", days::pending)? {
            let found = match self.open_here(day) {
                Ok(found) => Some(found.summary),
                // A day that had no file before, and has none.
                Err(Error::ArchiveCorrupt { .. } | Error::Archive { .. }) => None,
                Err(error) => return Err(error),
            };
            let path = format::path_of(self.directory(), day, Format::Plain);
            // The entry may not have been synced when the job was killed.
            durable::sync_parent(&path, Durability::Full)?;
            let [pending, replaced] = self.log.database().read("read the manifest", |connection| {
                Ok([State::Pending, State::Current].map(|state| days::load(connection, day, state)))
            })?;
            let (pending, replaced) = (pending?, replaced?);
            let is_published = found.zip(pending.as_ref()).is_some_and(|(found, pending)| found.is_same_file(pending));
            if let (true, Some(pending), Some(replaced)) = (is_published, pending, replaced)
                && pending.format != replaced.format
            {
                durable::remove(&format::path_of(self.directory(), day, replaced.format), Durability::Full)?;
            }
            self.log.database().write("write the manifest", None, |connection| match is_published {
                true => days::promote(connection, day),
                false => days::forget(connection, day, State::Pending),
            })?;
        }
        Ok(())
    }
}
