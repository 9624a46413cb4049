//! Building the manifest and the index anew, from the files and the rows as they are.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use roaring::RoaringTreemap;
use rusqlite::Connection;

use crate::archive::manifest::catalog::Archive;
use crate::archive::manifest::overlap::live_among;
use crate::archive::manifest::seen::Examined;
use crate::archive::manifest::{days, expired, missing, refs, remote, strays};
use crate::base::error::{Error, Result};
use crate::base::ids::IdSpan;
use crate::base::progress::Progress;
use crate::base::time::UtcDay;
use crate::index::build::sealer::{Archived, ArchivedRounds};

/// What a rebuild found, and did.
#[derive(Debug, Default)]
pub struct Reindexed {
    /// The rows that files held, and do not hold any more: their number, and where their ids lie, by day.
    pub missing: Vec<(UtcDay, u64, IdSpan)>,
    /// Rows of the database that had ids of archived rows, or came after such a row: how many, and their new ids.
    pub renumbered: Option<(u64, IdSpan)>,
}

/// The ids that the log and the archive both have.
#[derive(Debug, Default)]
pub(crate) struct SharedRows {
    /// Those under which both have the same row.
    pub(crate) same: RoaringTreemap,
    /// Those under which they have different ones.
    pub(crate) conflicts: RoaringTreemap,
    /// The greatest id in the archive.
    greatest: i64,
}

impl Archive {
    /// Builds the manifest anew from the files as they are, and the log's index from the rows. A file that is damaged is
    /// left to what the manifest says of it; a missing one is forgotten. Rows of the database that have the ids of archived
    /// ones get new ids.
    pub fn reindex(&self, progress: &mut Progress<'_>) -> Result<Reindexed> {
        self.log.database().check_writable("rebuild the index")?;
        let mut done = Reindexed::default();
        // What the files themselves say of rounds counts; what the old index says of their rows may be damaged.
        let mut read = RoaringTreemap::new();
        let is_foreign = self.check_owner().is_err();
        let has_days = self.log.database().read("read the manifest", |connection| {
            Ok(!days::is_empty(connection)? || !remote::undescribed(connection)?.is_empty())
        })?;
        if !is_foreign && (has_days || !self.files()?.is_empty()) {
            let _lock = self.lock(Duration::ZERO)?;
            done.missing = self.relist(&mut read, progress)?;
            done.renumbered = self.resolve_conflicts()?;
        }
        let each_round: &ArchivedRounds<'_> = &|connection, visit| {
            refs::each_round(connection, &mut *visit)?;
            expired::each_round(connection, visit)
        };
        let forget_rounds = |connection: &Connection| {
            refs::forget_rounds(connection)?;
            expired::forget_rounds(connection)
        };
        self.log.reindex(&Archived { ids: &read, each_round }, forget_rounds, progress)?;
        Ok(done)
    }

    /// Lists the files as they are, and notes which rows were read; returns what is missing in them.
    fn relist(&self, read: &mut RoaringTreemap, progress: &mut Progress<'_>) -> Result<Vec<(UtcDay, u64, IdSpan)>> {
        self.log.database().write("write the manifest", None, strays::forget)?;
        let recovered = self.recover().and_then(|()| self.log.database().read("read the manifest", days::list));
        let known = match recovered {
            Ok(known) => known,
            // It is damaged, and the files say everything anew.
            Err(Error::Corrupt { .. }) => {
                self.log.database().write("write the manifest", None, days::forget_all)?;
                Vec::new()
            }
            Err(error) => return Err(error),
        };
        let total = known.iter().map(|listed| listed.row_count).sum();
        let mut done = 0;
        let mut held: BTreeMap<UtcDay, RoaringTreemap> = BTreeMap::new();
        for listed in &known {
            let day = listed.day;
            let missing = self.log.database().read("read the manifest", |connection| missing::load(connection, day))?;
            let listed_as = self.listed_ids(listed)?;
            let examined = match self.examine((day, listed.format))? {
                Some(examined) => Some(examined),
                None => match self.object_of(day, listed.sha256)? {
                    Some(object) => self.examine_object(&object)?,
                    None => None,
                },
            };
            match examined.as_deref() {
                Some(Examined::Whole(file)) => {
                    self.record_anew(&file.summary, &file.refs)?;
                    *read |= &file.summary.ids;
                    // Of the very same file the list is damaged if it knows other rows.
                    let is_same = file.summary.sha256 == listed.sha256;
                    let listed_as = if is_same { RoaringTreemap::new() } else { listed_as };
                    held.insert(day, missing | listed_as);
                }
                Some(Examined::Damaged(_)) => {}
                None => {
                    self.log
                        .database()
                        .write("write the manifest", None, |connection| days::forget_day(connection, day))?;
                    held.insert(day, missing | listed_as);
                }
            }
            done += listed.row_count;
            progress(done, total)?;
        }
        self.forget_seen();
        self.adopt()?;
        let known: HashSet<UtcDay> = known.into_iter().map(|listed| listed.day).collect();
        let mut lost = Vec::new();
        for listed in self.log.database().read("read the manifest", days::list)? {
            if !known.contains(&listed.day) {
                *read |= self.listed_ids(&listed)?;
            }
            if let Some(ids) = held.get_mut(&listed.day) {
                *ids -= self.listed_ids(&listed)?;
                self.log
                    .database()
                    .write("write the manifest", None, |connection| missing::save(connection, listed.day, ids))?;
            }
        }
        for (day, ids) in held {
            if let (Some(first), Some(last)) = (ids.min(), ids.max()) {
                lost.push((day, ids.len(), IdSpan { first: first.cast_signed(), last: last.cast_signed() }));
            }
        }
        Ok(lost)
    }

    /// Gives new ids to the rows of the log that have those of archived rows, and to all that came after the first of
    /// them, so that they stay in their order. Rows that are in the archive as well keep theirs.
    fn resolve_conflicts(&self) -> Result<Option<(u64, IdSpan)>> {
        let SharedRows { same, conflicts, greatest } = self.shared_rows()?;
        let Some(first) = conflicts.min() else { return Ok(None) };
        self.log.renumber(first.cast_signed(), &same, greatest)
    }

    /// Compares the rows that the log and the archive both have.
    pub(crate) fn shared_rows(&self) -> Result<SharedRows> {
        let mut rows = SharedRows::default();
        for listed in self.log.database().read("read the manifest", days::list)? {
            rows.greatest = rows.greatest.max(listed.id_span.map_or(0, |span| span.last));
            let ids = self.listed_ids(&listed)?;
            let shared = self.log.database().read("compare rows", |connection| live_among(connection, &ids))?;
            if shared.is_empty() {
                continue;
            }
            let found = match self.open_known(listed.day).and_then(|open| self.conflicts(open, &shared)) {
                Ok(found) => found,
                // What a damaged file holds cannot be compared.
                Err(Error::ArchiveCorrupt { .. }) => continue,
                Err(error) => return Err(error),
            };
            rows.same |= shared - &found;
            rows.conflicts |= found;
        }
        Ok(rows)
    }
}
