//! Which ids are in files: what `verify` and the end of a job compare the index with.

use roaring::RoaringTreemap;

use crate::archive::file::format::Format;
use crate::archive::manifest::catalog::Archive;
use crate::archive::manifest::days;
use crate::archive::manifest::days::{Listed, State};
use crate::base::error::{Error, Result};
use crate::base::time::UtcDay;

impl Archive {
    /// The ids in the files, as far as they can be read.
    pub(in crate::archive) fn archived_ids(
        &self,
        days: &[Listed],
        unlisted: &[(UtcDay, Format)],
    ) -> Result<RoaringTreemap> {
        let mut archived = RoaringTreemap::new();
        for listed in days {
            let summary = self
                .log
                .database()
                .read("read the manifest", |connection| days::load(connection, listed.day, State::Current));
            match summary {
                Ok(summary) => archived |= summary.map(|summary| summary.ids).unwrap_or_default(),
                // Reported where the day is checked.
                Err(Error::Corrupt { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        for file in unlisted {
            match self.unlisted(*file) {
                Ok(found) => archived |= found.map(|found| found.summary.ids.clone()).unwrap_or_default(),
                // Reported where the file is checked.
                Err(Error::ArchiveCorrupt { .. } | Error::Archive { .. } | Error::Io { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(archived)
    }
}
