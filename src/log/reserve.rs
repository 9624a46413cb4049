//! The reserve of ids: a bound on the ids that have been given out, in a file beside the database while it is written to, so
//! that ids are not given out again when the database has lost its newest commits.
//!
//! A write-ahead log that was removed or damaged, or a power loss at durability `normal`, takes commits with it, and the
//! database alone would number the next rows as the lost ones.
//!
//! Invariants: no id above the bound is committed; the file is there as long as a process that appended has the log open,
//! and after each end that was not a clean one. Then the next opening looks for signs of a loss, and where it finds one it
//! goes on above the bound, so that a gap stays in the ids. `docs/format.md` describes the bytes.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use xxhash_rust::xxh3::xxh3_64;

use crate::base::error::{Error, Result};
use crate::db::{WalCondition, wal_condition};
use crate::durable::{Durability, RECORD_BYTES, Record};

/// Ids that the first row of a handle reserves, and the most that a later one does: twice as many each time, so that a log
/// that grows fast writes the record rarely, and one that grows slowly has small gaps.
const FIRST_RESERVE: i64 = 256;
const MOST_RESERVE: i64 = 65_536;

/// What the file is called, beside the database.
const SUFFIX: &str = "-ids";

/// What the record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bound {
    /// No greater id has been given out.
    greatest: i64,
    /// When the machine was started; 0: not known. After another start nothing that was not synced is there.
    boot: u64,
    /// Since the record was made, a row has been committed.
    has_commits: bool,
}

/// The reserve of one handle.
pub(crate) struct IdReserve {
    database: PathBuf,
    path: PathBuf,
    /// Ids up to here need no look at the record.
    reserved: AtomicI64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Open and locked from the first row on.
    record: Option<Record>,
    /// How many ids were reserved last.
    step: i64,
}

impl IdReserve {
    /// Of the database at `path`; touches nothing yet.
    pub(crate) fn of(path: &Path) -> Self {
        let mut name = path.as_os_str().to_owned();
        name.push(SUFFIX);
        Self {
            database: path.to_owned(),
            path: name.into(),
            reserved: AtomicI64::new(i64::MIN),
            state: Mutex::default(),
        }
    }

    /// The greatest id that may have been given out and lost; None without a sign of a loss. To be called before the
    /// database is opened, which repairs its write-ahead log.
    pub(crate) fn floor(&self) -> Result<Option<i64>> {
        let Some(record) = Record::open(&self.path)? else { return Ok(None) };
        // What another process that is at work sees is what there is.
        if !record.try_lock_exclusive()? {
            return Ok(None);
        }
        let Some(bound) = record.read()?.map(|bytes| Bound::decode(&bytes)) else { return Ok(None) };
        let is_lost = match wal_condition(&self.database)? {
            WalCondition::Missing | WalCondition::Damaged => true,
            WalCondition::Empty => bound.has_commits,
            WalCondition::Whole => false,
        };
        Ok((is_lost || bound.boot != this_boot()).then_some(bound.greatest))
    }

    /// Makes sure that ids up to `last` are reserved; to be called in the write transaction that gives them out, before it
    /// commits.
    pub(crate) fn cover(&self, last: i64) -> Result<()> {
        if last <= self.reserved.load(Ordering::Relaxed) {
            return Ok(());
        }
        let state = &mut *self.state();
        let is_first = state.record.is_none();
        let record = match state.record.take() {
            Some(record) => record,
            None => Record::share(&self.path)?,
        };
        let record = state.record.insert(record);
        // Another process may have reserved more already. One write transaction at a time comes here.
        let known = record.read()?.map(|bytes| Bound::decode(&bytes));
        let has_commits = !is_first || known.is_some_and(|bound| bound.has_commits);
        let greatest = match known {
            Some(bound) if bound.greatest >= last && bound.has_commits == has_commits && bound.boot == this_boot() => {
                bound.greatest
            }
            _ => {
                state.step = (state.step * 2).clamp(FIRST_RESERVE, MOST_RESERVE);
                let greatest = last.saturating_add(state.step).max(known.map_or(i64::MIN, |bound| bound.greatest));
                record.write(&Bound { greatest, boot: this_boot(), has_commits }.encode(), Durability::Full)?;
                greatest
            }
        };
        // The second commit says that there was a first one.
        self.reserved.store(if has_commits { greatest } else { last }, Ordering::Relaxed);
        Ok(())
    }

    /// The greatest id that any process that is at work may have given out; below any if this one has given out none.
    pub(crate) fn bound(&self) -> Result<i64> {
        let state = self.state();
        let bytes = state.record.as_ref().map_or(Ok(None), Record::read)?;
        Ok(bytes.map_or(i64::MIN, |bytes| Bound::decode(&bytes).greatest))
    }

    /// Removes the record, if no other process is at work; to be called when this handle gives out no more ids.
    pub(crate) fn end(&self) -> Result<()> {
        let Some(record) = std::mem::take(&mut *self.state()).record else { return Ok(()) };
        self.reserved.store(i64::MIN, Ordering::Relaxed);
        if record.try_lock_exclusive()? { record.remove() } else { Ok(()) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bound {
    fn encode(self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        bytes[..8].copy_from_slice(&self.greatest.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.boot.to_le_bytes());
        bytes[16] = u8::from(self.has_commits);
        bytes
    }

    fn decode(bytes: &[u8; RECORD_BYTES]) -> Self {
        let (words, _) = bytes.as_chunks::<8>();
        Self {
            greatest: i64::from_le_bytes(words[0]),
            boot: u64::from_le_bytes(words[1]),
            has_commits: words[2][0] == 1,
        }
    }
}

/// The greatest id that may have been given out in the database at `path`, if its last end was no clean close; an error if a
/// process that appends has it open.
pub(crate) fn reserved_ids(path: &Path) -> Result<Option<i64>> {
    let reserve = IdReserve::of(path);
    let Some(record) = Record::open(&reserve.path)? else { return Ok(None) };
    if !record.try_lock_exclusive()? {
        let reason = "another process appends to it: end that first".to_owned();
        return Err(Error::errno(path, "look at the ids", libc::EBUSY, reason));
    }
    Ok(record.read()?.map(|bytes| Bound::decode(&bytes).greatest))
}

/// What tells this start of the machine from others; 0 where the system does not tell.
fn this_boot() -> u64 {
    std::fs::read("/proc/sys/kernel/random/boot_id").map_or(0, |id| xxh3_64(&id))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::durable::Staged;

    fn reserve() -> (tempfile::TempDir, IdReserve) {
        let directory = tempfile::tempdir().unwrap();
        let reserve = IdReserve::of(&directory.path().join("logs.db"));
        (directory, reserve)
    }

    fn write_wal(reserve: &IdReserve, bytes: &[u8]) {
        let mut path = reserve.database.as_os_str().to_owned();
        path.push("-wal");
        let mut file = Staged::create(reserve.database.parent().unwrap()).unwrap();
        file.write_all(bytes).unwrap();
        file.publish(Path::new(&path), Durability::Normal).unwrap();
    }

    #[test]
    fn a_clean_end_leaves_nothing() {
        let (directory, reserve) = reserve();
        assert_eq!(reserve.floor().unwrap(), None);
        reserve.cover(3).unwrap();
        assert_eq!(IdReserve::of(&reserve.database).floor().unwrap(), None, "its process is at work");
        reserve.end().unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn after_another_end_a_loss_is_told_by_the_write_ahead_log() {
        let (_directory, reserve) = reserve();
        reserve.cover(3).unwrap();
        let database = reserve.database.clone();
        drop(reserve);
        let reserve = IdReserve::of(&database);
        assert_eq!(reserve.floor().unwrap(), Some(3 + FIRST_RESERVE), "there is no log");
        write_wal(&reserve, b"");
        assert_eq!(reserve.floor().unwrap(), None, "killed before its first commit");
        write_wal(&reserve, &[7; 5_000]);
        assert_eq!(reserve.floor().unwrap(), Some(3 + FIRST_RESERVE));
        reserve.cover(4).unwrap();
        reserve.cover(5).unwrap();
        drop(reserve);
        let reserve = IdReserve::of(&database);
        write_wal(&reserve, b"");
        assert!(reserve.floor().unwrap().is_some_and(|floor| floor >= 5), "its commits are gone");
    }

    #[test]
    fn after_another_start_of_the_machine_nothing_is_taken_for_granted() {
        let (_directory, reserve) = reserve();
        let record = Record::share(&reserve.path).unwrap();
        let bound = Bound { greatest: 99, boot: this_boot() ^ 1, has_commits: true };
        record.write(&bound.encode(), Durability::Full).unwrap();
        drop(record);
        write_wal(&reserve, &[0; 10]);
        assert_eq!(reserve.floor().unwrap(), Some(99));
    }

    #[test]
    fn of_two_at_work_the_last_to_end_removes_the_record() {
        let (directory, one) = reserve();
        let other = IdReserve::of(&one.database);
        one.cover(1).unwrap();
        other.cover(2).unwrap();
        one.end().unwrap();
        other.cover(3).unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        other.end().unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_log_that_grows_fast_writes_the_record_rarely() {
        let (_directory, reserve) = reserve();
        let mut writes = 0;
        for id in 1..=1_000_000 {
            let before = reserve.reserved.load(Ordering::Relaxed);
            reserve.cover(id).unwrap();
            writes += usize::from(reserve.reserved.load(Ordering::Relaxed) != before);
        }
        assert!(writes < 30, "{writes}");
    }
}
