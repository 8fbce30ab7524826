//! A bounded cache of verified content on the local disk.
//!
//! What is in it is clean: the vault has it, so any of it may go at any time, and losing
//! the whole folder under a running mount costs nothing but fetching again. Hence no call
//! here fails: what cannot be read is a miss, what cannot be stored is not stored.
//!
//! The unit is a *chunk* of a token's plaintext; a token never changes, so neither does a
//! chunk. Chunk 0 of at most 64 KiB (a whole small file, the common case) goes into a
//! pack (`packs`), anything else into a file of its own (`chunks`). Names on disk are
//! HMACs of token and chunk; content is sealed and bound to that name, so a file swapped
//! for another is a miss too.
//!
//! **Bounds.** Whoever stores makes room first: `used` never passes the limit, and the
//! disk keeps its free floor, if need be by an empty cache. The oldest goes first,
//! between packs and chunks by time of use. Memory: at most about 50 bytes per entry and
//! 256 open files.
//!
//! **Start.** The index is rebuilt in the background; a miss meanwhile is only a miss.
//!
//! Lock order: `making_room`, then one of the two indexes; never both indexes. Readers
//! take an index only for look-ups, never across a read or write of a file.
//!
//! All calls may block on the local disk for milliseconds, and for tens of them when
//! they evict: not for a thread that must answer a `lookup`.

mod chunks;
mod entry;
mod packs;
mod room;
mod root;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use self::chunks::Chunks;
use self::entry::{SMALL, Tag, TokenTag};
use self::packs::Packs;
use self::room::Budget;
use self::root::Root;
use super::blob::{BLOCK, Blob, BlobError};
use crate::crypto::LocalKeys;
use crate::env::Env;
use crate::env::tasks::Thread;

/// Where the cache is, and how much it may hold.
#[derive(Debug, Clone)]
pub struct CacheConfig {
    /// The cache directory; the cache keeps to one folder of its own in it.
    pub dir: PathBuf,
    /// Bytes on disk that are never passed.
    pub limit: u64,
    /// Bytes of the file system that stay free: near it the cache shrinks.
    pub free_floor: u64,
}

/// Why a cache could not be opened. Once open, it never fails.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// Its folder cannot be made or read.
    #[error("cache {}: {source}", dir.display())]
    Io {
        /// The cache's folder.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process uses it.
    #[error("cache {}: in use by another mount", dir.display())]
    Busy {
        /// The cache's folder.
        dir: PathBuf,
    },
}

/// When something was used: milliseconds of the wall clock, with ten bits more to tell
/// uses within one apart. Never goes back within a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Tick(u64);

impl Tick {
    fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1 << 10))
    }

    /// Zero where the file system keeps no times.
    fn from_file_time(time: Option<SystemTime>) -> Self {
        let since = time.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        Self::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// The cache. See the module's header.
pub struct Cache {
    inner: Arc<Inner>,
    scan: Mutex<Option<Thread>>,
}

struct Inner {
    root: Root,
    keys: Arc<LocalKeys>,
    env: Env,
    budget: Arc<Budget>,
    packs: Packs,
    chunks: Chunks,
    last_tick: AtomicU64,
    /// One at a time evicts: two would each make the other's room.
    making_room: Mutex<()>,
    scanned: AtomicBool,
    closing: AtomicBool,
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cache({} of {} bytes)", self.used(), self.limit())
    }
}

impl Cache {
    /// Opens or makes the cache; what an earlier run left is indexed in the background.
    pub fn open(config: CacheConfig, keys: Arc<LocalKeys>, env: Env) -> Result<Self, CacheError> {
        let root = Root::open(&config.dir, &keys, &env)?;
        let floor = config.free_floor;
        let dir = root.dir().to_owned();
        let budget = Arc::new(Budget::new(config.limit, floor, dir, env.disk.clone()));
        let packs = Packs::new(root.packs(), keys.clone(), &root.id(), &env, budget.clone());
        let chunks = Chunks::new(root.chunks(), keys.clone(), env.clone(), budget.clone());
        let inner = Arc::new(Inner {
            root,
            keys,
            env,
            budget,
            packs,
            chunks,
            last_tick: AtomicU64::new(0),
            making_room: Mutex::new(()),
            scanned: AtomicBool::new(false),
            closing: AtomicBool::new(false),
        });
        let scanner = inner.clone();
        let thread = inner.env.tasks.thread("cache-scan", Box::new(move || scanner.scan()));
        let scan = thread.inspect_err(|_| inner.scan()).ok();
        Ok(Self { inner, scan: Mutex::new(scan) })
    }

    /// Reads whole blocks of a chunk from `first_block` on. True if all of them were
    /// there and verified; otherwise `out` holds nothing to be used. What fails
    /// verification is dropped. What the last block has past the chunk's end is zeros.
    pub fn read(&self, token: &str, chunk: u64, first_block: u64, out: &mut [u8]) -> bool {
        if !out.len().is_multiple_of(BLOCK) {
            return false;
        }
        let inner = &self.inner;
        let tag = inner.tag(token, chunk);
        if chunk == 0
            && let Some(found) = inner.packs.read(&tag, first_block, out)
        {
            return found;
        }
        let Some(blob) = inner.chunks.get(&tag, inner.tick()) else { return false };
        if first_block.saturating_add((out.len() / BLOCK) as u64) > blob.end_block() {
            return false;
        }
        match blob.read(first_block, out) {
            Ok(presence) if presence.is_all() => true,
            Ok(_) | Err(BlobError::Corrupt { .. }) => {
                inner.chunks.remove(&tag);
                false
            }
            Err(error) => {
                tracing::debug!(%error, "cache: cannot read a chunk");
                false
            }
        }
    }

    /// The blob of a chunk that has a file of its own, marked as used. Small contents
    /// have none: [`read`](Self::read) serves both. The blob may lack blocks after a crash
    /// of the machine, and must not be written.
    pub fn get(&self, token: &str, chunk: u64) -> Option<Arc<Blob>> {
        self.inner.chunks.get(&self.inner.tag(token, chunk), self.inner.tick())
    }

    /// Whether a chunk is (probably) there, without touching the disk.
    pub fn contains(&self, token: &str, chunk: u64) -> bool {
        let tag = self.inner.tag(token, chunk);
        (chunk == 0 && self.inner.packs.contains(&tag)) || self.inner.chunks.contains(&tag)
    }

    /// Stores a whole chunk, of any length but zero. False if it could not be kept.
    pub fn put(&self, token: &str, chunk: u64, data: &[u8]) -> bool {
        let inner = &self.inner;
        let tag = inner.tag(token, chunk);
        if data.is_empty() {
            return false;
        }
        if chunk == 0 && data.len() <= SMALL {
            return inner.put_small(&tag, data);
        }
        let blocks = data.len().div_ceil(BLOCK) as u64;
        inner.store(Blob::disk_bytes(blocks), || {
            let temporary = inner.root.temporary(&*inner.env.random);
            inner.chunks.put(&tag, data, &temporary, inner.tick())?;
            Ok(Blob::disk_bytes(blocks))
        })
    }

    /// Takes over a staging blob whose first `blocks` blocks are all there (the rest is cut
    /// off), by renaming its file, or by copying across file systems. True if the chunk is in the cache: then
    /// the file is no longer at its old path, and must not be written any more (the open
    /// blob stays readable). False leaves the file to the caller.
    pub fn adopt(&self, token: &str, chunk: u64, blob: &Arc<Blob>, blocks: u64) -> bool {
        let inner = &self.inner;
        let tag = inner.tag(token, chunk);
        if blocks == 0 || !matches!(blob.is_complete(blocks), Ok(true)) {
            return false;
        }
        if chunk == 0 && blocks <= (SMALL / BLOCK) as u64 {
            let mut data = vec![0; blocks as usize * BLOCK];
            // The padding of the last block need not be kept, all of the block must not go.
            let whole = matches!(blob.read(0, &mut data), Ok(presence) if presence.is_all());
            let zeros = data.iter().rev().take(BLOCK - 1).take_while(|b| **b == 0).count();
            let adopted = whole && inner.put_small(&tag, &data[..data.len() - zeros]);
            return adopted && blob.unlink().is_ok();
        }
        inner.store(Blob::disk_bytes(blocks), || {
            let temporary = inner.root.temporary(&*inner.env.random);
            inner.chunks.adopt(&tag, blob, blocks, &temporary, inner.tick())?;
            Ok(Blob::disk_bytes(blocks))
        })
    }

    /// Drops one chunk.
    pub fn remove(&self, token: &str, chunk: u64) {
        let tag = self.inner.tag(token, chunk);
        if chunk == 0 {
            self.inner.packs.remove(&token_part(&tag));
        }
        self.inner.chunks.remove(&tag);
    }

    /// Drops all chunks of a token.
    pub fn remove_token(&self, token: &str) {
        let inner = &self.inner;
        let tag = token_part(&inner.tag(token, 0));
        inner.packs.remove(&tag);
        inner.chunks.remove_token(&tag, !inner.scanned.load(Ordering::Acquire));
    }

    /// Shrinks the cache to its limit and the disk's floor, if others filled the disk.
    pub fn trim(&self) {
        self.inner.make_room(0);
    }

    /// Bytes on disk, as counted here: never less than what the content takes.
    pub fn used(&self) -> u64 {
        self.inner.budget.used()
    }

    /// Bytes that it may use.
    pub fn limit(&self) -> u64 {
        self.inner.budget.limit()
    }

    /// Returns when everything of earlier runs is indexed.
    #[cfg(test)]
    fn wait_scanned(&self) {
        if let Some(scan) = self.scan.lock().take() {
            scan.join();
        }
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        self.inner.closing.store(true, Ordering::Release);
        if let Some(scan) = self.scan.lock().take() {
            scan.join();
        }
        self.inner.packs.close();
    }
}

impl Inner {
    /// The keyed name of a chunk; its first half is the token's.
    fn tag(&self, token: &str, chunk: u64) -> Tag {
        let whole = [token.as_bytes(), &chunk.to_le_bytes()].concat();
        let mut tag = self.keys.tag("cache token", token.as_bytes());
        tag[8..].copy_from_slice(&self.keys.tag("cache chunk", &whole)[..8]);
        tag
    }

    fn tick(&self) -> Tick {
        let now = Tick::from_millis(self.env.millis()).0;
        let next = |last: u64| Some(now.max(last.saturating_add(1)));
        let last = self.last_tick.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        Tick(last.ok().and_then(next).unwrap_or(now))
    }

    fn put_small(&self, tag: &Tag, data: &[u8]) -> bool {
        self.store(packs::cost(data.len()), || {
            let put = self.packs.put(tag, data, self.tick());
            put.map_err(|source| BlobError::Io {
                path: self.root.packs(),
                operation: "append to a pack in",
                source,
            })
        })
    }

    /// Makes room for `most` bytes and runs `put`, which says how many it took; once more
    /// if the folders were gone.
    fn store(&self, most: u64, put: impl Fn() -> Result<u64, BlobError>) -> bool {
        if !self.make_room(most) {
            return false;
        }
        let stored = put().or_else(|error| match &error {
            BlobError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                let remade = self.root.ensure();
                if remade.is_ok() { put() } else { Err(error) }
            }
            _ => Err(error),
        });
        let taken = stored.inspect_err(|error| tracing::debug!(%error, "cache: cannot store"));
        self.budget.give_back(most - taken.as_ref().map_or(0, |taken| most.min(*taken)));
        taken.is_ok()
    }

    /// Evicts until `bytes` more fit, and counts them; false if they cannot fit.
    fn make_room(&self, bytes: u64) -> bool {
        let _alone = self.making_room.lock();
        if bytes > self.budget.limit() {
            return false;
        }
        while !self.budget.fits(bytes) {
            if !self.evict() {
                return false;
            }
        }
        self.budget.charge(bytes);
        true
    }

    /// Evicts what was used longest ago: a chunk or a pack. False if there is nothing.
    fn evict(&self) -> bool {
        match (self.chunks.oldest(), self.packs.oldest()) {
            (Some((used, tag)), pack) if pack.is_none_or(|written| used <= written) => {
                self.chunks.remove(&tag);
                true
            }
            _ => self.packs.evict_oldest(self.tick()),
        }
    }

    fn scan(&self) {
        let go_on = || !self.closing.load(Ordering::Acquire);
        // Newest first: the likeliest to be read.
        for number in self.packs.unscanned().into_iter().rev().take_while(|_| go_on()) {
            self.packs.scan(number);
        }
        for shard in (0..=u8::MAX).take_while(|_| go_on()) {
            self.chunks.scan_shard(shard);
        }
        self.scanned.store(go_on(), Ordering::Release);
        if go_on() {
            self.make_room(0);
        }
        self.root.remove_garbage(go_on);
    }
}

fn token_part(tag: &Tag) -> TokenTag {
    let mut token = [0; 8];
    token.copy_from_slice(&tag[..8]);
    token
}

#[cfg(test)]
mod tests;
