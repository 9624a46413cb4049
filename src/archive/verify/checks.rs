//! What is checked of a segment, of a day's file, and of the postings of all rows.

use std::borrow::Cow;

use roaring::RoaringTreemap;

use crate::archive::file::scan::{Watch, scan};
use crate::archive::file::summary::Part;
use crate::archive::manifest::catalog::Archive;
use crate::archive::manifest::days::State;
use crate::archive::manifest::examine::is_of_the_file;
use crate::archive::manifest::values::set_of;
use crate::archive::manifest::{days, refs};
use crate::archive::problem::Problem;
use crate::archive::verify::found::{Extent, Found, Plan};
use crate::archive::verify::report::Verified;
use crate::base::error::{Error, Result};
use crate::base::ids::IdSpan;
use crate::base::interrupt::check;
use crate::base::time::UtcDay;
use crate::index::verify::{Elements, Live, Observed, Segment, Unreadable, check_postings};
use crate::row::{Filter, is_round_entry};

impl Archive {
    /// The rows of the log for which the checksum of a segment vouches, together with those that are in the archive by now;
    /// None if they are not what was sealed.
    pub(crate) fn vouched_by(&self, segment: &Segment) -> Result<Option<RoaringTreemap>> {
        let filter = Filter::default().within(segment.ids);
        let mut rows = match self.query(&filter) {
            Ok(rows) => rows,
            Err(error) if is_of_the_file(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        rows.retain(|row| segment.had(row.id));
        let vouches = segment.is(&Observed::of(segment.ids.first, &rows));
        Ok(vouches.then(|| rows.iter().map(|row| row.id.cast_unsigned()).collect()))
    }

    /// Looks for rows in these spans, which no segment holds, that cannot be read.
    pub(super) fn check_unsealed(&self, spans: &[IdSpan], found: &mut Found) -> Result<()> {
        let database = self.log.database();
        // What is appended meanwhile is another verification's.
        let newest = database.read("verify", |connection| {
            Ok(connection.query_row("SELECT max(id) FROM logs", [], |row| row.get::<_, Option<i64>>(0))?)
        })?;
        let Some(newest) = newest else { return Ok(()) };
        let mut unreadable = Unreadable::default();
        for span in spans {
            let mut rest = IdSpan::new(span.first, span.last.min(newest));
            while let Some(span) = rest {
                check()?;
                rest = database.read("verify", |connection| unreadable.look_into(connection, span))?;
            }
        }
        self.name_unreadable(&unreadable, &mut found.verified);
        Ok(())
    }

    fn name_unreadable(&self, unreadable: &Unreadable, verified: &mut Verified) {
        verified.problems.extend(unreadable.described().map(|(ids, reason)| self.problem_inside(Some(ids), reason)));
    }

    /// Compares a segment with its rows.
    pub(super) fn check_segment(&self, segment: &Segment, plan: &Plan, found: &mut Found) -> Result<()> {
        let read = self.log.database().read("verify", |connection| segment.live(connection))?;
        // Another process has rebuilt the index, or forgotten the segment.
        let Some(Live { rows: live, zones, overlooks, unreadable }) = read else { return Ok(()) };
        if plan.extent == Extent::Everything {
            self.name_unreadable(&unreadable, &mut found.verified);
        }
        if overlooks {
            let reason = format!(
                "the index of the log is damaged (it does not know that rows of {} to {} have left); reindex() rebuilds it",
                segment.ids.first, segment.ids.last
            );
            found.verified.problems.push(self.problem_inside(Some(segment.ids), reason));
        }
        found.verified.segment_count += 1;
        found.verified.row_count += live.row_count();
        let sealed = match self.sealed_rows(segment, &live, plan, &mut found.verified) {
            // Reads of the segment stumble over these.
            Err(Error::Corrupt { .. }) if !unreadable.is_empty() => None,
            Err(Error::Corrupt { path, reason }) => {
                found.verified.problems.push(Problem { path, day: None, ids: Some(segment.ids), reason });
                None
            }
            sealed => sealed?,
        };
        let Some(sealed) = sealed else { return Ok(()) };
        let again = |segment: &Segment| self.log.database().read("verify", |connection| segment.kinds(connection));
        for table in segment.faults(&sealed, zones.as_deref(), &plan.look.segments.kinds, again)? {
            let reason = format!(
                "the index of the log is damaged ({table} says another thing of ids {} to {} than their rows); \
                 reindex() rebuilds it",
                segment.ids.first, segment.ids.last
            );
            found.verified.problems.push(self.problem_inside(Some(segment.ids), reason));
        }
        let is_restored = |id: i64| plan.look.segments.restored.iter().any(|span| span.contains(id));
        found.live.merge(&live.elements(|id| segment.had(id) && !is_restored(id)));
        Ok(())
    }

    /// The rows that were sealed, wherever they are by now; None if they are not what they were, which is reported.
    fn sealed_rows<'a>(
        &self,
        segment: &Segment,
        live: &'a Observed,
        plan: &Plan,
        verified: &mut Verified,
    ) -> Result<Option<Cow<'a, Observed>>> {
        if segment.is(live) {
            return Ok(Some(Cow::Borrowed(live)));
        }
        // Some of its rows have left, or are just leaving.
        let filter = Filter::default().within(segment.ids);
        let mut rows = match self.query(&filter) {
            Ok(rows) => rows,
            // Reported where the file is checked, or by what follows.
            Err(Error::ArchiveCorrupt { .. } | Error::Archive { .. } | Error::IdConflict { .. }) => return Ok(None),
            Err(error) if error.is_unreadable() && !error.is_unreadable_at(self.log.database().path()) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        // What was archived before the segment was sealed, between its rows.
        rows.retain(|row| segment.had(row.id) || !plan.archived.contains(row.id.cast_unsigned()));
        let found = Observed::with_times_of(live, segment.ids.first, &rows);
        if segment.is(&found) {
            return Ok(Some(Cow::Owned(found)));
        }
        // The files answer for a segment that is wholly in them, and an index may never have seen what was put back.
        if segment.is_made_up_of(&found, &plan.look.expired) {
            return Ok(None);
        }
        let is_archived = live.row_count() == 0 && segment.is_within(&plan.archived);
        let touches = |spans: &[IdSpan]| spans.iter().any(|span| span.intersect(segment.ids).is_some());
        let is_changed = touches(&plan.look.changed);
        if is_archived || (touches(&plan.look.segments.restored) && !is_changed) {
            return Ok(None);
        }
        let (had, has) = (segment.row_count, found.row_count());
        let what = match has.cmp(&had) {
            std::cmp::Ordering::Less => {
                format!("{} of {had} rows are neither in the log nor in the archive", had - has)
            }
            std::cmp::Ordering::Equal => "a row is not what was appended".to_owned(),
            std::cmp::Ordering::Greater => format!("there are {} rows more than were appended", has - had),
        };
        let by_whom = if is_changed { ", and another program wrote at these ids" } else { "" };
        let IdSpan { first, last } = segment.ids;
        let reason = format!(
            "ids {first} to {last}: {what}{by_whom}; restore a backup, or accept it with reindex() if another program did that"
        );
        verified.problems.push(self.problem_inside(Some(segment.ids), reason));
        Ok(None)
    }

    /// Reads a day's file from end to end, and compares it with the manifest.
    pub(super) fn check_day(&self, day: UtcDay, found: &mut Found) -> Result<()> {
        let Found { verified, archived, .. } = found;
        let Some(open) = verified.unless_damaged(Some(day), self.open_known_or_grown(day))? else { return Ok(()) };
        let path = open.reader.path().to_owned();
        verified.problems.extend(self.missing_ids(&path, &open.summary)?);
        // A file that has grown tells by itself what is in it, until the next job adopts it.
        let current = self.log.database().read("verify", |connection| days::load(connection, day, State::Current))?;
        let is_listed = current.is_some_and(|listed| listed.sha256 == open.summary.sha256);
        let mut hidden = None;
        let mut rounds = Elements::default();
        let mut take_part = |part: Part| {
            self.log.database().read("verify", |connection| {
                for (ref_key, rows) in &part {
                    rounds.add_rounds(ref_key, &rows.rounds);
                    let known = refs::ids(connection, day, ref_key)?;
                    if is_listed && !set_of(&rows.ids).is_subset(&known) {
                        hidden = Some(ref_key.clone());
                    }
                }
                Ok(())
            })
        };
        let watch = Watch { take_part: &mut take_part, is_round: &is_round_entry };
        let Some(file) = verified.unless_damaged(Some(day), scan(open.reader, watch))? else { return Ok(()) };
        verified.day_count += 1;
        verified.archived_row_count += file.row_count();
        if let Some(open) = verified.unless_damaged(Some(day), self.open_known_or_grown(day))? {
            let shared = verified.unless_damaged(Some(day), self.shared_ids(open))?.flatten();
            verified.problems.extend(shared);
        }
        let mut problem = |reason: String| {
            verified.problems.push(Problem { path: path.clone(), day: Some(day), ids: file.id_span(), reason });
        };
        let listed = &open.summary;
        let hides_kinds = listed.kinds.as_ref().is_some_and(|listed| {
            file.kinds.as_ref().is_none_or(|kinds| kinds.iter().any(|pair| !listed.contains(pair)))
        });
        if file.sha256 != listed.sha256 {
            problem(format!("its sha256 is {} and should be {}", file.sha256, listed.sha256));
            return Ok(());
        }
        if file.ids != listed.ids || file.blocks != listed.blocks || file.raw_size != listed.raw_size {
            problem("the manifest says another thing of its rows; reindex() rebuilds the manifest".to_owned());
        } else if hides_kinds {
            problem("the manifest does not know all of its sources and types; reindex() rebuilds it".to_owned());
        } else if let Some(ref_key) = hidden {
            problem(format!("the manifest does not know all rows of {ref_key:?}; reindex() rebuilds the manifest"));
        }
        // The rounds of a file that has grown are not numbered yet, nor are those of an unlisted one.
        if is_listed {
            rounds.add_rows(&file.ids);
            archived.merge(&rounds);
        }
        Ok(())
    }

    /// Compares the postings with all that was found.
    pub(super) fn check_postings(&self, found: &mut Found) -> Result<()> {
        let checked = self.log.database().read("verify", |connection| {
            check_postings(connection, &found.live, &found.archived, &|connection, visit| {
                refs::each_counted_round(connection, visit)
            })
        });
        match checked {
            Ok(faults) => {
                let problems = faults.into_iter().map(|fault| self.problem_inside(fault.ids, fault.reason));
                found.verified.problems.extend(problems);
                Ok(())
            }
            Err(Error::Corrupt { path, reason }) => {
                found.verified.problems.push(Problem { path, day: None, ids: None, reason });
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}
