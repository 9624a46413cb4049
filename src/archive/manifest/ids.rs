//! Which ids are in files: what `verify` and a job compare the log and its index with.

use roaring::RoaringTreemap;

use crate::archive::manifest::catalog::Archive;
use crate::archive::manifest::days;
use crate::archive::manifest::days::{Listed, State};
use crate::archive::manifest::examine::is_of_the_file;
use crate::archive::manifest::seen::{DayFile, Examined};
use crate::base::error::{Error, Result};

impl Archive {
    /// The ids in the files that the manifest lists.
    pub(crate) fn listed_rows(&self) -> Result<RoaringTreemap> {
        let mut ids = RoaringTreemap::new();
        for listed in self.log.database().read("read the manifest", days::list)? {
            ids |= self.listed_ids(&listed)?;
        }
        Ok(ids)
    }

    /// The ids in the files, as far as they can be read.
    pub(in crate::archive) fn archived_ids(&self, days: &[Listed], unlisted: &[DayFile]) -> Result<RoaringTreemap> {
        let mut archived = RoaringTreemap::new();
        for listed in days {
            archived |= self.listed_ids(listed)?;
        }
        for file in unlisted {
            match self.examine(*file) {
                // What is damaged is reported where the file is checked.
                Ok(Some(examined)) => {
                    if let Examined::Whole(unlisted) = &*examined {
                        archived |= &unlisted.summary.ids;
                    }
                }
                Ok(None) => {}
                Err(error) if is_of_the_file(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(archived)
    }

    /// The ids in the file of a day, as the manifest says; none if it cannot be read there.
    pub(in crate::archive) fn listed_ids(&self, listed: &Listed) -> Result<RoaringTreemap> {
        let summary = self
            .log
            .database()
            .read("read the manifest", |connection| days::load(connection, listed.day, State::Current));
        match summary {
            Ok(summary) => Ok(summary.map(|summary| summary.ids).unwrap_or_default()),
            // Reported where the day is checked.
            Err(Error::Corrupt { .. }) => Ok(RoaringTreemap::new()),
            Err(error) => Err(error),
        }
    }
}
