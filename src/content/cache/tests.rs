use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::crypto::MasterKey;
use crate::env::doubles::seeded_env;

const PLENTY: u64 = 1 << 40;

struct Bench {
    dir: tempfile::TempDir,
    keys: Arc<LocalKeys>,
    env: Env,
}

impl Bench {
    fn new() -> Self {
        let keys = Arc::new(LocalKeys::new(&MasterKey::from_bytes([1; 32])));
        Self { dir: tempfile::tempdir().unwrap(), keys, env: seeded_env(1) }
    }

    fn try_open(&self, limit: u64, free_floor: u64) -> Result<Cache, CacheError> {
        let config = CacheConfig { dir: self.dir.path().to_owned(), limit, free_floor };
        let cache = Cache::open(config, self.keys.clone(), self.env.clone());
        cache.inspect(Cache::wait_scanned)
    }

    fn open(&self, limit: u64) -> Cache {
        self.try_open(limit, 0).unwrap()
    }

    fn staged(&self, data: &[u8]) -> Arc<Blob> {
        let path = self.dir.path().join("staged");
        let blob = Blob::create(&path, &self.keys, &self.env).unwrap();
        blob.write(0, data).unwrap();
        Arc::new(blob)
    }

    fn files(&self) -> Vec<PathBuf> {
        files_below(self.dir.path())
    }

    /// The files of contents, not the cache's own two.
    fn contents(&self) -> Vec<PathBuf> {
        let own = ["lock", "format"];
        let keep = |p: &PathBuf| !own.iter().any(|name| p.file_name() == Some(name.as_ref()));
        self.files().into_iter().filter(keep).collect()
    }
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files_below(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn data(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| (i / 300 + i + seed * 7) as u8).collect()
}

/// Reads a whole chunk of `len` bytes, if it is there.
fn read(cache: &Cache, token: &str, chunk: u64, len: usize) -> Option<Vec<u8>> {
    let mut out = vec![0xee; len.next_multiple_of(BLOCK)];
    cache.read(token, chunk, 0, &mut out).then(|| {
        assert!(out[len..].iter().all(|b| *b == 0), "padding is zeros");
        out.truncate(len);
        out
    })
}

const LENGTHS: [usize; 7] = [1, 4096, 5000, SMALL, SMALL + 1, 200_000, 3 << 20];

#[test]
fn chunks_of_every_size_are_read_back_now_and_by_the_next_run() {
    let bench = Bench::new();
    let cache = bench.open(PLENTY);
    for (i, len) in LENGTHS.into_iter().enumerate() {
        assert_eq!(read(&cache, "t", i as u64, len), None);
        assert!(cache.put(&format!("t{i}"), 0, &data(i as u64, len)));
        assert!(cache.put("t", i as u64, &data(i as u64, len)));
    }
    let check = |cache: &Cache| {
        for (i, len) in LENGTHS.into_iter().enumerate() {
            let expected = Some(data(i as u64, len));
            assert_eq!(read(cache, &format!("t{i}"), 0, len), expected);
            assert_eq!(read(cache, "t", i as u64, len), expected);
            assert!(cache.contains("t", i as u64));
        }
        assert!(!cache.contains("t", 7) && !cache.contains("u", 0));
    };
    check(&cache);
    drop(cache);
    check(&bench.open(PLENTY));
}

#[test]
fn parts_of_a_chunk_are_read_and_nothing_past_its_end() {
    let bench = Bench::new();
    let cache = bench.open(PLENTY);
    for (token, len) in [("small", 10 * BLOCK + 5), ("large", 40 * BLOCK + 5)] {
        let content = data(1, len);
        cache.put(token, 0, &content);
        let mut out = vec![0; 3 * BLOCK];
        assert!(cache.read(token, 0, 4, &mut out));
        assert_eq!(out, content[4 * BLOCK..7 * BLOCK]);
        let blocks = len.div_ceil(BLOCK) as u64;
        assert!(cache.read(token, 0, blocks - 3, &mut out));
        assert_eq!(out[2 * BLOCK..][..5], content[len - 5..]);
        assert!(!cache.read(token, 0, blocks - 2, &mut out));
        assert!(!cache.read(token, 0, u64::MAX, &mut out));
        assert!(!cache.read(token, 0, 0, &mut out[..5]));
        assert!(cache.read(token, 0, 0, &mut []));
        assert_eq!(read(&cache, token, 0, len), Some(content), "still there");
        assert!(!cache.read(token, 1, 0, &mut out));
    }
    assert!(!cache.put("empty", 0, &[]));
    assert!(cache.get("small", 0).is_none());
    assert!(cache.get("large", 0).unwrap().is_complete(41).unwrap());
}

#[test]
fn no_name_and_no_content_is_readable_on_disk() {
    let bench = Bench::new();
    let cache = bench.open(PLENTY);
    let secret = b"very secret text ".repeat(10_000);
    cache.put("token-of-alice", 0, &secret[..3000]);
    cache.put("token-of-alice", 1, &secret);
    drop(cache);
    assert_eq!(bench.files().len(), 4);
    for path in bench.files() {
        let bytes = fs::read(&path).unwrap();
        for word in [&b"secret"[..], b"alice", b"token"] {
            assert!(!bytes.windows(word.len()).any(|w| w == word), "{}", path.display());
        }
        assert!(!path.to_str().unwrap().contains("alice"));
        let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&path).unwrap());
        assert_eq!(mode & 0o77, 0);
    }
}

#[test]
fn used_counts_the_disk_and_never_passes_the_limit() {
    let bench = Bench::new();
    let limit = 3 << 20;
    let cache = bench.open(limit);
    for i in 0..120 {
        let len = [300, 20_000, 64_000, 150_000][i as usize % 4];
        assert!(cache.put(&format!("t{i}"), 0, &data(i, len)));
        assert!(cache.used() <= limit);
        assert_eq!(read(&cache, &format!("t{i}"), 0, len), Some(data(i, len)));
    }
    let on_disk = || -> u64 {
        let blocks =
            |p: &PathBuf| std::os::unix::fs::MetadataExt::blocks(&fs::metadata(p).unwrap()) * 512;
        bench.contents().iter().map(blocks).sum()
    };
    assert!(on_disk() <= cache.used(), "{} {}", on_disk(), cache.used());
    assert!(cache.used() > limit / 2, "it is used");
    drop(cache);
    let cache = bench.open(limit);
    assert!(on_disk() <= cache.used() && cache.used() <= limit);
    drop(cache);
    // A smaller limit is kept from the start, and what does not fit at all is refused.
    let cache = bench.open(limit / 3);
    assert!(cache.used() <= limit / 3);
    assert!(!cache.put("huge", 0, &data(0, limit as usize)));
    assert!(cache.used() > 0, "and evicts nothing");
    drop(cache);
    let cache = bench.open(0);
    assert!(!cache.put("t", 0, b"x"));
    assert_eq!((cache.used(), bench.contents().len()), (0, 0));
}

#[test]
fn what_was_read_lately_outlives_what_was_not() {
    let bench = Bench::new();
    let cache = bench.open(4 << 20);
    cache.put("kept", 0, &data(1, 1000));
    cache.put("kept", 1, &data(1, 100_000));
    cache.put("idle", 0, &data(1, 1000));
    cache.put("idle", 1, &data(1, 100_000));
    for i in 0..100 {
        cache.put(&format!("s{i}"), 0, &data(i, 60_000));
        cache.put(&format!("l{i}"), 0, &data(i, 100_000));
        assert!(read(&cache, "kept", 0, 1000).is_some(), "{i}");
        assert!(read(&cache, "kept", 1, 100_000).is_some(), "{i}");
    }
    assert!(!cache.contains("idle", 0) && !cache.contains("idle", 1));
}

#[test]
fn a_full_disk_empties_the_cache() {
    let bench = Bench::new();
    let cache = bench.open(PLENTY);
    cache.put("a", 0, &data(1, 1000));
    cache.put("b", 0, &data(1, 100_000));
    drop(cache);
    let cache = bench.try_open(PLENTY, u64::MAX / 2).unwrap();
    assert_eq!((cache.used(), bench.contents().len()), (0, 0));
    assert!(!cache.put("a", 0, &data(1, 1000)) && !cache.put("b", 0, &data(1, 100_000)));
    cache.trim();
    assert_eq!(bench.contents().len(), 0);
}

#[test]
fn altered_files_are_misses() {
    let bench = Bench::new();
    for (token, len) in [("a", 3000), ("b", 100_000)] {
        let cache = bench.open(PLENTY);
        cache.put(token, 0, &data(1, len));
        drop(cache);
    }
    for path in bench.contents() {
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes.len() - bytes.len().min(1500);
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    let cache = bench.open(PLENTY);
    // The whole of each is refused, and it is gone.
    assert_eq!(read(&cache, "a", 0, 3000), None);
    assert_eq!(read(&cache, "b", 0, 100_000), None);
    assert!(!cache.contains("a", 0) && !cache.contains("b", 0));
    assert!(cache.put("b", 0, &data(2, 100_000)));
    assert_eq!(read(&cache, "b", 0, 100_000), Some(data(2, 100_000)));
}

#[test]
fn a_file_under_anothers_name_is_a_miss() {
    let bench = Bench::new();
    let cache = bench.open(PLENTY);
    cache.put("a", 1, &data(1, 100_000));
    cache.put("b", 1, &data(2, 100_000));
    let (a, b) = (cache.get("a", 1).unwrap().path(), cache.get("b", 1).unwrap().path());
    drop(cache);
    fs::copy(a, &b).unwrap();
    let cache = bench.open(PLENTY);
    assert_eq!(read(&cache, "a", 1, 100_000), Some(data(1, 100_000)));
    assert_eq!(read(&cache, "b", 1, 100_000), None);
    assert!(!b.exists());
}

#[test]
fn a_chunk_that_lost_blocks_in_a_crash_is_a_miss() {
    let bench = Bench::new();
    let cache = bench.open(PLENTY);
    cache.put("a", 1, &data(1, 100_000));
    cache.get("a", 1).unwrap().clear(3..4).unwrap();
    assert_eq!(read(&cache, "a", 1, 100_000), None);
    assert!(!cache.contains("a", 1));
}

#[test]
fn losing_the_folder_under_a_running_mount_costs_misses_only() {
    let bench = Bench::new();
    let cache = bench.open(PLENTY);
    for i in 0..10 {
        cache.put(&format!("s{i}"), 0, &data(i, 3000));
        cache.put(&format!("l{i}"), 0, &data(i, 100_000));
    }
    fs::remove_dir_all(bench.dir.path().join("privicorefs-content")).unwrap();
    for i in 0..10 {
        // Files still open may serve on; nothing wrong comes back.
        for (token, len) in [(format!("s{i}"), 3000), (format!("l{i}"), 100_000)] {
            let got = read(&cache, &token, 0, len);
            assert!(got.is_none_or(|got| got == data(i, len)));
            cache.remove_token(&token);
            assert_eq!(read(&cache, &token, 0, len), None);
        }
    }
    assert!(cache.put("l", 0, &data(5, 100_000)));
    assert!(cache.put("s", 0, &data(5, 3000)));
    assert_eq!(read(&cache, "s", 0, 3000), Some(data(5, 3000)));
    drop(cache);
    let cache = bench.open(PLENTY);
    assert_eq!(read(&cache, "l", 0, 100_000), Some(data(5, 100_000)));
}

#[test]
fn what_another_key_or_version_left_is_removed_and_nothing_else() {
    let mut bench = Bench::new();
    let cache = bench.open(PLENTY);
    cache.put("a", 0, &data(1, 3000));
    cache.put("b", 0, &data(1, 100_000));
    drop(cache);
    let root = bench.dir.path().join("privicorefs-content");
    let foreign = bench.dir.path().join("chunks");
    fs::write(&foreign, "somebody else's").unwrap();
    for stray in ["old", "chunks/00-stray", "packs/stray", "tmp/left"] {
        fs::write(root.join(stray), "x").unwrap();
    }
    fs::create_dir_all(root.join("chunks/07/dir")).unwrap();
    fs::write(root.join("chunks/07/x"), "x").unwrap();
    let cache = bench.open(PLENTY);
    assert_eq!(read(&cache, "a", 0, 3000), Some(data(1, 3000)));
    assert_eq!(read(&cache, "b", 0, 100_000), Some(data(1, 100_000)));
    drop(cache);
    for stray in ["old", "packs/stray", "tmp/left", "chunks/07/x", "chunks/07/dir"] {
        assert!(!root.join(stray).exists(), "{stray}");
    }
    bench.keys = Arc::new(LocalKeys::new(&MasterKey::from_bytes([2; 32])));
    let cache = bench.open(PLENTY);
    assert_eq!(read(&cache, "a", 0, 3000), None);
    assert_eq!((cache.used(), bench.contents().len()), (0, 1), "only the foreign file");
    assert!(foreign.exists());
}

#[test]
fn two_mounts_cannot_share_a_folder() {
    let bench = Bench::new();
    let first = bench.open(PLENTY);
    let second = bench.try_open(PLENTY, 0).unwrap_err();
    assert!(matches!(second, CacheError::Busy { .. }), "{second}");
    drop(first);
    bench.open(PLENTY);
}

#[test]
fn a_staging_blob_is_taken_over_with_its_readers() {
    let bench = Bench::new();
    let cache = bench.open(PLENTY);
    for (chunk, len) in [(0, 3 * BLOCK), (1, 2 * BLOCK), (0, 50 * BLOCK)] {
        let token = format!("t{len}");
        let mut content = data(1, len);
        // A last block that is nearly, and one that is entirely, zeros.
        content[len - BLOCK + 1 - chunk as usize..].fill(0);
        let blob = bench.staged(&content);
        blob.write(1, &content[BLOCK..2 * BLOCK]).unwrap();
        assert!(!cache.adopt(&token, chunk, &blob, len as u64 / 4096 + 1), "incomplete");
        assert!(bench.dir.path().join("staged").exists());
        assert!(cache.adopt(&token, chunk, &blob, len as u64 / 4096));
        assert!(!bench.dir.path().join("staged").exists());
        assert_eq!(read(&cache, &token, chunk, len), Some(content.clone()));
        let mut out = vec![0; len];
        assert!(blob.read(0, &mut out).unwrap().is_all() && out == content);
    }
    let blob = bench.staged(&data(1, BLOCK));
    assert!(!cache.adopt("t", 0, &blob, 0));
    blob.unlink().unwrap();
    assert!(!cache.adopt("gone", 1, &blob, 1));
    let used = cache.used();
    drop(cache);
    let cache = bench.open(PLENTY);
    let moved = read(&cache, &format!("t{}", 50 * BLOCK), 0, 50 * BLOCK).unwrap();
    assert_eq!(moved[..49 * BLOCK], data(1, 49 * BLOCK));
    // A file system's own bookkeeping may differ by a block or two.
    assert!(cache.used().abs_diff(used) <= 8 * BLOCK as u64, "{} {used}", cache.used());
}

#[test]
fn removing_leaves_other_tokens_alone() {
    let bench = Bench::new();
    let cache = bench.open(PLENTY);
    for token in ["a", "b"] {
        for chunk in 0..4 {
            cache.put(token, chunk, &data(chunk, 70_000 - chunk as usize * 20_000));
        }
    }
    cache.remove("a", 2);
    assert!(!cache.contains("a", 2) && cache.contains("a", 1) && cache.contains("b", 2));
    cache.remove_token("a");
    assert!((0..4).all(|chunk| !cache.contains("a", chunk)));
    cache.put("b", 0, &data(0, 100));
    cache.remove("b", 0);
    cache.remove("b", 0);
    cache.remove_token("never");
    assert!(!cache.contains("b", 0) && (1..4).all(|chunk| cache.contains("b", chunk)));
    assert_eq!(bench.contents().len(), 4, "three chunks and the pack");
}

#[test]
fn a_token_can_be_removed_before_it_is_indexed() {
    let bench = Bench::new();
    let cache = bench.open(PLENTY);
    cache.put("a", 1, &data(1, 100_000));
    cache.put("b", 1, &data(1, 100_000));
    drop(cache);
    let cache = bench.open(PLENTY);
    let tag = token_part(&cache.inner.tag("a", 0));
    // As it is before the scan: the index knows nothing, the folder does.
    let disk = bench.env.disk.clone();
    let budget = Arc::new(Budget::new(PLENTY, 0, bench.dir.path().to_owned(), disk));
    let dir = cache.inner.root.chunks();
    let early = Chunks::new(dir, bench.keys.clone(), bench.env.clone(), budget);
    early.remove_token(&tag, true);
    assert_eq!(read(&cache, "a", 1, 100_000), None);
    assert_eq!(read(&cache, "b", 1, 100_000), Some(data(1, 100_000)));
}

#[test]
fn many_threads_get_right_content_or_none() {
    let bench = Bench::new();
    let limit = 4 << 20;
    let cache = bench.open(limit);
    let len = |i: u64| [200, 9000, 64_000, 90_000, 300_000][i as usize % 5];
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let cache = &cache;
            scope.spawn(move || {
                for step in 0..250 {
                    let i = (step * 13 + thread * 7) % 40;
                    let token = format!("t{i}");
                    match read(cache, &token, 0, len(i)) {
                        Some(got) => assert!(got == data(i, len(i))),
                        None => assert!(cache.put(&token, 0, &data(i, len(i)))),
                    }
                    if step % 17 == 0 {
                        cache.remove_token(&format!("t{}", (i + 1) % 40));
                    }
                    assert!(cache.used() <= limit);
                }
            });
        }
    });
    drop(cache);
    let cache = bench.open(limit);
    for i in 0..40 {
        let got = read(&cache, &format!("t{i}"), 0, len(i));
        assert!(got.is_none_or(|got| got == data(i, len(i))));
    }
}

#[derive(Debug, Clone)]
enum Step {
    Put(u64, u64),
    Adopt(u64, u64),
    Read(u64, u64),
    Remove(u64, u64),
    RemoveToken(u64),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let place = || (0..4u64, 0..3u64);
    prop_oneof![
        4 => place().prop_map(|(t, c)| Step::Put(t, c)),
        2 => place().prop_map(|(t, c)| Step::Adopt(t, c)),
        4 => place().prop_map(|(t, c)| Step::Read(t, c)),
        2 => place().prop_map(|(t, c)| Step::Remove(t, c)),
        1 => (0..4u64).prop_map(Step::RemoveToken),
        1 => Just(Step::Reopen),
    ]
}

/// A chunk's content follows from its name, as in a vault.
fn chunk_of(t: u64, c: u64) -> Vec<u8> {
    data(t * 3 + c, LENGTHS[(t * 3 + c) as usize % LENGTHS.len()].min(250_000))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn with_room_enough_it_is_a_set(steps in proptest::collection::vec(step(), 1..30)) {
        let bench = Bench::new();
        let mut cache = bench.open(PLENTY);
        let mut model: BTreeSet<(u64, u64)> = BTreeSet::new();
        let token = |t: u64| format!("t{t}");
        let all = || (0..4).flat_map(|t| (0..3).map(move |c| (t, c)));
        for step in steps {
            match step {
                Step::Put(t, c) => {
                    prop_assert!(cache.put(&token(t), c, &chunk_of(t, c)));
                    model.insert((t, c));
                }
                Step::Adopt(t, c) => {
                    let mut content = chunk_of(t, c);
                    content.resize(content.len().next_multiple_of(BLOCK), 0);
                    let blob = bench.staged(&content);
                    prop_assert!(cache.adopt(&token(t), c, &blob, (content.len() / BLOCK) as u64));
                    model.insert((t, c));
                }
                Step::Read(t, c) => {
                    let content = chunk_of(t, c);
                    let got = read(&cache, &token(t), c, content.len());
                    prop_assert_eq!(got, model.contains(&(t, c)).then_some(content));
                }
                Step::Remove(t, c) => {
                    cache.remove(&token(t), c);
                    model.remove(&(t, c));
                }
                Step::RemoveToken(t) => {
                    cache.remove_token(&token(t));
                    model.retain(|(token, _)| *token != t);
                }
                Step::Reopen => {
                    drop(cache);
                    cache = bench.open(PLENTY);
                    // What was removed from a pack still has its bytes there, and is found again.
                    let found = all().filter(|(t, c)| cache.contains(&token(*t), *c));
                    let found: BTreeSet<_> = found.collect();
                    prop_assert!(model.is_subset(&found));
                    prop_assert!(found.difference(&model).all(|(_, c)| *c == 0));
                    model = found;
                }
            }
        }
        for (t, c) in all() {
            let content = chunk_of(t, c);
            let got = read(&cache, &token(t), c, content.len());
            prop_assert_eq!(got, model.contains(&(t, c)).then_some(content));
        }
    }
}
