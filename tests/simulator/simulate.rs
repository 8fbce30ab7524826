//! The simulator by hand and for long: one seed with all that happens, a finding made small,
//! or seeds by the thousand.
//!
//! `cargo run --release --no-default-features --features proof --example simulate -- --help`

#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a tool of the tests, made of their modules"
)]

mod batch;
mod company;
mod disk;
#[path = "../house/doubles.rs"]
mod doubles;
mod draw;
mod drive;
mod judge;
mod kinds;
mod known;
mod local;
mod random;
mod service;
mod shrink;
mod tasks;
mod text;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use batch::Batch;
use clap::{Args, Parser, Subcommand};
use company::{Company, Script};
use draw::{Profile, draw};
use drive::Drive;
use serde_json::json;

/// Runs machines on one vault in virtual time and judges them.
#[derive(Debug, Parser)]
struct Simulate {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One seed, or a script of a file: every step, what it showed, and the findings.
    Run(One),
    /// The smallest script that still shows a finding of this signature.
    Shrink {
        #[command(flatten)]
        one: One,
        /// The signature, or the beginning of one.
        #[arg(long)]
        signature: String,
        /// Runs at most.
        #[arg(long, default_value_t = 3_000)]
        budget: usize,
    },
    /// The first seed with a finding that is gone without the steps of one kind, made small.
    Hunt {
        #[command(flatten)]
        kinds: Kinds,
        /// The beginning of the signature.
        #[arg(long, default_value = "")]
        signature: String,
        /// What it takes: a kind of step, or a piece of a step's text.
        #[arg(long)]
        needs: Vec<String>,
        /// Seeds at most.
        #[arg(long, default_value_t = 2_000)]
        seeds: u64,
        /// Runs for making it small, at most.
        #[arg(long, default_value_t = 1_500)]
        budget: usize,
    },
    /// The signatures that the first seeds of a profile show, for `known/PROFILE.txt`. Exits
    /// with 1 if one is of no known fault.
    Known {
        #[command(flatten)]
        kinds: Kinds,
        /// So many seeds.
        #[arg(long, default_value_t = 2_000)]
        seeds: u64,
    },
    /// Many seeds; a line of JSON for each batch. Exits with 1 if something is found that no
    /// known fault explains.
    Soak {
        #[command(flatten)]
        kinds: Kinds,
        /// The first seed.
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// So many seeds.
        #[arg(long, default_value_t = u64::MAX)]
        seeds: u64,
        /// For so many seconds.
        #[arg(long = "for")]
        seconds: Option<u64>,
        /// Seconds of a batch.
        #[arg(long, default_value_t = 600)]
        batch: u64,
        /// JSON is the only form there is; taken for symmetry with other commands.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
struct One {
    #[command(flatten)]
    kinds: Kinds,
    /// The seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// A script instead of a seed.
    #[arg(long)]
    script: Option<std::path::PathBuf>,
}

#[derive(Debug, Args)]
struct Kinds {
    /// quiet, machines, fates, lies or all.
    #[arg(long, default_value = "all")]
    profile: String,
    /// Only these kinds of fates and lies.
    #[arg(long)]
    only: Vec<String>,
    /// Not these kinds.
    #[arg(long)]
    without: Vec<String>,
    /// `together`: power cuts take disk and local database at one common moment.
    #[arg(long, value_parser = ["together", "apart"], default_value = "apart")]
    cut: String,
}

impl Kinds {
    fn profile(&self) -> Profile {
        let Some(profile) = Profile::named(&self.profile) else {
            eprintln!("no such profile: {} (quiet, machines, fates, lies, all)", self.profile);
            std::process::exit(2);
        };
        let (only, without) = (self.only.clone(), self.without.clone());
        let profile = Profile { only, without, together: self.cut == "together", ..profile };
        if let Err(wrong) = profile.check() {
            eprintln!("{wrong}");
            std::process::exit(2);
        }
        profile
    }
}

impl One {
    fn script(&self) -> Script {
        match &self.script {
            Some(path) => {
                let read = std::fs::read_to_string(path).map_err(|error| error.to_string());
                read.and_then(|text| text::read(&text)).unwrap_or_else(|error| {
                    eprintln!("{}: {error}", path.display());
                    std::process::exit(2);
                })
            }
            None => draw(self.seed, &self.kinds.profile()),
        }
    }
}

fn main() -> ExitCode {
    match Simulate::parse().command {
        Command::Run(one) => run(&one.script()),
        Command::Shrink { one, signature, budget } => {
            let shows = &mut |script: &Script| {
                let report = batch::run(script);
                report.findings.iter().any(|found| found.signature().starts_with(&signature))
            };
            let script = one.script();
            if !shows(&script) {
                eprintln!("the script does not show {signature}");
                return ExitCode::from(2);
            }
            print!("{}", text::write(&shrink::shrink(&script, budget, shows)));
            ExitCode::SUCCESS
        }
        Command::Hunt { kinds, signature, needs, seeds, budget } => {
            hunt(&kinds.profile(), &signature, &needs, seeds, budget)
        }
        Command::Known { kinds, seeds } => list_known(&kinds.profile(), seeds),
        Command::Soak { kinds, seed, seeds, seconds, batch, json: _ } => {
            soak(&kinds.profile(), seed, seeds, seconds, batch)
        }
    }
}

fn hunt(
    profile: &Profile,
    signature: &str,
    needs: &[String],
    seeds: u64,
    budget: usize,
) -> ExitCode {
    let finds = |script: &Script| {
        let report = batch::run(script);
        let mut found = report.findings.iter().map(judge::Finding::signature);
        found.find(|found| found.starts_with(signature))
    };
    let shows = &mut |script: &Script| {
        let needed = |kind: &String| {
            let mut without = script.clone();
            without.steps.retain(|step| {
                kinds::kind(step) != kind && !ron::to_string(step).unwrap().contains(kind.as_str())
            });
            without.steps.len() < script.steps.len() && finds(&without).is_none()
        };
        finds(script).is_some() && needs.iter().all(needed)
    };
    for seed in 0..seeds {
        let script = draw(seed, profile);
        if shows(&script) {
            let small = shrink::shrink(&script, budget, shows);
            println!("# profile {}, seed {seed}, after {} seeds", profile.name, seed + 1);
            println!("# shows {}", finds(&small).unwrap_or_default());
            print!("{}", text::write(&small));
            return ExitCode::SUCCESS;
        }
    }
    eprintln!("not within {seeds} seeds");
    ExitCode::FAILURE
}

fn list_known(profile: &Profile, seeds: u64) -> ExitCode {
    let mut batch = Batch::default();
    (0..seeds).for_each(|seed| batch.add(seed, profile));
    println!("# of {seeds} seeds: a signature, how often, the first seed");
    let mut code = ExitCode::SUCCESS;
    for (signature, found) in &batch.findings {
        if found.fault.is_some() {
            println!("{signature:40} {:6} {}", found.count, found.seed);
        } else {
            eprintln!("of no known fault: {signature} (seed {}): {}", found.seed, found.text);
            code = ExitCode::FAILURE;
        }
    }
    code
}

fn run(script: &Script) -> ExitCode {
    let mut drive = Drive::new(script);
    for (number, step) in script.steps.iter().enumerate() {
        let outcome = drive.step(number, step);
        println!("{number} @{} {step:?}", outcome.at);
        println!("      {:?} {:?}", outcome.shown, outcome.failure);
        outcome.events.iter().for_each(|event| println!("      {event:?}"));
    }
    for (who, view) in drive.finish().views {
        println!("{who:?}");
        match view {
            Ok(view) => view.iter().for_each(|(path, entry)| println!("   {path:?} {entry:?}")),
            Err(why) => println!("   {why}"),
        }
    }
    let report = batch::run(script);
    report.findings.iter().for_each(|finding| println!("{finding}"));
    println!("digest {:016x}", report.digest);
    ExitCode::from(u8::from(!report.findings.is_empty()))
}

fn soak(profile: &Profile, first: u64, seeds: u64, seconds: Option<u64>, batch: u64) -> ExitCode {
    let begun = Instant::now();
    let end = first.saturating_add(seeds);
    let over = || seconds.is_some_and(|s| begun.elapsed() >= Duration::from_secs(s));
    let (mut seed, mut unknown) = (first, false);
    while seed < end && !over() {
        let (from, started, mut counts) = (seed, Instant::now(), Batch::default());
        while seed < end && !over() && started.elapsed() < Duration::from_secs(batch) {
            counts.add(seed, profile);
            seed += 1;
        }
        unknown |= counts.unknown().next().is_some();
        let findings: Vec<_> = counts
            .findings
            .iter()
            .map(|(signature, found)| {
                json!({
                    "seed": found.seed, "signature": signature, "known": found.known().is_some(),
                    "fault": found.fault, "count": found.count, "text": found.text,
                })
            })
            .collect();
        let line = json!({
            "first": from, "last": seed - 1, "seconds": started.elapsed().as_secs(),
            "profile": profile.name, "steps": counts.steps, "met": counts.met, "drawn": counts.drawn,
            "findings": findings,
        });
        println!("{line}");
    }
    ExitCode::from(u8::from(unknown))
}
