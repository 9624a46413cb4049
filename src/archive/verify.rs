//! Checking everything: SQLite's own structures, the rows against the checksums of their segments, and each day's file
//! against its digest, its lines and the manifest.

use std::sync::atomic::{AtomicUsize, Ordering};

use roaring::RoaringTreemap;
use rusqlite::Connection;

use crate::archive::file::format::{Format, path_of};
use crate::archive::file::scan::{Watch, scan};
use crate::archive::file::summary::Part;
use crate::archive::manifest::catalog::Archive;
use crate::archive::manifest::days::{Listed, set_of};
use crate::archive::manifest::{days, refs};
use crate::archive::problem::Problem;
use crate::base::error::{Error, Result};
use crate::base::ids::IdSpan;
use crate::base::parallel;
use crate::base::parallel::News;
use crate::base::progress::Progress;
use crate::base::time::UtcDay;
use crate::index::verify::{Segment, segments};
use crate::row::Filter;

/// Segments that one step checks.
const STEP_SEGMENTS: usize = 8;
/// Findings that SQLite reports at the most.
const MOST_FINDINGS: u32 = 100;

/// What was checked, and what was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Rows of sealed segments that were read in the database.
    pub row_count: u64,
    /// Segments that were checked.
    pub segment_count: u64,
    /// Files that were read.
    pub day_count: u64,
    /// Rows that were read in files.
    pub archived_row_count: u64,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

/// What one step checks.
enum Step {
    Database,
    Segments(Vec<Segment>),
    Day(UtcDay),
    Unlisted(UtcDay, Format),
}

impl Step {
    /// How much it is, in rows.
    fn weight(&self, days: &[Listed]) -> u64 {
        match self {
            Self::Database => 0,
            Self::Segments(segments) => segments.iter().map(|segment| segment.row_count).sum(),
            Self::Day(day) => days.iter().find(|listed| listed.day == *day).map_or(0, |listed| listed.row_count),
            Self::Unlisted(..) => 0,
        }
    }
}

impl Archive {
    /// Checks the database, the index and every file, on all cores.
    pub fn verify(&self, progress: &mut Progress<'_>) -> Result<Verified> {
        let files = self.files()?;
        let read = self.log.database().read("verify", |connection| {
            Ok((
                days::list(connection)?,
                days::described(connection)?,
                segments(connection)?,
                days::pending(connection)?,
            ))
        });
        let (days, described, segments, pending) = match read {
            Ok(read) => read,
            // Without a manifest or an index that can be read there is nothing to compare with.
            Err(Error::Corrupt { path, reason }) => {
                let problems = vec![Problem { path, day: None, ids: None, reason }];
                return Ok(Verified { problems, ..Verified::default() });
            }
            Err(error) => return Err(error),
        };
        let unlisted = self.unlisted_files(&described, &files)?;
        let archived = self.archived_ids(&days, &unlisted)?;
        let mut steps = vec![Step::Database];
        steps.extend(days.iter().map(|listed| Step::Day(listed.day)));
        steps.extend(unlisted.iter().map(|(day, format)| Step::Unlisted(*day, *format)));
        steps.extend(segments.chunks(STEP_SEGMENTS).map(|segments| Step::Segments(segments.to_vec())));
        let total = steps.iter().map(|step| step.weight(&days)).sum();
        let mut verified = Verified { problems: self.doubled_ids(&days)?, ..Verified::default() };
        for listed in &days {
            let other = (listed.day, listed.format.other());
            if files.contains(&other) && !pending.contains(&listed.day) {
                let path = path_of(self.directory(), other.0, other.1);
                let reason =
                    "the manifest knows another file of this day; the next archive job merges the two".to_owned();
                verified.problems.push(Problem { path, day: Some(listed.day), ids: None, reason });
            }
        }
        for pair in unlisted.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
            let path = path_of(self.directory(), pair[1].0, pair[1].1);
            let reason = "the day has another file as well; the next archive job merges the two".to_owned();
            verified.problems.push(Problem { path, day: Some(pair[1].0), ids: None, reason });
        }
        progress(0, total)?;
        let (next, mut done) = (AtomicUsize::new(0), 0);
        let next = || steps.get(next.fetch_add(1, Ordering::Relaxed));
        let work = |step: &Step, _: &dyn Fn() -> bool| Ok((step.weight(&days), self.check(step, &archived)?));
        parallel::watched(parallel::cores(), next, work, |news| {
            if let News::Done((weight, found)) = news {
                done += weight;
                verified.add(found);
            }
            progress(done, total)
        })?;
        verified.problems.sort_by(|one, other| {
            (&one.path, one.day, one.ids, &one.reason).cmp(&(&other.path, other.day, other.ids, &other.reason))
        });
        Ok(verified)
    }

    fn check(&self, step: &Step, archived: &RoaringTreemap) -> Result<Verified> {
        let mut found = Verified::default();
        match self.check_into(step, archived, &mut found) {
            Ok(()) => Ok(found),
            // What SQLite stumbles over.
            Err(Error::Corrupt { path, reason }) => {
                found.problems.push(Problem { path, day: None, ids: None, reason });
                Ok(found)
            }
            Err(error) => Err(error),
        }
    }

    fn check_into(&self, step: &Step, archived: &RoaringTreemap, found: &mut Verified) -> Result<()> {
        match step {
            Step::Database => {
                let findings = self.log.database().read("verify", check_database)?;
                let path = self.log.database().path();
                found.problems.extend(findings.into_iter().map(|reason| Problem {
                    path: path.to_owned(),
                    day: None,
                    ids: None,
                    reason,
                }));
            }
            Step::Segments(segments) => {
                for segment in segments {
                    self.check_segment(segment, archived, found)?;
                }
            }
            Step::Day(day) => self.check_day(*day, found)?,
            Step::Unlisted(day, format) => {
                let unlisted = self.unlisted((*day, *format));
                if let Some(unlisted) = found.unless_damaged(Some(*day), unlisted)?.flatten() {
                    found.day_count += 1;
                    found.archived_row_count += unlisted.summary.row_count();
                    let open = self.open_unlisted((*day, *format));
                    if let Some(open) = found.unless_damaged(Some(*day), open)?.flatten() {
                        found.problems.extend(self.shared_ids(open)?);
                    }
                }
            }
        }
        Ok(())
    }

    fn check_segment(&self, segment: &Segment, archived: &RoaringTreemap, verified: &mut Verified) -> Result<()> {
        let (first, last) = (segment.first_id, segment.last_id);
        let live = self.log.database().read("verify", |connection| segment.live(connection))?;
        verified.segment_count += 1;
        verified.row_count += live.row_count;
        if segment.is(live) || (live.row_count == 0 && segment.is_within(archived)) {
            return Ok(());
        }
        // Some of its rows have left, or are just leaving.
        let filter = Filter { after_id: first.checked_sub(1), before_id: last.checked_add(1), ..Filter::default() };
        let mut rows = match self.query(&filter) {
            Ok(rows) => rows,
            // Reported where the file is checked, or by what follows.
            Err(Error::ArchiveCorrupt { .. } | Error::Archive { .. } | Error::IdConflict { .. }) => return Ok(()),
            Err(Error::Corrupt { path, reason }) => {
                verified.problems.push(Problem { path, day: None, ids: IdSpan::new(first, last), reason });
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        // What was archived before the segment was sealed, between its rows.
        rows.retain(|row| segment.had(row.id) || !archived.contains(row.id.cast_unsigned()));
        let found = Segment::of(&rows);
        if segment.is(found) {
            return Ok(());
        }
        let (had, has) = (segment.row_count, found.row_count);
        let what = match has.cmp(&had) {
            std::cmp::Ordering::Less => {
                format!("{} of {had} rows are neither in the log nor in the archive", had - has)
            }
            std::cmp::Ordering::Equal => "a row is not what was appended".to_owned(),
            std::cmp::Ordering::Greater => format!("there are {} rows more than were appended", has - had),
        };
        let reason = format!(
            "ids {first} to {last}: {what}; restore a backup, or accept it with reindex() if another program did that"
        );
        verified.problems.push(Problem {
            path: self.log.database().path().to_owned(),
            day: None,
            ids: IdSpan::new(first, last),
            reason,
        });
        Ok(())
    }

    /// Reads a day's file from end to end, and compares it with the manifest.
    fn check_day(&self, day: UtcDay, verified: &mut Verified) -> Result<()> {
        let Some(open) = verified.unless_damaged(Some(day), self.open_known(day))? else { return Ok(()) };
        let path = open.reader.path().to_owned();
        verified.problems.extend(self.missing_ids(&path, &open.summary)?);
        let mut hidden = None;
        let mut take_part = |part: Part| {
            self.log.database().read("verify", |connection| {
                for (ref_id, rows) in &part {
                    let known = refs::ids(connection, day, ref_id)?;
                    if !set_of(&rows.ids).is_subset(&known) {
                        hidden = Some(ref_id.clone());
                    }
                }
                Ok(())
            })
        };
        let watch = Watch { take_part: &mut take_part, is_round: &|_| false };
        let Some(found) = verified.unless_damaged(Some(day), scan(open.reader, watch))? else { return Ok(()) };
        verified.day_count += 1;
        verified.archived_row_count += found.row_count();
        if let Some(open) = verified.unless_damaged(Some(day), self.open_known(day))? {
            let shared = verified.unless_damaged(Some(day), self.shared_ids(open))?.flatten();
            verified.problems.extend(shared);
        }
        let mut problem = |reason: String| {
            verified.problems.push(Problem { path: path.clone(), day: Some(day), ids: found.id_span(), reason });
        };
        if found.sha256 != open.summary.sha256 {
            problem(format!("its sha256 is {} and should be {}", found.sha256, open.summary.sha256));
        } else if found.ids != open.summary.ids || found.blocks != open.summary.blocks {
            problem("the manifest says another thing of its rows; reindex() rebuilds the manifest".to_owned());
        } else if let Some(ref_id) = hidden {
            problem(format!("the manifest does not know all rows of {ref_id:?}; reindex() rebuilds the manifest"));
        }
        Ok(())
    }
}

impl Verified {
    fn add(&mut self, other: Self) {
        self.row_count += other.row_count;
        self.segment_count += other.segment_count;
        self.day_count += other.day_count;
        self.archived_row_count += other.archived_row_count;
        self.problems.extend(other.problems);
    }

    /// What was read; what is damaged becomes a problem, and other errors stop the verification.
    fn unless_damaged<T>(&mut self, day: Option<UtcDay>, outcome: Result<T>) -> Result<Option<T>> {
        let (path, reason) = match outcome {
            Ok(value) => return Ok(Some(value)),
            Err(Error::ArchiveCorrupt { path, reason } | Error::Archive { path, reason }) => (path, reason),
            // Something in the place of the file that is no file, or that cannot be read.
            Err(Error::Io { path, reason, .. }) if day.is_some() => (path, reason),
            Err(error) => return Err(error),
        };
        self.problems.push(Problem { path, day, ids: None, reason });
        Ok(None)
    }
}

/// What SQLite finds wrong.
fn check_database(connection: &Connection) -> Result<Vec<String>> {
    let mut statement = connection.prepare(&format!("PRAGMA integrity_check({MOST_FINDINGS})"))?;
    let findings = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    Ok(findings.into_iter().filter(|finding| finding != "ok").collect())
}
