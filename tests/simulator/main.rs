//! The simulator: several machines on one vault, in virtual time, one seed one schedule,
//! judged by what was acknowledged and shown. See `company` for what a run is made of.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod company;
mod disk;
mod draw;
mod drive;
mod judge;
#[cfg(test)]
mod judged;
mod kinds;
mod local;
mod planted;
mod random;
mod reference;
mod service;
mod tasks;
mod wire;
mod wire_flows;

use std::time::Instant;

use draw::{Profile, draw};
use drive::Drive;

#[test]
#[allow(clippy::disallowed_methods, reason = "a test that prints how long it took")]
fn explore() {
    let env = |name: &str| std::env::var(name).ok();
    let profile = env("SIM_PROFILE").unwrap_or_else(|| "quiet".into());
    let mut profile = Profile::named(&profile).unwrap();
    profile.only = env("SIM_ONLY")
        .filter(|s| !s.is_empty())
        .map(|s| s.split(',').map(str::to_owned).collect())
        .unwrap_or_default();
    profile.without =
        env("SIM_WITHOUT").map(|s| s.split(',').map(str::to_owned).collect()).unwrap_or_default();
    let first: u64 = env("SIM_SEED").and_then(|s| s.parse().ok()).unwrap_or(0);
    let seeds: u64 = env("SIM_SEEDS").and_then(|s| s.parse().ok()).unwrap_or(20);
    let mut all = std::collections::BTreeMap::new();
    let begun = Instant::now();
    for seed in first..first + seeds {
        let script = draw(seed, &profile);
        let report = match env("SIM_COMPANY").as_deref() {
            Some("reference") => judge::run(&mut reference::Reference::new(&script, None), &script),
            _ => judge::run(&mut Drive::new(&script), &script),
        };
        for finding in &report.findings {
            let entry = all.entry(finding.signature()).or_insert((0, seed, finding.text.clone()));
            entry.0 += 1;
        }
        if seeds == 1 {
            let mut drive: Box<dyn company::Company> = match env("SIM_COMPANY").as_deref() {
                Some("reference") => Box::new(reference::Reference::new(&script, None)),
                _ => Box::new(Drive::new(&script)),
            };
            for (n, step) in script.steps.iter().enumerate() {
                let outcome = drive.step(n, step);
                println!(
                    "{n} @{} {step:?}\n      {:?} {:?} {:?}",
                    outcome.at, outcome.failure, outcome.shown, outcome.events
                );
            }
            for (who, view) in drive.finish().views {
                println!("{who:?}");
                match view {
                    Ok(view) => {
                        view.iter().for_each(|(path, entry)| println!("   {path} {entry:?}"))
                    }
                    Err(why) => println!("   {why}"),
                }
            }
            for finding in &report.findings {
                println!("{finding}");
            }
        }
    }
    println!("{seeds} seeds in {:?}", begun.elapsed());
    for (signature, (count, seed, text)) in all {
        let text: String = text.chars().take(300).collect();
        println!("{count:5} {signature}   seed {seed}: {text}");
    }
}
