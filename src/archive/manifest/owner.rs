//! Whose archive a directory is, and the ids that its files hold.
//!
//! Invariants: no id that a file of the archive holds is given out again; rows of one database do not get into the archive
//! of another, nor hide its rows.
//!
//! A database has a random identity, which its copies and backups keep. The first job marks the directory with it.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::Connection;

use crate::archive::file::last_id::last_id;
use crate::archive::file::reader::DayReader;
use crate::archive::manifest::catalog::Archive;
use crate::archive::manifest::days;
use crate::archive::manifest::seen::{DayFile, Mark, Stamp};
use crate::base::error::{Error, Result};
use crate::durable;
use crate::durable::{Durability, Staged};
use crate::log;

/// The file with the mark. No pattern by which others look for day files matches it.
pub(in crate::archive) const MARK: &str = ".nerve-store";

/// Bytes of a mark at the most.
const MOST_MARK_BYTES: u64 = 64 << 10;

impl Archive {
    /// Makes a database that is being opened fit for its archive: gives it an identity, or that of the archive if it has no
    /// rows yet, and sees to it that it gives out no id that a file holds.
    pub fn prepare(&self) -> Result<()> {
        let mark = self.mark().ok().flatten();
        let (stored, is_new, last_given) = self.log.database().read("look at the archive", |connection| {
            let has_rows = connection.prepare_cached("SELECT 1 FROM logs LIMIT 1")?.exists([])?;
            let last_given = log::last_given_id(connection)?;
            let is_new = !has_rows && days::is_empty(connection)?;
            Ok((identity(connection)?, is_new, last_given))
        })?;
        let is_writable = !self.log.database().config().read_only;
        let identity = match (stored.clone(), &mark) {
            // It is damaged, and the mark that this database has made says what it was.
            (Some(found), Some(mark)) if !is_identity(&found) && self.has_made(mark) => Some(mark.id.clone()),
            (Some(found), None) if !is_identity(&found) => None,
            (identity, _) => identity,
        };
        let identity = match (identity, &mark) {
            (_, Some(mark)) if is_new => Some(mark.id.clone()).inspect(|id| drop(self.identity.set(id.clone()))),
            (Some(identity), _) => Some(identity),
            (None, _) if is_writable => None,
            // Which it is cannot be told before it is opened for writing.
            (None, _) => return Ok(()),
        };
        let is_own = mark.as_ref().is_none_or(|mark| identity.as_ref().is_none_or(|identity| *identity == mark.id));
        let is_own = is_own && (identity.is_some() || mark.is_none());
        // Opening goes on where the directory cannot be read: the database then has only its own word for it.
        let greatest =
            if is_own && is_writable { self.greatest_id(last_given).unwrap_or(last_given) } else { last_given };
        if is_writable && (stored.is_none() || stored != identity || greatest > last_given) {
            let wanted = identity.clone();
            let written = self.log.database().write("look at the archive", None, |connection| {
                log::raise_last_given_id(connection, greatest)?;
                match wanted {
                    Some(wanted) => save_identity(connection, &wanted)?,
                    // Another process may have been faster.
                    None if self::identity(connection)?.is_some_and(|found| is_identity(&found)) => {}
                    None => save_identity(connection, &new_identity())?,
                }
                self::identity(connection)
            });
            let stored = match written {
                Ok(stored) => stored,
                // The next opening gives it its identity.
                Err(_) if greatest <= last_given => identity,
                Err(error) => return Err(error),
            };
            let _ = stored.map(|identity| self.identity.set(identity));
        } else {
            let _ = identity.map(|identity| self.identity.set(identity));
        }
        Ok(())
    }

    /// The greatest id in the files that the manifest does not describe as they are, or `known`.
    fn greatest_id(&self, known: i64) -> Result<i64> {
        let files = self.files()?;
        if files.is_empty() {
            return Ok(known);
        }
        let described = self.log.database().read("look at the archive", days::described)?;
        let mut described = described.iter().peekable();
        let mut greatest = known;
        for file in files.iter() {
            while described.next_if(|described| described.file.0 < file.0).is_some() {}
            let is_known =
                described.peek().is_some_and(|described| described.file == *file && self.is_untouched(described));
            if !is_known && let Ok(Some(reader)) = DayReader::open(self.directory(), file.0, file.1) {
                greatest = greatest.max(last_id(reader).unwrap_or(i64::MIN));
            }
        }
        Ok(greatest)
    }

    fn is_untouched(&self, described: &days::Described) -> bool {
        let (day, format): DayFile = described.file;
        let path = crate::archive::file::format::path_of(self.directory(), day, format);
        std::fs::symlink_metadata(path).is_ok_and(|metadata| described.is_untouched(Stamp::of(&metadata)))
    }

    /// Whether the mark names the database at this one's path.
    fn has_made(&self, mark: &Mark) -> bool {
        let named = std::fs::canonicalize(self.directory().join(&mark.database));
        named.is_ok_and(|named| named == self.log.database().path())
    }

    /// An error if the directory is marked as the archive of another database.
    pub fn check_owner(&self) -> Result<()> {
        let Some(mark) = self.mark()? else { return Ok(()) };
        if self.identity.get().is_none_or(|identity| *identity == mark.id) {
            return Ok(());
        }
        let reason = format!(
            "it is the archive of another database, {}: give this one an archive_dir of its own. If it is the same database, remove {MARK} from the directory",
            self.directory().join(&mark.database).display()
        );
        Err(Error::Archive { path: self.directory().to_owned(), reason })
    }

    /// Marks the directory as the archive of this database, unless it is marked.
    pub(in crate::archive) fn mark_as_own(&self) -> Result<()> {
        self.check_owner()?;
        let (Some(id), None) = (self.identity.get(), self.mark()?) else { return Ok(()) };
        let database = relative(self.log.database().path(), self.directory()).to_string_lossy().into_owned();
        let mark = serde_json::to_vec(&Mark { id: id.clone(), database }).unwrap_or_default();
        let path = self.directory().join(MARK);
        let mut staged = Staged::create(self.directory())?;
        staged.write_all(&mark).map_err(|error| Error::io(&path, "mark the archive", &error))?;
        staged.publish_unless_there(&path, Durability::Full)?;
        self.check_owner()
    }

    /// Whose archive the directory is, if it is marked.
    fn mark(&self) -> Result<Option<Arc<Mark>>> {
        let path = self.directory().join(MARK);
        let stamp = match std::fs::symlink_metadata(&path) {
            Ok(metadata) => Stamp::of(&metadata),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.raw_os_error() == Some(libc::ENOTDIR) => return Ok(None),
            Err(error) => return Err(Error::io(&path, "look whose archive it is", &error)),
        };
        if let Some((known, mark)) = &self.seen().mark
            && *known == stamp
        {
            return Ok(Some(Arc::clone(mark)));
        }
        let unreadable = |reason: String| {
            let reason =
                format!("it should say whose archive this is ({reason}); remove it, and the next job writes it");
            Error::Archive { path: path.clone(), reason }
        };
        let Some(file) = durable::open_regular(&path)? else { return Ok(None) };
        if stamp.size > MOST_MARK_BYTES {
            return Err(unreadable("it is too long".into()));
        }
        let mut text = Vec::new();
        file.take(MOST_MARK_BYTES).read_to_end(&mut text).map_err(|error| unreadable(error.to_string()))?;
        let mark: Mark = serde_json::from_slice(&text).map_err(|error| unreadable(error.to_string()))?;
        let mark = Arc::new(mark);
        self.seen().mark = Some((stamp, Arc::clone(&mark)));
        Ok(Some(mark))
    }
}

/// The identity that the database has, if it has one, as it is stored, damaged or not.
pub(crate) fn identity(connection: &Connection) -> Result<Option<String>> {
    let mut statement = connection.prepare_cached("SELECT id FROM archive_owner LIMIT 1")?;
    let mut rows = statement.query([])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let text = row.get_ref(0)?.as_bytes_or_null().map_err(rusqlite::Error::from)?.unwrap_or_default();
    Ok(Some(String::from_utf8_lossy(text).into_owned()))
}

/// Whether it is one that [`new_identity`] makes.
fn is_identity(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

fn save_identity(connection: &Connection, identity: &str) -> Result<()> {
    connection.execute("DELETE FROM archive_owner", [])?;
    connection.execute("INSERT INTO archive_owner VALUES (?1)", [identity])?;
    Ok(())
}

/// The path as it is seen from the directory, so that both can be moved together.
fn relative(path: &Path, directory: &Path) -> PathBuf {
    let directory = std::fs::canonicalize(directory).unwrap_or_else(|_| directory.to_owned());
    for (up, ancestor) in directory.ancestors().enumerate() {
        // A path that has only the root in common is clearer as it is.
        if ancestor.parent().is_some()
            && let Ok(below) = path.strip_prefix(ancestor)
        {
            return PathBuf::from("../".repeat(up)).join(below);
        }
    }
    path.to_owned()
}

/// 128 bits that no other database has. The standard library seeds its hashers from the system.
fn new_identity() -> String {
    let half = || RandomState::new().build_hasher().finish();
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u128(time.as_nanos());
    hasher.write_u32(std::process::id());
    format!("{:016x}{:016x}", half(), hasher.finish())
}
