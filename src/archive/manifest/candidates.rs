//! Which files may hold rows that a read wants.
//!
//! What a read does not need does not stop it: a file that cannot be read is a candidate only of reads that may want its
//! rows, and its error is raised when its turn comes.

use std::sync::Arc;

use roaring::RoaringTreemap;
use rusqlite::Connection;

use crate::archive::file::remains::Need;
use crate::archive::manifest::catalog::Archive;
use crate::archive::manifest::days::{self, Listed, State, may_have_in_time};
use crate::archive::manifest::seen::{DamagedFile, DayFile, Examined, Unlisted};
use crate::archive::manifest::values::set_of;
use crate::archive::manifest::{refs, remote};
use crate::base::error::{Error, Result};
use crate::base::ids::IdSpan;
use crate::base::status::RunStatus;
use crate::log::Snapshot;
use crate::row::{Filter, SOURCE, index_key};

/// A file that may hold rows that are wanted.
#[derive(Clone)]
pub(in crate::archive) struct DayCandidate {
    pub(in crate::archive) listed: Listed,
    /// The ids that may be wanted; None: any.
    pub(in crate::archive) wanted: Option<RoaringTreemap>,
    pub(in crate::archive) content: Content,
}

/// How a candidate is read.
#[derive(Clone)]
pub(in crate::archive) enum Content {
    /// As the manifest describes it.
    Listed,
    /// As it was found.
    Unlisted(Arc<Unlisted>),
    /// Not at all.
    Unreadable(Error),
}

impl Archive {
    /// The files that may hold rows that the filter wants, in the caller's transaction.
    ///
    /// A job that publishes a file afterwards, and deletes its rows, does so after the caller's transaction began: the
    /// caller still sees those rows in the log.
    pub(in crate::archive) fn candidates(&self, snapshot: &Snapshot<'_>, filter: &Filter) -> Result<Vec<DayCandidate>> {
        if filter.limit == Some(0) || filter.ids().is_none() {
            return Ok(Vec::new());
        }
        let connection = snapshot.connection();
        let files = self.files()?;
        let lost = remote::undescribed(connection)?;
        if files.is_empty() && lost.is_empty() && days::is_empty(connection)? {
            return Ok(Vec::new());
        }
        let described = days::described(connection)?;
        match self.check_owner() {
            Ok(()) => {}
            // Nothing of this database is in there.
            Err(_) if described.is_empty() && lost.is_empty() => return Ok(Vec::new()),
            Err(error) => return Err(error),
        }
        let mut candidates: Vec<DayCandidate> = days::candidates(connection, filter)?
            .into_iter()
            .map(|(listed, wanted)| DayCandidate { listed, wanted, content: Content::Listed })
            .collect();
        let within = described.iter().filter(|described| described.is_within(filter));
        for file in self.changed_files(within)? {
            let position = candidates.iter().position(|candidate| candidate.listed.day == file.0);
            let known = position.map(|position| candidates.swap_remove(position));
            candidates.extend(self.changed(connection, file, known, filter)?);
        }
        for object in lost.iter().filter(|object| may_have_in_time(object.day, filter)) {
            if !object.has_file(&files) {
                let file = (object.day, remote::format_of(object));
                candidates.push(DayCandidate::unreadable(file, None, remote::lost(object)));
            }
        }
        let mut doubtful = Vec::new();
        let unlisted = self.unlisted_files(&described, &files)?;
        for (day, _) in &unlisted {
            let is_listed =
                |candidate: &DayCandidate| candidate.listed.day == *day && matches!(candidate.content, Content::Listed);
            if let Some(position) = candidates.iter().position(is_listed)
                && let Some(listed) = days::load(connection, *day, State::Current)?
                && self.compressed_since(&listed)?.is_some()
            {
                candidates.swap_remove(position);
            }
        }
        for file in unlisted {
            if !may_have_in_time(file.0, filter) {
                continue;
            }
            let Some(examined) = self.examine_or_replaced(file)? else { continue };
            match &*examined {
                Examined::Whole(unlisted) => candidates.extend(DayCandidate::of_unlisted(unlisted, filter)),
                Examined::Damaged(damaged) => match damaged.remains.need(filter) {
                    Need::No => {}
                    Need::Perhaps if filter.ref_id.is_some() => doubtful.push((file, examined)),
                    Need::Perhaps | Need::Yes => candidates.push(DayCandidate::of_damaged(file, damaged, None)),
                },
            }
        }
        let is_whole_here = doubtful.is_empty() || candidates.is_empty() && begins_here(snapshot, filter)?;
        if !is_whole_here {
            for (file, examined) in &doubtful {
                if let Examined::Damaged(damaged) = &**examined {
                    candidates.push(DayCandidate::of_damaged(*file, damaged, None));
                }
            }
        }
        Ok(candidates)
    }

    /// What a read needs of a file that is not what the manifest says, whose rows it wants by that if `known` is there.
    fn changed(
        &self,
        connection: &Connection,
        file: DayFile,
        known: Option<DayCandidate>,
        filter: &Filter,
    ) -> Result<Option<DayCandidate>> {
        // If it is gone by now, it is missed when it is opened.
        let Some(examined) = self.examine(file)? else { return Ok(known) };
        let span = known.as_ref().and_then(|known| known.listed.id_span);
        let candidate = match &*examined {
            Examined::Damaged(damaged) => {
                let is_needed = known.is_some() || damaged.remains.need(filter) == Need::Yes;
                is_needed.then(|| DayCandidate::of_damaged(file, damaged, span))
            }
            Examined::Whole(unlisted) => {
                let present = DayCandidate::of_unlisted(unlisted, filter);
                if known.is_none() && present.is_none() {
                    return Ok(None);
                }
                let listed = days::load(connection, file.0, State::Current).ok().flatten();
                if let Some(listed) = &listed
                    && self.is_grown(&unlisted.summary, listed)?
                {
                    return Ok(present);
                }
                let error = self.replaced(&unlisted.summary, listed.as_ref());
                let spans = [span, unlisted.summary.id_span()];
                Some(DayCandidate::unreadable(file, spans.into_iter().flatten().reduce(IdSpan::union), error))
            }
        };
        Ok(candidate)
    }
}

/// Whether the first row of the reference that the log has is the one that began its run. If no file is known to have rows
/// of such a run, lines that cannot be read are taken for others'.
fn begins_here(snapshot: &Snapshot<'_>, filter: &Filter) -> Result<bool> {
    let mut is_beginning = false;
    let of_run = Filter { ref_id: filter.ref_id.clone(), limit: Some(1), ..Filter::default() };
    snapshot.search(&of_run, |row| {
        let status = row.kind().parse::<RunStatus>();
        is_beginning = row.source() == SOURCE && matches!(status, Ok(RunStatus::Queued | RunStatus::Started));
    })?;
    Ok(is_beginning)
}

impl DayCandidate {
    /// How many of its rows are wanted, as far as that is known without opening it.
    pub(in crate::archive) fn known_rows(&self) -> u64 {
        self.wanted.as_ref().map_or(self.listed.row_count, RoaringTreemap::len)
    }

    fn of_unlisted(unlisted: &Arc<Unlisted>, filter: &Filter) -> Option<Self> {
        let span = unlisted.summary.id_span()?;
        if span.intersect(filter.ids()?).is_none() || !may_have_in_time(unlisted.summary.day, filter) {
            return None;
        }
        let (mut wanted, mut has_rounds) = (None, false);
        if let Some(ref_id) = &filter.ref_id {
            let rows = unlisted.refs.get(&*index_key(ref_id))?;
            wanted = Some(set_of(&rows.ids));
            has_rounds = !rows.rounds.is_empty();
        }
        let listed = Listed::unlisted(&unlisted.summary, has_rounds);
        listed.may_have(filter.source.as_deref(), filter.kind.as_deref()).then_some(())?;
        Some(Self { listed, wanted, content: Content::Unlisted(Arc::clone(unlisted)) })
    }

    fn of_damaged(file: DayFile, damaged: &DamagedFile, known: Option<IdSpan>) -> Self {
        // What the manifest knows is all that a file of ours held.
        let bound = known.is_none().then_some(damaged.bound);
        let spans = [known, damaged.remains.id_span(bound)];
        Self::unreadable(file, spans.into_iter().flatten().reduce(IdSpan::union), damaged.error.clone())
    }

    fn unreadable((day, format): DayFile, id_span: Option<IdSpan>, error: Error) -> Self {
        let listed = Listed::unreadable(day, format, id_span.unwrap_or(IdSpan::ALL));
        Self { listed, wanted: None, content: Content::Unreadable(error) }
    }

    /// Whether all of its rows are within these bounds of time.
    pub(in crate::archive) fn is_within(&self, since: Option<i64>, until: Option<i64>) -> bool {
        since.is_none_or(|since| since <= self.listed.day.first_timestamp())
            && until.is_none_or(|until| until >= self.listed.day.last_timestamp())
    }

    /// The ids in the file, in the transaction that told of it.
    pub(in crate::archive) fn ids(&self, connection: &Connection) -> Result<RoaringTreemap> {
        match &self.content {
            Content::Listed => {
                let summary = days::load(connection, self.listed.day, State::Current)?;
                Ok(summary.map(|summary| summary.ids).unwrap_or_default())
            }
            Content::Unlisted(unlisted) => Ok(unlisted.summary.ids.clone()),
            Content::Unreadable(error) => Err(error.clone()),
        }
    }

    /// The rounds of the run in this file that the log's index has never seen, in the caller's transaction.
    pub(in crate::archive) fn rounds(&self, connection: &Connection, run_id: &str) -> Result<RoaringTreemap> {
        let key = &*index_key(run_id);
        match &self.content {
            Content::Unreadable(error) => Err(error.clone()),
            _ if !self.listed.has_rounds => Ok(RoaringTreemap::new()),
            Content::Listed => refs::rounds(connection, self.listed.day, key),
            Content::Unlisted(unlisted) => {
                Ok(unlisted.refs.get(key).map(|rows| set_of(&rows.rounds)).unwrap_or_default())
            }
        }
    }
}
