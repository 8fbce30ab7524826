//! Staging: content that waits for the vault, as sealed blobs in the state directory.
//!
//! Invariants
//! * A blob belongs to one chunk of one file and is named by the local database; a file in
//!   the staging directory that the database does not name is left over and swept.
//! * `used` is the sum of what is held, small contents in the local database included; a
//!   write that would lift it above `limit` is refused before it is made.
//! * [`Staging::sync_written`] runs before each sync of the local journal, so a record
//!   never reaches the disk before the content it speaks of.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::blob::{Blob, BlobError};
use crate::crypto::LocalKeys;
use crate::env::Env;

/// Bytes of the disk that are left to the local database, or on a small disk this part.
const KEPT_FREE: u64 = 128 << 20;
const KEPT_PART: u64 = 4;

/// Why content could not be staged.
#[derive(Debug, thiserror::Error)]
pub enum StagingError {
    /// The limit is reached.
    #[error("{used} of {limit} bytes wait for the vault already")]
    Full {
        /// Bytes staged.
        used: u64,
        /// Most bytes allowed.
        limit: u64,
    },
    /// The local disk has no more room than its database needs.
    #[error("only {free} bytes are free on this machine's disk")]
    Disk {
        /// Bytes free.
        free: u64,
    },
    /// The local disk failed.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The staging directory cannot be used.
    #[error("staging directory {}: {source}", path.display())]
    Dir {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// What takes room in the staging area.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Held {
    /// A blob.
    Blob(u64),
    /// The small content of an inode, which is in the local database.
    Small(u64),
}

impl Held {
    /// The blob of a name that [`Staging::create`] gave.
    fn blob(name: &str) -> Self {
        Self::Blob(u64::from_str_radix(name, 16).unwrap_or_default())
    }
}

/// The staging area.
pub struct Staging {
    dir: PathBuf,
    keys: Arc<LocalKeys>,
    env: Env,
    limit: u64,
    used: AtomicU64,
    held: Mutex<HashMap<Held, u64>>,
    /// By name: they are synced in an order that follows from the names alone.
    written: Mutex<BTreeMap<String, Arc<Blob>>>,
}

impl std::fmt::Debug for Staging {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Staging({})", self.dir.display())
    }
}

impl Staging {
    /// Opens the area in `dir`, making it if need be.
    pub fn open(
        dir: PathBuf,
        keys: Arc<LocalKeys>,
        env: Env,
        limit: u64,
    ) -> Result<Self, StagingError> {
        env.disk
            .create_dir_all(&dir)
            .map_err(|source| StagingError::Dir { path: dir.clone(), source })?;
        let (held, written) = (Mutex::default(), Mutex::default());
        Ok(Self { dir, keys, env, limit, used: AtomicU64::new(0), held, written })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Makes an empty blob; its name is random.
    pub fn create(&self) -> Result<(String, Arc<Blob>), StagingError> {
        let name = format!("{:016x}", self.env.random_u64());
        let blob = Blob::create(&self.path(&name), &self.keys, &self.env)?;
        Ok((name, Arc::new(blob)))
    }

    /// Opens a blob that the local database names.
    pub fn reopen(&self, name: &str) -> Result<Arc<Blob>, StagingError> {
        Ok(Arc::new(Blob::open(&self.path(name), &self.keys, &self.env)?))
    }

    /// Deletes a blob.
    pub fn remove(&self, name: &str) {
        self.release(name);
        drop(self.env.disk.remove_file(&self.path(name)));
    }

    /// Forgets a blob that has been moved elsewhere.
    pub fn release(&self, name: &str) {
        self.written.lock().remove(name);
        self.hold(Held::blob(name), 0);
    }

    /// Refuses `bytes` more if the limit would be passed, or if the disk would be left
    /// with less room than the local database needs: what cannot be recorded is lost.
    pub fn check_room(&self, bytes: u64) -> Result<(), StagingError> {
        let used = self.used();
        if used.saturating_add(bytes) > self.limit {
            return Err(StagingError::Full { used, limit: self.limit });
        }
        let free = self.free();
        match bytes > free {
            true => Err(StagingError::Disk { free }),
            false => Ok(()),
        }
    }

    /// Bytes of the disk that may still be staged.
    pub fn free(&self) -> u64 {
        let Ok(disk) = self.env.disk.space(&self.dir) else { return u64::MAX };
        disk.free.saturating_sub(KEPT_FREE.min(disk.total / KEPT_PART))
    }

    /// Counts the bytes that a blob holds now.
    pub fn hold_blob(&self, name: &str, bytes: u64) {
        self.hold(Held::blob(name), bytes);
    }

    /// Counts what a blob of an earlier run occupies on the disk, without opening it.
    pub fn recount_blob(&self, name: &str) {
        let found = self.env.disk.stat(&self.path(name));
        self.hold_blob(name, found.map_or(0, |file| file.allocated));
    }

    /// Counts the bytes that something holds now; none: it is gone.
    pub fn hold(&self, what: Held, bytes: u64) {
        let mut held = self.held.lock();
        let before = match bytes {
            0 => held.remove(&what),
            _ => held.insert(what, bytes),
        };
        // under the lock: the sum is exact
        self.used.fetch_add(bytes, Ordering::Relaxed);
        self.used.fetch_sub(before.unwrap_or_default(), Ordering::Relaxed);
    }

    /// Notes that a blob must be synced with the next group commit.
    pub fn note_written(&self, name: &str, blob: &Arc<Blob>) {
        let mut written = self.written.lock();
        if !written.contains_key(name) {
            written.insert(name.to_owned(), blob.clone());
        }
    }

    /// Syncs every blob written since the last call.
    pub fn sync_written(&self) {
        let written = std::mem::take(&mut *self.written.lock());
        for (name, blob) in written {
            // A blob that was uploaded meanwhile may be gone: nothing of it is owed.
            if let Err(error) = blob.sync() {
                tracing::debug!(%name, %error, "a staged blob could not be synced");
            }
        }
    }

    /// Bytes staged.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Most bytes allowed.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Deletes files that the local database does not name.
    pub fn sweep(&self, named: &BTreeSet<String>) {
        let Ok(names) = self.env.disk.read_dir(&self.dir) else { return };
        for name in names {
            if !name.to_str().is_some_and(|name| named.contains(name)) {
                drop(self.env.disk.remove_file(&self.dir.join(name)));
            }
        }
    }
}
