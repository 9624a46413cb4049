//! The order of a salvage.

use std::path::{Path, PathBuf};

use roaring::RoaringTreemap;
use rusqlite::Connection;
use rusqlite::types::Value;

use crate::base::error::{Error, Result};
use crate::base::ids::IdSpan;
use crate::base::interrupt::check;
use crate::base::progress::Progress;
use crate::db::{Config, is_open_here};
use crate::durable::{self, Durability, Staged};
use crate::log as rows;
use crate::salvage::image::Image;
use crate::salvage::log::{Segments, insert, is_row};
use crate::salvage::missing::{Known, missing, spans};
use crate::salvage::tables::{Roots, Table, tables, tables_of_rounds};
use crate::salvage::tree::{Entry, Walk};
use crate::store::{LogStore, StoreConfig};

const OPERATION: &str = "salvage a database";
const SCHEMA_ROOT: u32 = 1;
/// Pages between two reports.
const REPORT_PAGES: u32 = 256;
/// How far above all ids that were found the next ones are, where nothing tells which were given out.
const MARGIN: i64 = 1_000_000;

/// Ids that a segment spans at the most whose gaps are not known.
const MOST_SPAN: u64 = 1_000_000;

/// What was saved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Salvaged {
    /// Rows in the new database.
    pub row_count: u64,
    /// Those of them that no checksum vouches for.
    pub unverified: Vec<IdSpan>,
    /// The ids that the database held, or may have held, and that are neither in the new one nor in the archive.
    pub missing: Vec<IdSpan>,
    /// The greatest id of the rows in the new database; None if it has none.
    pub last_id: Option<i64>,
}

/// Where the staged database lies. Dropped after it was closed, it removes what a failed write has left beside it.
struct StagedAt(PathBuf);

impl StagedAt {
    fn beside(&self, suffix: &str) -> PathBuf {
        let mut path = self.0.clone().into_os_string();
        path.push(suffix);
        path.into()
    }

    /// An error if commits of the closed database are in its write-ahead log alone: closing reports no failed checkpoint.
    fn check_whole(&self, target: &Path) -> Result<()> {
        if self.beside("-wal").metadata().map_or(0, |log| log.len()) == 0 {
            return Ok(());
        }
        let reason = "the new database could not be written as a whole: look at the disk, and try again".to_owned();
        Err(Error::errno(target, OPERATION, libc::EIO, reason))
    }
}

impl Drop for StagedAt {
    fn drop(&mut self) {
        for suffix in ["-wal", "-shm", "-journal", "-ids"] {
            // What is left is removed by a later opening in the directory.
            let _ = durable::remove(&self.beside(suffix), Durability::Normal);
        }
    }
}

/// What was read of the file.
struct Found {
    segments: Segments,
    /// Whether the tree of the rows led everywhere.
    has_whole_rows: bool,
    /// The greatest id that was given out, as SQLite's table of sequences says.
    last_id: Option<i64>,
    identity: Option<String>,
    /// The rows whose files were deleted because they are old. What is damaged may name any id.
    expired: RoaringTreemap,
}

/// Writes what can be read of the database at `damaged`, and of its archive, to a new one at `target`.
pub fn salvage(damaged: &Path, target: &Path, progress: &mut Progress<'_>) -> Result<Salvaged> {
    let reserved = check_unused(damaged)?;
    let target = std::path::absolute(target).map_err(|error| Error::io(target, OPERATION, &error))?;
    if std::fs::symlink_metadata(&target).is_ok() {
        let reason = "there is something already: choose a path for a new database".to_owned();
        return Err(Error::errno(&target, OPERATION, libc::EEXIST, reason));
    }
    let directory = target.parent().unwrap_or(Path::new("/"));
    durable::create_directories(directory, Durability::Full)?;
    let image = Image::open(damaged)?;
    let archive = archive_of(damaged, &image)?;
    let staged = Staged::create(directory)?;
    let staged_at = StagedAt(staged.path());
    let config = StoreConfig {
        database: Config { durability: Durability::Normal, ..Config::default() },
        segment_rows: None,
        archive_directory: Some(archive.unwrap_or_else(|| directory.join(".no-archive"))),
    };
    let store = LogStore::open(&staged.path(), config, &mut |_, _| check())?;
    let outcome = fill(&store, &image, reserved, progress);
    store.close()?;
    drop(store);
    let salvaged = outcome?;
    staged_at.check_whole(&target)?;
    if !staged.publish_unless_there(&target, Durability::Full)? {
        let reason = "something was put there meanwhile; choose another path".to_owned();
        return Err(Error::errno(&target, OPERATION, libc::EEXIST, reason));
    }
    Ok(salvaged)
}

/// The greatest id that may have been given out, if the database was not closed; an error if it is in use, as far as that can
/// be told.
fn check_unused(damaged: &Path) -> Result<Option<i64>> {
    if is_open_here(damaged) {
        let reason = "this process has it open: close the store first".to_owned();
        return Err(Error::errno(damaged, OPERATION, libc::EBUSY, reason));
    }
    rows::reserved_ids(damaged)
}

/// The archive beside the database, unless it is marked as that of another one.
fn archive_of(damaged: &Path, image: &Image) -> Result<Option<PathBuf>> {
    let damaged = std::path::absolute(damaged).map_err(|error| Error::io(damaged, OPERATION, &error))?;
    let directory = damaged.parent().unwrap_or(Path::new("/")).join("archive/logs");
    if !directory.is_dir() {
        return Ok(None);
    }
    let mark = std::fs::read(directory.join(".nerve-store")).unwrap_or_default();
    let mark: Option<serde_json::Value> = serde_json::from_slice(&mark).ok();
    let marked = mark.as_ref().and_then(|mark| mark["id"].as_str());
    let identity = identity_in(image)?;
    Ok(match (marked, identity) {
        (Some(marked), Some(identity)) if marked != identity => None,
        _ => Some(directory),
    })
}

fn identity_in(image: &Image) -> Result<Option<String>> {
    let (mut walk, mut roots, mut identity) = (Walk::new(image), Roots::default(), None);
    walk.tree(SCHEMA_ROOT, &mut |entry| {
        roots.take(&entry);
        Ok(())
    })?;
    if let Some(root) = roots.of("archive_owner") {
        walk.tree(root, &mut |entry| {
            if let [Value::Text(id)] = &entry.values[..]
                && id.len() == 32
                && id.bytes().all(|digit| digit.is_ascii_hexdigit())
            {
                identity = Some(id.clone());
            }
            Ok(())
        })?;
    }
    Ok(identity)
}

fn fill(store: &LogStore, image: &Image, reserved: Option<i64>, progress: &mut Progress<'_>) -> Result<Salvaged> {
    let total = u64::from(image.page_count);
    progress(0, total)?;
    // The archive first: its files say for themselves what is in them.
    store.reindex(&mut |_, _| check())?;
    let log = store.log();
    let found = log.write_unindexed(OPERATION, |connection| {
        let mut reader = Reader { connection, walk: Walk::new(image), roots: Roots::default() };
        let found = reader.read(image, progress)?;
        if let Some(identity) = &found.identity {
            connection.execute("DELETE FROM archive_owner", [])?;
            connection.execute("INSERT INTO archive_owner VALUES (?1)", [identity])?;
        }
        Ok((found, 0))
    })?;
    let archive = store.archive();
    // A row that the archive holds as well is the one of the archive, or is not right.
    let shared = archive.shared_rows()?;
    log.write_unindexed(OPERATION, |connection| {
        let mut delete = connection.prepare("DELETE FROM logs WHERE id = ?1")?;
        for id in &shared.conflicts {
            delete.execute([id.cast_signed()])?;
        }
        Ok(((), 0))
    })?;
    let archived = archive.listed_rows()?;
    let live = log.database().read(OPERATION, live_ids)?;
    let accounted = &(&live | &archived) | &found.expired;
    let segments = found.segments.list();
    let (mut verified, mut is_whole) = (shared.same, found.has_whole_rows && found.segments.is_whole);
    for segment in &segments {
        check()?;
        // One that is damaged can span everything.
        if segment.ids.len() > MOST_SPAN && !segment.expects_its_rows() {
            is_whole = false;
            continue;
        }
        let vouched = archive.vouched_by(segment)?;
        is_whole &= vouched.is_some() || segment.is_within(&accounted);
        verified |= vouched.unwrap_or_default();
    }
    let there = &live | &archived;
    let greatest = there.max().map_or(0, u64::cast_signed);
    let last_id = found.last_id.filter(|last| *last >= live.max().map_or(i64::MIN, u64::cast_signed));
    // An archive that is newer shows that commits are lost, those of segments too.
    let is_older = last_id.is_some_and(|last| archived.max().is_some_and(|newest| newest.cast_signed() > last));
    let has_all_segments =
        !is_older && found.segments.is_whole && segments.iter().all(crate::index::verify::Segment::expects_its_rows);
    let known = Known {
        there: &there,
        segments: &segments,
        has_all_segments,
        is_whole: is_whole && !is_older && last_id.is_some(),
        last_id,
        reserved,
    };
    let salvaged = Salvaged {
        row_count: live.len(),
        unverified: spans(&(&live - &verified)),
        missing: missing(&known),
        last_id: live.max().map(u64::cast_signed),
    };
    let next = last_id.or(reserved).unwrap_or_else(|| greatest.saturating_add(MARGIN)).max(greatest);
    let next = reserved.map_or(next, |reserved| reserved.max(next));
    log.database().write(OPERATION, None, |connection| {
        if next > 0 { rows::raise_last_given_id(connection, next) } else { Ok(()) }
    })?;
    log.database().write(OPERATION, None, |connection| take_rounds(connection, image))?;
    store.reindex(&mut |_, _| check())?;
    progress(total, total)?;
    Ok(salvaged)
}

/// Takes in what the index says of rounds, for the one that is about to be built.
fn take_rounds(connection: &Connection, image: &Image) -> Result<()> {
    let (mut walk, mut roots) = (Walk::new(image), Roots::default());
    walk.tree(SCHEMA_ROOT, &mut |entry| {
        roots.take(&entry);
        Ok(())
    })?;
    for table in tables_of_rounds(connection)? {
        if let Some(root) = roots.of(&table.name) {
            walk.tree(root, &mut |entry| table.insert(connection, &entry).map(|_| ()))?;
        }
    }
    Ok(())
}

fn live_ids(connection: &Connection) -> Result<RoaringTreemap> {
    let mut statement = connection.prepare("SELECT id FROM logs")?;
    let ids = statement.query_map([], |row| row.get::<_, i64>(0))?;
    Ok(ids.map(|id| id.map(i64::cast_unsigned)).collect::<rusqlite::Result<_>>()?)
}

struct Reader<'a> {
    connection: &'a Connection,
    walk: Walk<'a>,
    roots: Roots,
}

impl Reader<'_> {
    fn read(&mut self, image: &Image, progress: &mut Progress<'_>) -> Result<Found> {
        let connection = self.connection;
        let roots = &mut self.roots;
        let has_schema = self.walk.tree(SCHEMA_ROOT, &mut |entry| {
            roots.take(&entry);
            Ok(())
        })?;
        let has_whole_rows = self.tree("logs", &mut |entry| {
            insert(connection, &entry)?;
            Ok(())
        })?;
        let mut segments = Segments::default();
        // An entry that is none of the table's is one that is damaged.
        let mut are_taken = true;
        let mut has_segments = self.tree("log_segments", &mut |entry| {
            are_taken &= segments.take(&entry);
            Ok(())
        })?;
        has_segments &= self.tree("log_gaps", &mut |entry| {
            are_taken &= segments.take_gaps(&entry);
            Ok(())
        })?;
        segments.is_whole = has_segments && are_taken;
        let mut last_id = None;
        self.tree("sqlite_sequence", &mut |entry| {
            last_id = last_id.max(sequence(&entry));
            Ok(())
        })?;
        let mut identity = None;
        self.tree("archive_owner", &mut |entry| {
            if let [Value::Text(id)] = &entry.values[..] {
                identity = Some(id.clone());
            }
            Ok(())
        })?;
        let tables = tables(connection)?;
        let (mut lost, mut expired) = (Vec::new(), RoaringTreemap::new());
        for table in &tables {
            let is_whole = self.tree(&table.name, &mut |entry| {
                table.insert(connection, &entry)?;
                expired |= table.expired(&entry.values).unwrap_or_default();
                Ok(())
            })?;
            if !is_whole && table.is_known() {
                lost.push(table);
            }
        }
        let mut found = Found { segments, has_whole_rows: has_schema && has_whole_rows, last_id, identity, expired };
        self.strays(image, &lost, &mut found, progress)?;
        Ok(found)
    }

    /// Visits the tree of a table; false if it is not whole, or not found.
    fn tree(&mut self, table: &str, visit: &mut dyn FnMut(Entry) -> Result<()>) -> Result<bool> {
        match self.roots.of(table) {
            Some(root) => self.walk.tree(root, visit),
            None => Ok(false),
        }
    }

    /// Reads the pages that no tree led to, and those of the log whose commits are lost.
    fn strays(&mut self, image: &Image, lost: &[&Table], found: &mut Found, progress: &mut Progress<'_>) -> Result<()> {
        // What is damaged may be the tree that leads to them.
        let wants_rows = !found.has_whole_rows;
        let free = image.free_pages()?;
        for number in 1..=image.page_count {
            if number % REPORT_PAGES == 0 {
                progress(u64::from(number), u64::from(image.page_count))?;
            }
            if !free.contains(&number) {
                let entries = self.walk.stray(number)?;
                self.take_strays(entries, lost, found, wants_rows)?;
            }
        }
        for &offset in &image.loose {
            let entries = self.walk.leaf(&image.frame(offset)?)?;
            found.has_whole_rows = false;
            self.take_strays(entries, lost, found, true)?;
        }
        Ok(())
    }

    fn take_strays(&self, entries: Vec<Entry>, lost: &[&Table], found: &mut Found, wants_rows: bool) -> Result<()> {
        for entry in entries {
            // What is left of rows that went to the archive, whose file is gone by now.
            if found.expired.contains(entry.rowid.cast_unsigned()) && is_row(&entry) {
                continue;
            }
            if wants_rows && insert(self.connection, &entry)? || found.segments.take(&entry) {
                continue;
            }
            if let Some(last) = sequence(&entry) {
                found.last_id = found.last_id.max(Some(last));
                continue;
            }
            for table in lost {
                if table.may_be(&entry.values) && table.insert(self.connection, &entry)? {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// The greatest id that was given out, if the entry says it.
fn sequence(entry: &Entry) -> Option<i64> {
    match &entry.values[..] {
        [Value::Text(name), Value::Integer(last)] if name == "logs" => Some(*last),
        _ => None,
    }
}
