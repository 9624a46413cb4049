//! What `verify` says of ids that are in several places, or in none any more.

use std::path::Path;

use roaring::RoaringTreemap;

use crate::archive::file::format::path_of;
use crate::archive::file::summary::Summary;
use crate::archive::manifest::catalog::{Archive, OpenDay};
use crate::archive::manifest::days::Listed;
use crate::archive::manifest::missing;
use crate::archive::manifest::overlap::{described, live_among, named, span_of};
use crate::archive::problem::Problem;
use crate::base::error::{Error, Result};

impl Archive {
    /// Ids that the files of two days hold: no row has two days.
    pub(super) fn doubled_ids(&self, days: &[Listed]) -> Result<Vec<Problem>> {
        let (mut seen, mut problems) = (RoaringTreemap::new(), Vec::new());
        for listed in days {
            let ids = self.listed_ids(listed)?;
            let doubled = &seen & &ids;
            if !doubled.is_empty() {
                problems.push(Problem {
                    path: path_of(self.directory(), listed.day, listed.format),
                    day: Some(listed.day),
                    ids: span_of(&doubled),
                    reason: format!(
                        "the ids of {} are also in another day's file: one of the two was written by a database that was older than its archive; move one of them away, and call reindex()",
                        named(&doubled)
                    ),
                });
            }
            seen |= ids;
        }
        Ok(problems)
    }

    /// Ids that a file has in common with the log, where the rows are not the same.
    pub(super) fn shared_ids(&self, open: OpenDay) -> Result<Option<Problem>> {
        let (path, day) = (open.reader.path().to_owned(), open.summary.day);
        let shared = self.log.database().read("verify", |connection| live_among(connection, &open.summary.ids))?;
        if shared.is_empty() {
            return Ok(None);
        }
        let conflicts = self.conflicts(open, &shared)?;
        Ok(span_of(&conflicts).map(|span| Problem {
            path,
            day: Some(day),
            ids: Some(span),
            reason: described(&conflicts),
        }))
    }

    /// Ids that a file held when it was ours, and that `reindex` found gone.
    pub(super) fn missing_ids(&self, path: &Path, summary: &Summary) -> Result<Option<Problem>> {
        let missing = match self.log.database().read("verify", |connection| missing::load(connection, summary.day)) {
            Ok(missing) => missing - &summary.ids,
            // Reported with all that is wrong in the manifest itself.
            Err(Error::Corrupt { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(span_of(&missing).map(|span| Problem {
            path: path.to_owned(),
            day: Some(summary.day),
            ids: Some(span),
            reason: format!(
                "{} rows that it held are gone; restore the file from a backup and call reindex()",
                missing.len()
            ),
        }))
    }
}
