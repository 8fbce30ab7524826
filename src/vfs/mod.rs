//! One method per filesystem operation; no kernel binding's types.
//!
//! A plain `fn` touches memory and local disk only. An `async fn` may wait for the vault,
//! never longer than the configured deadline. `try_read` and `try_write` answer at once or
//! say that they would have to wait.
//!
//! Lock order: `Body::upload` (async) -> a lock of `loading` -> `Body::state` -> the tree's lock -> the tables of
//! this module (handles, bodies, queues), each of which is held for a few instructions.

mod acl;
mod approval;
mod attrs;
mod background;
mod base;
mod body;
mod commit;
mod cut;
mod directories;
pub mod error;
mod extents;
mod gc;
mod handles;
mod io;
mod names;
mod put;
mod recover;
mod status;
mod sync;
pub mod types;
mod upload;
#[cfg(test)]
mod upload_tests;
mod writeback;
mod xattrs;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle as Runtime;
use tokio::sync::{Notify, Semaphore};

use self::body::Body;
use self::handles::Handle;
use self::writeback::Queue;
use crate::catalog::format::record::MACHINE_MAX;
use crate::catalog::{Remote, Stale, Time, Tree};
use crate::content::CHUNK;
use crate::content::blob::BLOCK;
use crate::content::buffers::BufferPool;
use crate::content::cache::{Cache, CacheConfig};
use crate::content::fetch::Fetcher;
use crate::content::staging::Staging;
use crate::crypto::{CatalogKeys, LocalKeys, MasterKey, PayloadCipher};
use crate::db::Db;
use crate::env::Env;
use crate::env::tasks::Task;
use crate::store::Store;

pub use directories::{Directories, DirectoryInfo};
pub use error::{VfsError, VfsResult};
pub use status::Status;
pub use sync::{DrainReport, SyncProgress};
pub use types::*;

/// What `fsync` and `close` wait for (design D4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// `close`: this machine. `fsync`, `sync` and unmount: the vault.
    #[default]
    Fsync,
    /// `close` waits for the vault too.
    Close,
    /// `fsync` waits for the local disk only; `sync` and unmount for the vault.
    Local,
}

/// How the drive behaves.
#[derive(Clone, Debug)]
pub struct VfsConfig {
    /// Journal, staging, catalog.
    pub state_dir: PathBuf,
    /// Clean data only.
    pub cache_dir: PathBuf,
    /// Most bytes of clean data on disk.
    pub cache_limit: u64,
    /// Bytes of free space to leave on the cache's file system.
    pub cache_floor: u64,
    /// Most bytes that may wait for the vault.
    pub staging_limit: u64,
    /// Bytes of memory for buffers.
    pub memory: u64,
    /// Largest file stored as one token; `None` never splits.
    pub split_above: Option<u64>,
    /// Bytes of a part.
    pub part_size: u64,
    /// What `fsync` and `close` wait for.
    pub durability: Durability,
    /// Days that deleted and overwritten content stays in the vault.
    pub trash_days: Option<u32>,
    /// Name patterns (`*` and `?`) never wanted in a vault.
    pub local_names: Vec<String>,
    /// Uploads at once.
    pub parallel: usize,
    /// Longest wait of one operation for the network.
    pub deadline: Duration,
    /// How long an operation waits for a vote before it fails.
    pub approval_timeout: Duration,
    /// How often to look for other clients' changes; zero: at the mount and on hints only.
    pub poll_interval: Duration,
    /// Refuse every change.
    pub read_only: bool,
    /// Owners and modes to show instead of those that are kept.
    pub shown: Shown,
    /// Owner of files that other clients made, and of a new root.
    pub default_uid: u32,
    /// Group of the same.
    pub default_gid: u32,
    /// What people know this machine by, in the names of conflict copies; `None`: the host's
    /// name.
    pub machine_name: Option<String>,
    /// Begin a catalog though the vault holds what a drive of this key has stored.
    pub new_catalog: bool,
}

/// Names that editors and desktops litter with: never wanted in a vault (design D4).
pub const DEFAULT_LOCAL_NAMES: &[&str] =
    &[".DS_Store", "._*", ".*.sw?", ".*.swpx", "4913", ".~lock.*#", "Thumbs.db", "desktop.ini"];

/// Parts whose buffers are in use or kept for the next ones: as many as the memory for
/// payloads on their way out holds by default.
const BUFFERED_PARTS: usize = 3;

/// Locks that loads of contents share, by inode number.
const LOADING: usize = 64;

/// Where the system has the host's name.
const HOST_NAME: &str = "/proc/sys/kernel/hostname";

/// Tells the kernel (or a test) what to forget.
pub type Invalidate = Box<dyn Fn(Vec<Invalidation>) + Send + Sync>;

/// The drive's operations.
pub struct Vfs {
    config: VfsConfig,
    env: Env,
    tree: Arc<Tree>,
    remote: Remote,
    staging: Arc<Staging>,
    fetcher: Arc<Fetcher>,
    cache: Arc<Cache>,
    bodies: Mutex<BTreeMap<Ino, Arc<Body>>>,
    handles: RwLock<BTreeMap<u64, Arc<Handle>>>,
    next_handle: AtomicU64,
    /// How often a content was loaded.
    loads: AtomicU64,
    /// Held while a content is loaded: one at a time of each file.
    loading: [Mutex<()>; LOADING],
    queue: Queue,
    uploads: Arc<Semaphore>,
    /// For payloads on their way out.
    buffers: Arc<BufferPool>,
    /// One publisher at a time; concurrent callers share a commit.
    publishing: tokio::sync::Mutex<()>,
    /// One round of housekeeping at a time.
    tidying: tokio::sync::Mutex<()>,
    publish_wanted: Notify,
    align_wanted: Notify,
    look_wanted: Notify,
    runtime: OnceLock<Runtime>,
    invalidate: OnceLock<Invalidate>,
    closing: AtomicBool,
    tasks: Mutex<Vec<Task<()>>>,
    counters: status::Counters,
    approvals: approval::Approvals,
    directories: directories::Table,
    parts: base::PartTable,
    /// Invalidations met inside operations, announced from the background.
    pending_stale: Mutex<Vec<Stale>>,
    /// Removed directories, links and devices that the kernel has not let go of.
    nameless: Mutex<BTreeSet<Ino>>,
}

impl std::fmt::Debug for Vfs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vfs")
    }
}

impl Vfs {
    /// Opens the drive: local database, staging, cache; then, if the vault answers, the
    /// catalog. A drive whose state directory is not new opens without the network.
    pub async fn open(
        config: VfsConfig,
        store: Arc<dyn Store>,
        key: MasterKey,
        env: Env,
    ) -> VfsResult<Arc<Self>> {
        let keys = Arc::new(LocalKeys::new(&key));
        let local = |why: String| VfsError::Local { what: "state directory".into(), why };
        env.disk
            .create_dir_all(&config.state_dir)
            .map_err(|e| local(format!("{}: {e}", config.state_dir.display())))?;
        let db = Db::open(&config.state_dir.join("catalog"), keys, env.clone())?;
        Self::open_over(config, store, key, env, Arc::new(db)).await
    }

    /// As [`Vfs::open`], over a local database that is open already; its values are sealed
    /// with the same key.
    pub async fn open_over(
        config: VfsConfig,
        store: Arc<dyn Store>,
        key: MasterKey,
        env: Env,
        db: Arc<Db>,
    ) -> VfsResult<Arc<Self>> {
        let keys = Arc::new(LocalKeys::new(&key));
        let catalog_keys = Arc::new(CatalogKeys::new(&key));
        let cipher = Arc::new(PayloadCipher::new(&key, env.clone()));
        let owner = (config.default_uid, config.default_gid);
        let machine = machine_name(&config, &env);
        let tree = Tree::open(db.clone(), keys.clone(), env.clone(), machine, owner)?;
        let tree = Arc::new(tree);
        let staging_dir = config.state_dir.join("staging");
        let staging = Staging::open(staging_dir, keys.clone(), env.clone(), config.staging_limit)
            .map_err(|e| VfsError::from_staging("state directory", e))?;
        let staging = Arc::new(staging);
        let hook = staging.clone();
        db.before_sync(Box::new(move || hook.sync_written()));
        let cache = CacheConfig {
            dir: config.cache_dir.clone(),
            limit: config.cache_limit,
            free_floor: config.cache_floor,
        };
        let cache = Cache::open(cache, keys.clone(), env.clone())
            .map_err(|e| VfsError::Local { what: "cache directory".into(), why: e.to_string() })?;
        let cache = Arc::new(cache);
        // A quarter of the memory keeps plaintexts, the rest is for payloads under way, half
        // of it in each direction.
        let (keep, budget) = (config.memory / 4, config.memory / 8 * 3);
        let fetcher =
            Fetcher::new(store.clone(), cipher.clone(), cache.clone(), keep, budget, env.clone());
        let remote = Remote::new(tree.clone(), store, cipher, keys, catalog_keys, env.clone());
        let parallel = config.parallel.max(1);
        let vfs = Arc::new(Self {
            tree,
            remote,
            staging,
            fetcher: Arc::new(fetcher),
            cache,
            bodies: Mutex::new(BTreeMap::new()),
            handles: RwLock::new(BTreeMap::new()),
            next_handle: AtomicU64::new(1),
            loads: AtomicU64::new(1),
            loading: [const { Mutex::new(()) }; LOADING],
            queue: Queue::default(),
            uploads: Arc::new(Semaphore::new(parallel)),
            buffers: BufferPool::new(BUFFERED_PARTS * (CHUNK as usize + BLOCK)),
            publishing: tokio::sync::Mutex::new(()),
            tidying: tokio::sync::Mutex::new(()),
            publish_wanted: Notify::new(),
            align_wanted: Notify::new(),
            look_wanted: Notify::new(),
            runtime: OnceLock::new(),
            invalidate: OnceLock::new(),
            closing: AtomicBool::new(false),
            tasks: Mutex::new(Vec::new()),
            counters: status::Counters::new(&env),
            approvals: approval::Approvals::default(),
            directories: directories::Table::default(),
            parts: base::PartTable::default(),
            pending_stale: Mutex::new(Vec::new()),
            nameless: Mutex::new(BTreeSet::new()),
            env,
            config,
        });
        vfs.recover()?;
        vfs.first_look().await?;
        Ok(vfs)
    }

    /// Starts the background tasks on `runtime`; `invalidate` hears what the kernel must
    /// forget.
    pub fn start(self: &Arc<Self>, runtime: Runtime, invalidate: Invalidate) {
        drop(self.runtime.set(runtime));
        drop(self.invalidate.set(invalidate));
        self.start_background();
    }

    /// Another client did something: look soon.
    pub fn hint_changes(&self) {
        self.look_wanted.notify_one();
    }

    fn now(&self) -> Time {
        Time::from(self.env.clock.now())
    }

    /// A file as a message names it: its path.
    fn name_of(&self, ino: Ino) -> String {
        match self.tree.path_of(ino) {
            Ok(Some(path)) if path.is_empty() => "/".into(),
            Ok(Some(path)) => String::from_utf8_lossy(&path).into_owned(),
            Ok(None) => format!("deleted file (inode {ino})"),
            Err(_) => format!("inode {ino}"),
        }
    }

    /// For errors met under a body's lock, where looking up the path would be a second
    /// database read per byte range: the operation adds the name when it reports.
    #[allow(clippy::unused_self, reason = "reads as `name_of`")]
    fn name_of_open(&self) -> String {
        "open file".into()
    }

    fn is_local_name(&self, name: &[u8]) -> bool {
        self.config.local_names.iter().any(|pattern| glob(pattern.as_bytes(), name))
    }

    fn refuse_if_read_only(&self, name: &[u8]) -> VfsResult<()> {
        match self.config.read_only {
            true => Err(VfsError::ReadOnly { what: String::from_utf8_lossy(name).into_owned() }),
            false => Ok(()),
        }
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// Tells the kernel what a merge or a discovery changed.
    fn announce(&self, stale: Vec<Stale>) {
        if stale.is_empty() {
            return;
        }
        let list = stale
            .into_iter()
            .map(|item| match item {
                Stale::Inode { ino, data } => Invalidation::Inode { ino, data },
                Stale::Entry { parent, name } => Invalidation::Entry { parent, name },
            })
            .collect();
        if let Some(invalidate) = self.invalidate.get() {
            invalidate(list);
        }
    }

    /// Runs a task in the background, if the drive has been started.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = self.runtime.get() {
            // Operations come from threads of the kernel binding too.
            let _within = runtime.enter();
            drop(self.env.spawn(task));
        }
    }
}

/// What people know this machine by: at most 64 bytes.
fn machine_name(config: &VfsConfig, env: &Env) -> String {
    let name = config.machine_name.clone().unwrap_or_else(|| {
        let host = env.disk.read(Path::new(HOST_NAME)).unwrap_or_default();
        String::from_utf8_lossy(&host).trim().to_owned()
    });
    name[..name.floor_char_boundary(MACHINE_MAX)].to_owned()
}

/// Shell-like match of `*` and `?`.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    match pattern.split_first() {
        None => name.is_empty(),
        Some((b'*', rest)) => (0..=name.len()).any(|skip| glob(rest, &name[skip..])),
        Some((b'?', rest)) => !name.is_empty() && glob(rest, &name[1..]),
        Some((byte, rest)) => name.first() == Some(byte) && glob(rest, &name[1..]),
    }
}

#[cfg(test)]
mod tests {
    use super::glob;

    #[test]
    fn local_names_match_like_a_shell() {
        assert!(glob(b".*.sw?", b".notes.txt.swp") && glob(b"._*", b"._x"));
        assert!(!glob(b".*.sw?", b"a.swp") && !glob(b"4913", b"49134"));
    }
}
