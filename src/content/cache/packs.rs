//! Small contents: appended to pack files, indexed in memory, evicted a pack at a time.
//!
//! A file per small content would cost an inode, a page and three metadata writes each.
//! A pack is written once, from its start to its end, and removed whole, so space is
//! given back at once and exactly. The index costs 22 to 44 bytes per entry: an eighth of
//! a tag, where it lies, and whether it was read.
//!
//! Eviction is first in, first out, with a second chance: entries of the oldest pack that
//! were read since they came are appended again (at most half of the pack, so that every
//! eviction frees something). That is CLOCK, nearly as good as LRU, at the cost of one
//! bit.
//!
//! Nothing is synced. A pack of an earlier run has a table of its entries at its end, or
//! is walked entry by entry up to the first that is not whole; what does not open when it
//! is read was never there. An entry that was removed, or put twice, keeps its bytes until
//! its pack goes.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;

use super::Tick;
use super::entry::{self, HEAD, PACK_HEAD, ROW, Row, SMALL, TRAILER, Tag, TokenTag};
use super::room::Budget;
use crate::content::blob::BLOCK;
use crate::crypto::{LocalKeys, OVERHEAD, RecordKey};
use crate::env::disk::{Disk, DiskFile};
use crate::env::{Env, Random};

/// Files kept open.
const OPEN: NonZeroUsize = NonZeroUsize::new(64).unwrap();
/// A pack's largest size: what an eviction frees, and twice what it may hold in memory.
const LARGEST: u64 = 8 * 1024 * 1024;
/// A pack's smallest size, whatever the limit: a few of the largest entries.
const SMALLEST: u64 = 4 * SMALL as u64;
/// What a pack counts beside its entries: head, table's frame, last page, folder entry.
const PACK_COST: u64 = 2 * BLOCK as u64 + 64;

pub(super) struct Packs {
    dir: PathBuf,
    keys: Arc<LocalKeys>,
    key: RecordKey,
    random: Arc<dyn Random>,
    disk: Arc<dyn Disk>,
    budget: Arc<Budget>,
    /// Bytes after which a new pack is begun.
    pack_bytes: u64,
    /// When this run began: a file's time is not later, whatever the clocks say.
    opened: Tick,
    state: Mutex<State>,
}

struct State {
    /// A hash table for its size: it may have a million entries. Nothing depends on their
    /// order; they are walked only to drop some.
    index: HashMap<TokenTag, Slot>,
    packs: BTreeMap<u32, Pack>,
    active: Option<Active>,
    open: LruCache<u32, Arc<dyn DiskFile>>,
    /// Numbers are never used twice: a slot of a pack that is gone stays a miss.
    next: u32,
}

/// Where an entry is. 12 bytes: there may be a million.
#[derive(Clone, Copy)]
struct Slot {
    pack: u32,
    offset: u32,
    /// Plain length; the highest bit tells that it was read.
    len_and_read: u32,
}

const READ: u32 = 1 << 31;

impl Slot {
    fn len(self) -> u32 {
        self.len_and_read & !READ
    }

    fn is_at(self, pack: u32, row: &Row) -> bool {
        (self.pack, self.offset) == (pack, row.offset)
    }
}

struct Pack {
    /// What it counts in the budget.
    bytes: u64,
    /// When its last entry came.
    written: Tick,
}

/// The pack that entries are appended to.
struct Active {
    number: u32,
    file: Arc<dyn DiskFile>,
    end: u32,
    rows: Vec<Row>,
}

/// The most that an entry of `plain` bytes may add to the budget.
pub(super) fn cost(plain: usize) -> u64 {
    (entry::entry_len(plain) + ROW) as u64 + PACK_COST
}

impl Packs {
    pub(super) fn new(
        dir: PathBuf,
        keys: Arc<LocalKeys>,
        id: &[u8; 16],
        env: &Env,
        budget: Arc<Budget>,
    ) -> Self {
        let opened = Tick::from_millis(env.millis());
        let (random, disk) = (env.random.clone(), env.disk.clone());
        let state = State {
            index: HashMap::new(),
            packs: BTreeMap::new(),
            active: None,
            open: LruCache::new(OPEN),
            next: numbers(&*disk, &dir).max().map_or(0, |last| last + 1),
        };
        let pack_bytes = (budget.limit() / 16).clamp(SMALLEST, LARGEST);
        let key = keys.record_key(id);
        let state = Mutex::new(state);
        Self { dir, keys, key, random, disk, budget, pack_bytes, opened, state }
    }

    pub(super) fn contains(&self, tag: &Tag) -> bool {
        self.state.lock().index.contains_key(&token(tag))
    }

    /// Reads blocks of an entry; `None` if it is not here, false if it has fewer blocks.
    pub(super) fn read(&self, tag: &Tag, first_block: u64, out: &mut [u8]) -> Option<bool> {
        let key = token(tag);
        let (slot, file) = {
            let mut state = self.state.lock();
            let slot = state.index.get_mut(&key)?;
            slot.len_and_read |= READ;
            let slot = *slot;
            (slot, state.open.get(&slot.pack).cloned())
        };
        let blocks = (slot.len() as usize).div_ceil(BLOCK);
        let first = usize::try_from(first_block).unwrap_or(usize::MAX);
        let Some(end) = first.checked_add(out.len() / BLOCK).filter(|end| *end <= blocks) else {
            return Some(false);
        };
        if first == end {
            return Some(true);
        }
        let Some(file) = file.or_else(|| self.open(slot.pack)) else {
            self.forget_slot(&key, slot);
            return None;
        };
        let bytes = entry::record_bytes(slot.len(), first..end);
        let mut records = vec![0; bytes.len()];
        let at = u64::from(slot.offset) + bytes.start as u64;
        let opened = file.read_exact_at(&mut records, at).is_ok()
            && entry::open(&self.key, tag, slot.len(), first, &records, out);
        if !opened {
            self.forget_slot(&key, slot);
            return None;
        }
        Some(true)
    }

    /// Stores an entry. The caller has made room for its [`cost`]; returns how much of
    /// that it took.
    pub(super) fn put(&self, tag: &Tag, plain: &[u8], now: Tick) -> io::Result<u64> {
        let sealed = entry::seal(&self.key, &self.keys, &*self.random, tag, plain);
        self.append(token(tag), plain.len() as u32, &sealed, now)
    }

    pub(super) fn remove(&self, token: &TokenTag) {
        self.state.lock().index.remove(token);
    }

    /// When the oldest pack's last entry came.
    pub(super) fn oldest(&self) -> Option<Tick> {
        let state = self.state.lock();
        state.packs.first_key_value().map(|(_, pack)| pack.written)
    }

    /// Removes the oldest pack, but not those of its entries that were read; false if
    /// there is none.
    pub(super) fn evict_oldest(&self, now: Tick) -> bool {
        let number = self.state.lock().packs.first_key_value().map(|(number, _)| *number);
        let Some(number) = number else { return false };
        let active = self.state.lock().active.take_if(|active| active.number == number);
        // The active one, if there is no other: then its rows are at hand.
        let rows = match active {
            Some(active) => active.rows,
            None => self.rows_of(number).unwrap_or_default(),
        };
        let (keep, bytes) = self.retire(number, &rows);
        let saved = self.save(number, &keep);
        let _ = self.disk.remove_file(&self.path(number));
        self.budget.give_back(bytes);
        for (row, sealed) in saved {
            match self.append(row.key, row.len, &sealed, now) {
                Ok(taken) => self.budget.charge(taken),
                Err(error) => tracing::debug!(%error, "cache: cannot keep an entry"),
            }
        }
        true
    }

    /// Takes a pack and its entries out of the index: returns those to keep, and what
    /// the pack counted.
    fn retire(&self, number: u32, rows: &[Row]) -> (Vec<Row>, u64) {
        let mut state = self.state.lock();
        let bytes = state.packs.remove(&number).map_or(0, |pack| pack.bytes);
        let mut left = bytes / 2;
        let mut keep = Vec::new();
        for row in rows {
            let Some(slot) = state.index.get(&row.key).copied() else { continue };
            if !slot.is_at(number, row) {
                continue;
            }
            state.index.remove(&row.key);
            let cost = (entry::entry_len(row.len as usize) + ROW) as u64;
            if slot.len_and_read & READ != 0 && cost <= left {
                left -= cost;
                keep.push(*row);
            }
        }
        if rows.is_empty() {
            // Its table cannot be read: a look at the whole index, seldom.
            state.index.retain(|_, slot| slot.pack != number);
        }
        (keep, bytes)
    }

    /// Reads the sealed entries to be kept of a retired pack, as they are.
    fn save(&self, number: u32, keep: &[Row]) -> Vec<(Row, Vec<u8>)> {
        let Some(file) = self.state.lock().open.pop(&number).or_else(|| self.open_file(number))
        else {
            return Vec::new();
        };
        let read = |row: &Row| {
            let mut sealed = vec![0; entry::entry_len(row.len as usize)];
            file.read_exact_at(&mut sealed, u64::from(row.offset)).ok()?;
            Some((*row, sealed))
        };
        keep.iter().filter_map(read).collect()
    }

    /// Appends a sealed entry to the active pack, beginning a new one when it is full.
    fn append(&self, key: TokenTag, len: u32, sealed: &[u8], now: Tick) -> io::Result<u64> {
        let mut taken = (sealed.len() + ROW) as u64;
        let (file, pack, offset, full) = {
            let mut state = self.state.lock();
            let full = state.active.take_if(|active| {
                let table = entry::table_len(active.rows.len() + 1) as u64;
                u64::from(active.end) + sealed.len() as u64 + table > self.pack_bytes
            });
            if state.active.is_none() {
                self.begin(&mut state)?;
                taken += PACK_COST;
            }
            let Some(active) = state.active.as_mut() else {
                return Err(io::ErrorKind::NotFound.into());
            };
            let (number, offset) = (active.number, active.end);
            active.rows.push(Row { key, offset, len });
            active.end += sealed.len() as u32;
            let file = active.file.clone();
            let entry = state.packs.entry(number).or_insert(Pack { bytes: 0, written: now });
            entry.bytes += taken;
            entry.written = now;
            (file, number, offset, full)
        };
        if let Some(full) = full {
            self.finish(&full);
        }
        // Its bytes stay counted, and its row in the table, even if this fails: it will
        // not open, and goes with its pack.
        if let Err(error) = file.write_all_at(sealed, u64::from(offset)) {
            tracing::debug!(%error, "cache: cannot write an entry");
            return Ok(taken);
        }
        let mut state = self.state.lock();
        // Unless the pack was evicted meanwhile.
        if state.packs.contains_key(&pack) {
            state.index.insert(key, Slot { pack, offset, len_and_read: len });
        }
        Ok(taken)
    }

    fn begin(&self, state: &mut State) -> io::Result<()> {
        let number = state.next;
        let file = self.disk.create_new(&self.path(number))?;
        // Also when writing fails: the name is taken.
        state.next += 1;
        file.write_all_at(&entry::pack_head(), 0)?;
        state.open.put(number, file.clone());
        state.active = Some(Active { number, file, end: PACK_HEAD as u32, rows: Vec::new() });
        Ok(())
    }

    /// Writes a pack's table, so that the next run need not walk it.
    fn finish(&self, active: &Active) {
        let place = (active.number, active.end);
        let table = entry::seal_table(&self.key, &self.keys, &*self.random, place, &active.rows);
        if let Err(error) = active.file.write_all_at(&table, u64::from(active.end)) {
            tracing::debug!(%error, "cache: cannot finish a pack");
        }
    }

    /// Ends the active pack.
    pub(super) fn close(&self) {
        if let Some(active) = self.state.lock().active.take() {
            self.finish(&active);
        }
    }

    /// The packs of earlier runs, to be scanned one by one, oldest first.
    pub(super) fn unscanned(&self) -> Vec<u32> {
        let mut found: Vec<u32> = numbers(&*self.disk, &self.dir).collect();
        found.sort_unstable();
        let state = self.state.lock();
        found.retain(|number| !state.packs.contains_key(number));
        found
    }

    /// Indexes a pack of an earlier run; removes it if there is nothing in it.
    pub(super) fn scan(&self, number: u32) {
        let Some(file) = self.open_file(number) else { return };
        let rows = read_table(&*file, &self.key, number).or_else(|| self.walk(&file, number));
        let rows = rows.unwrap_or_default();
        let (Ok(stat), false) = (file.stat(), rows.is_empty()) else {
            let _ = self.disk.remove_file(&self.path(number));
            return;
        };
        let written = Tick::from_file_time(stat.modified).min(self.opened);
        let bytes = stat.len.next_multiple_of(BLOCK as u64) + BLOCK as u64;
        let mut state = self.state.lock();
        state.packs.insert(number, Pack { bytes, written });
        self.budget.charge(bytes);
        for row in rows {
            let slot = Slot { pack: number, offset: row.offset, len_and_read: row.len };
            let newer = state.index.get(&row.key).is_some_and(|known| known.pack > number);
            if !newer {
                state.index.insert(row.key, slot);
            }
        }
    }

    /// Reads the heads of a pack's entries, after a crash, and writes the table that the
    /// crash kept from being written.
    fn walk(&self, file: &Arc<dyn DiskFile>, number: u32) -> Option<Vec<Row>> {
        let len = file.stat().ok()?.len;
        let mut head = [0; PACK_HEAD];
        file.read_exact_at(&mut head, 0).ok().filter(|()| head == entry::pack_head())?;
        let mut rows = Vec::new();
        let mut at = PACK_HEAD as u64;
        while at + HEAD as u64 <= len {
            let mut head = [0; HEAD];
            file.read_exact_at(&mut head, at).ok()?;
            let Some(row) = entry::parse_head(&head, u32::try_from(at).ok()?) else { break };
            let end = at + entry::entry_len(row.len as usize) as u64;
            if end > len {
                break;
            }
            rows.push(row);
            at = end;
        }
        file.set_len(at).ok()?;
        let active = Active { number, file: file.clone(), end: u32::try_from(at).ok()?, rows };
        self.finish(&active);
        Some(active.rows)
    }

    fn rows_of(&self, number: u32) -> Option<Vec<Row>> {
        read_table(&*self.open(number)?, &self.key, number)
    }

    /// Opens a pack that is indexed, and keeps it open. If its file is gone, so is it.
    fn open(&self, number: u32) -> Option<Arc<dyn DiskFile>> {
        let file = self.open_file(number);
        let mut state = self.state.lock();
        if let Some(file) = &file {
            state.open.put(number, file.clone());
        } else if self.disk.stat(&self.path(number)).is_err() {
            state.active.take_if(|active| active.number == number);
            let bytes = state.packs.remove(&number).map_or(0, |pack| pack.bytes);
            state.index.retain(|_, slot| slot.pack != number);
            self.budget.give_back(bytes);
        }
        file
    }

    fn open_file(&self, number: u32) -> Option<Arc<dyn DiskFile>> {
        self.disk.open(&self.path(number)).ok()
    }

    fn forget_slot(&self, key: &TokenTag, slot: Slot) {
        let mut state = self.state.lock();
        let same = |s: &Slot| (s.pack, s.offset) == (slot.pack, slot.offset);
        if state.index.get(key).is_some_and(same) {
            state.index.remove(key);
        }
    }

    fn path(&self, number: u32) -> PathBuf {
        self.dir.join(format!("{number:08x}"))
    }
}

fn token(tag: &Tag) -> TokenTag {
    let mut token = [0; 8];
    token.copy_from_slice(&tag[..8]);
    token
}

/// The numbers of the packs in `dir`; removes files that are none.
fn numbers(disk: &dyn Disk, dir: &Path) -> impl Iterator<Item = u32> {
    let names = disk.read_dir(dir).into_iter().flatten();
    names.filter_map(move |name| {
        let digits = name.to_str().filter(|n| n.len() == 8 && !n.starts_with('+'));
        let number = digits.and_then(|n| u32::from_str_radix(n, 16).ok());
        if number.is_none() {
            let path = dir.join(&name);
            let _ = disk.remove_file(&path).or_else(|_| disk.remove_dir_all(&path));
        }
        number
    })
}

/// Reads the table at the end of a pack; `None` if there is none, or not its own.
fn read_table(file: &dyn DiskFile, key: &RecordKey, number: u32) -> Option<Vec<Row>> {
    let len = file.stat().ok()?.len;
    let at = len.checked_sub(TRAILER as u64)?;
    let mut trailer = [0; TRAILER];
    file.read_exact_at(&mut trailer, at).ok()?;
    let (rows, start) = entry::parse_trailer(&trailer)?;
    let sealed = usize::try_from(at.checked_sub(start)?).ok()?;
    // Both from the file: they must agree before they size a buffer.
    if sealed != rows.checked_mul(ROW)?.checked_add(OVERHEAD)? || sealed as u64 > LARGEST {
        return None;
    }
    let mut table = vec![0; sealed];
    file.read_exact_at(&mut table, start).ok()?;
    entry::open_table(key, number, &mut table)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::crypto::MasterKey;
    use crate::env::disk::SystemDisk;
    use crate::env::doubles::seeded_env;

    struct Bench {
        dir: tempfile::TempDir,
        packs: Packs,
    }

    impl Bench {
        fn new(limit: u64) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let packs = Self::open(&dir, limit);
            Self { dir, packs }
        }

        fn open(dir: &tempfile::TempDir, limit: u64) -> Packs {
            let keys = Arc::new(LocalKeys::new(&MasterKey::from_bytes([1; 32])));
            let env = seeded_env(1);
            let budget = Budget::new(limit, 0, dir.path().to_owned(), env.disk.clone());
            Packs::new(dir.path().to_owned(), keys, &[3; 16], &env, Arc::new(budget))
        }

        /// Another run, which may have crashed: nothing was closed.
        fn reopen(&self) -> Packs {
            let packs = Self::open(&self.dir, u64::MAX);
            packs.unscanned().into_iter().for_each(|number| packs.scan(number));
            packs
        }

        fn put(&self, i: u64, len: usize) {
            let taken = self.packs.put(&tag(i), &content(i, len), Tick(i)).unwrap();
            assert!(taken <= cost(len));
            self.packs.budget.charge(taken);
        }
    }

    fn tag(i: u64) -> Tag {
        u128::from(i).rotate_right(64).to_be_bytes()
    }

    fn content(i: u64, len: usize) -> Vec<u8> {
        vec![i as u8 + 1; len]
    }

    fn has(packs: &Packs, i: u64) -> bool {
        let mut out = [0; BLOCK];
        let found = packs.read(&tag(i), 0, &mut out) == Some(true);
        assert!(!found || out[0] == i as u8 + 1);
        found
    }

    #[test]
    fn a_million_entries_fit_in_memory() {
        assert_eq!(size_of::<(TokenTag, Slot)>(), 20);
    }

    #[test]
    fn packs_of_a_run_that_crashed_are_walked_and_get_their_table() {
        let bench = Bench::new(u64::MAX);
        (0..20).for_each(|i| bench.put(i, 1000 + i as usize));
        let found = bench.reopen();
        assert!((0..20).all(|i| has(&found, i)));
        let file = found.open(0).unwrap();
        assert_eq!(read_table(&*file, &found.key, 0).unwrap().len(), 20);
        let again = bench.reopen();
        assert!((0..20).all(|i| has(&again, i)));
    }

    #[test]
    fn entries_after_a_torn_one_are_lost_and_nothing_else() {
        let bench = Bench::new(u64::MAX);
        (0..20).for_each(|i| bench.put(i, 5000));
        let at = PACK_HEAD + 10 * entry::entry_len(5000);
        let path = bench.packs.path(0);
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        // In the middle of the eleventh: its head stands, its content is cut.
        file.set_len(at as u64 + 3000).unwrap();
        let found = bench.reopen();
        assert_eq!((0..20).filter(|i| has(&found, *i)).count(), 10);
        file.write_all_at(&[0xff; 40], PACK_HEAD as u64 + 20).unwrap();
        let found = bench.reopen();
        assert!(!has(&found, 0) && !has(&found, 0) && has(&found, 1));
        file.set_len(4).unwrap();
        assert!(!has(&bench.reopen(), 1));
        assert!(!path.exists());
    }

    #[test]
    fn tables_are_written_when_packs_are_full_or_closed() {
        let bench = Bench::new(0);
        (0..30).for_each(|i| bench.put(i, 60_000));
        bench.packs.close();
        assert!(bench.packs.unscanned().is_empty());
        for number in numbers_of(&bench) {
            let size = fs::metadata(bench.packs.path(number)).unwrap().len();
            assert!(size <= SMALLEST, "{size}");
            assert!(bench.packs.rows_of(number).is_some());
        }
        let found = bench.reopen();
        assert!((0..30).all(|i| has(&found, i)));
        // A new run appends to a new pack.
        found.put(&tag(99), &content(99, 10), Tick(0)).unwrap();
        assert_eq!(numbers(&SystemDisk, bench.dir.path()).count(), numbers_of(&bench).len() + 1);
    }

    fn numbers_of(bench: &Bench) -> Vec<u32> {
        bench.packs.state.lock().packs.keys().copied().collect()
    }

    #[test]
    fn eviction_takes_the_oldest_pack_and_spares_what_was_read_once() {
        let bench = Bench::new(0);
        (0..12).for_each(|i| bench.put(i, 60_000));
        let before = bench.packs.budget.used();
        assert!(has(&bench.packs, 1));
        assert!(bench.packs.evict_oldest(Tick(100)));
        assert!(bench.packs.budget.used() < before);
        let left: Vec<u64> = (0..12).filter(|i| bench.packs.contains(&tag(*i))).collect();
        assert_eq!(left, [1, 4, 5, 6, 7, 8, 9, 10, 11]);
        while bench.packs.evict_oldest(Tick(101)) {}
        assert_eq!(bench.packs.budget.used(), 0);
        assert!(bench.packs.state.lock().index.is_empty());
        assert_eq!(numbers(&SystemDisk, bench.dir.path()).count(), 0);
    }

    #[test]
    fn a_pack_that_vanished_takes_its_entries_along() {
        let bench = Bench::new(u64::MAX);
        (0..5).for_each(|i| bench.put(i, 100));
        fs::remove_file(bench.packs.path(0)).unwrap();
        bench.packs.state.lock().open.clear();
        assert!(!has(&bench.packs, 3) && !bench.packs.contains(&tag(4)));
        assert_eq!(bench.packs.budget.used(), 0);
        bench.put(6, 100);
        assert!(has(&bench.packs, 6) && has(&bench.reopen(), 6));
    }
}
