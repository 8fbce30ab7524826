//! Large chunks: a [`Blob`] each, in 256 folders, indexed in memory.
//!
//! The index is ordered by tag, and a tag starts with its token's half: all chunks of a
//! token are neighbours, so a token is dropped without knowing how many it has. About 50
//! bytes per entry.
//!
//! The victim of an eviction is the least recently used of a sample, as Redis does it:
//! an exact order costs two pointers per entry and a write per read, and a sample of 32
//! is nearly always within the oldest tenth. Up to 256 entries the choice is exact.

use std::collections::{BTreeMap, btree_map};
use std::ffi::OsStr;
use std::io;
use std::num::NonZeroUsize;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;

use super::entry::{Tag, TokenTag};
use super::{Tick, room::Budget};
use crate::content::blob::{BLOCK, Blob, BlobError};
use crate::crypto::LocalKeys;
use crate::env::Env;

/// Files kept open.
const OPEN: NonZeroUsize = NonZeroUsize::new(192).unwrap();
/// Up to so many entries all are looked at for a victim, above only a sample.
const EXACT: usize = 256;
/// Entries in a sample: four neighbours from each of eight places.
const SAMPLE: (usize, usize) = (8, 4);

pub(super) struct Chunks {
    dir: PathBuf,
    keys: Arc<LocalKeys>,
    env: Env,
    budget: Arc<Budget>,
    /// When this run began: a file's time is not later, whatever the clocks say.
    opened: Tick,
    state: Mutex<State>,
}

struct State {
    entries: BTreeMap<Tag, Entry>,
    open: LruCache<Tag, Arc<Blob>>,
}

struct Entry {
    used: Tick,
    /// What it counts in the budget.
    bytes: u64,
}

impl Chunks {
    pub(super) fn new(dir: PathBuf, keys: Arc<LocalKeys>, env: Env, budget: Arc<Budget>) -> Self {
        let opened = Tick::from_millis(env.millis());
        let state = State { entries: BTreeMap::new(), open: LruCache::new(OPEN) };
        Self { dir, keys, env, budget, opened, state: Mutex::new(state) }
    }

    /// The chunk's blob, if it is there and is what its name says; marks it as used.
    pub(super) fn get(&self, tag: &Tag, now: Tick) -> Option<Arc<Blob>> {
        {
            let mut state = self.state.lock();
            state.entries.get_mut(tag)?.used = now;
            if let Some(blob) = state.open.get(tag) {
                return Some(blob.clone());
            }
        }
        match self.open(tag) {
            Ok(Some(blob)) => {
                let mut state = self.state.lock();
                if state.entries.contains_key(tag) {
                    state.open.put(*tag, blob.clone());
                }
                Some(blob)
            }
            Ok(None) => {
                self.remove(tag);
                None
            }
            Err(error) => {
                // Out of file descriptors, for example: a miss, but not the entry's fault.
                tracing::debug!(%error, "cache: cannot open a chunk");
                None
            }
        }
    }

    pub(super) fn contains(&self, tag: &Tag) -> bool {
        self.state.lock().entries.contains_key(tag)
    }

    /// None: there is no such file, or it is not the chunk that its name says.
    fn open(&self, tag: &Tag) -> Result<Option<Arc<Blob>>, BlobError> {
        let blob = match Blob::open(&self.path(tag), &self.keys, &self.env) {
            Ok(blob) => blob,
            Err(BlobError::NotABlob { .. }) => return Ok(None),
            Err(BlobError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        Ok(blob.is_bound_to(tag)?.then(|| Arc::new(blob)))
    }

    /// Writes a chunk, its last block filled up with zeros. The caller has made room for
    /// [`Blob::disk_bytes`], and takes it back after an error.
    pub(super) fn put(
        &self,
        tag: &Tag,
        data: &[u8],
        temporary: &Path,
        now: Tick,
    ) -> Result<(), BlobError> {
        let blob = Blob::create(temporary, &self.keys, &self.env)?;
        let whole = data.len() / BLOCK * BLOCK;
        let filled = (|| {
            blob.write(0, &data[..whole])?;
            if whole < data.len() {
                let mut last = [0; BLOCK];
                last[..data.len() - whole].copy_from_slice(&data[whole..]);
                blob.write((whole / BLOCK) as u64, &last)?;
            }
            self.take_over(tag, &blob)
        })();
        if filled.is_err() {
            let _ = blob.unlink();
        }
        filled?;
        self.insert(tag, Arc::new(blob), data.len().div_ceil(BLOCK) as u64, now);
        Ok(())
    }

    /// Moves a complete blob of `blocks` blocks in. It may come from another file system:
    /// then it is copied by way of `temporary`. The caller has made room, as for `put`.
    pub(super) fn adopt(
        &self,
        tag: &Tag,
        blob: &Arc<Blob>,
        blocks: u64,
        temporary: &Path,
        now: Tick,
    ) -> Result<(), BlobError> {
        blob.truncate(blocks)?;
        blob.discard_journal()?;
        match self.take_over(tag, blob) {
            Ok(()) => {
                self.insert(tag, blob.clone(), blocks, now);
                Ok(())
            }
            Err(BlobError::Io { source, .. }) if source.kind() == io::ErrorKind::CrossesDevices => {
                self.adopt_by_copy(tag, blob, blocks, temporary, now)
            }
            Err(error) => Err(error),
        }
    }

    fn adopt_by_copy(
        &self,
        tag: &Tag,
        blob: &Blob,
        blocks: u64,
        temporary: &Path,
        now: Tick,
    ) -> Result<(), BlobError> {
        let copy = Blob::create(temporary, &self.keys, &self.env)?;
        let copied = copy_blocks(blob, &copy, blocks);
        if let Err(error) = copied.and_then(|()| self.take_over(tag, &copy)) {
            let _ = copy.unlink();
            return Err(error);
        }
        self.insert(tag, Arc::new(copy), blocks, now);
        blob.unlink()
    }

    /// Binds the blob to its tag and moves it to its place.
    fn take_over(&self, tag: &Tag, blob: &Blob) -> Result<(), BlobError> {
        blob.bind(tag)?;
        let to = self.path(tag);
        match blob.rename_to(&to) {
            Err(BlobError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                // The first one in its folder.
                let _ = to.parent().map(|shard| self.env.disk.create_dir_all(shard));
                blob.rename_to(&to)
            }
            other => other,
        }
    }

    fn insert(&self, tag: &Tag, blob: Arc<Blob>, blocks: u64, used: Tick) {
        let mut state = self.state.lock();
        let old = state.entries.insert(*tag, Entry { used, bytes: Blob::disk_bytes(blocks) });
        self.budget.give_back(old.map_or(0, |old| old.bytes));
        state.open.put(*tag, blob);
    }

    /// Forgets a chunk and removes its file, known or not yet.
    pub(super) fn remove(&self, tag: &Tag) {
        let removed = {
            let mut state = self.state.lock();
            state.open.pop(tag);
            state.entries.remove(tag)
        };
        // Not under the lock: readers of other chunks need not wait for the disk. Whoever
        // puts or scans the same chunk at this moment has an entry without a file: a miss.
        let _ = self.env.disk.remove_file(&self.path(tag));
        self.budget.give_back(removed.map_or(0, |entry| entry.bytes));
    }

    /// Removes all chunks of a token; `unscanned` looks for files not indexed yet, too.
    pub(super) fn remove_token(&self, token: &TokenTag, unscanned: bool) {
        let (mut first, mut last) = ([0; 16], [0xff; 16]);
        first[..8].copy_from_slice(token);
        last[..8].copy_from_slice(token);
        let mut tags: Vec<Tag> =
            self.state.lock().entries.range(first..=last).map(|(tag, _)| *tag).collect();
        if unscanned {
            let listed = self.env.disk.read_dir(&self.shard(token[0])).into_iter().flatten();
            let parsed = listed.filter_map(|name| parse_name(&name));
            tags.extend(parsed.filter(|tag| tag[..8] == *token));
        }
        for tag in tags {
            self.remove(&tag);
        }
    }

    /// The (probably) least recently used chunk, and when it was used.
    pub(super) fn oldest(&self) -> Option<(Tick, Tag)> {
        let state = self.state.lock();
        let age = |(tag, entry): (&Tag, &Entry)| (entry.used, *tag);
        if state.entries.len() <= EXACT {
            return state.entries.iter().map(age).min();
        }
        let (places, neighbours) = SAMPLE;
        let mut oldest = None;
        for _ in 0..places {
            let mut at = [0; 16];
            self.env.random.fill(&mut at);
            let after = state.entries.range((Bound::Included(at), Bound::Unbounded));
            let around = after.chain(state.entries.iter()).take(neighbours);
            oldest = oldest.into_iter().chain(around.map(age)).min();
        }
        oldest
    }

    /// Indexes what an earlier run left in one of the 256 folders; removes what is not
    /// a chunk. What this run put meanwhile stays as it is.
    pub(super) fn scan_shard(&self, shard: u8) {
        let (disk, dir) = (&self.env.disk, self.shard(shard));
        for name in disk.read_dir(&dir).into_iter().flatten() {
            let path = dir.join(&name);
            let Some(tag) = parse_name(&name).filter(|tag| tag[0] == shard) else {
                let _ = disk.remove_file(&path).or_else(|_| disk.remove_dir_all(&path));
                continue;
            };
            let Ok(file) = disk.stat(&path) else { continue };
            let bytes = file.allocated + BLOCK as u64;
            // Access times are coarse (relatime), but better than none.
            let accessed = file.accessed.max(file.modified);
            let used = Tick::from_file_time(accessed).min(self.opened);
            let mut state = self.state.lock();
            if let btree_map::Entry::Vacant(vacant) = state.entries.entry(tag) {
                vacant.insert(Entry { used, bytes });
                self.budget.charge(bytes);
            }
        }
    }

    fn shard(&self, first: u8) -> PathBuf {
        self.dir.join(format!("{first:02x}"))
    }

    fn path(&self, tag: &Tag) -> PathBuf {
        self.shard(tag[0]).join(format!("{:032x}", u128::from_be_bytes(*tag)))
    }
}

fn parse_name(name: &OsStr) -> Option<Tag> {
    let name = name.to_str().filter(|n| n.len() == 32 && !n.starts_with('+'))?;
    Some(u128::from_str_radix(name, 16).ok()?.to_be_bytes())
}

fn copy_blocks(from: &Blob, to: &Blob, blocks: u64) -> Result<(), BlobError> {
    const RUN: u64 = 256;
    let mut buffer = vec![0; RUN as usize * BLOCK];
    let mut first = 0;
    while first < blocks {
        let run = &mut buffer[..(blocks - first).min(RUN) as usize * BLOCK];
        from.read(first, run)?;
        to.write(first, run)?;
        first += RUN;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::MasterKey;
    use crate::env::doubles::seeded_env;

    struct Bench {
        dir: tempfile::TempDir,
        chunks: Chunks,
    }

    impl Bench {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let keys = Arc::new(LocalKeys::new(&MasterKey::from_bytes([1; 32])));
            let env = seeded_env(1);
            let budget = Budget::new(u64::MAX, 0, dir.path().to_owned(), env.disk.clone());
            let chunks = Chunks::new(dir.path().join("chunks"), keys, env, Arc::new(budget));
            Self { dir, chunks }
        }

        fn put(&self, tag: &Tag, data: &[u8], now: u64) {
            let temporary = self.dir.path().join("temporary");
            self.chunks.put(tag, data, &temporary, Tick(now)).unwrap();
        }
    }

    #[test]
    fn a_blob_of_another_file_system_is_copied_in() {
        let Bench { dir, chunks } = Bench::new();
        let blob = Blob::create(&dir.path().join("b"), &chunks.keys, &chunks.env).unwrap();
        let data: Vec<u8> = (0..300 * BLOCK).map(|i| (i / 100) as u8).collect();
        blob.write(0, &data).unwrap();
        chunks.adopt_by_copy(&[5; 16], &blob, 300, &dir.path().join("t"), Tick(1)).unwrap();
        let mut out = vec![0; data.len()];
        let copy = chunks.get(&[5; 16], Tick(2)).unwrap();
        assert!(copy.read(0, &mut out).unwrap().is_all() && out == data);
        assert!(!dir.path().join("b").exists() && !dir.path().join("t").exists());
        assert_eq!(copy.path(), chunks.path(&[5; 16]));
    }

    #[test]
    fn the_victim_is_old_even_when_only_a_sample_is_looked_at() {
        let bench = Bench::new();
        let random = &bench.chunks.env.random;
        let mut state = bench.chunks.state.lock();
        for used in 0..10_000 {
            let mut tag = [0; 16];
            random.fill(&mut tag);
            state.entries.insert(tag, Entry { used: Tick(used), bytes: 1 });
        }
        drop(state);
        for _ in 0..50 {
            // 32 looks: past the oldest half with odds of 2 to the power of -32.
            assert!(bench.chunks.oldest().unwrap().0 < Tick(5000));
        }
    }

    #[test]
    fn few_files_stay_open() {
        let bench = Bench::new();
        for i in 0..=OPEN.get() {
            bench.put(&(i as u128).to_be_bytes(), &[1; 10], i as u64);
        }
        let state = bench.chunks.state.lock();
        assert_eq!((state.open.len(), state.entries.len()), (OPEN.get(), OPEN.get() + 1));
    }
}
