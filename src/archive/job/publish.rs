//! Publishing a staged day and deleting its rows: the steps whose order loses nothing. `docs/durability.md`, "Archive",
//! says what each is for.

use std::time::{Duration, Instant};

use roaring::RoaringTreemap;

use crate::archive::file::format::path_of;
use crate::archive::file::reader::{DayReader, damaged};
use crate::archive::file::summary::{Part, Summary};
use crate::archive::job::export::Written;
use crate::archive::job::plan;
use crate::archive::job::throttle::{AdaptiveBatch, Throttle};
use crate::archive::manifest::catalog::Archive;
use crate::archive::manifest::days::State;
use crate::archive::manifest::{days, refs};
use crate::base::error::Result;
use crate::base::ids::IdSpan;
use crate::base::time;
use crate::base::time::UtcDay;
use crate::durable;
use crate::durable::{Durability, Staged};
use crate::log;
use crate::log::Core;

/// The meta key of the watermark: the newest day that an archive job has finished.
pub const ARCHIVED_UP_TO: &str = "archived_up_to";

/// How long the deleting thread leaves the writer alone between two transactions. Other processes look for its lock at
/// intervals, and get it in some of these pauses.
const PAUSE: Duration = Duration::from_micros(300);

impl Archive {
    /// Publishes the staged file, and deletes its rows: commit what it will be, sync, publish, sync the directory, read
    /// back and compare, commit that it is, and only then delete exactly the rows that are in it.
    pub(crate) fn publish(&self, throttle: &Throttle, staged: Staged, written: &Written) -> Result<()> {
        self.mark_as_own()?;
        let summary = &written.summary;
        let day = summary.day;
        let path = path_of(self.directory(), day, summary.format);
        let now = time::now()?;
        self.log.database().write("write the manifest", Some(Durability::Full), |connection| {
            let has_rounds = written.noted_rounds || days::has_rounds(connection, day)?;
            days::save(connection, summary, State::Pending, now, has_rounds)
        })?;
        // Also when nothing was added: an earlier job may have been killed between publishing the file and syncing the
        // directory, and its rows are deleted below.
        staged.publish(&path, Durability::Full)?;
        self.read_back(summary)?;
        // While the manifest says that the file is about to be published, the other one is explained.
        durable::remove(&path_of(self.directory(), day, summary.format.other()), Durability::Full)?;
        self.log
            .database()
            .write("write the manifest", Some(Durability::Normal), |connection| days::promote(connection, day))?;
        self.forget_seen();
        delete_rows(&self.log, throttle, &written.exported)?;
        set_watermark(&self.log, day, Durability::Normal)
    }

    fn read_back(&self, summary: &Summary) -> Result<()> {
        let path = path_of(self.directory(), summary.day, summary.format);
        let reader = DayReader::open(self.directory(), summary.day, summary.format)?;
        let Some(reader) = reader.filter(|reader| reader.size() == summary.size) else {
            return Err(damaged(&path, "it is not what was published; its rows were kept in the database"));
        };
        // The checksums of the blocks, because they are as sure against accidents as the sha256, and take no time.
        reader.with_blocks(summary.blocks.clone()).check_blocks()
    }
}

/// Writes references of a day to the manifest, in transactions that hold the lock for moments.
pub(crate) fn save_refs(log: &Core, throttle: &Throttle, day: UtcDay, part: &Part) -> Result<()> {
    // In the order of the table, so that neighbours share pages.
    let mut refs: Vec<_> = part.iter().map(|(ref_id, rows)| (&**ref_id, rows)).collect();
    refs.sort_unstable_by_key(|(ref_id, _)| *ref_id);
    for refs in refs.chunks(throttle.steps().refs) {
        let began = Instant::now();
        log.database().write("write the manifest", Some(Durability::Normal), |connection| {
            refs::save(connection, day, refs.iter().copied())
        })?;
        throttle.pause(began);
    }
    Ok(())
}

/// Deletes the rows with `ids`, except those whose run was resumed meanwhile. The files that hold them are synced, so
/// a power loss that undoes a delete leaves a row in both places, which the next job resolves.
fn delete_rows(log: &Core, throttle: &Throttle, ids: &RoaringTreemap) -> Result<()> {
    let mut ids = ids.iter().peekable();
    let mut batch = AdaptiveBatch::default();
    while ids.peek().is_some() {
        let began = Instant::now();
        let rows = log.commit("delete archived rows", Some(Durability::Normal), |transaction| {
            throttle.observe(transaction.connection())?;
            let rows = batch.rows(throttle);
            let mut left = rows;
            while left > 0 {
                let Some(first) = ids.next() else { break };
                let mut last = first;
                left -= 1;
                while left > 0 && ids.next_if(|id| *id == last + 1).is_some() {
                    last += 1;
                    left -= 1;
                }
                let span = IdSpan { first: first.cast_signed(), last: last.cast_signed() };
                transaction.note_deleted(span)?;
                plan::delete_unpinned(transaction.connection(), span)?;
            }
            Ok(rows)
        })?;
        batch.took(rows, began.elapsed());
        std::thread::sleep(PAUSE);
        log.database().checkpoint_if_due(throttle.steps().pages);
        throttle.pause(began);
    }
    Ok(())
}

/// Moves the watermark on to `day`; never back.
pub(crate) fn set_watermark(log: &Core, day: UtcDay, durability: Durability) -> Result<()> {
    log.database().write("write the watermark", Some(durability), |connection| {
        let known = log::read_meta(connection, ARCHIVED_UP_TO)?.and_then(|known| known.parse::<UtcDay>().ok());
        if known.is_some_and(|known| known >= day) {
            return Ok(());
        }
        log::write_meta(connection, ARCHIVED_UP_TO, &day.to_string())
    })
}
