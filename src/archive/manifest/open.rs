//! Opening the file of a day, and saying what is wrong where that cannot be done.

use crate::archive::file::format;
use crate::archive::file::format::Format;
use crate::archive::file::reader::{DayReader, damaged};
use crate::archive::file::summary::Summary;
use crate::archive::manifest::candidates::{Content, DayCandidate};
use crate::archive::manifest::catalog::{Archive, OpenDay};
use crate::archive::manifest::days::State;
use crate::archive::manifest::examine::patiently;
use crate::archive::manifest::seen::DayFile;
use crate::archive::manifest::{days, expired};
use crate::base::digest::{Digest, Hasher};
use crate::base::error::{Error, Result};
use crate::base::time::UtcDay;

impl Archive {
    /// Opens the file of a candidate; None if it is gone although nothing promises that it is there.
    pub(in crate::archive) fn open_candidate(&self, candidate: &DayCandidate) -> Result<Option<OpenDay>> {
        match &candidate.content {
            Content::Listed => self.open_listed(candidate.listed.day),
            Content::Unlisted(_) => self.open_unlisted_or_adopted((candidate.listed.day, candidate.listed.format)),
            Content::Unreadable(error) => Err(error.clone()),
        }
    }

    /// Opens the file of a day that the manifest listed a moment ago; None if it has been expired since.
    fn open_listed(&self, day: UtcDay) -> Result<Option<OpenDay>> {
        let opened = patiently(|| self.open_known(day));
        if opened.is_err()
            && self.log.database().read("read the manifest", |connection| expired::is_expired(connection, day))?
        {
            return Ok(None);
        }
        opened.map(Some)
    }

    /// Opens the file of a day that the manifest knows.
    pub(in crate::archive) fn open_known(&self, day: UtcDay) -> Result<OpenDay> {
        self.open_where(day, |summary| self.open_remote(summary))
    }

    /// The same of one in the directory.
    pub(in crate::archive) fn open_here(&self, day: UtcDay) -> Result<OpenDay> {
        self.open_where(day, |_| Ok(None))
    }

    /// Opens the file of a day that the manifest knows, `elsewhere` if it is not in the directory.
    fn open_where(&self, day: UtcDay, elsewhere: impl Fn(&Summary) -> Result<Option<DayReader>>) -> Result<OpenDay> {
        let mut tried = None;
        loop {
            let states = self.log.database().read("read the manifest", |connection| {
                Ok([days::load(connection, day, State::Pending)?, days::load(connection, day, State::Current)?])
            })?;
            let digests = states.each_ref().map(|summary| summary.as_ref().map(|summary| summary.sha256));
            let listed: Vec<Summary> = states.into_iter().flatten().collect();
            let is_ambiguous = matches!(&listed[..], [pending, current]
                if (pending.format, pending.size) == (current.format, current.size) && !pending.is_same_file(current));
            let mut failed = None;
            for summary in &listed {
                let reader = match DayReader::open(self.directory(), day, summary.format)? {
                    Some(reader) => Some(reader),
                    // Of a day that gains rows, the object that was the current one a moment ago is deleted.
                    None => elsewhere(summary).or_else(|error| match error {
                        Error::ArchiveCorrupt { .. } => {
                            failed = Some(error);
                            Ok(None)
                        }
                        error => Err(error),
                    })?,
                };
                let Some(reader) = reader else { continue };
                if reader.size() == summary.size && (!is_ambiguous || hash(&reader)? == summary.sha256) {
                    let reader = reader.with_blocks(summary.blocks.clone());
                    return Ok(OpenDay { reader, summary: summary.clone() });
                }
            }
            // A job may have published another file since; then the manifest has changed as well.
            if tried == Some(digests) {
                if let Some(current) = listed.last()
                    && self.compressed_since(current)?.is_some()
                    && let Some(open) = self.open_unlisted((day, Format::Zstd))?
                {
                    return Ok(open);
                }
                return Err(failed.unwrap_or_else(|| self.not_as_listed(day, &listed)));
            }
            tried = Some(digests);
        }
    }

    /// Opens a file that the manifest does not list; None if there is none.
    pub(in crate::archive) fn open_unlisted(&self, file: DayFile) -> Result<Option<OpenDay>> {
        patiently(|| {
            let Some(unlisted) = self.unlisted(file)? else { return Ok(None) };
            let summary = unlisted.summary.clone();
            let Some(reader) = DayReader::open(self.directory(), file.0, file.1)? else { return Ok(None) };
            if reader.size() != summary.size {
                return Err(reader.damaged("it was changed while it was read"));
            }
            Ok(Some(OpenDay { reader: reader.with_blocks(summary.blocks.clone()), summary }))
        })
    }

    /// The same of a file that was there a moment ago: meanwhile a job may have adopted it, or merged it into the day's
    /// other one.
    fn open_unlisted_or_adopted(&self, (day, format): DayFile) -> Result<Option<OpenDay>> {
        if let Some(open) = self.open_unlisted((day, format))? {
            return Ok(Some(open));
        }
        let is_known =
            self.log.database().read("read the manifest", |connection| days::is_described(connection, day))?;
        if is_known { self.open_known(day).map(Some) } else { self.open_unlisted((day, format.other())) }
    }

    /// The error that the day's file is not one that the manifest describes.
    pub(in crate::archive) fn not_as_listed(&self, day: UtcDay, listed: &[Summary]) -> Error {
        let Some(summary) = listed.last() else {
            let path = format::path_of(self.directory(), day, Format::Plain);
            return Error::Archive { path, reason: "there is no such day in the archive".into() };
        };
        let path = format::path_of(self.directory(), day, summary.format);
        match std::fs::metadata(&path) {
            Ok(found) => damaged(&path, &format!("it has {} bytes and should have {}", found.len(), summary.size)),
            Err(_) => damaged(&path, &format!("it is missing, and held {} rows", summary.row_count())),
        }
    }

    /// The error that a whole file is in the place of the one that the manifest describes.
    pub(in crate::archive) fn replaced(&self, summary: &Summary, known: Option<&Summary>) -> Error {
        let path = format::path_of(self.directory(), summary.day, summary.format);
        let lost = known.map_or(0, |known| (&known.ids - &summary.ids).len());
        let reason = format!(
            "another program wrote it anew: it has {} rows, and lacks {lost} that it had; restore the file from a backup, or call reindex(), which takes it as it is",
            summary.row_count()
        );
        Error::ArchiveCorrupt { path, reason }
    }
}

/// The sha256 of the file.
pub(in crate::archive) fn hash(reader: &DayReader) -> Result<Digest> {
    let (mut hasher, mut offset, mut buffer) = (Hasher::new(), 0, vec![0; 256 << 10]);
    loop {
        let count = reader.read_up_to(&mut buffer, offset)?;
        if count == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(&buffer[..count]);
        offset += count as u64;
    }
}
