//! Staging: content that waits for the vault, as sealed blobs in the state directory.
//!
//! Invariants
//! * A blob belongs to one chunk of one file and is named by the local database; a file in
//!   the staging directory that the database does not name is left over and swept.
//! * `used` never exceeds `limit`: a write that would is refused before it is made.
//! * [`Staging::sync_written`] runs before each sync of the local journal, so a record
//!   never reaches the disk before the content it speaks of.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::blob::{Blob, BlobError};
use crate::crypto::LocalKeys;
use crate::env::Env;

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

/// The staging area.
pub struct Staging {
    dir: PathBuf,
    keys: Arc<LocalKeys>,
    env: Env,
    limit: u64,
    used: AtomicU64,
    written: Mutex<HashMap<String, Arc<Blob>>>,
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
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .map_err(|source| StagingError::Dir { path: dir.clone(), source })?;
        let written = Mutex::new(HashMap::new());
        Ok(Self { dir, keys, env, limit, used: AtomicU64::new(0), written })
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

    /// Opens a blob that the local database names, and counts it.
    pub fn reopen(&self, name: &str) -> Result<Arc<Blob>, StagingError> {
        Ok(Arc::new(Blob::open(&self.path(name), &self.keys, &self.env)?))
    }

    /// Deletes a blob that held `bytes`.
    pub fn remove(&self, name: &str, bytes: u64) {
        self.release(name, bytes);
        drop(std::fs::remove_file(self.path(name)));
    }

    /// Forgets a blob that held `bytes` and has been moved elsewhere.
    pub fn release(&self, name: &str, bytes: u64) {
        self.written.lock().remove(name);
        self.used.fetch_sub(bytes.min(self.used()), Ordering::Relaxed);
    }

    /// Refuses `bytes` more if the limit would be passed.
    pub fn check_room(&self, bytes: u64) -> Result<(), StagingError> {
        let used = self.used();
        match used.saturating_add(bytes) > self.limit {
            true => Err(StagingError::Full { used, limit: self.limit }),
            false => Ok(()),
        }
    }

    /// Counts bytes that a blob has grown (or shrunk) by.
    pub fn account(&self, change: i64) {
        if change >= 0 {
            self.used.fetch_add(change.unsigned_abs(), Ordering::Relaxed);
        } else {
            self.used.fetch_sub(change.unsigned_abs().min(self.used()), Ordering::Relaxed);
        }
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
    pub fn sweep(&self, named: &HashSet<String>) {
        let Ok(entries) = std::fs::read_dir(&self.dir) else { return };
        for entry in entries.flatten() {
            let known = entry.file_name().to_str().is_some_and(|name| named.contains(name));
            if !known {
                drop(std::fs::remove_file(entry.path()));
            }
        }
    }
}
