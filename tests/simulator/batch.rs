//! Many seeds, counted.

use std::collections::BTreeMap;

use super::company::Script;
use super::draw::{Profile, draw};
use super::drive::Drive;
use super::judge::{self, Finding, Report};
use super::kinds;
use super::known;

/// What some seeds of a profile have shown.
#[derive(Debug, Default)]
pub struct Batch {
    /// Seeds run.
    pub seeds: u64,
    /// Steps taken.
    pub steps: u64,
    /// Fates and lies that met what they are for, by kind.
    pub met: BTreeMap<&'static str, u64>,
    /// Fates and lies that there were, by kind.
    pub drawn: BTreeMap<&'static str, u64>,
    /// By signature: how often, the first seed, what it said, and the fault that explains it.
    pub findings: BTreeMap<String, Found>,
}

/// Findings of one signature.
#[derive(Debug)]
pub struct Found {
    pub count: u64,
    pub seed: u64,
    pub text: String,
    /// The fault that it is of.
    pub fault: Option<&'static str>,
    /// Whether that fault has shown itself in this way before.
    pub listed: bool,
}

impl Found {
    /// The fault that explains it, where that has shown itself in this way before.
    pub fn known(&self) -> Option<&'static str> {
        self.fault.filter(|_| self.listed)
    }
}

/// Runs a script on the drive.
pub fn run(script: &Script) -> Report {
    judge::run(&mut Drive::new(script), script)
}

impl Batch {
    /// Runs one more seed.
    pub fn add(&mut self, seed: u64, profile: &Profile) {
        let script = draw(seed, profile);
        let report = run(&script);
        self.seeds += 1;
        self.steps += script.steps.len() as u64;
        for step in script.steps.iter().filter(|step| kinds::is_counted(step)) {
            *self.drawn.entry(kinds::kind(step)).or_default() += 1;
        }
        for step in report.met {
            if let Some(step) = script.steps.get(step) {
                *self.met.entry(kinds::kind(step)).or_default() += 1;
            }
        }
        for finding in report.findings {
            self.note(seed, profile, &finding);
        }
    }

    fn note(&mut self, seed: u64, profile: &Profile, finding: &Finding) {
        let found = self.findings.entry(finding.signature()).or_insert_with(|| Found {
            count: 0,
            seed,
            text: finding.text.clone(),
            fault: known::fault(profile.name, finding),
            listed: known::is_listed(profile.name, finding),
        });
        found.count += 1;
    }

    /// For each kind of fate and lie, how many met what they are for, of how many.
    pub fn counts(&self) -> String {
        let of = |(kind, drawn): (&&str, &u64)| {
            format!("{kind} {}/{drawn}", self.met.get(kind).copied().unwrap_or_default())
        };
        self.drawn.iter().map(of).collect::<Vec<_>>().join(", ")
    }

    /// What no known fault explains.
    pub fn unknown(&self) -> impl Iterator<Item = (&String, &Found)> {
        self.findings.iter().filter(|(_, found)| found.known().is_none())
    }

    /// How many findings each known fault explains.
    pub fn explained(&self) -> BTreeMap<&'static str, u64> {
        let mut counts = BTreeMap::new();
        for found in self.findings.values() {
            if let Some(fault) = found.known() {
                *counts.entry(fault).or_default() += found.count;
            }
        }
        counts
    }
}

/// How a person repeats a seed.
pub fn repeat(seed: u64, profile: &str) -> String {
    format!(
        "cargo run --no-default-features --features proof --example simulate -- run --seed {seed} --profile {profile}"
    )
}
