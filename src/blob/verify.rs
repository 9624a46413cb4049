//! Reading every blob, on all cores, and moving those aside that are damaged.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::base::digest::Digest;
use crate::base::error::{Error, Result};
use crate::base::parallel;
use crate::base::parallel::News;
use crate::base::time::now_ns;
use crate::blob::path::Name;
use crate::blob::root::OpenRoot;
use crate::blob::stamp::Stamp;
use crate::blob::store::BlobStore;
use crate::blob::{get, list, path};
use crate::durable::Durability;

/// How often a blob that is replaced while it is read is read again.
const MOST_READS: usize = 5;

/// Something in a blob's place that is not the blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobProblem {
    /// The name; None if it is a whole shard that cannot be read, or the root.
    pub hash: Option<Digest>,
    /// The file, the shard or the root.
    pub path: PathBuf,
    /// What is wrong, on one line.
    pub reason: String,
    /// The digest of the bytes that are there.
    pub actual: Option<Digest>,
    /// Where the file was moved.
    pub quarantine: Option<PathBuf>,
}

/// What [`BlobStore::verify`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// How many blobs were read.
    pub blob_count: u64,
    /// Their bytes.
    pub size: u64,
    /// What is wrong, in the order of the names.
    pub problems: Vec<BlobProblem>,
}

/// One verification of all blobs, as its threads share it.
struct Pass<'a> {
    store: &'a BlobStore,
    root: &'a OpenRoot,
    walk: Mutex<Walk>,
    bytes_done: AtomicU64,
}

/// The way through the shards.
struct Walk {
    next_shard: usize,
    /// The blobs of the shard before, which are not read yet.
    waiting: Vec<list::Entry>,
    /// Shards that cannot be listed.
    problems: Vec<BlobProblem>,
}

impl BlobStore {
    /// Reads every blob. One whose bytes are not those of its name is moved to the quarantine, where the handle may
    /// write. `progress` is told of bytes done and of how many there are; counting those takes a pass over the
    /// directories, which `with_total` asks for.
    pub fn verify(&self, with_total: bool, progress: &mut dyn FnMut(u64, u64) -> Result<()>) -> Result<Verified> {
        let total = if with_total { self.readable_size() } else { 0 };
        progress(0, total)?;
        let root = match self.open_root() {
            Ok(Some(root)) => root,
            Ok(None) => return Ok(Verified::default()),
            Err(error) if error.is_unreadable() => {
                let (path, reason) = (self.root.to_path_buf(), error.to_string());
                let problem = BlobProblem { hash: None, path, reason, actual: None, quarantine: None };
                return Ok(Verified { problems: vec![problem], ..Verified::default() });
            }
            Err(error) => return Err(error),
        };
        let pass = Pass {
            store: self,
            root: &root,
            walk: Mutex::new(Walk { next_shard: 0, waiting: Vec::new(), problems: Vec::new() }),
            bytes_done: AtomicU64::new(0),
        };
        let mut found = Verified::default();
        let work = |entry: list::Entry, go_on: &dyn Fn() -> bool| Ok(pass.verify(&entry, go_on));
        parallel::watched(
            parallel::cores(),
            || pass.next(),
            work,
            |news| {
                match news {
                    News::Done(verified) => {
                        found.blob_count += verified.blob_count;
                        found.size += verified.size;
                        found.problems.extend(verified.problems);
                        Ok(())
                    }
                    News::Time => {
                        // What grew or came since it was counted does not make it more than all.
                        let done = pass.bytes_done.load(Ordering::Relaxed);
                        progress(done, total.max(done))
                    }
                }
            },
        )?;
        found.problems.extend(pass.walk.into_inner().unwrap_or_else(PoisonError::into_inner).problems);
        found.problems.sort_unstable_by(|one, other| one.path.cmp(&other.path));
        progress(found.size, found.size)?;
        Ok(found)
    }

    /// Moves a damaged blob aside, if it is still the file with this stamp. None if it is another by now.
    fn quarantine(&self, root: &OpenRoot, name: &Name, stamp: &Stamp) -> Result<Option<PathBuf>> {
        self.check_writable("move a damaged blob aside")?;
        let target = root.make_directory(path::QUARANTINE)?;
        let Some(shard) = root.directory(name.shard())? else { return Ok(None) };
        let hash = [name.shard(), name.file()].concat();
        let mut new_name = hash.clone();
        {
            // No writer replaces a damaged blob without the lock: what is moved is what was read.
            let _lock = shard.lock_exclusive()?;
            if shard.stat(name.file())?.map(|stat| Stamp::of(&stat)).as_ref() != Some(stamp) {
                return Ok(None);
            }
            let mut count = 1;
            while !shard.move_to(name.file(), &target, &new_name)? {
                count += 1;
                new_name = format!("{hash}.{count}");
            }
        }
        if self.durability == Durability::Full {
            // First where it is, then where it was: a power loss leaves it in one of the two.
            self.poison.watch(target.sync())?;
            self.poison.watch(root.sync())?;
            self.poison.watch(shard.sync())?;
        }
        Ok(Some(target.path().join(new_name)))
    }
}

impl Pass<'_> {
    /// What one blob adds to the findings.
    fn verify(&self, entry: &list::Entry, go_on: &dyn Fn() -> bool) -> Verified {
        let name = Name::of(&entry.digest);
        let unread = |reason: String| {
            let (hash, path) = (Some(entry.digest), name.path(&self.store.root));
            let problem = BlobProblem { hash, path, reason, actual: None, quarantine: None };
            Verified { problems: vec![problem], ..Verified::default() }
        };
        for _ in 0..MOST_READS {
            match self.read(&entry.digest, &name, go_on) {
                Ok(Outcome::ReadAgain) => {}
                Ok(Outcome::Stopped | Outcome::Gone) => return Verified::default(),
                Ok(Outcome::Read(size, problem)) => {
                    return Verified { blob_count: 1, size, problems: problem.into_iter().collect() };
                }
                Err(error) => return unread(error.to_string()),
            }
        }
        unread(format!("it is damaged, and changes whenever it is read ({MOST_READS} times)"))
    }

    fn read(&self, digest: &Digest, name: &Name, go_on: &dyn Fn() -> bool) -> Result<Outcome> {
        let root = self.root;
        let path = || name.path(&self.store.root);
        let since_ns = now_ns();
        let Some((file, stat)) = root.open_regular(name.below())? else { return Ok(Outcome::Gone) };
        let stamp = Stamp::of(&stat);
        let actual = get::digest_with(&file, |count| {
            self.bytes_done.fetch_add(count as u64, Ordering::Relaxed);
            go_on()
        });
        let Some(actual) = actual.map_err(|error| Error::io(&path(), "read a blob", &error))? else {
            return Ok(Outcome::Stopped);
        };
        if actual == *digest {
            if self.store.cache.lookup(digest, &stamp).is_none() {
                self.store.cache.insert(digest, stamp, root.trust(since_ns), false);
            }
            return Ok(Outcome::Read(stamp.size, None));
        }
        let mut reason = Error::BlobCorrupt { hash: *digest, actual, path: path() }.to_string();
        let quarantine = match self.store.quarantine(root, name, &stamp) {
            Ok(None) => return Ok(Outcome::ReadAgain),
            Ok(moved) => moved,
            Err(Error::Io { errno: libc::EROFS, .. }) => None,
            Err(error) => {
                reason = format!("{reason}; it could not be moved aside: {error}");
                None
            }
        };
        let problem = BlobProblem { hash: Some(*digest), path: path(), reason, actual: Some(actual), quarantine };
        Ok(Outcome::Read(stamp.size, Some(problem)))
    }

    /// The next blob to read.
    fn next(&self) -> Option<list::Entry> {
        let mut walk = self.lock();
        loop {
            if let Some(entry) = walk.waiting.pop() {
                return Some(entry);
            }
            if walk.next_shard == path::SHARDS {
                return None;
            }
            let shard_number = walk.next_shard;
            walk.next_shard += 1;
            let listed = list::open_shard(&self.store.root, shard_number)
                .and_then(|shard| shard.map_or(Ok(Vec::new()), |shard| list::entries_of(&shard, shard_number)));
            match listed {
                Ok(entries) => walk.waiting = entries,
                Err(error) => {
                    let path = self.store.root.join(path::shard_name(shard_number));
                    let reason = error.to_string();
                    walk.problems.push(BlobProblem { hash: None, path, reason, actual: None, quarantine: None });
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Walk> {
        self.walk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Outcome {
    /// How many bytes it has, and what is wrong with it.
    Read(u64, Option<BlobProblem>),
    /// It was replaced while it was read.
    ReadAgain,
    /// It was deleted since its name was read.
    Gone,
    /// The verification was stopped.
    Stopped,
}
