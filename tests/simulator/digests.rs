//! One seed, one schedule: in every process alike.

use std::process::Command;

use super::batch;
use super::draw::{Profile, draw};

/// Seeds whose digests are compared.
const SEEDS: u64 = 100;
/// Of them, those that are run twice in one process.
const TWICE: u64 = 3;
/// Set for the other process: it prints its digests.
const PRINT: &str = "PRIVICOREFS_SIMULATOR_PRINTS_DIGESTS";
const MARK: &str = "digest:";

/// All profiles in turn.
fn digest(seed: u64) -> u64 {
    let names = ["quiet", "machines", "fates", "lies", "all"];
    let profile = Profile::named(names[seed as usize % names.len()]).unwrap();
    batch::run(&draw(seed, &profile)).digest
}

#[test]
fn one_process_repeats_itself() {
    if std::env::var_os(PRINT).is_some() {
        (0..SEEDS).for_each(|seed| println!("{MARK}{:016x}", digest(seed)));
        return;
    }
    for seed in 0..TWICE {
        assert_eq!(digest(seed), digest(seed), "seed {seed}");
    }
}

#[test]
fn two_processes_agree_on_a_hundred_seeds() {
    let other = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "digests::one_process_repeats_itself", "--nocapture"])
        .env(PRINT, "1")
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&other.stdout);
    let theirs: Vec<&str> = printed.lines().filter_map(|l| Some(l.split_once(MARK)?.1)).collect();
    assert_eq!(theirs.len() as u64, SEEDS, "{printed}");
    for (seed, theirs) in (0..SEEDS).zip(theirs) {
        assert_eq!(format!("{:016x}", digest(seed)), theirs, "seed {seed}");
    }
}
