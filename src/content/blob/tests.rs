use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};

use proptest::prelude::*;

use super::layout::last_page;
use super::*;
use crate::crypto::MasterKey;
use crate::env::doubles::seeded_env;

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

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn create(&self, name: &str) -> Blob {
        Blob::create(&self.path(name), &self.keys, &self.env).unwrap()
    }

    fn open(&self, name: &str) -> Blob {
        Blob::open(&self.path(name), &self.keys, &self.env).unwrap()
    }

    fn file(&self, name: &str) -> File {
        OpenOptions::new().read(true).write(true).open(self.path(name)).unwrap()
    }
}

fn filled(byte: u8, blocks: usize) -> Vec<u8> {
    vec![byte; blocks * BLOCK]
}

fn read(blob: &Blob, first: u64, blocks: usize) -> (Vec<u8>, Vec<bool>) {
    let mut out = filled(0xee, blocks);
    let presence = blob.read(first, &mut out).unwrap();
    let flags = presence.iter().collect();
    assert_eq!(presence, blob.present(first..first + blocks as u64).unwrap());
    (out, flags)
}

fn corrupt_block(blob: &Blob, first: u64, blocks: usize) -> Option<u64> {
    match blob.read(first, &mut filled(0, blocks)) {
        Err(BlobError::Corrupt { block, .. }) => Some(block),
        _ => None,
    }
}

#[test]
fn holes_read_as_absent_zeros_and_survive_reopening() {
    let bench = Bench::new();
    let blob = bench.create("b");
    blob.write(2, &filled(7, 2)).unwrap();
    let expected = [filled(0, 2), filled(7, 2), filled(0, 1)].concat();
    let flags = vec![false, false, true, true, false];
    assert_eq!(read(&blob, 0, 5), (expected.clone(), flags.clone()));
    drop(blob);
    let blob = bench.open("b");
    assert_eq!(read(&blob, 0, 5), (expected, flags));
    assert_eq!(blob.end_block(), 4);
    assert!(!blob.is_complete(4).unwrap());
    blob.write(0, &filled(1, 2)).unwrap();
    assert!(blob.is_complete(4).unwrap() && !blob.is_complete(5).unwrap());
}

#[test]
fn blocks_between_holes_of_the_file_are_found() {
    let bench = Bench::new();
    let blob = bench.create("b");
    let written = [3, 4, 64, 300, 301, 999];
    for block in written {
        blob.write(block, &filled(7, 1)).unwrap();
    }
    let mut expected: Vec<_> = (0..1024).map(|block| written.contains(&block)).collect();
    assert_eq!(read(&blob, 0, 1024).1, expected);
    blob.clear(64..300).unwrap();
    expected[64] = false;
    assert_eq!(read(&blob, 0, 1024).1, expected);
    assert_eq!(read(&bench.open("b"), 0, 1024).1, expected);
}

#[test]
fn the_file_is_private_and_holds_no_plaintext() {
    let bench = Bench::new();
    let blob = bench.create("b");
    let secret = b"attack at dawn, ".repeat(256);
    blob.write(0, &secret).unwrap();
    blob.write(0, &secret).unwrap();
    let bytes = fs::read(bench.path("b")).unwrap();
    assert!(!bytes.windows(8).any(|w| w == b"attack a"));
    assert_eq!(fs::metadata(bench.path("b")).unwrap().mode() & 0o7777, 0o600);
    let again = Blob::create(&bench.path("b"), &bench.keys, &bench.env).unwrap_err();
    assert!(matches!(again, BlobError::Io { source, .. }
        if source.kind() == io::ErrorKind::AlreadyExists));
}

#[test]
fn runs_longer_than_one_system_call_are_whole() {
    let bench = Bench::new();
    let blob = bench.create("b");
    let data: Vec<u8> = (0..3 * RUN * BLOCK / 2).map(|i| (i / 511) as u8).collect();
    blob.write(10, &data).unwrap();
    // An overwrite too, at another alignment, longer than the journal.
    blob.write(5, &data).unwrap();
    let blob = bench.open("b");
    let mut out = vec![0; data.len()];
    assert!(blob.read(5, &mut out).unwrap().is_all());
    assert!(out == data);
    blob.write(1, &[]).unwrap();
    assert!(blob.read(1, &mut []).unwrap().is_all());
}

#[test]
fn a_flipped_bit_anywhere_in_a_record_is_noticed() {
    let bench = Bench::new();
    let blob = bench.create("b");
    blob.write(0, &filled(3, 3)).unwrap();
    let file = bench.file("b");
    for at in [0, 5, IV_LEN, 1000, RECORD - TAG_LEN, RECORD - 1] {
        let place = offset(1) + at as u64;
        let mut byte = [0];
        file.read_exact_at(&mut byte, place).unwrap();
        file.write_all_at(&[byte[0] ^ 0x10], place).unwrap();
        assert_eq!(corrupt_block(&blob, 0, 3), Some(1));
        assert_eq!(corrupt_block(&bench.open("b"), 0, 3), Some(1));
        assert_eq!(corrupt_block(&blob, 2, 1), None);
        file.write_all_at(&byte, place).unwrap();
    }
    assert_eq!(corrupt_block(&blob, 0, 3), None);
}

#[test]
fn records_moved_within_or_between_blobs_do_not_open() {
    let bench = Bench::new();
    let (a, b) = (bench.create("a"), bench.create("b"));
    a.write(0, &filled(1, 2)).unwrap();
    b.write(0, &filled(2, 2)).unwrap();
    let (file_a, file_b) = (bench.file("a"), bench.file("b"));
    let mut record = vec![0; RECORD];
    file_a.read_exact_at(&mut record, offset(0)).unwrap();
    file_a.write_all_at(&record, offset(1)).unwrap();
    assert_eq!(corrupt_block(&a, 1, 1), Some(1));
    file_b.write_all_at(&record, offset(0)).unwrap();
    assert_eq!(corrupt_block(&b, 0, 1), Some(0));
    // Not with the other's id either.
    let mut header = vec![0; HEADER];
    file_a.read_exact_at(&mut header, JOURNAL).unwrap();
    file_b.write_all_at(&header, JOURNAL).unwrap();
    assert_eq!(corrupt_block(&bench.open("b"), 1, 1), Some(1));
}

#[test]
fn a_binding_tells_swapped_files_apart() {
    let bench = Bench::new();
    let (a, b) = (bench.create("a"), bench.create("b"));
    assert!(!a.is_bound_to(b"").unwrap());
    a.bind(b"first").unwrap();
    a.bind(b"a").unwrap();
    b.bind(b"b").unwrap();
    fs::rename(bench.path("a"), bench.path("c")).unwrap();
    let moved = bench.open("c");
    assert!(moved.is_bound_to(b"a").unwrap());
    assert!(!moved.is_bound_to(b"b").unwrap() && !moved.is_bound_to(b"first").unwrap());
    // A binding cannot be carried over to another blob.
    let mut binding = [0; 16];
    bench.file("b").read_exact_at(&mut binding, BINDING_AT).unwrap();
    bench.file("c").write_all_at(&binding, BINDING_AT).unwrap();
    assert!(!bench.open("c").is_bound_to(b"b").unwrap());
}

#[test]
fn files_that_are_no_blobs_are_refused_by_name() {
    let bench = Bench::new();
    let open = |name| Blob::open(&bench.path(name), &bench.keys, &bench.env).map(drop);
    fs::write(bench.path("short"), b"x").unwrap();
    assert!(matches!(open("short"), Err(BlobError::NotABlob { why: "too short", .. })));
    bench.create("old");
    bench.file("old").write_all_at(&[9], JOURNAL + 8).unwrap();
    assert!(matches!(open("old"), Err(BlobError::NotABlob { path, .. }) if path.ends_with("old")));
    assert!(matches!(open("missing"), Err(BlobError::Io { .. })));
    let blob = bench.create("b");
    assert!(matches!(blob.write(0, &[0; 5]), Err(BlobError::Misaligned { len: 5 })));
    assert!(matches!(blob.read(0, &mut [0; 5]), Err(BlobError::Misaligned { len: 5 })));
    assert!(matches!(blob.write(u64::MAX, &filled(1, 1)), Err(BlobError::Io { .. })));
    assert!(blob.read(u64::MAX - 300, &mut filled(1, 600)).unwrap().is_none());
}

#[test]
fn another_key_opens_nothing() {
    let bench = Bench::new();
    bench.create("b").write(0, &filled(1, 1)).unwrap();
    let foreign = Arc::new(LocalKeys::new(&MasterKey::from_bytes([2; 32])));
    let blob = Blob::open(&bench.path("b"), &foreign, &bench.env).unwrap();
    assert_eq!(corrupt_block(&blob, 0, 1), Some(0));
}

#[test]
fn a_first_write_cut_at_any_page_reads_as_absent() {
    let bench = Bench::new();
    for block in [0, 1, 40, 145, 146, 147] {
        let name = format!("b{block}");
        bench.create(&name).write(block, &filled(9, 1)).unwrap();
        // As if the kernel had stopped before the record's last page.
        let cut = offset(block) + last_page(block) as u64;
        bench.file(&name).set_len(cut).unwrap();
        let blob = bench.open(&name);
        assert_eq!(read(&blob, block, 1), (filled(0, 1), vec![false]));
        bench.file(&name).set_len(offset(block + 1)).unwrap();
        let blob = bench.open(&name);
        assert_eq!(read(&blob, block, 1), (filled(0, 1), vec![false]));
        assert!(!blob.is_complete(1).unwrap());
        blob.write(block, &filled(8, 1)).unwrap();
        assert_eq!(read(&blob, block, 1), (filled(8, 1), vec![true]));
    }
}

#[test]
fn an_overwrite_cut_short_by_the_death_of_the_process_is_completed_at_open() {
    let bench = Bench::new();
    let blob = bench.create("b");
    blob.write(0, &filled(1, 100)).unwrap();
    blob.write(20, &filled(2, 3)).unwrap();
    drop(blob);
    // The journal holds 20..23; tear each of them in its place.
    let file = bench.file("b");
    for block in 20..23 {
        file.write_all_at(&[0x55; 2000], offset(block) + 100).unwrap();
    }
    let blob = bench.open("b");
    assert_eq!(read(&blob, 19, 5).0, [filled(1, 1), filled(2, 3), filled(1, 1)].concat());
    drop(blob);
    // The journal was used up: what breaks now is corrupt.
    file.write_all_at(&[0x55; 10], offset(20) + 100).unwrap();
    assert_eq!(corrupt_block(&bench.open("b"), 19, 5), Some(20));
}

#[test]
fn a_torn_journal_harms_nothing() {
    let bench = Bench::new();
    let blob = bench.create("b");
    blob.write(0, &filled(1, 4)).unwrap();
    blob.write(1, &filled(2, 2)).unwrap();
    drop(blob);
    let file = bench.file("b");
    file.write_all_at(&[0x55; 5000], JOURNAL_HEAD as u64).unwrap();
    assert_eq!(read(&bench.open("b"), 0, 4).0, [filled(1, 1), filled(2, 2), filled(1, 1)].concat());
    file.write_all_at(&[0xff; JOURNAL_HEAD], 0).unwrap();
    assert_eq!(corrupt_block(&bench.open("b"), 0, 4), None);
}

#[test]
fn the_journal_does_not_bring_cleared_blocks_back() {
    let bench = Bench::new();
    let blob = bench.create("b");
    blob.write(0, &filled(1, 4)).unwrap();
    blob.write(1, &filled(2, 1)).unwrap();
    blob.clear(1..2).unwrap();
    blob.write(1, &filled(3, 1)).unwrap();
    drop(blob);
    // The first write after the clearing is torn: absent, not the old content.
    let zeros = vec![0; RECORD - last_page(1)];
    bench.file("b").write_all_at(&zeros, offset(1) + last_page(1) as u64).unwrap();
    let (out, flags) = read(&bench.open("b"), 0, 4);
    assert_eq!(out, [filled(1, 1), filled(0, 1), filled(1, 2)].concat());
    assert_eq!(flags, [true, false, true, true]);
}

#[test]
fn clearing_and_discarding_the_journal_give_space_back() {
    let bench = Bench::new();
    let blob = bench.create("b");
    blob.write(0, &filled(1, 512)).unwrap();
    blob.sync().unwrap();
    let full = blob.allocated_bytes().unwrap();
    assert!(full >= 512 * BLOCK as u64 && full < 600 * BLOCK as u64, "{full}");
    blob.write(0, &filled(2, 200)).unwrap();
    blob.sync().unwrap();
    assert!(blob.allocated_bytes().unwrap() > full);
    blob.discard_journal().unwrap();
    assert_eq!(blob.allocated_bytes().unwrap(), full);
    blob.clear(100..400).unwrap();
    assert!(blob.allocated_bytes().unwrap() < full - 298 * BLOCK as u64);
    let flags = read(&blob, 0, 512).1;
    assert!(flags.iter().enumerate().all(|(i, there)| *there != (100..400).contains(&i)));
}

#[test]
fn renaming_and_unlinking_leave_readers_alone() {
    let bench = Bench::new();
    let blob = bench.create("b");
    blob.write(0, &filled(1, 1)).unwrap();
    blob.sync().unwrap();
    blob.rename_to(&bench.path("c")).unwrap();
    blob.sync().unwrap();
    assert!(!bench.path("b").exists());
    assert_eq!(blob.path(), bench.path("c"));
    assert_eq!(read(&bench.open("c"), 0, 1).0, filled(1, 1));
    blob.unlink().unwrap();
    blob.unlink().unwrap();
    assert_eq!(read(&blob, 0, 1).0, filled(1, 1));
    assert!(blob.rename_to(&bench.path("d")).is_err());
    assert_eq!(blob.path(), bench.path("c"));
}

#[test]
fn readers_never_see_half_of_an_overwrite() {
    let bench = Bench::new();
    let blob = bench.create("b");
    blob.write(0, &filled(0, 8)).unwrap();
    std::thread::scope(|scope| {
        let writer =
            scope.spawn(|| (0..300).for_each(|i| blob.write(0, &filled(i as u8, 8)).unwrap()));
        while !writer.is_finished() {
            let out = read(&blob, 0, 8).0;
            assert!(out.chunks(BLOCK).all(|b| b.iter().all(|x| *x == b[0])));
        }
    });
}

#[derive(Debug, Clone)]
enum Step {
    Write { first: u64, blocks: usize, byte: u8 },
    Read { first: u64, blocks: usize },
    Clear { first: u64, blocks: u64 },
    Truncate { blocks: u64 },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let place = || (0..300u64, 1..140usize);
    prop_oneof![
        4 => (place(), any::<u8>())
            .prop_map(|((first, blocks), byte)| Step::Write { first, blocks, byte }),
        3 => place().prop_map(|(first, blocks)| Step::Read { first, blocks }),
        1 => place().prop_map(|(first, n)| Step::Clear { first, blocks: n as u64 }),
        1 => (0..400u64).prop_map(|blocks| Step::Truncate { blocks }),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn behaves_as_a_sparse_array_of_blocks(steps in proptest::collection::vec(step(), 1..25)) {
        let bench = Bench::new();
        let mut blob = bench.create("b");
        let mut model: BTreeMap<u64, u8> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Write { first, blocks, byte } => {
                    let bytes: Vec<u8> = (0..blocks).map(|i| byte.wrapping_add(i as u8)).collect();
                    let data: Vec<u8> = bytes.iter().flat_map(|b| [*b; BLOCK]).collect();
                    blob.write(first, &data).unwrap();
                    model.extend(bytes.into_iter().enumerate().map(|(i, b)| (first + i as u64, b)));
                }
                Step::Read { first, blocks } => {
                    let (out, flags) = read(&blob, first, blocks);
                    for (index, text) in out.chunks(BLOCK).enumerate() {
                        let expected = model.get(&(first + index as u64));
                        prop_assert_eq!(flags[index], expected.is_some());
                        prop_assert!(text.iter().all(|b| b == expected.unwrap_or(&0)));
                    }
                }
                Step::Clear { first, blocks } => {
                    blob.clear(first..first + blocks).unwrap();
                    model.retain(|block, _| !(first..first + blocks).contains(block));
                }
                Step::Truncate { blocks } => {
                    blob.truncate(blocks).unwrap();
                    model.retain(|block, _| *block < blocks);
                }
                Step::Reopen => {
                    drop(blob);
                    blob = bench.open("b");
                }
            }
            let complete = (0..).take_while(|block| model.contains_key(block)).count() as u64;
            prop_assert!(blob.is_complete(complete).unwrap());
            prop_assert!(!blob.is_complete(complete + 1).unwrap());
            prop_assert!(model.last_key_value().is_none_or(|(last, _)| *last < blob.end_block()));
        }
    }
}

/// Where the child of the next test keeps its blob; unset in an ordinary run.
const CHILD_DIR: &str = "PRIVICOREFS_TEST_OVERWRITE_DIR";

#[test]
fn child_overwrites_until_killed() {
    let Ok(dir) = std::env::var(CHILD_DIR) else { return };
    let keys = Arc::new(LocalKeys::new(&MasterKey::from_bytes([1; 32])));
    let blob = Blob::open(&Path::new(&dir).join("b"), &keys, &Env::system()).unwrap();
    fs::write(Path::new(&dir).join("started"), "").unwrap();
    for byte in (0..=u8::MAX).cycle() {
        blob.write(u64::from(byte % 50), &filled(byte, 150)).unwrap();
    }
}

#[test]
fn no_block_is_lost_when_the_process_is_killed_in_the_middle_of_overwrites() {
    let bench = Bench::new();
    bench.create("b").write(0, &filled(1, 200)).unwrap();
    let started = bench.path("started");
    for round in 0..15 {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "content::blob::tests::child_overwrites_until_killed"])
            .env(CHILD_DIR, bench.dir.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let polls = (0..2000).find(|_| {
            std::thread::sleep(std::time::Duration::from_millis(5));
            started.exists()
        });
        // Another moment each time; whenever it comes, the claim holds.
        std::thread::sleep(std::time::Duration::from_micros(700 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(polls.is_some(), "the child never started");
        fs::remove_file(&started).unwrap();
        let (out, flags) = read(&bench.open("b"), 0, 200);
        assert!(flags.iter().all(|there| *there));
        assert!(out.chunks(BLOCK).all(|block| block.iter().all(|b| *b == block[0])));
    }
}
