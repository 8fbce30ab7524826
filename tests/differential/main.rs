//! The same operations on the drive and on a local folder: the same results, the same
//! error numbers and, again and again, the same trees, through remounts and deaths.
//!
//! One course has a fixed seed and the others fresh ones, which they print. To repeat a
//! failure: `PRIVICOREFS_DIFFERENTIAL_SEED=N cargo nextest run --test differential`;
//! `PRIVICOREFS_DIFFERENTIAL_OPS` sets how many operations a course makes (default 3000).
//! They must be root's: operations are root's and an ordinary user's in turn.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../house/mod.rs"]
mod house;
mod ops;
mod snapshot;

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ops::tree::Names;
use ops::{Answer, Step, World, watch};
use snapshot::assert_same;

use crate::house::acting::own_umask;
use crate::house::content::Rng;
use crate::house::machine::show;
use crate::house::{Machine, Vault, from_environment, let_others_reach, random_seed};

/// Trees are compared after this many operations.
const COMPARE_EVERY: usize = 25;
/// The drive is unmounted, or killed, after this many.
const REMOUNT_EVERY: usize = 250;

/// The seed asked for, or one that no run had before.
fn fresh_seed() -> u64 {
    from_environment("PRIVICOREFS_DIFFERENTIAL_SEED").unwrap_or_else(random_seed)
}

/// How many operations a course makes.
fn count() -> usize {
    let asked = from_environment("PRIVICOREFS_DIFFERENTIAL_OPS").unwrap_or(3000);
    usize::try_from(asked).unwrap()
}

fn compare_worlds(seed: u64, options: &[&str]) {
    show(&format!("differential: seed {seed}, {} operations, options {options:?}", count()));
    own_umask();
    let vault = Vault::new();
    // As long as the path of the mount point: what is too long a path is so in both.
    let local_root = vault.path("l/mnt");
    std::fs::create_dir_all(&local_root).unwrap();
    let mut machine = vault.machine("a");
    machine.args(options.iter().copied().chain(["--allow-other"]));
    machine.mount();
    open_to_all(seed, &[&local_root, &machine.mountpoint()]);
    let watches = watch::is_fine(&vault.path("l"));

    let mut rng = Rng::new(seed);
    let worlds = |machine: &Machine| {
        [&local_root, &machine.mountpoint()].map(|root| World::new(root, watches))
    };
    let [mut local, mut drive] = worlds(&machine);
    let mut recent: Vec<String> = Vec::new();
    for number in 1..=count() {
        let step = Step::random(&mut rng, &Names::below(&local_root));
        let expected = local.perform(&step);
        let found = drive.perform(&step);
        recent.push(format!("{number}: {step:?} -> {expected:?}"));
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
            drop((local, drive));
            remount(&mut machine, number);
            [local, drive] = worlds(&machine);
            recent.push(format!("{number}: remounted"));
            assert_same(&local_root, &machine.mountpoint(), seed, &recent);
        }
    }
    drop(drive);
    machine.umount();
    let elsewhere = vault.mounted("b");
    recent.push("on another machine".to_owned());
    assert_same(&local_root, &elsewhere.mountpoint(), seed, &recent);
}

/// Lets everybody make something in the roots of two worlds; by some seeds nobody may
/// remove what is another's.
fn open_to_all(seed: u64, roots: &[&Path]) {
    let mode = if seed.is_multiple_of(2) { 0o777 } else { 0o1777 };
    for root in roots {
        let_others_reach(root);
        std::fs::set_permissions(root, Permissions::from_mode(mode)).unwrap();
    }
}

/// Unmounts, or every other time kills, and mounts again. Open files do not survive: the
/// caller has closed them.
fn remount(machine: &mut Machine, number: usize) {
    if (number / REMOUNT_EVERY).is_multiple_of(2) {
        machine.kill()
    } else {
        machine.umount()
    }
    machine.mount();
}

#[test]
fn a_fixed_course_of_operations_ends_like_a_local_folder() {
    compare_worlds(1, &[]);
}

#[test]
fn a_fresh_course_of_operations_ends_like_a_local_folder() {
    compare_worlds(fresh_seed(), &[]);
}

#[test]
fn a_course_over_split_files_ends_like_a_local_folder() {
    compare_worlds(fresh_seed(), &["--split-above", "128KiB", "--part-size", "64KiB"]);
}

/// Everything is in the vault when it is closed, nothing of it stays here, and what is
/// removed is removed at once.
#[test]
fn a_course_that_keeps_nothing_ends_like_a_local_folder() {
    let options = ["--durability", "close", "--cache-size", "1MiB", "--trash-days", "0"];
    compare_worlds(fresh_seed(), &options);
}

/// The course itself, without a drive: it is repeatable, it mostly does things that work,
/// and every kind of operation works at least once.
#[test]
fn a_course_in_two_local_folders_ends_alike() {
    own_umask();
    let dir = tempfile::tempdir().unwrap();
    let roots = ["one", "two"].map(|name| dir.path().join(name));
    for root in &roots {
        std::fs::create_dir(root).unwrap();
    }
    open_to_all(7, &[&roots[0], &roots[1]]);
    let watches = watch::is_fine(dir.path());
    let [mut one, mut two] = [&roots[0], &roots[1]].map(|root| World::new(root, watches));
    let mut rng = Rng::new(7);
    let (mut kinds, mut users) = (BTreeMap::new(), BTreeMap::new());
    for _ in 0..12_000 {
        let step = Step::random(&mut rng, &Names::below(&roots[0]));
        let (outcome, again) = (one.perform(&step), two.perform(&step));
        assert_eq!(outcome, again, "{step:?}");
        let works = !matches!(outcome.answer, Answer::Error(_) | Answer::Nothing);
        let of_kind: &mut (usize, usize) = kinds.entry(step.kind()).or_default();
        let of_user: &mut (usize, usize) = users.entry(step.who()).or_default();
        for count in [of_kind, of_user] {
            *count = (count.0 + 1, count.1 + usize::from(works));
        }
    }
    assert_same(&roots[0], &roots[1], 7, &[]);
    show(&format!("performed, and worked: {users:?}\n{kinds:?}"));
    assert!(users.values().all(|(all, good)| good * 5 > *all), "too little worked");
    assert!(kinds.values().all(|(_, good)| *good > 0), "some kind never worked");
}
