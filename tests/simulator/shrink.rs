//! Makes a script that shows a finding smaller, as long as it still does.
//!
//! Whole runs of steps are left out first, then single ones (ddmin); then what is left is made
//! simpler. Nothing is drawn. Numbers of steps change, and with them stamps, which no step
//! refers to.

use super::company::{Act, Fate, Moment, Script, Service, Step};
use super::kinds;

/// The smallest script found that `shows`, within `budget` tries.
pub fn shrink(script: &Script, budget: usize, shows: &mut dyn FnMut(&Script) -> bool) -> Script {
    let mut best = script.clone();
    let mut tries = Tries { left: budget, shows };
    loop {
        let before = best.clone();
        leave_out(&mut best, &mut tries);
        drop_machines(&mut best, &mut tries);
        simplify(&mut best, &mut tries);
        if best == before || tries.left == 0 {
            return best;
        }
    }
}

struct Tries<'f> {
    left: usize,
    shows: &'f mut dyn FnMut(&Script) -> bool,
}

impl Tries<'_> {
    /// Takes a candidate if it still shows the finding.
    fn take(&mut self, best: &mut Script, candidate: Script) -> bool {
        if self.left == 0 || candidate == *best {
            return false;
        }
        self.left -= 1;
        let shows = (self.shows)(&candidate);
        if shows {
            *best = candidate;
        }
        shows
    }
}

fn leave_out(best: &mut Script, tries: &mut Tries<'_>) {
    let mut size = best.steps.len().div_ceil(2);
    while size > 0 {
        // From the end: what comes after the finding goes first.
        let mut at = best.steps.len();
        while at > 0 {
            let first = at.saturating_sub(size);
            let mut fewer = best.clone();
            fewer.steps.drain(first..at.min(fewer.steps.len()));
            tries.take(best, fewer);
            at = first.min(best.steps.len());
        }
        size /= 2;
    }
}

/// Machines that nothing is left of, from the last one on.
fn drop_machines(best: &mut Script, tries: &mut Tries<'_>) {
    while best.settings.len() > 1 {
        let last = best.settings.len() as u8 - 1;
        let mut fewer = best.clone();
        fewer.settings.pop();
        fewer.steps.retain(|step| kinds::machine(step) != Some(last));
        if !tries.take(best, fewer) {
            return;
        }
    }
}

fn simplify(best: &mut Script, tries: &mut Tries<'_>) {
    for at in 0..best.steps.len() {
        for simpler in simpler(&best.steps[at]) {
            let mut candidate = best.clone();
            candidate.steps[at] = simpler;
            tries.take(best, candidate);
        }
    }
}

fn simpler(step: &Step) -> Vec<Step> {
    match step {
        Step::Wait { ms } if *ms > 1_000 => {
            vec![Step::Wait { ms: 1_000 }, Step::Wait { ms: ms / 2 }]
        }
        Step::Do(on, Act::Edit { at, size, .. } | Act::Save { at, size }) => {
            vec![Step::Do(*on, Act::Write { at: at.clone(), size: *size })]
        }
        Step::Fate(Fate::Kill { on, when }) if *when != Moment::Now => {
            vec![Step::Fate(Fate::Kill { on: *on, when: Moment::Now })]
        }
        Step::Fate(Fate::PowerCut { on, when, together }) if *when != Moment::Now => {
            vec![Step::Fate(Fate::PowerCut { on: *on, when: Moment::Now, together: *together })]
        }
        Step::Service(Service::FailPuts { n }) if *n > 1 => {
            vec![Step::Service(Service::FailPuts { n: 1 })]
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::draw::{Profile, draw};
    use super::*;

    #[test]
    fn what_does_not_matter_goes() {
        let script = draw(3, &Profile::named("machines").unwrap());
        let is = |step: &Step, kind: &str| kinds::kind(step) == kind;
        let mut shows = |script: &Script| {
            let removed = script.steps.iter().position(|step| is(step, "remove"));
            let synced = script.steps.iter().rposition(|step| is(step, "sync"));
            removed.zip(synced).is_some_and(|(removed, synced)| removed < synced)
        };
        assert!(shows(&script));
        let small = shrink(&script, 10_000, &mut shows);
        assert_eq!(small.steps.len(), 2, "{small:?}");
        assert!(is(&small.steps[0], "remove") && is(&small.steps[1], "sync"));
    }
}
