//! The simulator's short form, as every test run has it.
//!
//! `PRIVICOREFS_SIMULATOR_SECONDS` makes it longer, `PRIVICOREFS_SIMULATOR_SEED` begins
//! elsewhere (default 0).

use std::time::{Duration, Instant};

use super::batch::{Batch, repeat};
use super::draw::Profile;

/// Seeds that it runs, however fast or slow the machine is, and for how long more by default.
const SEEDS: u64 = 130;
const SECONDS: u64 = 0;

/// In turn: so many of one machine alone, where nothing may be found at all.
const PROFILES: [&str; 5] = ["quiet", "machines", "quiet", "fates", "lies"];

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

#[test]
#[allow(clippy::disallowed_methods, reason = "how long it takes is part of it")]
fn a_minute_of_seeds_finds_what_is_known_and_nothing_else() {
    let begun = Instant::now();
    let time = Duration::from_secs(number("PRIVICOREFS_SIMULATOR_SECONDS", SECONDS));
    let first = number("PRIVICOREFS_SIMULATOR_SEED", 0);
    let mut batches: Vec<(Profile, Batch)> = ["quiet", "machines", "fates", "lies"]
        .map(|name| (Profile::named(name).unwrap(), Batch::default()))
        .into();
    let mut seeds = 0;
    while begun.elapsed() < time || seeds < SEEDS {
        let name = PROFILES[seeds as usize % PROFILES.len()];
        if let Some((profile, batch)) = batches.iter_mut().find(|(p, _)| p.name == name) {
            batch.add(first + seeds, profile);
        }
        seeds += 1;
    }
    let mut unknown = Vec::new();
    for (profile, batch) in &batches {
        println!(
            "{}: {} seeds, {} steps; fates and lies that met something: {}",
            profile.name,
            batch.seeds,
            batch.steps,
            batch.counts()
        );
        for (fault, count) in batch.explained() {
            println!("   {count:5} findings of: {fault}");
        }
        for (signature, found) in batch.unknown() {
            let again = repeat(found.seed, profile.name);
            unknown
                .push(format!("{signature} ({} times): {}\n   {again}", found.count, found.text));
        }
    }
    println!("{seeds} seeds in {} s", begun.elapsed().as_secs());
    assert!(unknown.is_empty(), "found, and not known:\n{}", unknown.join("\n"));
}
