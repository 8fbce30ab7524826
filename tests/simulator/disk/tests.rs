//! The simulated disk against the machine's own, and what each fate may take from it.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use privicorefs::content::blob::{BLOCK, Blob, BlobError};
use privicorefs::content::cache::{Cache, CacheConfig, CacheError};
use privicorefs::crypto::{LocalKeys, MasterKey};
use privicorefs::env::Env;
use privicorefs::env::disk::{DiskFile, SystemDisk};

use super::super::doubles::{FixedClock, SeededRandom, seeded_env};
use super::*;

fn disk() -> SimDisk {
    SimDisk::new(Arc::new(FixedClock::default()))
}

fn at(path: &str) -> PathBuf {
    Path::new("/").join(path)
}

/// Random choices of a test, all from one seed.
struct Dice(SeededRandom);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(SeededRandom::new(seed))
    }

    fn below(&self, bound: usize) -> usize {
        below(&self.0, bound)
    }

    fn pick<'a, T>(&self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    fn bytes(&self, most: usize) -> Vec<u8> {
        let mut bytes = vec![0; self.below(most)];
        self.0.fill(&mut bytes);
        bytes
    }
}

fn create(disk: &dyn Disk, path: &str, content: &[u8]) -> Arc<dyn DiskFile> {
    let file = disk.create_new(&at(path)).unwrap();
    file.write_all_at(content, 0).unwrap();
    file
}

fn content(file: &dyn DiskFile) -> Vec<u8> {
    let mut out = vec![0xee; file.stat().unwrap().len as usize];
    file.read_exact_at(&mut out, 0).unwrap();
    out
}

fn names(disk: &SimDisk, path: &str) -> Vec<String> {
    let names = disk.process().read_dir(&at(path)).unwrap();
    names.into_iter().map(|name| name.into_string().unwrap()).collect()
}

/// The machine's own disk and the simulated one, which have to answer alike.
struct Pair {
    folder: tempfile::TempDir,
    simulated: SimDisk,
    process: Arc<dyn Disk>,
    open: Vec<[Arc<dyn DiskFile>; 2]>,
}

impl Pair {
    fn new() -> Self {
        let simulated = disk();
        let (folder, process) = (tempfile::tempdir().unwrap(), simulated.process());
        Self { folder, simulated, process, open: Vec::new() }
    }

    /// The same on both; what both answered, if that is a success.
    fn both<T>(&self, what: impl Fn(&dyn Disk, &Path) -> io::Result<T>) -> Option<[T; 2]> {
        alike([what(&SystemDisk, self.folder.path()), what(&*self.process, Path::new("/"))])
    }

    fn step(&mut self, dice: &Dice) {
        let paths = ["a", "b", "d", "d/a", "d/e", "d/e/a", "d/e/b", "f", "f/g"];
        let (path, other) = (*dice.pick(&paths), *dice.pick(&paths));
        match dice.below(12) {
            0..3 => self.open.extend(self.both(|disk, dir| disk.create_new(&dir.join(path)))),
            3 => self.open.extend(self.both(|disk, dir| disk.open(&dir.join(path)))),
            4 => _ = self.both(|disk, dir| disk.rename(&dir.join(path), &dir.join(other))),
            5 => _ = self.both(|disk, dir| disk.remove_file(&dir.join(path))),
            6 => _ = self.both(|disk, dir| disk.create_dir_all(&dir.join(path))),
            7 if dice.below(4) == 0 => {
                _ = self.both(|disk, dir| disk.remove_dir_all(&dir.join(path)));
            }
            8 => self.open.extend(self.both(|disk, dir| disk.lock(&dir.join(path)))),
            9 => _ = self.both(|disk, dir| disk.sync_dir(&dir.join(path))),
            10 if self.open.len() > 5 => drop(self.open.swap_remove(dice.below(5))),
            _ => {}
        }
        if !self.open.is_empty() {
            let handles = dice.pick(&self.open);
            change_both(handles, dice);
            let [real, simulated] = handles.each_ref().map(|file| content(&**file));
            assert!(real == simulated);
            let from = dice.below(real.len() + 10);
            for file in handles {
                // What is skipped is zeros; where the next data begins is up to the disk.
                let next = file.next_data(from as u64).unwrap();
                let next = next.map_or(real.len(), |next| next as usize);
                assert!(real.iter().take(next).skip(from).all(|byte| *byte == 0));
            }
        }
    }

    fn compare(&self, below: &Path) {
        let listed = self.both(|disk, dir| disk.read_dir(&dir.join(below)));
        let Some([names, simulated]) = listed else { return };
        assert_eq!(names, simulated, "{}", below.display());
        for name in names {
            let path = below.join(name);
            if let Some([real, simulated]) = self.both(|disk, dir| disk.read(&dir.join(&path))) {
                assert!(real == simulated, "{}", path.display());
                let len = self.both(|disk, dir| Ok(disk.stat(&dir.join(&path))?.len));
                assert_eq!(len, Some([real.len() as u64; 2]));
            } else {
                self.compare(&path);
            }
        }
    }
}

fn alike<T>(results: [io::Result<T>; 2]) -> Option<[T; 2]> {
    match results {
        [Ok(real), Ok(simulated)] => Some([real, simulated]),
        [Err(real), Err(simulated)] => {
            assert_eq!(real.kind(), simulated.kind());
            None
        }
        [Ok(_), Err(error)] => panic!("only the simulated disk fails: {error}"),
        [Err(error), Ok(_)] => panic!("only the machine's disk fails: {error}"),
    }
}

fn change_both(handles: &[Arc<dyn DiskFile>; 2], dice: &Dice) {
    let (place, len, bytes) = (dice.below(30_000), dice.below(20_000), dice.bytes(9000));
    let end = handles[0].stat().unwrap().len;
    let kind = dice.below(6);
    let change = |file: &dyn DiskFile| match kind {
        0 => file.set_len(place as u64),
        1 => file.punch((place as u64).min(end)..((place + len) as u64).min(end)),
        2 => file.punch(0..end),
        3 => file.sync_data(),
        _ => file.write_all_at(&bytes, place as u64),
    };
    alike(handles.each_ref().map(|file| change(&**file)));
}

#[test]
fn it_answers_as_the_machines_own_disk_does() {
    for seed in 0..60 {
        let (mut pair, dice) = (Pair::new(), Dice::new(seed));
        for _ in 0..80 {
            pair.step(&dice);
        }
        pair.compare(Path::new(""));
        pair.simulated.state.lock().check();
    }
}

/// Changes of one file, to be replayed up to any of them.
#[derive(Default)]
struct History {
    changes: Vec<(u64, Vec<u8>)>,
    synced: usize,
}

impl History {
    /// The content after `kept` changes, the last of them cut off after `torn` bytes.
    fn content(&self, kept: usize, torn: usize) -> Vec<u8> {
        let mut content = Vec::new();
        for (index, (at, data)) in self.changes[..kept].iter().enumerate() {
            let data = &data[..if index + 1 == kept { torn } else { data.len() }];
            let (at, end) = (*at as usize, *at as usize + data.len());
            content.resize(content.len().max(end), 0);
            content[at..end].copy_from_slice(data);
        }
        content
    }

    /// Whether a power cut may leave this; and if so, after how many changes, and whether the
    /// last one is torn.
    fn explains(&self, found: &[u8]) -> Option<(usize, bool)> {
        let whole = |kept: usize| kept.checked_sub(1).map_or(0, |last| self.changes[last].1.len());
        let kept = self.synced..=self.changes.len();
        if let Some(kept) = kept.clone().find(|kept| self.content(*kept, whole(*kept)) == found) {
            return Some((kept, false));
        }
        kept.filter(|kept| *kept > self.synced).find_map(|kept| {
            let start = self.changes[kept - 1].0 as usize;
            let torn = (1..whole(kept)).filter(|torn| (start + torn).is_multiple_of(512));
            torn.into_iter().find(|torn| self.content(kept, *torn) == found).map(|_| (kept, true))
        })
    }
}

#[test]
fn a_power_cut_keeps_a_prefix_of_what_was_not_synced() {
    let (mut none, mut all, mut some, mut torn) = (0, 0, 0, 0);
    for seed in 0..300 {
        let (disk, dice, mut history) = (disk(), Dice::new(seed), History::default());
        let file = create(&*disk.process(), "f", b"");
        disk.process().sync_dir(&at("")).unwrap();
        for _ in 0..dice.below(8) {
            let (place, bytes) = (dice.below(3000) as u64, dice.bytes(3000));
            if bytes.is_empty() {
                continue;
            }
            file.write_all_at(&bytes, place).unwrap();
            history.changes.push((place, bytes));
            if dice.below(4) == 0 {
                file.sync_data().unwrap();
                history.synced = history.changes.len();
            }
        }
        let whole = dice.below(8) == 0;
        let lost = disk.power_cut(&dice.0, whole);
        let found = disk.process().read(&at("f")).unwrap();
        let (kept, is_torn) = history.explains(&found).unwrap();
        assert!(!whole || (kept == history.synced && !is_torn));
        assert_eq!(lost.changes, history.changes.len() - kept + usize::from(is_torn));
        assert_eq!(file.read_at(&mut [0], 0).unwrap_err().raw_os_error(), Some(5));
        if history.synced < history.changes.len() && !whole {
            torn += u32::from(is_torn);
            match kept {
                kept if kept == history.synced => none += 1,
                kept if kept == history.changes.len() => all += 1,
                _ => some += 1,
            }
        }
        disk.state.lock().check();
    }
    assert!(none > 20 && all > 20 && some > 20 && torn > 20, "{none} {all} {some} {torn}");
}

#[test]
fn a_name_is_durable_when_its_folder_was_synced_and_not_when_the_file_was() {
    let mut seen = BTreeSet::new();
    for seed in 0..100 {
        let disk = disk();
        let process = disk.process();
        create(&*process, "kept", b"1");
        create(&*process, "old", b"2").sync_data().unwrap();
        process.sync_dir(&at("")).unwrap();
        create(&*process, "new", b"3").sync_data().unwrap();
        process.remove_file(&at("old")).unwrap();
        disk.power_cut(&SeededRandom::new(seed), seed % 10 == 0);
        let names = names(&disk, "");
        if seed % 10 == 0 {
            assert_eq!(names, ["kept", "old"]);
        }
        let content = |name: &str| disk.process().read(&at(name)).ok();
        assert!(content("old").is_none_or(|old| old == b"2"));
        assert!(content("new").is_none_or(|new| new == b"3"));
        seen.insert(names);
    }
    let expected: [&[&str]; 3] = [&["kept", "new"], &["kept", "new", "old"], &["kept", "old"]];
    assert_eq!(seen, expected.map(|names| names.iter().map(|n| n.to_string()).collect()).into());
}

#[test]
fn a_rename_is_one_change_of_two_folders() {
    let mut seen = BTreeSet::new();
    for seed in 0..300 {
        let (disk, dice) = (disk(), Dice::new(seed));
        let process = disk.process();
        for folder in ["a", "b", "c"] {
            process.create_dir_all(&at(folder)).unwrap();
        }
        create(&*process, "a/f", b"moved");
        create(&*process, "b/g", b"replaced");
        disk.write_back();
        create(&*process, "a/before", b"");
        process.rename(&at("a/f"), &at("b/g")).unwrap();
        process.rename(&at("b/g"), &at("c/h")).unwrap();
        let synced = *dice.pick(&["a", "b", "c", ""]);
        process.sync_dir(&at(synced)).unwrap();
        disk.power_cut(&dice.0, dice.below(4) == 0);
        let mut places = BTreeSet::new();
        for path in ["a/f", "b/g", "c/h"] {
            if disk.process().read(&at(path)).is_ok_and(|content| content == b"moved") {
                places.insert(path);
            }
        }
        assert_eq!(places.len(), 1, "{places:?}");
        assert!(synced != "a" || !places.contains("a/f"));
        assert!(!["b", "c"].contains(&synced) || places.contains("c/h"));
        if !places.contains("a/f") {
            assert!(names(&disk, "a").contains(&"before".to_owned()), "what came before is there");
        }
        seen.extend(places);
        disk.state.lock().check();
    }
    assert_eq!(seen.len(), 3);
}

#[test]
fn a_folder_is_not_gone_before_what_was_moved_out_of_it_has_come_elsewhere() {
    let disk = disk();
    let process = disk.process();
    process.create_dir_all(&at("a")).unwrap();
    process.create_dir_all(&at("b")).unwrap();
    create(&*process, "a/f", b"moved");
    disk.write_back();
    process.rename(&at("a/f"), &at("b/f")).unwrap();
    process.remove_dir_all(&at("a")).unwrap();
    process.sync_dir(&at("")).unwrap();
    disk.power_cut(&SeededRandom::new(1), true);
    assert_eq!(names(&disk, ""), ["b"]);
    assert_eq!(disk.process().read(&at("b/f")).unwrap(), b"moved");
}

#[test]
fn a_removal_that_was_not_synced_is_undone_even_if_the_process_died_before() {
    let disk = disk();
    create(&*disk.process(), "f", b"removed");
    disk.write_back();
    disk.process().remove_file(&at("f")).unwrap();
    disk.kill();
    assert_eq!(names(&disk, ""), [""; 0]);
    let lost = disk.power_cut(&SeededRandom::new(1), true);
    assert_eq!(lost, Lost { changes: 0, names: 1 });
    assert_eq!(disk.process().read(&at("f")).unwrap(), b"removed");
}

#[test]
fn what_is_not_reachable_again_is_dropped() {
    let disk = disk();
    let process = disk.process();
    for round in 0..5 {
        let file = create(&*process, "f", &[1; 100]);
        process.create_dir_all(&at("d/e")).unwrap();
        process.remove_file(&at("f")).unwrap();
        process.remove_dir_all(&at("d")).unwrap();
        assert_eq!(content(&*file), [1; 100], "round {round}");
    }
    disk.write_back();
    assert_eq!(disk.state.lock().nodes(), 1);
    assert_eq!(process.space(&at("")).unwrap().free, 1 << 40);
}

#[test]
fn a_killed_process_can_do_nothing_and_has_lost_nothing() {
    let disk = disk();
    let process = disk.process();
    let lock = process.lock(&at("lock")).unwrap();
    assert_eq!(disk.process().lock(&at("lock")).unwrap_err().kind(), ErrorKind::WouldBlock);
    let file = create(&*process, "f", b"written");
    disk.kill();
    assert!(file.write_all_at(b"x", 0).is_err() && file.sync_data().is_err());
    assert!(process.read(&at("f")).is_err() && process.remove_file(&at("f")).is_err());
    let next = disk.process();
    assert_eq!(next.read(&at("f")).unwrap(), b"written");
    let second = next.lock(&at("lock")).unwrap();
    // A late close of a dead handle does not unlock what the living have locked.
    drop(lock);
    assert_eq!(next.lock(&at("lock")).unwrap_err().kind(), ErrorKind::WouldBlock);
    drop(second);
    next.lock(&at("lock")).unwrap();
}

#[test]
fn the_hook_answers_or_kills_before_anything_is_done() {
    let disk = disk();
    let process = disk.process();
    let file = create(&*process, "f", b"1");
    let calls = Arc::new(AtomicUsize::new(0));
    let (counter, target) = (calls.clone(), disk.clone());
    disk.set_hook(Some(Arc::new(move |operation| match counter.fetch_add(1, Ordering::SeqCst) {
        0 => Err(ErrorKind::StorageFull.into()),
        1 if operation == "rename" => {
            target.kill();
            Ok(())
        }
        _ => Ok(()),
    })));
    let full = file.write_all_at(b"2", 0).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::StorageFull);
    assert!(process.rename(&at("f"), &at("g")).is_err());
    assert!(file.write_all_at(b"3", 0).is_err());
    assert_eq!(calls.load(Ordering::SeqCst), 2, "the dead are not asked about");
    disk.process().sync_dir(&at("")).unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 3);
    disk.set_hook(None);
    assert_eq!(disk.process().read(&at("f")).unwrap(), b"1");
}

#[test]
fn a_full_disk_takes_what_fits_and_overwrites_still_work() {
    let disk = disk();
    let process = disk.process();
    let file = create(&*process, "f", &[1; 5000]);
    disk.set_free(2 * content::PAGE + 100);
    assert_eq!(process.space(&at("")).unwrap().free, 2 * content::PAGE + 100);
    file.write_all_at(&[2; 8192], 0).unwrap();
    let full = file.write_all_at(&[3; 20_000], 8000).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::StorageFull);
    assert_eq!(file.stat().unwrap().len, 4 * content::PAGE);
    assert!(content(&*file)[8000..].iter().all(|byte| *byte == 3));
    file.punch(0..content::PAGE).unwrap();
    file.write_all_at(&[4; 100], 20_000).unwrap();
    assert!(file.write_all_at(&[4; 1], 0).is_err());
    drop(file);
    process.remove_file(&at("f")).unwrap();
    assert_eq!(process.space(&at("")).unwrap().free, 4 * content::PAGE + 100);
}

#[test]
fn a_snapshot_comes_back_durably_under_a_process_that_goes_on() {
    let disk = disk();
    let process = disk.process();
    process.create_dir_all(&at("state/staging")).unwrap();
    let file = create(&*process, "state/staging/f", b"older");
    create(&*process, "cache", b"stays");
    let (state, all) = (disk.snapshot(&at("state")).unwrap(), disk.snapshot(&at("")).unwrap());
    file.write_all_at(b"newer", 0).unwrap();
    process.remove_file(&at("cache")).unwrap();
    let clone = disk_of(&all);
    disk.restore(&at("state"), &state).unwrap();
    file.write_all_at(b"newest", 0).unwrap();
    assert_eq!(content(&*file), b"newest");
    assert_eq!(process.read(&at("state/staging/f")).unwrap(), b"older");
    assert_eq!(names(&disk, ""), ["state"]);
    disk.state.lock().check();
    for disk in [&disk, &clone] {
        disk.power_cut(&SeededRandom::new(1), true);
        assert_eq!(disk.process().read(&at("state/staging/f")).unwrap(), b"older");
    }
    assert_eq!(clone.process().read(&at("cache")).unwrap(), b"stays");
    disk.restore(&at(""), &all).unwrap();
    assert_eq!(disk.snapshot(&at("")).unwrap(), all);
}

fn disk_of(snapshot: &Snapshot) -> SimDisk {
    let disk = disk();
    disk.restore(&at(""), snapshot).unwrap();
    disk
}

#[test]
fn the_same_seed_leaves_the_same_disk() {
    let run = |seed| {
        let (mut pair, dice) = (Pair::new(), Dice::new(seed));
        (0..60).for_each(|_| pair.step(&dice));
        pair.simulated.power_cut(&dice.0, false);
        pair.simulated.snapshot(&at("")).unwrap()
    };
    for seed in 0..20 {
        assert_eq!(run(seed), run(seed));
    }
    assert_ne!(run(1), run(2));
}

/// Blobs on a simulated disk.
struct Blobs {
    disk: SimDisk,
    keys: Arc<LocalKeys>,
    random: Arc<SeededRandom>,
}

impl Blobs {
    fn new(seed: u64) -> Self {
        let keys = Arc::new(LocalKeys::new(&MasterKey::from_bytes([1; 32])));
        Self { disk: disk(), keys, random: Arc::new(SeededRandom::new(seed)) }
    }

    fn env(&self) -> Env {
        let random = self.random.clone();
        Env { random, disk: self.disk.process(), ..seeded_env(1) }
    }

    fn create(&self) -> Blob {
        Blob::create(&at("blob"), &self.keys, &self.env()).unwrap()
    }

    fn open(&self) -> Blob {
        Blob::open(&at("blob"), &self.keys, &self.env()).unwrap()
    }
}

const BLOCKS: usize = 40;

/// Writes some blocks, each all of one byte; which are written.
fn write_some(blob: &Blob, dice: &Dice, byte: u8) -> (std::ops::Range<usize>, bool) {
    let first = dice.below(BLOCKS);
    let last = first + 1 + dice.below(BLOCKS - first);
    let written = blob.write(first as u64, &vec![byte; (last - first) * BLOCK]);
    (first..last, written.is_ok())
}

/// The byte that a block is filled with; 0 if it is absent, `None` if it is corrupt.
fn filled_with(blob: &Blob, block: usize) -> Option<u8> {
    let mut out = vec![0; BLOCK];
    match blob.read(block as u64, &mut out) {
        Ok(_) => {}
        Err(BlobError::Corrupt { .. }) => return None,
        Err(error) => panic!("{error}"),
    }
    assert!(out.iter().all(|byte| *byte == out[0]));
    Some(out[0])
}

#[test]
fn a_blob_has_what_was_synced_after_a_power_cut() {
    let (mut lost, mut corrupt) = (0, 0);
    for seed in 0..150 {
        let (blobs, dice) = (Blobs::new(seed), Dice::new(seed));
        let blob = blobs.create();
        blob.sync().unwrap();
        // What each block may be: what was synced, and what was written over it since.
        let mut allowed = vec![vec![0]; BLOCKS];
        for byte in 1..=dice.below(8) as u8 {
            let (range, ok) = write_some(&blob, &dice, byte);
            assert!(ok);
            allowed[range].iter_mut().for_each(|block| block.push(byte));
            if dice.below(3) == 0 {
                blob.sync().unwrap();
                allowed.iter_mut().for_each(|block| drop(block.drain(..block.len() - 1)));
            }
        }
        blobs.disk.power_cut(&dice.0, dice.below(4) == 0);
        let blob = blobs.open();
        for (block, allowed) in allowed.iter().enumerate() {
            match filled_with(&blob, block) {
                Some(byte) => {
                    assert!(allowed.contains(&byte), "seed {seed} block {block}: {byte}");
                    lost += u32::from(Some(&byte) != allowed.last());
                }
                None => {
                    assert!(allowed.len() > 1, "seed {seed} block {block} is corrupt");
                    corrupt += 1;
                }
            }
        }
    }
    assert!(lost > 100 && corrupt > 0, "{lost} {corrupt}");
}

#[test]
fn a_blob_has_each_block_old_or_new_after_a_kill_between_two_pages() {
    let mut cut_short = 0;
    for seed in 0..150 {
        let (blobs, dice) = (Blobs::new(seed), Dice::new(seed));
        let blob = blobs.create();
        let mut before = [0; BLOCKS];
        for byte in 1..=4 {
            before[write_some(&blob, &dice, byte).0].fill(byte);
        }
        blobs.disk.kill_in_next_write(dice.below(30) as u64);
        let (range, _) = write_some(&blob, &dice, 5);
        blobs.disk.kill();
        let blob = blobs.open();
        for (block, before) in before.iter().enumerate() {
            let found = filled_with(&blob, block).unwrap();
            let new = range.contains(&block) && found == 5;
            assert!(found == *before || new, "seed {seed} block {block}: {found}");
            cut_short += u32::from(range.contains(&block) && !new);
        }
    }
    assert!(cut_short > 100);
}

#[test]
fn the_cache_lives_on_a_simulated_disk() {
    let blobs = Blobs::new(1);
    let open = || {
        let config = CacheConfig { dir: at("cache"), limit: 1 << 30, free_floor: 1 << 20 };
        Cache::open(config, blobs.keys.clone(), blobs.env())
    };
    let cache = open().unwrap();
    assert!(cache.put("small", 0, &[1; 5000]) && cache.put("large", 0, &[2; 200_000]));
    assert!(matches!(open(), Err(CacheError::Busy { .. })));
    drop(cache);
    let cache = open().unwrap();
    assert!(cache.put("more", 0, &[3; 5000]));
    blobs.disk.kill();
    drop(cache);
    for seed in 0..20 {
        let cache = open().unwrap();
        let mut out = [0; BLOCK];
        for (token, byte) in [("small", 1), ("large", 2), ("more", 3), ("none", 0)] {
            let found = cache.read(token, 0, 0, &mut out);
            assert!(!found || out == [byte; BLOCK], "{token}");
        }
        assert!(cache.put(&format!("{seed}"), 0, &[4; 100_000]));
        drop(cache);
        blobs.disk.power_cut(&SeededRandom::new(seed), false);
    }
}
