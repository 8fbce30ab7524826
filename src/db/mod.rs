//! The local database: a journalled key-value store whose values are sealed.
//!
//! Sealing, group commit and back-pressure are here; what keeps the pairs is a [`Backend`]:
//! fjall, whose write-ahead log is the drive's local journal, or memory in a simulator.
//!
//! Invariants
//! * A committed [`Batch`] is atomic: after any crash all of it is there or none.
//! * A batch has left this process when `commit` returns (it survives `kill -9`), and is
//!   on the disk within [`GROUP_COMMIT`], or at once after [`Db::sync`] (it survives a
//!   power cut).
//! * Values are sealed with their key as associated data: a value cannot be read, moved
//!   to another key or altered without the vault's key. Keys hold numbers and keyed tags
//!   only, never a name, a path or a token.

pub mod backend;
mod fjall;

use std::fmt;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use self::backend::{Backend, Change, Reader};
use self::fjall::{Fjall, MEMTABLE_BYTES};
use crate::crypto::LocalKeys;
use crate::env::Env;
use crate::env::tasks::Every;

/// How long a committed batch may wait for the disk: the promise of a tenth of a second
/// (design D4), less the time of the sync itself.
pub const GROUP_COMMIT: Duration = Duration::from_millis(60);

/// Bytes written and not flushed from which on writers wait; how often at most, and for how
/// long each time.
const WRITE_BUFFERS: u64 = 3 * MEMTABLE_BYTES;
const HELD_BACK: u32 = 2_000;
const HELD_BACK_PAUSE: Duration = Duration::from_millis(5);

/// A local database failure.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// The storage engine failed; usually the disk.
    #[error("local database: {0}")]
    Engine(#[from] ::fjall::Error),
    /// A value failed authentication or does not decode.
    #[error("local database: a record is damaged or sealed with another key ({0})")]
    Corrupt(String),
    /// Another version of this program made it.
    #[error("local database: its format is {found}, and this version of the program reads {read}")]
    Format {
        /// Its format.
        found: u32,
        /// The format of this version.
        read: u32,
    },
}

/// A result of the local database.
pub type DbResult<T> = Result<T, DbError>;

/// Which part of the database: small records that are scanned, or file contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// Inodes, names, outbox, bookkeeping.
    Meta,
    /// Contents of small files that wait for the vault.
    Data,
}

/// The open database.
pub struct Db {
    backend: Arc<dyn Backend>,
    keys: Arc<LocalKeys>,
    env: Env,
    syncer: Arc<Syncer>,
    group_commit: Mutex<Option<Box<dyn Every>>>,
}

/// What a sync is made of; shared with the group commit.
struct Syncer {
    backend: Arc<dyn Backend>,
    unsynced: AtomicBool,
    /// Called before each sync, so that what the batch names is on the disk first.
    before: Mutex<Option<Box<dyn Fn() + Send>>>,
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Db")
    }
}

impl Db {
    /// Opens or makes the database in `dir` and starts its group commit.
    pub fn open(dir: &Path, keys: Arc<LocalKeys>, env: Env) -> DbResult<Self> {
        Ok(Self::over(Arc::new(Fjall::open(dir)?), keys, env))
    }

    /// A database in `backend`; its group commit is started. Where the system gives no thread
    /// for that, only [`Db::sync`] brings anything to the disk.
    pub fn over(backend: Arc<dyn Backend>, keys: Arc<LocalKeys>, env: Env) -> Self {
        let syncer = Arc::new(Syncer {
            backend: backend.clone(),
            unsynced: AtomicBool::new(false),
            before: Mutex::new(None),
        });
        let committed = syncer.clone();
        let work = Box::new(move || committed.commit_group());
        let group_commit = env.tasks.every("group-commit", GROUP_COMMIT, work).ok();
        Self { backend, keys, env, syncer, group_commit: Mutex::new(group_commit) }
    }

    /// Registers what must reach the disk before the journal does (staged file contents).
    pub fn before_sync(&self, hook: Box<dyn Fn() + Send>) {
        *self.syncer.before.lock() = Some(hook);
    }

    /// Lets the flushes catch up. The backend flushes in threads of its own and takes more
    /// meanwhile without a bound: while they are busy with a compaction, large records that
    /// are written again and again would fill the memory.
    fn hold_back(&self) {
        for _ in 0..HELD_BACK {
            if self.backend.write_buffer() <= WRITE_BUFFERS {
                return;
            }
            self.env.tasks.pause(HELD_BACK_PAUSE);
        }
    }

    /// Reads one value.
    pub fn get(&self, space: Space, key: &[u8]) -> DbResult<Option<Vec<u8>>> {
        get(&*self.backend, &self.keys, space, key)
    }

    /// Whether a key exists; the value is not opened.
    pub fn contains(&self, space: Space, key: &[u8]) -> DbResult<bool> {
        self.backend.contains(space, key)
    }

    /// Reads one record.
    pub fn load<T: serde::de::DeserializeOwned>(&self, key: &[u8]) -> DbResult<Option<T>> {
        self.get(Space::Meta, key)?.map(|bytes| decode(&bytes)).transpose()
    }

    /// Calls `each` for every pair of `Space::Meta` from `from` on whose key starts with
    /// `prefix`, in key order, until it answers `false`. It sees a snapshot.
    pub fn scan(
        &self,
        prefix: &[u8],
        from: &[u8],
        each: impl FnMut(&[u8], Vec<u8>) -> DbResult<bool>,
    ) -> DbResult<()> {
        scan(&*self.backend, &self.keys, prefix, from, each)
    }

    /// Whether any key of `Space::Meta` starts with `prefix`.
    pub fn any(&self, prefix: &[u8]) -> DbResult<bool> {
        let mut found = false;
        self.backend.scan(prefix, after(prefix), &mut |_, _| {
            found = true;
            Ok(false)
        })?;
        Ok(found)
    }

    /// The database as it is now, to be read later, whatever is committed meanwhile.
    pub fn snapshot(&self) -> DbSnapshot {
        DbSnapshot { moment: self.backend.snapshot(), keys: self.keys.clone() }
    }

    /// Starts a batch.
    pub fn batch(&self) -> Batch<'_> {
        Batch { db: self, changes: Vec::new() }
    }

    /// Waits until everything committed so far is on the disk.
    pub fn sync(&self) -> DbResult<()> {
        self.syncer.unsynced.store(false, Ordering::SeqCst);
        self.syncer.run_before();
        self.backend.sync()
    }

    /// Bytes on disk.
    pub fn disk_bytes(&self) -> u64 {
        self.backend.disk_bytes()
    }

    /// Stops the group commit after a last sync.
    pub fn close(&self) -> DbResult<()> {
        if let Some(group_commit) = self.group_commit.lock().take() {
            group_commit.stop();
        }
        self.sync()
    }
}

impl Drop for Db {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::error!(%error, "the local database could not be synced at close");
        }
    }
}

impl Syncer {
    fn run_before(&self) {
        if let Some(hook) = self.before.lock().as_ref() {
            hook();
        }
    }

    fn commit_group(&self) {
        if self.unsynced.swap(false, Ordering::SeqCst) {
            self.run_before();
            if let Err(error) = self.backend.sync() {
                tracing::error!(%error, "the local journal could not be synced");
            }
        }
    }
}

/// A moment of the database.
pub struct DbSnapshot {
    moment: Box<dyn Reader>,
    keys: Arc<LocalKeys>,
}

impl fmt::Debug for DbSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DbSnapshot")
    }
}

impl DbSnapshot {
    /// As [`Db::get`].
    pub fn get(&self, space: Space, key: &[u8]) -> DbResult<Option<Vec<u8>>> {
        get(&*self.moment, &self.keys, space, key)
    }

    /// As [`Db::scan`].
    pub fn scan(
        &self,
        prefix: &[u8],
        from: &[u8],
        each: impl FnMut(&[u8], Vec<u8>) -> DbResult<bool>,
    ) -> DbResult<()> {
        scan(&*self.moment, &self.keys, prefix, from, each)
    }
}

fn get(
    from: &(impl Reader + ?Sized),
    keys: &LocalKeys,
    space: Space,
    key: &[u8],
) -> DbResult<Option<Vec<u8>>> {
    let mut value = None;
    from.get(space, key, &mut |sealed| {
        value = Some(unseal(keys, key, sealed)?);
        Ok(())
    })?;
    Ok(value)
}

fn scan(
    source: &(impl Reader + ?Sized),
    keys: &LocalKeys,
    prefix: &[u8],
    from: &[u8],
    mut each: impl FnMut(&[u8], Vec<u8>) -> DbResult<bool>,
) -> DbResult<()> {
    // Bounded above: an open range would look for the first live key behind the prefix,
    // past any number of deleted ones.
    source.scan(from, after(prefix), &mut |key, sealed| each(key, unseal(keys, key, sealed)?))
}

fn unseal(keys: &LocalKeys, key: &[u8], sealed: &[u8]) -> DbResult<Vec<u8>> {
    keys.open_value(key, sealed).map_err(|e| DbError::Corrupt(e.to_string()))
}

/// Changes that become visible and durable together.
pub struct Batch<'a> {
    db: &'a Db,
    changes: Vec<Change>,
}

impl fmt::Debug for Batch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Batch")
    }
}

impl Batch<'_> {
    /// Sets a value.
    pub fn put(&mut self, space: Space, key: &[u8], value: &[u8]) {
        let sealed = self.db.keys.seal_value(&*self.db.env.random, key, value);
        self.changes.push(Change { space, key: key.to_vec(), value: Some(sealed) });
    }

    /// Sets a record in `Space::Meta`.
    pub fn store<T: serde::Serialize>(&mut self, key: &[u8], record: &T) {
        self.put(Space::Meta, key, &encode(record));
    }

    /// Removes a key.
    pub fn remove(&mut self, space: Space, key: &[u8]) {
        self.changes.push(Change { space, key: key.to_vec(), value: None });
    }

    /// Commits; see the module's header for what that means.
    pub fn commit(self) -> DbResult<()> {
        if self.changes.is_empty() {
            return Ok(());
        }
        self.db.backend.commit(self.changes)?;
        self.db.syncer.unsynced.store(true, Ordering::SeqCst);
        self.db.hold_back();
        Ok(())
    }
}

/// The end of the keys that start with `prefix`.
fn after(prefix: &[u8]) -> Bound<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Bound::Excluded(end);
        }
    }
    Bound::Unbounded
}

/// Encodes a record.
#[allow(clippy::expect_used, reason = "the crate's records have no unserialisable type")]
pub fn encode<T: serde::Serialize>(record: &T) -> Vec<u8> {
    postcard::to_stdvec(record).expect("records serialise")
}

/// Decodes a record.
pub fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> DbResult<T> {
    postcard::from_bytes(bytes).map_err(|e| DbError::Corrupt(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::MasterKey;
    use crate::env::doubles::seeded_env;

    #[test]
    fn a_snapshot_stays_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Arc::new(LocalKeys::new(&MasterKey::from_bytes([3; 32])));
        let db = Db::open(dir.path(), keys, seeded_env(1)).unwrap();
        let set = |key: &[u8], value: &[u8]| {
            let mut batch = db.batch();
            batch.put(Space::Meta, key, value);
            batch.commit().unwrap();
        };
        set(b"ka", b"1");
        let before = db.snapshot();
        set(b"ka", b"2");
        set(b"kb", b"3");
        let mut seen = Vec::new();
        before
            .scan(b"k", b"k", |key, value| {
                seen.push((key.to_vec(), value));
                Ok(true)
            })
            .unwrap();
        assert_eq!(seen, [(b"ka".to_vec(), b"1".to_vec())]);
        assert_eq!(before.get(Space::Meta, b"kb").unwrap(), None);
        assert_eq!(db.get(Space::Meta, b"ka").unwrap().as_deref(), Some(&b"2"[..]));
    }
}
