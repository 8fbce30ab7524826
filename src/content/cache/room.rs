//! How much the cache may occupy, and how much it does.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::env::disk::Disk;

/// Bytes counted against the limit and against the disk's free space.
pub(super) struct Budget {
    used: AtomicU64,
    limit: u64,
    /// Bytes of the file system that must stay free for others.
    free_floor: u64,
    dir: PathBuf,
    disk: Arc<dyn Disk>,
}

impl Budget {
    pub(super) fn new(limit: u64, free_floor: u64, dir: PathBuf, disk: Arc<dyn Disk>) -> Self {
        Self { used: AtomicU64::new(0), limit, free_floor, dir, disk }
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// Counts `bytes` whether or not they fit.
    pub(super) fn charge(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts `bytes` no longer.
    pub(super) fn give_back(&self, bytes: u64) {
        let _ = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            Some(used.saturating_sub(bytes))
        });
    }

    /// Whether `bytes` more would fit, by the limit and by the disk.
    pub(super) fn fits(&self, bytes: u64) -> bool {
        self.used().saturating_add(bytes) <= self.limit
            && (self.free_floor == 0 || self.free() >= self.free_floor.saturating_add(bytes))
    }

    /// Bytes free on the cache's file system; unknown counts as plenty, so that a folder
    /// removed under a running mount does not look like a full disk.
    fn free(&self) -> u64 {
        self.disk.space(&self.dir).map_or(u64::MAX, |space| space.free)
    }
}
