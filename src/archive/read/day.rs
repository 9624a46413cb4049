//! The days of the archive: which there are, and the rows of one.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::PathBuf;

use crate::archive::file::format::{Format, path_of};
use crate::archive::file::reader::DayReader;
use crate::archive::file::summary::Summary;
use crate::archive::manifest::catalog::{Archive, OpenDay};
use crate::archive::manifest::days;
use crate::archive::manifest::days::Listed;
use crate::archive::manifest::remote::{self, RemoteObject};
use crate::archive::manifest::seen::Examined;
use crate::base::digest::Digest;
use crate::base::error::{Error, Result};
use crate::base::ids::IdSpan;
use crate::base::time::UtcDay;
use crate::row::LogEntry;

/// What an archived day's file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchivedDay {
    /// The day.
    pub day: UtcDay,
    /// Rows in the file.
    pub row_count: u64,
    /// The file; the URL of the object, if it lies in an object store.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// Its sha256.
    pub sha256: Digest,
    /// Rows that the archive job added; 0 when it is only listed.
    pub added_rows: u64,
    /// How it is stored.
    pub format: Format,
    /// The least and the greatest id; None if there are no rows.
    pub id_span: Option<IdSpan>,
    /// When it was published or taken into the manifest, in milliseconds; None: it is not in the manifest.
    pub archived_at: Option<i64>,
}

impl Archive {
    /// The days that have a file, or should have one, oldest first.
    pub fn days(&self) -> Result<Vec<ArchivedDay>> {
        let files = self.files()?;
        let (listed, described) = self
            .log
            .database()
            .read("read the manifest", |connection| Ok((days::list(connection)?, days::described(connection)?)))?;
        let known: HashSet<UtcDay> = described.iter().map(|described| described.file.0).collect();
        let mut days: Vec<ArchivedDay> = listed.into_iter().map(|listed| self.listed_day(listed)).collect();
        self.place(&mut days)?;
        for file in self.unlisted_files(&described, &files)? {
            // The second file of a day is none of its own; one that is damaged says nothing of its day, and `verify` and
            // the next job name it.
            if !known.contains(&file.0)
                && let Some(Examined::Whole(unlisted)) = self.examine(file)?.as_deref()
            {
                days.push(self.archived_day(&unlisted.summary));
            }
        }
        let lost = self.log.database().read("read the manifest", remote::undescribed)?;
        if let Some(object) = lost.iter().find(|object| !object.has_file(&files)) {
            return Err(remote::lost(object));
        }
        days.sort_by_key(|day| day.day);
        Ok(days)
    }

    /// Names the objects that hold files which are not in the directory.
    fn place(&self, days: &mut [ArchivedDay]) -> Result<()> {
        let objects = self.current_objects()?;
        let of_day: HashMap<(UtcDay, Digest), &RemoteObject> =
            objects.iter().map(|object| ((object.day, object.sha256), object)).collect();
        for day in days {
            if let Some(object) = of_day.get(&(day.day, day.sha256))
                && self.stamp((day.day, day.format))?.is_none()
            {
                day.path = object.url().into();
            }
        }
        Ok(())
    }

    pub(crate) fn listed_day(&self, listed: Listed) -> ArchivedDay {
        ArchivedDay {
            day: listed.day,
            row_count: listed.row_count,
            path: path_of(self.directory(), listed.day, listed.format),
            size: listed.size,
            sha256: listed.sha256,
            added_rows: 0,
            format: listed.format,
            id_span: listed.id_span,
            archived_at: Some(listed.archived_at),
        }
    }

    pub(crate) fn archived_day(&self, summary: &Summary) -> ArchivedDay {
        ArchivedDay {
            day: summary.day,
            row_count: summary.row_count(),
            path: path_of(self.directory(), summary.day, summary.format),
            size: summary.size,
            sha256: summary.sha256,
            added_rows: 0,
            format: summary.format,
            id_span: summary.id_span(),
            archived_at: None,
        }
    }

    /// The rows of `day`, one at a time; an `Archive` error if there is no such day.
    pub fn read(&self, day: UtcDay) -> Result<ArchivedRows> {
        self.check_owner()?;
        let files = self.files()?;
        let described = self.log.database().read("read the manifest", days::described)?;
        let mut open = Vec::new();
        if described.iter().any(|described| described.file.0 == day) {
            open.push(match self.open_known(day) {
                Err(error @ Error::ArchiveCorrupt { .. }) => self.open_grown(day)?.ok_or(error)?,
                open => open?,
            });
        }
        for file in self.unlisted_files(&described, &files)?.into_iter().filter(|file| file.0 == day) {
            open.extend(self.open_unlisted(file)?);
        }
        match <[OpenDay; 1]>::try_from(open) {
            Ok([open]) => Ok(ArchivedRows { reader: open.reader, next_block: 0, rows: VecDeque::new() }),
            Err(open) => {
                let path = path_of(self.directory(), day, Format::Plain);
                let reason = if open.is_empty() {
                    "there is no such day in the archive"
                } else {
                    "the day has two files: the next archive job merges them"
                };
                Err(Error::Archive { path, reason: reason.into() })
            }
        }
    }
}

/// The rows in a day's file, read as they are asked for.
pub struct ArchivedRows {
    reader: DayReader,
    next_block: usize,
    rows: VecDeque<LogEntry>,
}

impl ArchivedRows {
    /// The next row; None at the end.
    pub fn next_row(&mut self) -> Result<Option<LogEntry>> {
        while self.rows.is_empty() && self.next_block < self.reader.blocks().len() {
            let rows = &mut self.rows;
            self.reader.each_row(self.next_block, |_| true, |row, _| rows.push_back(row))?;
            self.next_block += 1;
        }
        Ok(self.rows.pop_front())
    }
}
