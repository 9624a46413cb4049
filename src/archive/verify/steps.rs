//! The order of a verification: what is there to be checked, and checking it on all cores.

use std::sync::atomic::{AtomicUsize, Ordering};

use rusqlite::Connection;

use crate::archive::file::format::{Format, path_of};
use crate::archive::manifest::catalog::Archive;
use crate::archive::manifest::days::Listed;
use crate::archive::manifest::seen::DayFile;
use crate::archive::problem::Problem;
use crate::archive::verify::found::{Extent, Found, Look, Plan};
use crate::archive::verify::report::Verified;
use crate::base::error::{Error, Result};
use crate::base::ids::IdSpan;
use crate::base::parallel;
use crate::base::parallel::News;
use crate::base::progress::Progress;
use crate::base::time::UtcDay;
use crate::index::verify::Segment;

/// Segments that one step checks.
const STEP_SEGMENTS: usize = 8;
/// Findings that SQLite reports at the most.
const MOST_FINDINGS: u32 = 100;

/// What one step checks.
enum Step {
    Database,
    Segments(Vec<Segment>),
    Unsealed(Vec<IdSpan>),
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
            Self::Unsealed(_) | Self::Unlisted(..) => 0,
        }
    }
}

impl Archive {
    /// Checks the database, the index and every file, on all cores.
    pub fn verify(&self, progress: &mut Progress<'_>) -> Result<Verified> {
        self.verify_extent(Extent::Everything, progress)
    }

    /// Checks the database, and the rows of the sealed segments wherever they are.
    pub fn verify_rows(&self, progress: &mut Progress<'_>) -> Result<Verified> {
        self.verify_extent(Extent::Rows, progress)
    }

    fn verify_extent(&self, extent: Extent, progress: &mut Progress<'_>) -> Result<Verified> {
        let (plan, mut found) = match self.planned(extent) {
            Ok(looked) => looked,
            // Without a manifest or an index that can be read there is nothing to compare with.
            Err(Error::Corrupt { path, reason }) => {
                let problems = vec![Problem { path, day: None, ids: None, reason }];
                return Ok(Verified { problems, ..Verified::default() });
            }
            Err(error) => return Err(error),
        };
        let Look { days, segments, .. } = &plan.look;
        let mut steps = vec![Step::Database];
        if extent == Extent::Everything {
            steps.push(Step::Unsealed(segments.unsealed()));
            steps.extend(days.iter().map(|listed| Step::Day(listed.day)));
            steps.extend(plan.unlisted.iter().map(|(day, format)| Step::Unlisted(*day, *format)));
        }
        steps.extend(segments.list.chunks(STEP_SEGMENTS).map(|segments| Step::Segments(segments.to_vec())));
        let total = steps.iter().map(|step| step.weight(days)).sum();
        progress(0, total)?;
        let (next, mut done) = (AtomicUsize::new(0), 0);
        let next = || steps.get(next.fetch_add(1, Ordering::Relaxed));
        let work = |step: &Step, _: &dyn Fn() -> bool| {
            Ok((step.weight(days), self.settled(&plan, |plan| self.check(step, plan))?))
        };
        parallel::watched(parallel::cores(), next, work, |news| {
            if let News::Done((weight, more)) = news {
                done += weight;
                found.add(more);
            }
            progress(done, total)
        })?;
        if extent == Extent::Everything {
            self.check_postings(&mut found)?;
        }
        let mut verified = found.verified;
        verified.problems.sort_by(|one, other| {
            (&one.path, one.day, one.ids, &one.reason).cmp(&(&other.path, other.day, other.ids, &other.reason))
        });
        Ok(verified)
    }

    /// Days that have two files.
    pub(super) fn doubled_days(
        &self,
        days: &[Listed],
        files: &[DayFile],
        pending: &[UtcDay],
        unlisted: &[DayFile],
    ) -> Vec<Problem> {
        let mut problems = Vec::new();
        for listed in days {
            let other = (listed.day, listed.format.other());
            // A compressed file alone is one in its place, or the one in its place is missing, which is told elsewhere.
            let is_doubled = files.contains(&other) && files.contains(&(listed.day, listed.format));
            if is_doubled && !pending.contains(&listed.day) {
                let path = path_of(self.directory(), other.0, other.1);
                let reason =
                    "the manifest knows another file of this day; the next archive job merges the two".to_owned();
                problems.push(Problem { path, day: Some(listed.day), ids: None, reason });
            }
        }
        for pair in unlisted.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
            let path = path_of(self.directory(), pair[1].0, pair[1].1);
            let reason = "the day has another file as well; the next archive job merges the two".to_owned();
            problems.push(Problem { path, day: Some(pair[1].0), ids: None, reason });
        }
        problems
    }

    /// Something wrong inside the database.
    pub(super) fn problem_inside(&self, ids: Option<IdSpan>, reason: String) -> Problem {
        Problem { path: self.log.database().path().to_owned(), day: None, ids, reason }
    }

    fn check(&self, step: &Step, plan: &Plan) -> Result<Found> {
        let mut found = Found::default();
        match self.check_into(step, plan, &mut found) {
            Ok(()) => Ok(found),
            // What SQLite stumbles over.
            Err(Error::Corrupt { path, reason }) => {
                found.verified.problems.push(Problem { path, day: None, ids: None, reason });
                Ok(found)
            }
            Err(error) => Err(error),
        }
    }

    fn check_into(&self, step: &Step, plan: &Plan, found: &mut Found) -> Result<()> {
        let verified = &mut found.verified;
        match step {
            Step::Database => {
                let findings = self.log.database().read("verify", check_database)?;
                verified.problems.extend(findings.into_iter().map(|reason| self.problem_inside(None, reason)));
            }
            Step::Segments(segments) => {
                for segment in segments {
                    self.check_segment(segment, plan, found)?;
                }
            }
            Step::Unsealed(spans) => self.check_unsealed(spans, found)?,
            // A job has removed or adopted the file since.
            Step::Day(day) if !plan.look.lists(*day) => {}
            Step::Unlisted(day, format) if !plan.unlisted.contains(&(*day, *format)) => {}
            Step::Day(day) => self.check_day(*day, found)?,
            Step::Unlisted(day, format) => {
                let unlisted = self.unlisted((*day, *format));
                if let Some(unlisted) = verified.unless_damaged(Some(*day), unlisted)?.flatten() {
                    verified.day_count += 1;
                    verified.archived_row_count += unlisted.summary.row_count();
                    let open = self.open_unlisted((*day, *format));
                    if let Some(open) = verified.unless_damaged(Some(*day), open)?.flatten() {
                        verified.problems.extend(self.shared_ids(open)?);
                    }
                }
            }
        }
        Ok(())
    }
}

/// What SQLite finds wrong.
fn check_database(connection: &Connection) -> Result<Vec<String>> {
    let mut statement = connection.prepare(&format!("PRAGMA integrity_check({MOST_FINDINGS})"))?;
    let findings = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    Ok(findings.into_iter().filter(|finding| finding != "ok").collect())
}
