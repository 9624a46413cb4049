//! Which files there are, and opening them: those that the manifest describes, and those that it does not, such as the
//! predecessor's, which are read whole once and described in memory until a job or `reindex` adopts them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use roaring::RoaringTreemap;
use rusqlite::Connection;

use crate::archive::file::format;
use crate::archive::file::format::Format;
use crate::archive::file::reader::{DayReader, damaged};
use crate::archive::file::scan::{Watch, scan};
use crate::archive::file::summary::{Part, Summary};
use crate::archive::manifest::days::{Listed, State};
use crate::archive::manifest::{days, refs};
use crate::base::digest::Hasher;
use crate::base::error::{Error, Result};
use crate::base::time::UtcDay;
use crate::log::Core;
use crate::row::{Filter, index_key, is_round_entry};

/// A directory that changed less than this ago may change again without its time telling.
const SETTLED: Duration = Duration::from_secs(2);

/// The archive of one database: a directory of files, one a UTC day.
pub struct Archive {
    pub(crate) log: Arc<Core>,
    directory: PathBuf,
    seen: Mutex<Seen>,
}

/// What was seen of the directory.
#[derive(Default)]
struct Seen {
    listing: Option<(SystemTime, Files)>,
    unlisted: HashMap<(UtcDay, Format), Arc<Unlisted>>,
}

type Files = Arc<[(UtcDay, Format)]>;

/// A file that the manifest does not know.
pub(crate) struct Unlisted {
    pub(crate) summary: Summary,
    pub(crate) refs: Part,
    /// When the file was changed last.
    modified: SystemTime,
}

/// A file that may hold rows that are wanted.
#[derive(Clone)]
pub(crate) struct DayCandidate {
    pub(crate) listed: Listed,
    /// The ids that may be wanted; None: any.
    pub(crate) wanted: Option<RoaringTreemap>,
    /// Of a file that the manifest does not know.
    unlisted: Option<Arc<Unlisted>>,
}

/// An open file, and what it holds.
pub(crate) struct OpenDay {
    pub(crate) reader: DayReader,
    pub(crate) summary: Summary,
}

impl Archive {
    /// The archive in `directory`, which the first job creates.
    pub fn new(log: Arc<Core>, directory: PathBuf) -> Self {
        Self { log, directory, seen: Mutex::default() }
    }

    /// Where the day files are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The files that may hold rows that the filter wants, in the caller's transaction.
    ///
    /// A job that publishes a file afterwards, and deletes its rows, does so after the caller's transaction began: the
    /// caller still sees those rows in the log.
    pub(crate) fn candidates(&self, connection: &Connection, filter: &Filter) -> Result<Vec<DayCandidate>> {
        if filter.limit == Some(0) || filter.first_id() > filter.last_id() {
            return Ok(Vec::new());
        }
        let files = self.files()?;
        if files.is_empty() && days::is_empty(connection)? {
            return Ok(Vec::new());
        }
        let known = days::candidates(connection, filter)?;
        let mut candidates: Vec<DayCandidate> =
            known.into_iter().map(|(listed, wanted)| DayCandidate { listed, wanted, unlisted: None }).collect();
        for file in self.unlisted_files(connection, &files)? {
            let Some(unlisted) = self.unlisted_or_replaced(file)? else { continue };
            candidates.extend(DayCandidate::of_unlisted(unlisted, filter));
        }
        Ok(candidates)
    }

    /// Opens the file of a candidate; None if it is gone although nothing promises that it is there.
    pub(crate) fn open_candidate(&self, candidate: &DayCandidate) -> Result<Option<OpenDay>> {
        match &candidate.unlisted {
            None => self.open_known(candidate.listed.day).map(Some),
            Some(unlisted) => self.open_unlisted_or_adopted(unlisted.summary.day, unlisted.summary.format),
        }
    }

    /// Opens the file of a day that the manifest knows.
    pub(crate) fn open_known(&self, day: UtcDay) -> Result<OpenDay> {
        let mut tried = None;
        loop {
            let states = self.log.database().read("read the manifest", |connection| {
                Ok([days::load(connection, day, State::Pending)?, days::load(connection, day, State::Current)?])
            })?;
            let digests = states.each_ref().map(|summary| summary.as_ref().map(|summary| summary.sha256));
            let listed: Vec<Summary> = states.into_iter().flatten().collect();
            let is_ambiguous = matches!(&listed[..], [pending, current]
                if (pending.format, pending.size) == (current.format, current.size) && !pending.is_same_file(current));
            for summary in &listed {
                let Some(reader) = DayReader::open(&self.directory, day, summary.format)? else { continue };
                if reader.size() == summary.size && (!is_ambiguous || hash(&reader)? == summary.sha256) {
                    let reader = reader.with_blocks(summary.blocks.clone());
                    return Ok(OpenDay { reader, summary: summary.clone() });
                }
            }
            // A job may have published another file since; then the manifest has changed as well.
            if tried == Some(digests) {
                return Err(self.not_as_listed(day, &listed));
            }
            tried = Some(digests);
        }
    }

    /// Opens a file that the manifest does not know; None if there is none.
    pub(crate) fn open_unlisted(&self, day: UtcDay, format: Format) -> Result<Option<OpenDay>> {
        let Some(unlisted) = self.unlisted((day, format))? else { return Ok(None) };
        let summary = unlisted.summary.clone();
        let reader = DayReader::open(self.directory(), day, format)?;
        Ok(reader.map(|reader| OpenDay { reader: reader.with_blocks(summary.blocks.clone()), summary }))
    }

    /// The same of a file that was there a moment ago: meanwhile a job may have adopted it and replaced it by one of
    /// the other format.
    fn open_unlisted_or_adopted(&self, day: UtcDay, format: Format) -> Result<Option<OpenDay>> {
        if let Some(open) = self.open_unlisted(day, format)? {
            return Ok(Some(open));
        }
        let unlisted = self
            .log
            .database()
            .read("read the manifest", |connection| self.unlisted_files(connection, &[(day, format)]))?;
        if unlisted.is_empty() { self.open_known(day).map(Some) } else { self.open_unlisted(day, format.other()) }
    }

    /// What a file holds that was there a moment ago, or the one by which a job has replaced it since.
    fn unlisted_or_replaced(&self, (day, format): (UtcDay, Format)) -> Result<Option<Arc<Unlisted>>> {
        match self.unlisted((day, format))? {
            Some(unlisted) => Ok(Some(unlisted)),
            None => self.unlisted((day, format.other())),
        }
    }

    /// The error that the day's file is not one that the manifest describes.
    fn not_as_listed(&self, day: UtcDay, listed: &[Summary]) -> Error {
        let Some(summary) = listed.last() else {
            let path = format::path_of(&self.directory, day, Format::Plain);
            return Error::Archive { path, reason: "there is no such day in the archive".into() };
        };
        let path = format::path_of(&self.directory, day, summary.format);
        match std::fs::metadata(&path) {
            Ok(found) => damaged(&path, &format!("it has {} bytes and should have {}", found.len(), summary.size)),
            Err(_) => damaged(&path, &format!("it is missing, and held {} rows", summary.row_count())),
        }
    }

    /// The files of days that the manifest does not know, in the caller's transaction.
    pub(crate) fn unlisted_files(
        &self,
        connection: &Connection,
        files: &[(UtcDay, Format)],
    ) -> Result<Vec<(UtcDay, Format)>> {
        let known = days::known_days(connection)?;
        Ok(files.iter().filter(|(day, _)| !known.contains(day)).copied().collect())
    }

    /// The files in the directory.
    pub(crate) fn files(&self) -> Result<Files> {
        let modified = match std::fs::metadata(&self.directory) {
            Ok(metadata) => metadata.modified(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Arc::new([])),
            Err(error) => Err(error),
        };
        let modified = modified.map_err(|error| Error::io(&self.directory, "list the archive", &error))?;
        if let Some((at, files)) = &self.seen().listing
            && *at == modified
        {
            return Ok(Arc::clone(files));
        }
        let files: Files = format::list(&self.directory)?.into();
        let is_settled = modified.elapsed().is_ok_and(|elapsed| elapsed > SETTLED);
        self.seen().listing = is_settled.then(|| (modified, Arc::clone(&files)));
        Ok(files)
    }

    /// What a file holds that the manifest does not know; None if it is gone.
    pub(crate) fn unlisted(&self, (day, format): (UtcDay, Format)) -> Result<Option<Arc<Unlisted>>> {
        let Some(reader) = DayReader::open(&self.directory, day, format)? else { return Ok(None) };
        let modified = reader.modified()?;
        if let Some(known) = self.seen().unlisted.get(&(day, format))
            && (known.modified, known.summary.size) == (modified, reader.size())
        {
            return Ok(Some(Arc::clone(known)));
        }
        let mut refs = Part::new();
        let summary = scan(
            reader,
            Watch {
                take_part: &mut |part| {
                    for (ref_id, rows) in part {
                        let known = refs.entry(ref_id).or_default();
                        known.ids.extend(rows.ids);
                        known.rounds.extend(rows.rounds);
                    }
                    Ok(())
                },
                is_round: &is_round_entry,
            },
        )?;
        let unlisted = Arc::new(Unlisted { summary, refs, modified });
        self.seen().unlisted.insert((day, format), Arc::clone(&unlisted));
        Ok(Some(unlisted))
    }

    /// The manifest has adopted a file.
    pub(crate) fn forget_file(&self, file: (UtcDay, Format)) {
        self.seen().unlisted.remove(&file);
    }

    /// The manifest has adopted files.
    pub(crate) fn forget_unlisted(&self) {
        *self.seen() = Seen::default();
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DayCandidate {
    fn of_unlisted(unlisted: Arc<Unlisted>, filter: &Filter) -> Option<Self> {
        let span = unlisted.summary.id_span()?;
        let is_in_time = filter.since.is_none_or(|since| since <= unlisted.summary.day.last_timestamp())
            && filter.until.is_none_or(|until| until >= unlisted.summary.day.first_timestamp());
        if span.intersect(filter.ids()?).is_none() || !is_in_time {
            return None;
        }
        let (mut wanted, mut has_rounds) = (None, false);
        if let Some(ref_id) = &filter.ref_id {
            let rows = unlisted.refs.get(&*index_key(ref_id))?;
            wanted = Some(days::set_of(&rows.ids));
            has_rounds = !rows.rounds.is_empty();
        }
        let listed = Listed::unlisted(&unlisted.summary, has_rounds);
        listed.may_have(filter.source.as_deref(), filter.kind.as_deref()).then_some(())?;
        Some(Self { listed, wanted, unlisted: Some(unlisted) })
    }

    /// Whether all of its rows are within these bounds of time.
    pub(crate) fn is_within(&self, since: Option<i64>, until: Option<i64>) -> bool {
        since.is_none_or(|since| since <= self.listed.day.first_timestamp())
            && until.is_none_or(|until| until >= self.listed.day.last_timestamp())
    }

    /// The ids in the file, in the transaction that told of it.
    pub(crate) fn ids(&self, connection: &Connection) -> Result<RoaringTreemap> {
        match &self.unlisted {
            Some(unlisted) => Ok(unlisted.summary.ids.clone()),
            None => {
                let summary = days::load(connection, self.listed.day, State::Current)?;
                Ok(summary.map(|summary| summary.ids).unwrap_or_default())
            }
        }
    }

    /// The rounds of the run in this file that the log's index has never seen, in the caller's transaction.
    pub(crate) fn rounds(&self, connection: &Connection, run_id: &str) -> Result<RoaringTreemap> {
        if !self.listed.has_rounds {
            return Ok(RoaringTreemap::new());
        }
        match &self.unlisted {
            None => refs::rounds(connection, self.listed.day, &index_key(run_id)),
            Some(unlisted) => {
                Ok(unlisted.refs.get(&*index_key(run_id)).map(|rows| days::set_of(&rows.rounds)).unwrap_or_default())
            }
        }
    }
}

/// The sha256 of the file.
fn hash(reader: &DayReader) -> Result<crate::base::digest::Digest> {
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
