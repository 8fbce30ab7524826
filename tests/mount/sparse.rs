//! Holes and shared bytes: what is not there is neither stored nor sent nor fetched, and a
//! copy of a large file moves none of it.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FallocateFlags, SeekFrom, copy_file_range, fallocate, seek};

use crate::house::content::{assert_pattern, write_pattern};
use crate::house::{Machine, Vault, eventually};

const MIB: u64 = 1 << 20;
/// The program's default, which these tests rely on (`--part-size`).
const PART: u64 = 16 * MIB;
/// Part lists, catalog segments and what wraps them.
const SMALL: u64 = 4 * MIB;
/// What a mount process may use at most (design section 5), in KiB.
const MEMORY: u64 = 256 * 1024;

fn mounted(vault: &Vault, name: &str) -> Machine {
    // No polling for other clients: every request counted is about the test's files.
    vault.mounted_with(name, &["--poll-interval", "0"])
}

/// The ranges that the file system says hold data.
fn data_ranges(file: &File) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Ok(data) = seek(file, SeekFrom::Data(at)) {
        at = seek(file, SeekFrom::Hole(data)).unwrap();
        found.push((data, at));
    }
    found
}

#[track_caller]
fn assert_zeros(file: &File, offset: u64, len: usize) {
    let mut found = vec![1; len];
    file.read_exact_at(&mut found, offset).unwrap();
    assert!(found.iter().all(|byte| *byte == 0), "not zero at {offset}");
}

/// One TiB with three islands of data: the islands are stored, and nothing else.
#[test]
fn a_file_of_one_tib_with_little_in_it_costs_little() {
    const SIZE: u64 = 1 << 40;
    let islands = [0, SIZE / 2, SIZE - MIB];
    let vault = Vault::with_deadline(&[], Duration::from_secs(600));
    let mut machine = mounted(&vault, "a");
    let start = vault.engine.quiet();
    let file = File::create(machine.path("sparse")).unwrap();
    file.set_len(SIZE).unwrap();
    for island in islands {
        write_pattern(&file, 1, island, MIB).unwrap();
    }
    drop(file);
    machine.sync();
    let sent = vault.engine.since(&start);
    assert!(sent.bytes_up < 3 * PART + SMALL, "{sent:?}");
    assert!(machine.peak_kib() < MEMORY, "it took {} KiB", machine.peak_kib());
    machine.umount();

    let other = mounted(&vault, "b");
    let file = File::open(other.path("sparse")).unwrap();
    let status = file.metadata().unwrap();
    assert_eq!(status.len(), SIZE);
    assert!(status.blocks() * 512 <= 4 * MIB, "{} blocks", status.blocks());
    assert_eq!(data_ranges(&file), islands.map(|island| (island, island + MIB)));
    let before = vault.engine.quiet();
    assert_zeros(&file, SIZE / 4, 1 << 20);
    assert_zeros(&file, SIZE / 3, 1 << 20);
    assert!(vault.engine.since(&before).bytes_down < SMALL, "holes were fetched");
    for island in islands {
        assert_pattern(&file, 1, island, MIB);
    }
    assert!(other.peak_kib() < MEMORY, "it took {} KiB", other.peak_kib());
}

/// Punching and zeroing writes nothing: not in the staging area, and not in the vault but
/// for the parts that are touched.
#[test]
fn punched_ranges_are_holes_here_and_elsewhere() {
    const SIZE: u64 = 5 * PART + 1000;
    let vault = Vault::new();
    let mut machine = mounted(&vault, "a");
    let path = machine.path("file");
    let file = File::create(&path).unwrap();
    write_pattern(&file, 1, 0, SIZE).unwrap();
    drop(file);
    machine.sync();
    let start = vault.engine.quiet();
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let (from, to) = (PART / 2 + 100, 4 * PART + 300);
    fallocate(&file, punch, from, to - from).unwrap();
    let check = |file: &File| {
        let status = file.metadata().unwrap();
        assert_eq!(status.len(), SIZE);
        assert!(status.blocks() * 512 <= 2 * PART, "{} blocks", status.blocks());
        assert_pattern(file, 1, 0, PART / 2);
        assert_zeros(file, from, usize::try_from(to - from).unwrap());
        // the first whole word behind
        assert_pattern(file, 1, to.next_multiple_of(8), SIZE - to.next_multiple_of(8));
        let [first, second] = data_ranges(file)[..] else { panic!("{:?}", data_ranges(file)) };
        assert!(first.0 == 0 && first.1 < from + 70_000, "{first:?}");
        assert!(second.0 > to - 70_000 && second.1 == SIZE, "{second:?}");
    };
    check(&file);
    drop(file);
    machine.sync();
    let sent = vault.engine.since(&start);
    // Two that were cut into: those of zeros are left out.
    assert!(sent.bytes_up < 2 * PART + SMALL, "{sent:?}");
    check(&File::open(&path).unwrap());
    machine.umount();
    check(&File::open(mounted(&vault, "b").path("file")).unwrap());
}

/// All of a file's bytes, by `copy_file_range` alone.
fn copy(from: &Path, to: &Path) {
    let (from, to) = (File::open(from).unwrap(), File::create(to).unwrap());
    while copy_file_range(&from, None, &to, None, 1 << 40).unwrap() > 0 {}
}

/// A copy is a new part list: other parts are made only where the copy is changed, and
/// neither file sees what becomes of the other.
#[test]
fn a_copy_shares_parts_until_it_is_changed() {
    const SIZE: u64 = 5 * PART + 1000;
    let vault = Vault::new();
    let mut machine = mounted(&vault, "a");
    let (original, twin) = (machine.path("original"), machine.path("copy"));
    write_pattern(&File::create(&original).unwrap(), 1, 0, SIZE).unwrap();
    machine.sync();
    let start = vault.engine.quiet();
    copy(&original, &twin);
    assert_pattern(&File::open(&twin).unwrap(), 1, 0, SIZE);
    machine.sync();
    let sent = vault.engine.since(&start);
    assert!(sent.bytes_up < SMALL, "{sent:?}");

    let file = OpenOptions::new().write(true).open(&twin).unwrap();
    write_pattern(&file, 2, PART, 8192).unwrap();
    drop(file);
    machine.sync();
    let sent = vault.engine.since(&start);
    assert!(sent.bytes_up < PART + SMALL, "{sent:?}");
    fs::remove_file(&original).unwrap();
    copy(&twin, &original);
    machine.umount();
    let other = mounted(&vault, "b");
    for name in ["original", "copy"] {
        let file = File::open(other.path(name)).unwrap();
        assert_eq!(file.metadata().unwrap().len(), SIZE);
        assert_pattern(&file, 1, 0, PART);
        assert_pattern(&file, 2, PART, 8192);
        assert_pattern(&file, 1, PART + 8192, SIZE - PART - 8192);
    }
}

/// Where nothing can be shared, the kernel copies by reading and writing.
/// Parts that went to the vault while a file was written are not taken for those of the
/// file that was then copied over it.
#[test]
fn what_was_sent_of_a_file_is_not_in_the_copy_that_replaces_it() {
    const SIZE: u64 = 6 * MIB;
    let vault = Vault::new();
    let options = ["--split-above", "2MiB", "--part-size", "1MiB", "--poll-interval", "0"];
    let mut machine = vault.mounted_with("a", &options);
    let (original, other) = (machine.path("original"), machine.path("other"));
    write_pattern(&File::create(&original).unwrap(), 1, 0, SIZE).unwrap();
    machine.sync();
    let before = vault.engine.list(&vault.login).len();
    let file = File::create(&other).unwrap();
    write_pattern(&file, 2, 0, SIZE).unwrap();
    eventually("parts of it are in the vault", Duration::from_secs(60), || {
        vault.engine.list(&vault.login).len() >= before + 3
    });
    file.set_len(0).unwrap();
    let from = File::open(&original).unwrap();
    while copy_file_range(&from, None, &file, Some(&mut file.metadata().unwrap().len()), 1 << 40)
        .unwrap()
        > 0
    {}
    drop((file, from));
    machine.sync();
    machine.umount();
    machine.delete_cache();
    machine.mount();
    for path in [&original, &other] {
        assert_eq!(fs::metadata(path).unwrap().len(), SIZE);
        assert_pattern(&File::open(path).unwrap(), 1, 0, SIZE);
    }
    let elsewhere = vault.mounted_with("b", &options);
    assert_pattern(&File::open(elsewhere.path("other")).unwrap(), 1, 0, SIZE);
}

#[test]
fn copies_of_small_and_of_unsent_files_are_equal() {
    let vault = Vault::new();
    let machine = mounted(&vault, "a");
    for (name, size) in [("small", 1000), ("whole", 3 * MIB), ("unsent", 5 * PART)] {
        let (from, to) = (machine.path(name), machine.path(format!("copy of {name}")));
        write_pattern(&File::create(&from).unwrap(), 3, 0, size).unwrap();
        copy(&from, &to);
        let file = File::open(&to).unwrap();
        assert_eq!(file.metadata().unwrap().len(), size);
        assert_pattern(&file, 3, 0, size);
    }
}

#[test]
fn a_file_that_is_too_large_is_refused() {
    let vault = Vault::new();
    let machine = mounted(&vault, "a");
    let file = File::create(machine.path("file")).unwrap();
    let refused = |result: std::io::Result<()>| {
        assert_eq!(
            result.unwrap_err().raw_os_error(),
            Some(rustix::io::Errno::FBIG.raw_os_error())
        );
    };
    refused(file.set_len(1 << 62));
    refused(file.write_all_at(b"x", 1 << 50));
    refused(fallocate(&file, FallocateFlags::empty(), 1 << 50, 1).map_err(Into::into));
    assert_eq!(file.metadata().unwrap().len(), 0);
    file.set_len(2 << 40).unwrap(); // as large as a file may be
}
