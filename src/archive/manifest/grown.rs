//! Files that have more rows than the manifest says, because the database is an older copy of the one that wrote them, or
//! because another program wrote all of a day's rows anew; and compressed files in the place of plain ones, for the first of
//! these reasons. They are read as they are, and adopted by the next job.

use std::sync::Arc;

use crate::archive::file::format::Format;
use crate::archive::file::reader::DayReader;
use crate::archive::file::summary::Summary;
use crate::archive::manifest::catalog::{Archive, OpenDay};
use crate::archive::manifest::days;
use crate::archive::manifest::days::State;
use crate::archive::manifest::seen::{DayFile, Examined, Unlisted};
use crate::base::digest::Hasher;
use crate::base::error::Result;
use crate::base::time::UtcDay;

impl Archive {
    /// Whether a whole file has all rows that the manifest knows, unchanged, and others besides.
    pub(in crate::archive) fn is_grown(&self, found: &Summary, listed: &Summary) -> Result<bool> {
        if found.ids.len() <= listed.ids.len() || !listed.ids.is_subset(&found.ids) {
            return Ok(false);
        }
        match (found.format, listed.format) {
            // No other program writes these, and all of their bytes are under checksums.
            (Format::Zstd, _) => Ok(true),
            (Format::Plain, Format::Plain) => self.has_lines_of(found, listed),
            (Format::Plain, Format::Zstd) => Ok(false),
        }
    }

    /// Whether the lines that the manifest knows, put together, are the file that it describes.
    fn has_lines_of(&self, found: &Summary, listed: &Summary) -> Result<bool> {
        let file = (found.day, found.format);
        if let Some((known, is_same)) = self.seen().grown.get(&file)
            && *known == (found.sha256, listed.sha256)
        {
            return Ok(*is_same);
        }
        let Some(reader) = DayReader::open(self.directory(), file.0, file.1)? else { return Ok(false) };
        let mut reader = reader.with_blocks(found.blocks.clone());
        let mut hasher = Hasher::new();
        for index in 0..reader.blocks().len() {
            reader.each_row(
                index,
                |id| listed.ids.contains(id.cast_unsigned()),
                |_, line| {
                    hasher.update(line);
                },
            )?;
        }
        let is_same = hasher.finish() == listed.sha256;
        self.seen().grown.insert(file, ((found.sha256, listed.sha256), is_same));
        Ok(is_same)
    }

    /// The compressed file with which a job has replaced a plain one of these rows; None if there is none.
    pub(in crate::archive) fn compressed_since(&self, listed: &Summary) -> Result<Option<Arc<Unlisted>>> {
        if listed.format != Format::Plain || self.stamp((listed.day, Format::Plain))?.is_some() {
            return Ok(None);
        }
        // No other program writes these, and all of their bytes are under checksums.
        Ok(match self.examine((listed.day, Format::Zstd))?.as_deref() {
            Some(Examined::Whole(found)) if listed.ids.is_subset(&found.summary.ids) => Some(Arc::clone(found)),
            _ => None,
        })
    }

    /// Opens the file of a listed day, as it is listed or with rows besides.
    pub(in crate::archive) fn open_known_or_grown(&self, day: UtcDay) -> Result<OpenDay> {
        self.open_known(day).or_else(|error| self.open_grown(day)?.ok_or(error))
    }

    /// Opens the file of a listed day that has grown; None if it has not.
    pub(in crate::archive) fn open_grown(&self, day: UtcDay) -> Result<Option<OpenDay>> {
        let listed =
            self.log.database().read("read the manifest", |connection| days::load(connection, day, State::Current))?;
        let Some(listed) = listed else { return Ok(None) };
        let file: DayFile = (day, listed.format);
        match self.examine(file)?.as_deref() {
            Some(Examined::Whole(found)) if self.is_grown(&found.summary, &listed)? => self.open_unlisted(file),
            _ => Ok(None),
        }
    }
}
