//! The local database: a journalled key-value store whose values are sealed.
//!
//! Built on fjall, whose write-ahead log is the drive's local journal.
//!
//! Invariants
//! * A committed [`Batch`] is atomic: after any crash all of it is there or none.
//! * A batch has left this process when `commit` returns (it survives `kill -9`), and is
//!   on the disk within [`GROUP_COMMIT`], or at once after [`Db::sync`] (it survives a
//!   power cut).
//! * Values are sealed with their key as associated data: a value cannot be read, moved
//!   to another key or altered without the vault's key. Keys hold numbers and keyed tags
//!   only, never a name, a path or a token.

use std::fmt;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use fjall::config::PartitioningPolicy;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use parking_lot::{Condvar, Mutex};

use crate::crypto::LocalKeys;
use crate::env::Env;

/// How long a committed batch may wait for the disk: the promise of a tenth of a second
/// (design D4), less the time of the sync itself.
pub const GROUP_COMMIT: Duration = Duration::from_millis(60);

/// Memory for blocks read from disk. A million files' inodes are about 200 MB on disk;
/// this keeps the hot few per cent.
const CACHE_BYTES: u64 = 16 << 20;

/// Memory of one keyspace's write buffer; there are two.
const MEMTABLE_BYTES: u64 = 8 << 20;
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
    Engine(#[from] fjall::Error),
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Space {
    /// Inodes, names, outbox, bookkeeping.
    Meta,
    /// Contents of small files that wait for the vault.
    Data,
}

/// The open database.
pub struct Db {
    database: Database,
    meta: Keyspace,
    data: Keyspace,
    keys: Arc<LocalKeys>,
    env: Env,
    syncer: Arc<Syncer>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// State shared with the group-commit thread.
struct Syncer {
    unsynced: AtomicBool,
    stop: Mutex<bool>,
    wake: Condvar,
    /// Called before each sync, so that what the batch names is on the disk first.
    before: Mutex<Option<Box<dyn Fn() + Send>>>,
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Db")
    }
}

impl Db {
    /// Opens or makes the database in `dir` and starts its group-commit thread.
    pub fn open(dir: &Path, keys: Arc<LocalKeys>, env: Env) -> DbResult<Self> {
        let database = Database::builder(dir).cache_size(CACHE_BYTES).worker_threads(2).open()?;
        // Filters and indexes in blocks of a page, which stay in a small cache.
        let options = || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(MEMTABLE_BYTES)
                .filter_block_partitioning_policy(PartitioningPolicy::all(true))
                .index_block_partitioning_policy(PartitioningPolicy::all(true))
        };
        let meta = database.keyspace("meta", options)?;
        let data = database.keyspace("data", options)?;
        let syncer = Arc::new(Syncer {
            unsynced: AtomicBool::new(false),
            stop: Mutex::new(false),
            wake: Condvar::new(),
            before: Mutex::new(None),
        });
        let thread = spawn_group_commit(database.clone(), syncer.clone());
        Ok(Self { database, meta, data, keys, env, syncer, thread: Mutex::new(thread) })
    }

    /// Registers what must reach the disk before the journal does (staged file contents).
    pub fn before_sync(&self, hook: Box<dyn Fn() + Send>) {
        *self.syncer.before.lock() = Some(hook);
    }

    /// Lets the flushes catch up. The database flushes in threads of its own and takes more
    /// meanwhile without a bound: while they are busy with a compaction, large records that
    /// are written again and again would fill the memory.
    fn hold_back(&self) {
        for _ in 0..HELD_BACK {
            if self.database.write_buffer_size() <= WRITE_BUFFERS {
                return;
            }
            std::thread::sleep(HELD_BACK_PAUSE);
        }
    }

    fn space(&self, space: Space) -> &Keyspace {
        match space {
            Space::Meta => &self.meta,
            Space::Data => &self.data,
        }
    }

    /// Reads one value.
    pub fn get(&self, space: Space, key: &[u8]) -> DbResult<Option<Vec<u8>>> {
        match self.space(space).get(key)? {
            Some(sealed) => Ok(Some(self.unseal(key, &sealed)?)),
            None => Ok(None),
        }
    }

    /// Whether a key exists; the value is not opened.
    pub fn contains(&self, space: Space, key: &[u8]) -> DbResult<bool> {
        Ok(self.space(space).contains_key(key)?)
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
        mut each: impl FnMut(&[u8], Vec<u8>) -> DbResult<bool>,
    ) -> DbResult<()> {
        // Bounded above: an open range would look for the first live key behind the prefix,
        // past any number of deleted ones.
        let bounds = (Bound::Included(from.to_vec()), after(prefix));
        for guard in self.meta.range(bounds) {
            let (key, sealed) = guard.into_inner()?;
            let value = self.unseal(&key, &sealed)?;
            if !each(&key, value)? {
                break;
            }
        }
        Ok(())
    }

    /// Whether any key of `Space::Meta` starts with `prefix`.
    pub fn any(&self, prefix: &[u8]) -> DbResult<bool> {
        match self.meta.prefix(prefix).next() {
            Some(guard) => guard.key().map(|_| true).map_err(DbError::from),
            None => Ok(false),
        }
    }

    /// Starts a batch.
    pub fn batch(&self) -> Batch<'_> {
        Batch { db: self, inner: self.database.batch(), empty: true }
    }

    /// Waits until everything committed so far is on the disk.
    pub fn sync(&self) -> DbResult<()> {
        self.syncer.unsynced.store(false, Ordering::SeqCst);
        self.syncer.run_before();
        Ok(self.database.persist(PersistMode::SyncAll)?)
    }

    /// Bytes on disk.
    pub fn disk_bytes(&self) -> u64 {
        self.database.disk_space().unwrap_or(0)
    }

    fn unseal(&self, key: &[u8], sealed: &[u8]) -> DbResult<Vec<u8>> {
        self.keys.open_value(key, sealed).map_err(|e| DbError::Corrupt(e.to_string()))
    }

    /// Stops the group-commit thread after a last sync.
    pub fn close(&self) -> DbResult<()> {
        *self.syncer.stop.lock() = true;
        self.syncer.wake.notify_all();
        if let Some(thread) = self.thread.lock().take() {
            drop(thread.join());
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
}

fn spawn_group_commit(database: Database, syncer: Arc<Syncer>) -> Option<JoinHandle<()>> {
    let run = move || {
        let mut stop = syncer.stop.lock();
        while !*stop {
            syncer.wake.wait_for(&mut stop, GROUP_COMMIT);
            if syncer.unsynced.swap(false, Ordering::SeqCst) {
                parking_lot::MutexGuard::unlocked(&mut stop, || {
                    syncer.run_before();
                    if let Err(error) = database.persist(PersistMode::SyncAll) {
                        tracing::error!(%error, "the local journal could not be synced");
                    }
                });
            }
        }
    };
    std::thread::Builder::new().name("group-commit".into()).spawn(run).ok()
}

/// Changes that become visible and durable together.
pub struct Batch<'a> {
    db: &'a Db,
    inner: fjall::OwnedWriteBatch,
    empty: bool,
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
        self.inner.insert(self.db.space(space), key, sealed);
        self.empty = false;
    }

    /// Sets a record in `Space::Meta`.
    pub fn store<T: serde::Serialize>(&mut self, key: &[u8], record: &T) {
        self.put(Space::Meta, key, &encode(record));
    }

    /// Removes a key.
    pub fn remove(&mut self, space: Space, key: &[u8]) {
        self.inner.remove(self.db.space(space), key);
        self.empty = false;
    }

    /// Commits; see the module's header for what that means.
    pub fn commit(self) -> DbResult<()> {
        if self.empty {
            return Ok(());
        }
        self.inner.commit()?;
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
