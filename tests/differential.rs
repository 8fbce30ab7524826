//! The same operations on the drive and on a local folder: the same results, the same
//! error numbers and, again and again, the same trees, through remounts and deaths.
//!
//! Every run uses a fixed seed and a fresh one, which it prints. To repeat a failure:
//! `PRIVICOREFS_DIFFERENTIAL_SEED=N cargo nextest run differential`;
//! `PRIVICOREFS_DIFFERENTIAL_OPS` sets how many operations a run makes (default 2500).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
#[path = "differential/ops.rs"]
mod ops;
#[path = "differential/snapshot.rs"]
mod snapshot;

use std::path::Path;

use common::content::Rng;
use common::machine::show;
use common::{Lab, Machine, from_environment, random_seed};
use ops::{Names, Op, World};
use snapshot::assert_same;

/// Trees are compared after this many operations.
const COMPARE_EVERY: usize = 25;
/// The drive is unmounted, or killed, after this many.
const REMOUNT_EVERY: usize = 250;

/// The seed asked for, or one that no run had before.
fn fresh_seed() -> u64 {
    from_environment("PRIVICOREFS_DIFFERENTIAL_SEED").unwrap_or_else(random_seed)
}

fn compare_worlds(seed: u64, options: &[&str]) {
    let count = from_environment("PRIVICOREFS_DIFFERENTIAL_OPS").unwrap_or(2500);
    show(&format!("differential: seed {seed}, {count} operations, options {options:?}"));
    let lab = Lab::new();
    let local_root = lab.path("local");
    std::fs::create_dir(&local_root).unwrap();
    let mut machine = lab.machine("a");
    machine.args(options.iter().copied());
    machine.mount();

    let mut rng = Rng::new(seed);
    let mut local = World::new(&local_root);
    let mut drive = World::new(&machine.mountpoint());
    let mut recent: Vec<String> = Vec::new();
    for number in 1..=usize::try_from(count).unwrap() {
        let op = Op::random(&mut rng, &Names::below(&local_root));
        let expected = local.perform(&op);
        let found = drive.perform(&op);
        recent.push(format!("{number}: {op:?} -> {expected:?}"));
        assert!(
            expected == found,
            "seed {seed}: the drive answered {found:?} to the last of:\n{}",
            recent.join("\n")
        );
        if number % COMPARE_EVERY == 0 {
            assert_same(&local_root, &machine.mountpoint(), seed, &recent);
            // Enough history to see how the next failure came about.
            recent.drain(..recent.len().saturating_sub(2 * COMPARE_EVERY));
        }
        if number % REMOUNT_EVERY == 0 {
            (local, drive) = remount(&mut machine, &local_root, (local, drive), number);
            recent.push(format!("{number}: remounted"));
            assert_same(&local_root, &machine.mountpoint(), seed, &recent);
        }
    }
    drop(drive);
    machine.umount();
    let elsewhere = lab.mounted("b");
    recent.push("on another machine".to_owned());
    assert_same(&local_root, &elsewhere.mountpoint(), seed, &recent);
}

/// Unmounts, or every other time kills, and mounts again. Open files do not survive.
fn remount(
    machine: &mut Machine,
    local_root: &Path,
    worlds: (World, World),
    number: usize,
) -> (World, World) {
    drop(worlds);
    if (number / REMOUNT_EVERY).is_multiple_of(2) {
        machine.kill()
    } else {
        machine.umount()
    }
    machine.mount();
    (World::new(local_root), World::new(&machine.mountpoint()))
}

#[test]
fn a_fixed_course_of_operations_ends_like_a_local_folder() {
    compare_worlds(1, &[]);
}

/// Found by a fresh course: folders that changed places looked like a cycle elsewhere.
#[test]
fn a_course_with_folders_that_change_places_ends_like_a_local_folder() {
    compare_worlds(343_639, &[]);
}

#[test]
fn a_fresh_course_of_operations_ends_like_a_local_folder() {
    compare_worlds(fresh_seed(), &[]);
}

#[test]
fn a_course_over_split_files_ends_like_a_local_folder() {
    compare_worlds(fresh_seed(), &["--split-above", "128KiB", "--part-size", "64KiB"]);
}

/// The course itself, without a drive: it is repeatable, it mostly does things that work,
/// and every kind of operation works at least once.
#[test]
fn a_course_in_two_local_folders_ends_alike() {
    let dir = tempfile::tempdir().unwrap();
    let roots = ["one", "other"].map(|name| dir.path().join(name));
    for root in &roots {
        std::fs::create_dir(root).unwrap();
    }
    let (mut one, mut other) = (World::new(&roots[0]), World::new(&roots[1]));
    let mut rng = Rng::new(7);
    let mut worked = std::collections::BTreeMap::new();
    for _ in 0..4000 {
        let op = Op::random(&mut rng, &Names::below(&roots[0]));
        let (answer, again) = (one.perform(&op), other.perform(&op));
        assert_eq!(answer, again, "{op:?}");
        let text = format!("{op:?}");
        let kind = text.split(' ').next().unwrap().to_owned();
        let works: &mut (usize, usize) = worked.entry(kind).or_default();
        works.0 += 1;
        works.1 += usize::from(!matches!(answer, ops::Answer::Error(_) | ops::Answer::Nothing));
    }
    assert_same(&roots[0], &roots[1], 7, &[]);
    let all: usize = worked.values().map(|works| works.0).sum();
    let good: usize = worked.values().map(|works| works.1).sum();
    assert!(good * 3 > all, "only {good} of {all} operations worked: {worked:?}");
    assert!(worked.values().all(|works| works.1 > 0), "{worked:?}");
}
