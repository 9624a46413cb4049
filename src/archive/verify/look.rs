//! What is there to be checked, as one transaction tells it, and looking again before something is called wrong: jobs merge
//! days and delete old ones in the midst of a verification.

use crate::archive::file::format::list_of_no_day;
use crate::archive::manifest::catalog::Archive;
use crate::archive::manifest::{days, expired, remote, strays};
use crate::archive::problem::Problem;
use crate::archive::verify::found::{Extent, Found, Look, Plan};
use crate::base::error::{Error, Result};
use crate::base::ids::IdSpan;
use crate::base::interrupt::check;
use crate::index::doubt;
use crate::index::verify::segments;

/// How often something is looked at again because jobs went on; each look is far shorter than a job.
const MOST_LOOKS: usize = 50;

impl Archive {
    /// What is there to be checked, and what is wrong with it at first sight.
    pub(super) fn planned(&self, extent: Extent) -> Result<(Plan, Found)> {
        let (mut found, mut look) = self.look(extent)?;
        for _ in 0..MOST_LOOKS {
            let plan = self.plan(extent, look)?;
            let problems = self.problems_at_sight(&plan)?;
            if problems.is_empty() {
                return Ok((plan, found));
            }
            let (found_now, now) = self.look(extent)?;
            if plan.look.is_still(&now) {
                found.verified.problems.extend(problems);
                return Ok((plan, found));
            }
            (found, look) = (found_now, now);
        }
        let plan = self.plan(extent, look)?;
        found.verified.problems.extend(self.problems_at_sight(&plan)?);
        Ok((plan, found))
    }

    /// What `check` finds by the plan; once more by a new one, if what is wrong may be so because jobs went on.
    pub(super) fn settled(&self, plan: &Plan, check_by: impl Fn(&Plan) -> Result<Found>) -> Result<Found> {
        let mut found = check_by(plan)?;
        let mut newer = None;
        for _ in 0..MOST_LOOKS {
            if found.verified.problems.is_empty() {
                return Ok(found);
            }
            check()?;
            let now = match self.look(plan.extent) {
                Ok((_, now)) => now,
                Err(Error::Corrupt { .. }) => return Ok(found),
                Err(error) => return Err(error),
            };
            if newer.as_ref().unwrap_or(plan).look.is_still(&now) {
                return Ok(found);
            }
            let next = self.plan(plan.extent, now)?;
            found = check_by(&next)?;
            newer = Some(next);
        }
        Ok(found)
    }

    fn look(&self, extent: Extent) -> Result<(Found, Look)> {
        let mut found = Found::default();
        let files = found.verified.unless_unreadable(self.directory(), self.files())?.unwrap_or_default();
        if extent == Extent::Rows {
            found.verified.problems.clear();
        }
        let look = self.log.database().read("verify", |connection| {
            Ok(Look {
                files,
                days: days::list(connection)?,
                described: days::described(connection)?,
                segments: segments(connection)?,
                pending: days::pending(connection)?,
                faults: strays::faults(connection)?,
                changed: doubt::changed(connection, IdSpan::ALL)?,
                expired: expired::ids(connection)?,
            })
        })?;
        Ok((found, look))
    }

    fn plan(&self, extent: Extent, look: Look) -> Result<Plan> {
        let unlisted = self.unlisted_files(&look.described, &look.files)?;
        let archived = self.archived_ids(&look.days, &unlisted)?;
        Ok(Plan { extent, look, unlisted, archived })
    }

    /// What is wrong with the directory, the list of days and that of segments.
    fn problems_at_sight(&self, plan: &Plan) -> Result<Vec<Problem>> {
        let Look { files, days, pending, segments, faults, .. } = &plan.look;
        let inside = segments.faults.iter().chain(faults);
        let mut problems: Vec<Problem> = inside.map(|reason| self.problem_inside(None, reason.clone())).collect();
        if plan.extent == Extent::Rows {
            return Ok(problems);
        }
        match self.check_owner() {
            Err(Error::Archive { path, reason } | Error::Io { path, reason, .. }) => {
                problems.push(Problem { path, day: None, ids: None, reason });
            }
            checked => checked?,
        }
        // That it cannot be listed is told elsewhere.
        problems.extend(list_of_no_day(self.directory()).unwrap_or_default().into_iter().map(|path| {
            let reason =
                "it is named after no day of the years 1970 to 9999, so that its rows are not read; move it elsewhere";
            Problem { path, day: None, ids: None, reason: reason.to_owned() }
        }));
        for object in self.log.database().read("read the manifest", remote::undescribed)? {
            if !object.has_file(files) {
                let (path, reason) = (object.url().into(), remote::LOST.to_owned());
                problems.push(Problem { path, day: Some(object.day), ids: None, reason });
            }
        }
        problems.extend(self.doubled_ids(days)?);
        problems.extend(self.doubled_days(days, files, pending, &plan.unlisted));
        Ok(problems)
    }
}
