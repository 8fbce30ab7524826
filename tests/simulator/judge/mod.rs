//! The judge: says which promise of design D10 a run has broken.
//!
//! It knows what each machine was told to do, what it had shown right before, and how that
//! ended; from that it keeps a history of its own (`history`) and holds the trees at the end
//! against it (`verdict`). It shares no code with the product.
//!
//! Invariants
//! * A *version* is what a step left in a file. It grew from what the machine showed; of two
//!   versions neither of which grew from the other, nobody had seen both.
//! * A step that failed, or whose machine died in it, may have happened, in part too. A step
//!   that was acknowledged here and whose machine lost its disk, or was set back behind it,
//!   counts as such a one from then on.
//! * Where a promise leaves a choice (which of two names that two machines gave, which
//!   parent a folder got), every choice is right. A doubt is no finding.

pub mod contents;
mod finding;
mod history;
mod lineage;
mod newcomer;
mod verdict;

pub use self::finding::{Clause, Finding};
use std::hash::{DefaultHasher, Hash, Hasher};

use self::history::History;
use super::company::{Company, Outcome, Script, Step};

/// Runs a script on a company, to its end whatever is found, and judges it.
pub fn run(company: &mut dyn Company, script: &Script) -> Report {
    let mut history = History::new(script);
    let mut digest = DefaultHasher::default();
    for (number, step) in script.steps.iter().enumerate() {
        let outcome = company.step(number, step);
        format!("{outcome:?}").hash(&mut digest);
        history.note(number, step, &outcome);
        if let Some(seen) = &outcome.newcomer {
            let original = |name: &str| company.original_name(name);
            let found = newcomer::judge(&history, seen, company.abilities(), &original);
            history.findings.extend(found);
        }
    }
    let ending = company.finish();
    format!("{ending:?}").hash(&mut digest);
    let last = Outcome { at: u64::MAX, events: ending.events.clone(), ..Outcome::default() };
    history.note(script.steps.len(), &Step::Wait { ms: 0 }, &last);
    let abilities = company.abilities();
    let mut findings =
        verdict::judge(&history, &ending, abilities, &|name| company.original_name(name));
    findings.splice(0..0, history.findings.iter().cloned());
    let met = history.met.iter().copied().collect();
    Report { findings, met, digest: digest.finish() }
}

/// What a run showed.
#[derive(Debug, Default)]
pub struct Report {
    /// In the order in which they were met.
    pub findings: Vec<Finding>,
    /// Steps whose fate or lie met what it is for.
    pub met: Vec<usize>,
    /// Of everything that was answered and shown: one schedule, one digest.
    pub digest: u64,
}
