//! Figures for a person, a script and `statfs`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::error::VfsError;
use super::{Ino, Vfs};
use crate::catalog::{CatalogResult, Kind, Tree};
use crate::env::Env;
use crate::store::Token;

/// A deletion that was refused is tried again after this time.
const AFTER_REFUSAL: Duration = Duration::from_secs(86_400);

/// How long the sums of files and bytes stay good, in milliseconds: `df` asks often, and a
/// walk of a million inodes takes seconds.
const SUMS_MS: u64 = 30_000;

/// Records of the outbox counted at most.
const COUNTED: u64 = 1_000_000;

/// Failures shown at most.
const FAILURES: usize = 1_000;

/// What the drive is doing.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Status {
    /// Files whose content waits for the vault.
    pub dirty_files: u64,
    /// Their bytes.
    pub dirty_bytes: u64,
    /// Uploads under way.
    pub uploading: u64,
    /// Catalog records that wait for the vault.
    pub pending_records: u64,
    /// Files whose last upload failed.
    pub failed: Vec<Failure>,
    /// Bytes in the disk cache.
    pub cache_bytes: u64,
    /// Most bytes allowed there.
    pub cache_limit: u64,
    /// Regular files in the drive.
    pub files: u64,
    /// Bytes sent to the vault since the mount.
    pub uploaded_bytes: u64,
    /// Bytes fetched since the mount.
    pub downloaded_bytes: u64,
    /// `ok`, or what is wrong with the catalog.
    pub catalog: String,
    /// The vault's calendar: its count of days.
    pub day: u64,
}

/// A file that could not be uploaded (or read).
#[derive(Clone, Debug, serde::Serialize)]
pub struct Failure {
    /// Path in the drive.
    pub path: String,
    /// Why.
    pub reason: String,
}

/// Counters that operations and background tasks keep.
#[derive(Clone, Default)]
pub(super) struct Counters(Arc<Inner>);

#[derive(Default)]
pub(super) struct Inner {
    /// Tells parts sent by this process from those of an earlier one.
    pub(super) run: u64,
    pub(super) uploaded: AtomicU64,
    pub(super) last_miss_ms: AtomicU64,
    /// Whether this process has heard what other machines did, and nothing was missing in that.
    pub(super) looked: AtomicBool,
    pub(super) prefetching: Mutex<BTreeSet<Ino>>,
    failures: Mutex<BTreeMap<Ino, VfsError>>,
    marks: Mutex<BTreeSet<String>>,
    /// What the vault has acknowledged and the catalog is about to name.
    tokens: Mutex<BTreeSet<Token>>,
    /// Tokens whose deletion was refused, and when.
    refused: Mutex<BTreeMap<Token, Instant>>,
    catalog: Mutex<Option<String>>,
    sums: Mutex<Option<(u64, u64, u64)>>,
    now: Option<Env>,
}

impl std::ops::Deref for Counters {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

/// A mark whose upload is under way in this process: its traces are not remains, and neither is
/// the token that it has led to.
pub(super) struct LiveMark {
    mark: String,
    token: Option<Token>,
    of: Counters,
}

impl LiveMark {
    pub(super) fn new(mark: &str, of: &Counters) -> Self {
        of.marks.lock().insert(mark.to_owned());
        Self { mark: mark.to_owned(), token: None, of: of.clone() }
    }

    /// The vault has acknowledged this token.
    pub(super) fn keep(&mut self, token: &Token) {
        self.of.tokens.lock().insert(token.clone());
        self.token = Some(token.clone());
    }

    pub(super) fn as_str(&self) -> &str {
        &self.mark
    }
}

impl Drop for LiveMark {
    fn drop(&mut self) {
        self.of.marks.lock().remove(&self.mark);
        if let Some(token) = &self.token {
            self.of.tokens.lock().remove(token);
        }
    }
}

impl Counters {
    pub(super) fn new(env: &Env) -> Self {
        let run = env.random_u64();
        Self(Arc::new(Inner { run, now: Some(env.clone()), ..Inner::default() }))
    }
}

impl Inner {
    pub(super) fn failure(&self, ino: Ino) -> Option<VfsError> {
        self.failures.lock().get(&ino).cloned()
    }

    pub(super) fn set_failure(&self, ino: Ino, error: VfsError) {
        let mut failures = self.failures.lock();
        if failures.len() < FAILURES {
            failures.insert(ino, error);
        }
    }

    pub(super) fn clear_failure(&self, ino: Ino) {
        self.failures.lock().remove(&ino);
    }

    pub(super) fn has_failures(&self) -> Option<VfsError> {
        self.failures.lock().values().next().cloned()
    }

    pub(super) fn live_marks(&self) -> BTreeSet<String> {
        self.marks.lock().clone()
    }

    /// Whether a token is one that the catalog is about to name.
    pub(super) fn is_live(&self, token: &Token) -> bool {
        self.tokens.lock().contains(token)
    }

    /// Notes that the vault refuses to delete a token.
    pub(super) fn note_refused(&self, token: &Token) {
        let mut refused = self.refused.lock();
        refused.retain(|_, at| at.elapsed() < AFTER_REFUSAL);
        refused.insert(token.clone(), Instant::now());
    }

    /// Whether it has refused that lately.
    pub(super) fn was_refused(&self, token: &Token) -> bool {
        self.refused.lock().get(token).is_some_and(|at| at.elapsed() < AFTER_REFUSAL)
    }

    pub(super) fn set_catalog(&self, doubts: &[String]) {
        *self.catalog.lock() = doubts.first().map(|first| match doubts.len() {
            1 => first.clone(),
            more => format!("{first} (and {} more)", more - 1),
        });
    }

    /// Regular files and their bytes, from a walk that is repeated now and then.
    pub(super) fn stored(&self, tree: &Tree) -> (u64, u64) {
        let now = self.now.as_ref().map_or(0, Env::millis);
        let mut sums = self.sums.lock();
        if let Some((at, files, bytes)) = *sums
            && now.saturating_sub(at) < SUMS_MS
        {
            return (files, bytes);
        }
        let (files, bytes) = walk(tree).unwrap_or_default();
        *sums = Some((now, files, bytes));
        (files, bytes)
    }
}

fn walk(tree: &Tree) -> CatalogResult<(u64, u64)> {
    let (mut files, mut bytes) = (0, 0);
    tree.each_inode(|inode| {
        if inode.kind == Kind::File && inode.local.nlink > 0 {
            files += 1;
            bytes += inode.size();
        }
        true
    })?;
    Ok((files, bytes))
}

impl Vfs {
    /// What the drive is doing now.
    pub fn status(&self) -> Status {
        let (dirty_files, dirty_bytes) = self.left();
        let failed = self.counters.failures.lock().clone();
        Status {
            dirty_files,
            dirty_bytes,
            uploading: self.queue.running(),
            pending_records: self.remote.waiting(COUNTED).unwrap_or(0),
            failed: failed
                .into_iter()
                .map(|(ino, error)| Failure { path: self.name_of(ino), reason: error.to_string() })
                .collect(),
            cache_bytes: self.cache.used(),
            cache_limit: self.cache.limit(),
            files: self.counters.stored(&self.tree).0,
            uploaded_bytes: self.counters.uploaded.load(Ordering::Relaxed),
            downloaded_bytes: self.fetcher.downloaded(),
            day: self.tree.today(),
            catalog: self.counters.catalog.lock().clone().unwrap_or_else(|| "ok".into()),
        }
    }

    /// A read failed in a way that stays (a wrong key, say): `user.privicore.state` tells.
    pub(super) fn note_failure(&self, ino: Ino, error: VfsError) -> VfsError {
        if matches!(error, VfsError::Corrupt { .. } | VfsError::Denied { .. }) {
            self.counters.set_failure(ino, error.clone());
        }
        error
    }

    pub(super) fn note_upload_failure(&self, ino: Ino, error: &VfsError) {
        self.counters.set_failure(ino, error.clone());
    }
}
