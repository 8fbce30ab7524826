//! One large file: split into parts, read in the middle, rewritten in part, in bounded memory.
//!
//! `PRIVICOREFS_LARGE_MIB` sets its size (default 384; the recorded run used 3072).

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use crate::house;
use crate::house::content::{Rng, assert_pattern, fill_at, write_pattern};
use crate::house::{Vault, eventually};

const MIB: u64 = 1 << 20;
/// The program's default, which this test relies on (`--part-size`).
const PART: u64 = 16 * MIB;
/// What a mount process may use at most (design section 5), in KiB.
const MEMORY: u64 = 256 * 1024;
/// Part list, catalog segments and what wraps them: far less than a part.
const SMALL: u64 = 2 * MIB;

fn size() -> u64 {
    let mib = std::env::var("PRIVICOREFS_LARGE_MIB").ok().and_then(|text| text.parse().ok());
    mib.unwrap_or(384) * MIB
}

#[test]
fn a_large_file_moves_by_parts_in_bounded_memory() {
    let size = size();
    let parts = size.div_ceil(PART);
    assert!(parts >= 8, "too small to tell parts from the file");
    let vault = Vault::with_deadline(&[], Duration::from_secs(1500));
    let mut writer = vault.machine("a");
    // No polling for other clients: every request counted below is about this file.
    writer.args(["--poll-interval", "0"]);
    writer.mount();
    let start = vault.engine.quiet();
    let file = File::create(writer.path("large")).unwrap();
    write_pattern(&file, 1, 0, size).unwrap();
    drop(file);
    writer.sync_within(Duration::from_secs(900));
    let uploaded = vault.engine.since(&start);
    assert!(
        uploaded.bytes_up >= size && uploaded.bytes_up < size + size / 50 + SMALL,
        "{uploaded:?}"
    );
    assert!(writer.peak_kib() < MEMORY, "writing took {} KiB", writer.peak_kib());

    let mut reader = vault.mounted_with("b", &["--poll-interval", "0"]);
    random_reads_fetch_parts_and_not_the_file(&vault, &reader, size);
    let file = File::open(reader.path("large")).unwrap();
    assert_eq!(file.metadata().unwrap().len(), size);
    assert_pattern(&file, 1, 0, size);
    drop(file);
    assert!(reader.peak_kib() < MEMORY, "reading took {} KiB", reader.peak_kib());
    reader.umount();

    // 1 MiB inside one part, then 1 MiB across the border of two.
    let middle = parts / 2 * PART;
    for (offset, touched) in [(middle + 5 * MIB, 1), (middle - MIB / 2, 2)] {
        let before = vault.engine.quiet();
        let file = OpenOptions::new().write(true).open(writer.path("large")).unwrap();
        write_pattern(&file, 2, offset, MIB).unwrap();
        drop(file);
        writer.sync_within(Duration::from_secs(300));
        let rewritten = vault.engine.since(&before);
        // The parts, one list of them, and a few segments of the catalog.
        assert!(rewritten.bytes_up <= touched * PART + SMALL, "{touched}: {rewritten:?}");
        assert!((touched + 1..=touched + 6).contains(&rewritten.puts()), "{rewritten:?}");
    }
    writer.umount();

    // A machine that was here before mounts at once, with what it knew: the whole old
    // version, until it has heard of the new one.
    reader.mount();
    let (mut new, mut found) = (vec![0; 4096], vec![0; 4096]);
    fill_at(2, middle, &mut new);
    eventually("the new version arrives", Duration::from_secs(60), || {
        let file = File::open(reader.path("large")).unwrap();
        file.read_exact_at(&mut found, middle).unwrap();
        found == new
    });
    let file = File::open(reader.path("large")).unwrap();
    assert_pattern(&file, 2, middle - MIB / 2, MIB);
    assert_pattern(&file, 1, middle + MIB / 2, 4 * MIB);
    assert_pattern(&file, 2, middle + 5 * MIB, MIB);
    assert_pattern(&file, 1, middle + 6 * MIB, 10 * MIB);
    assert_pattern(&file, 1, 0, 2 * MIB);
}

/// More than memory may hold is written and closed while the service stands still: what
/// waits does so on the disk, with neither memory nor a descriptor for each file.
#[test]
fn closed_files_that_wait_are_not_held_in_memory() {
    const FILES: u64 = 5000;
    let len = |number: u64| if number.is_multiple_of(5) { 90_000 } else { 62_000 };
    let vault = Vault::new();
    let mut machine = vault.mounted("a");
    vault.engine.freeze();
    let name = |number: u64| machine.path(format!("{number}"));
    for number in 0..FILES {
        write_pattern(&File::create(name(number)).unwrap(), number, 0, len(number)).unwrap();
    }
    assert!(machine.peak_kib() < MEMORY, "writing took {} KiB", machine.peak_kib());
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", machine.pid())).unwrap().count();
    assert!(descriptors < 600, "{descriptors} open files");
    for number in (0..FILES).step_by(7) {
        let file = File::open(name(number)).unwrap();
        assert_eq!(file.metadata().unwrap().len(), len(number));
        assert_pattern(&file, number, 0, len(number));
    }
    vault.engine.thaw();
    machine.umount();
    let other = vault.mounted("b");
    for number in (0..FILES).step_by(101) {
        let file = File::open(other.path(format!("{number}"))).unwrap();
        assert_pattern(&file, number, 0, len(number));
    }
}

/// A small file that one write makes a large one, with a hole between, on a machine that
/// has none of its content: `fsync` brings it into the vault, and back below the threshold.
#[test]
fn a_file_may_cross_the_threshold_in_both_directions() {
    const SMALL_SIZE: u64 = 512 << 10;
    // Not a multiple of the part size: the last part is a short one.
    const LARGE_SIZE: u64 = 5 * MIB + 8192;
    let vault = Vault::new();
    let options = ["--split-above", "1MiB", "--part-size", "256KiB"];
    let mut writer = vault.mounted_with("a", &options);
    let file = File::create(writer.path("file")).unwrap();
    write_pattern(&file, 1, 0, SMALL_SIZE).unwrap();
    drop(file);
    writer.umount();

    let changer = vault.mounted_with("b", &options);
    let file = OpenOptions::new().write(true).open(changer.path("file")).unwrap();
    write_pattern(&file, 2, LARGE_SIZE - 4096, 4096).unwrap();
    file.sync_all().unwrap();
    drop(file);
    let elsewhere = vault.mounted("c");
    let file = File::open(elsewhere.path("file")).unwrap();
    assert_eq!(file.metadata().unwrap().len(), LARGE_SIZE);
    assert_pattern(&file, 1, 0, SMALL_SIZE);
    assert_pattern(&file, 2, LARGE_SIZE - 4096, 4096);
    let mut hole = vec![1; 100_000];
    file.read_exact_at(&mut hole, SMALL_SIZE + MIB).unwrap();
    assert!(hole.iter().all(|byte| *byte == 0), "a hole reads as zeros");

    let file = OpenOptions::new().write(true).open(changer.path("file")).unwrap();
    file.set_len(SMALL_SIZE / 2).unwrap();
    file.sync_all().unwrap();
    drop(file);
    let last = vault.mounted("d");
    let file = File::open(last.path("file")).unwrap();
    assert_eq!(file.metadata().unwrap().len(), SMALL_SIZE / 2);
    assert_pattern(&file, 1, 0, SMALL_SIZE / 2);
}

/// A block in every part of a file, on a machine that has none of it: each part must be
/// fetched to be sent, and the buffers of both come from one small budget.
#[test]
fn rewriting_every_part_of_a_cold_file_does_not_run_out_of_buffers() {
    const PARTS: u64 = 4;
    const SIZE: u64 = 4 * MIB;
    let vault = Vault::new();
    // The proportions of the defaults: 16 MiB parts, 96 MiB of memory.
    let options = ["--split-above", "8MiB", "--part-size", "4MiB", "--memory", "24MiB"];
    let mut writer = vault.mounted_with("a", &options);
    let file = File::create(writer.path("file")).unwrap();
    write_pattern(&file, 1, 0, PARTS * SIZE).unwrap();
    drop(file);
    writer.umount();

    let changer = vault.mounted_with("b", &options);
    let file = OpenOptions::new().write(true).open(changer.path("file")).unwrap();
    for part in 0..PARTS {
        write_pattern(&file, 2, part * SIZE + 8192, 4096).unwrap();
    }
    file.sync_all().unwrap();
    drop(file);
    let elsewhere = vault.mounted("c");
    let file = File::open(elsewhere.path("file")).unwrap();
    for part in 0..PARTS {
        assert_pattern(&file, 1, part * SIZE, 8192);
        assert_pattern(&file, 2, part * SIZE + 8192, 4096);
        assert_pattern(&file, 1, part * SIZE + 12288, SIZE - 12288);
    }
}

/// 100 reads of 64 KiB, or fewer if the file has fewer parts than that: each part that is
/// touched is fetched once, no other is.
fn random_reads_fetch_parts_and_not_the_file(vault: &Vault, reader: &house::Machine, size: u64) {
    const READ: usize = 64 << 10;
    let parts = size.div_ceil(PART);
    let reads = (parts / 2).min(100).max(if parts > 100 { 100 } else { 1 });
    let before = vault.engine.quiet();
    let mut rng = Rng::new(11);
    let mut touched = BTreeSet::new();
    let file = File::open(reader.path("large")).unwrap();
    for _ in 0..reads {
        let offset = rng.below(size - READ as u64) / 8 * 8;
        touched.extend([offset / PART, (offset + READ as u64 - 1) / PART]);
        let (mut expected, mut found) = (vec![0; READ], vec![0; READ]);
        fill_at(1, offset, &mut expected);
        file.read_exact_at(&mut found, offset).unwrap();
        assert!(found == expected, "content differs at {offset}");
    }
    let fetched = vault.engine.since(&before);
    let wanted = touched.len() as u64;
    // One more for the part list, and a little for a retry.
    assert!(fetched.gets() <= wanted + 3, "{wanted} parts were touched: {fetched:?}");
    assert!(fetched.bytes_down <= wanted * PART + SMALL, "{wanted} parts: {fetched:?}");
    assert!(fetched.bytes_down < size, "the whole file was fetched: {fetched:?}");
}
