//! Opening connections: which file, with which flags, and each pragma beside its reason.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use rustix::fs::Access;
use rustix::io::Errno;

use crate::base::error::{Error, Result};
use crate::base::interrupt::{check_wait, waits_since};
use crate::db::failure::{Context, Located, is_busy, is_unopenable, refusal};
use crate::db::fork::Link;
use crate::db::held;
use crate::db::readers::Reader;
use crate::db::schema::{self, Derived, Identity};
use crate::db::unlocked::{self, Still};
use crate::db::wait::{interrupt_statements, wait_for_locks};
use crate::durable::{self, Durability};

/// Statements that a connection keeps compiled; the core has fewer than this many.
const STATEMENT_CACHE: usize = 128;

/// SQLite's smallest page, which is also the smallest database.
const MIN_DATABASE_BYTES: u64 = 512;

/// The longest absolute path of a database: of SQLite's 512 bytes, eight are for the suffix `-journal`.
const MAX_PATH_BYTES: usize = 504;

/// The file that tells that a backup into its directory has not been finished. There a database is not created: beside half
/// an archive, it would be taken for the whole.
pub const UNFINISHED_BACKUP: &str = ".nerve-store-unfinished";

/// What keeps a directory from being taken for a new one: a database would be made beside that which is on its way.
const UNFINISHED: [(&str, &str); 3] = [
    (UNFINISHED_BACKUP, "a backup that was not finished: make the backup again, or remove"),
    // The database of python/nerve_store/moving/directory.py until it has its name, and the mark of its days.
    (".copying.db", "a copy that was not finished: finish it (nerve-store copy --finish), or remove the directory of"),
    ("archive/logs/.copying", "days of a copy that was not finished: finish it, or remove the directory of"),
];

/// What `PRAGMA auto_vacuum` says of a file that can be shortened in slices.
pub(super) const INCREMENTAL: i64 = 2;

/// Pragmas of every connection.
const SHARED_PRAGMAS: &str = "
-- Sorting and materializing never leaves files behind, and never meets a full or foreign /tmp.
PRAGMA temp_store = MEMORY;
-- Views and triggers that another program put into the file may not call functions with side effects.
PRAGMA trusted_schema = OFF;
";

/// Pragmas of the writer.
const WRITER_PRAGMAS: &str = "
-- 8 MiB instead of 2: the pages that a merge of some thousand references writes.
PRAGMA cache_size = -8192;
-- After a large transaction, or a read that lasted, the write-ahead log gives its space back: 16 MiB are kept.
PRAGMA journal_size_limit = 16777216;
-- On macOS a plain fsync does not reach the disk. Elsewhere this has no effect.
PRAGMA fullfsync = ON;
";

/// Pragmas of the connection for checkpoints.
const CHECKPOINTER_PRAGMAS: &str = "
-- The log is flushed before the database is written to, and that before the log begins anew.
PRAGMA synchronous = NORMAL;
PRAGMA checkpoint_fullfsync = ON;
";

/// Pragmas of a connection that writes a copy.
const COPY_PRAGMAS: &str = "
PRAGMA locking_mode = EXCLUSIVE;
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
";

/// Pragmas of readers. Their files are opened read-only as well; this also covers temporary tables.
const READER_PRAGMAS: &str = "
PRAGMA query_only = ON;
-- 2 MiB, until a read has had to look at more pages.
PRAGMA cache_size = -2048;
";

/// The absolute path of the database. Its directory may be reached through symbolic links (data often lives on another
/// disk), the file itself may not: a user who may write that directory could point it at any file of the daemon.
pub(super) fn resolve(path: &Path, create: bool) -> Result<PathBuf> {
    let Some(name) = path.file_name().filter(|_| !path.as_os_str().as_encoded_bytes().ends_with(b"/")) else {
        return Err(Error::errno(
            path,
            "open the database",
            libc::EISDIR,
            "it names a directory: give the path of a file".into(),
        ));
    };
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let found = fs::canonicalize(parent).ok();
    if create {
        let parent_expected = found.clone().map_or_else(|| expected(parent), Ok)?;
        check_length(&parent_expected.join(name))?;
        durable::create_directories(parent, Durability::Full)?;
        // A failure is of no consequence: the next open tries again.
        let _ = durable::sweep_orphaned(parent);
    }
    let parent = found
        .map_or_else(|| fs::canonicalize(parent), Ok)
        .map_err(|error| Error::io(parent, "open the database's directory", &error))?;
    let path = parent.join(name);
    check_length(&path)?;
    match fs::symlink_metadata(&path) {
        // SQLite takes a file of one byte for an empty one, and would overwrite it.
        Ok(metadata) if metadata.is_file() && (1..MIN_DATABASE_BYTES).contains(&metadata.len()) => {
            Err(Error::corrupt(&path, "too short for a database: choose another path"))
        }
        Ok(metadata) if metadata.is_file() => {
            let context = Context { path: &path, operation: "open the database", busy_timeout: Duration::ZERO };
            held::check_links(context, metadata.nlink())?;
            Ok(path)
        }
        Ok(metadata) => {
            let kind = metadata.file_type();
            let errno = if kind.is_dir() {
                libc::EISDIR
            } else if kind.is_symlink() {
                libc::ELOOP
            } else {
                libc::EINVAL
            };
            let reason = format!("it is {}, not a database file", durable::kind_name(kind));
            Err(Error::errno(&path, "open the database", errno, reason))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && create => {
            for (name, what) in UNFINISHED {
                let mark = parent.join(name);
                if mark.exists() {
                    let reason = format!("its directory holds {what} {}", mark.display());
                    return Err(Error::errno(&path, "open the database", libc::ENOENT, reason));
                }
            }
            // Staged and published, so that the file is 0600 from its first moment and so that no descriptor of ours
            // is ever closed on a database that SQLite has open: that would drop the process's locks on it.
            durable::create_empty(&path, Durability::Full)?;
            Ok(path)
        }
        Err(error) => Err(Error::io(&path, "open the database", &error)),
    }
}

/// Where `directory` will be once it has been created.
fn expected(directory: &Path) -> Result<PathBuf> {
    let mut missing = Vec::new();
    for ancestor in directory.ancestors() {
        let named = if ancestor.as_os_str().is_empty() { Path::new(".") } else { ancestor };
        match fs::canonicalize(named) {
            Ok(found) => return Ok(missing.iter().rev().fold(found, |path, name| path.join(name))),
            // Components such as `..` have no name; what they lead to is known when the directories are there.
            Err(_) => missing.extend(ancestor.file_name()),
        }
    }
    Ok(directory.to_owned())
}

/// SQLite opens no longer path, and says only that it is unable to.
fn check_length(path: &Path) -> Result<()> {
    let length = path.as_os_str().len();
    if length <= MAX_PATH_BYTES {
        return Ok(());
    }
    let reason =
        format!("its absolute path has {length} bytes, and SQLite takes {MAX_PATH_BYTES}: choose a shorter one");
    Err(Error::errno(path, "open the database", libc::ENAMETOOLONG, reason))
}

/// Opens the writer, creating or migrating the schema where that is needed.
pub(super) fn writer(context: Context<'_>, derived: &[&Derived]) -> Result<Link> {
    let connection = connect(context, context.path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let prepared = prepare_writer(&connection, context, derived);
    prepared.located(context, Some(&connection))?;
    Ok(connection)
}

fn prepare_writer(connection: &Connection, context: Context<'_>, derived: &[&Derived]) -> Result<()> {
    // Until it is known to be ours nothing is changed, not even by the checkpoint that a last close runs; nor after a
    // flush that failed below.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    let identity = schema::identify(connection, context.path, derived)?;
    if connection.is_readonly("main")? {
        let (errno, reason) = match refusal(context.path, Access::WRITE_OK) {
            Some(Errno::ROFS) | None => (Errno::ROFS, "the file system is read-only; open the store with read_only"),
            Some(errno) => {
                (errno, "this user may not write to it; open the store with read_only, or as the user whose it is")
            }
        };
        return Err(Error::errno(context.path, context.operation, errno.raw_os_error(), reason.into()));
    }
    if identity == Identity::Outdated {
        // Only an empty file takes it. The file can then be shortened in slices, for one page more in each commit that
        // makes the file grow: 0 to 5 % of the time of appends.
        connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL")?;
    }
    let mode = patiently(context.busy_timeout, || {
        connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0))
    })?;
    if mode != "wal" {
        let reason =
            format!("its file system cannot share memory between processes (journal mode {mode:?}): use a local disk");
        return Err(Error::errno(context.path, context.operation, libc::ENOTSUP, reason));
    }
    // A copy comes with a rollback journal, and opens its log with the first read after the change.
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    connection.execute_batch(WRITER_PRAGMAS)?;
    if identity == Identity::Outdated {
        // A new database survives a power loss as well as its rows do.
        connection.execute_batch("PRAGMA synchronous = FULL; BEGIN IMMEDIATE")?;
        schema::migrate(connection, context.path, derived)?;
        connection.execute_batch("COMMIT")?;
    }
    schema::suit_triggers(connection, derived)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    Ok(())
}

/// Opens the connection that checkpoints are run on.
pub(super) fn checkpointer(context: Context<'_>) -> Result<Link> {
    let connection = connect(context, context.path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.execute_batch(CHECKPOINTER_PRAGMAS).located(context, Some(&connection))?;
    Ok(connection)
}

/// Opens the empty file at the context's path, to be filled with a copy: no other process knows of it, and the copy counts
/// only once it is whole and flushed.
pub(super) fn copy(context: Context<'_>) -> Result<Link> {
    let connection = connect(context, context.path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.execute_batch(COPY_PRAGMAS).located(context, Some(&connection))?;
    Ok(connection)
}

/// Opens a reader of a store that is written to.
pub(super) fn reader(context: Context<'_>) -> Result<Reader> {
    let connection = connect(context, context.path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.execute_batch(READER_PRAGMAS).located(context, Some(&connection))?;
    Ok(Reader::locking(connection))
}

/// Opens a reader of a read-only store; without locks where there can be none.
pub(super) fn reader_of_read_only(context: Context<'_>) -> Result<Reader> {
    let connection = connect(context, context.path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    // The first that looks at the write-ahead log.
    let looked = connection.query_row("PRAGMA schema_version", [], |_| Ok(()));
    let obstacle = match &looked {
        Err(error) if is_unopenable(error) => unlocked::obstacle(context.path),
        _ => None,
    };
    let reader = match obstacle {
        Some(obstacle) => {
            drop(connection);
            let still = Still::of(context.path).ok_or_else(|| unlocked::needs_locks(context, obstacle))?;
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
            Reader::unlocked(connect(context, &unlocked::uri(context.path), flags)?, still)
        }
        None => {
            looked.located(context, Some(&connection))?;
            Reader::locking(connection)
        }
    };
    reader.connection.execute_batch(READER_PRAGMAS).located(context, Some(&reader.connection))?;
    Ok(reader)
}

/// Opens a reader of a read-only store, whose database has not been identified or brought up to date.
pub(super) fn unprepared_reader(context: Context<'_>, derived: &[&Derived]) -> Result<Reader> {
    let reader = reader_of_read_only(context)?;
    let connection = &reader.connection;
    let prepare = || {
        schema::identify(connection, context.path, derived)?;
        let has = |table: &str| connection.prepare("SELECT 1 FROM sqlite_schema WHERE name = ?1")?.exists([table]);
        if !has("logs")? {
            return Err(Error::corrupt(context.path, "an empty database; open it once without read_only"));
        }
        connection.execute_batch("PRAGMA query_only = OFF")?;
        for statement in schema::stand_ins(connection, derived)? {
            connection.execute_batch(&statement)?;
        }
        Ok(connection.execute_batch("PRAGMA query_only = ON")?)
    };
    prepare().located(context, Some(connection))?;
    Ok(reader)
}

pub(super) fn connect(context: Context<'_>, name: &Path, access: OpenFlags) -> Result<Link> {
    let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let mut connection = Link::new(Connection::open_with_flags(name, flags).located(context, None)?);
    wait_for_locks(&connection, context.busy_timeout);
    interrupt_statements(&mut connection).located(context, None)?;
    connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
    connection.execute_batch(SHARED_PRAGMAS).located(context, Some(&connection))?;
    // A statement keeps its plan. Otherwise SQLite compares bound values with the conditions of the indexes of runs, and
    // compiles the statement anew whenever one changes.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).located(context, Some(&connection))?;
    // `rarray`, by which a statement looks up many ids at once.
    rusqlite::vtab::array::load_module(&connection).located(context, None)?;
    Ok(connection)
}

/// Repeats what SQLite refuses at once although the lock will go away, such as the change to WAL mode while another
/// process makes the same change.
fn patiently<T>(timeout: Duration, mut attempt: impl FnMut() -> rusqlite::Result<T>) -> Result<T> {
    let began = waits_since();
    loop {
        match attempt() {
            Err(error) if is_busy(&error) && began.elapsed() < timeout => {
                check_wait()?;
                std::thread::sleep(Duration::from_millis(2));
            }
            outcome => return Ok(outcome?),
        }
    }
}
