//! Makes a script that shows a finding smaller, as long as it still does.
//!
//! Whole runs of steps are left out first, then single ones (ddmin), then whole machines;
//! then what is left is made simpler (`simpler`). Nothing is drawn. Numbers of steps change,
//! and with them stamps, which no step refers to; numbers of machines change in all steps at
//! once.
//!
//! Invariants
//! * What is tried is a script by the rules of `company`: no size is used twice.
//! * Every change leaves fewer steps, fewer machines, or simpler steps, so it ends.

mod simpler;

use super::company::{Fate, Machine, Script, Step};
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
    /// Takes a candidate if it still shows the finding; one without a step shows nothing.
    fn take(&mut self, best: &mut Script, candidate: Script) -> bool {
        if self.left == 0 || candidate == *best || candidate.steps.is_empty() {
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

/// Machines one by one, from the last on, clones among them: with all that they do, or with
/// another one doing it.
fn drop_machines(best: &mut Script, tries: &mut Tries<'_>) {
    for number in (0..machines(best)).rev() {
        let others = (0..number).map(|other| Some(other as Machine));
        let mut instead = std::iter::once(None).chain(others);
        instead.any(|instead| {
            without(best, number, instead).is_some_and(|fewer| tries.take(best, fewer))
        });
    }
}

/// Machines that are there from the beginning, and clones.
fn machines(script: &Script) -> usize {
    let clone = |step: &&Step| matches!(step, Step::Fate(Fate::Duplicate { .. }));
    script.settings.len() + script.steps.iter().filter(clone).count()
}

/// The script without a machine; later ones move up. What it does is done by the one that is
/// there `instead`, which has a lower number, or by nobody: then what was copied from it goes
/// too.
fn without(script: &Script, number: usize, instead: Option<Machine>) -> Option<Script> {
    let mut fewer = Script { steps: Vec::new(), ..script.clone() };
    if number < fewer.settings.len() {
        fewer.settings.remove(number);
    }
    if fewer.settings.is_empty() {
        return None;
    }
    let mut renumbered = Renumbered::default();
    (0..script.settings.len()).for_each(|old| match old == number {
        true => renumbered.goes(instead),
        false => renumbered.stays(),
    });
    for step in &script.steps {
        let mut step = step.clone();
        let known = match kinds::machine_mut(&mut step) {
            Some(on) => renumbered.of(*on).inspect(|new| *on = *new).is_some(),
            None => true,
        };
        if let Step::Fate(Fate::Duplicate { .. }) = step {
            if renumbered.new.len() == number {
                renumbered.goes(instead);
                continue;
            }
            match known {
                true => renumbered.stays(),
                false => renumbered.goes(None),
            }
        }
        if known {
            fewer.steps.push(step);
        }
    }
    Some(fewer)
}

/// The new number of each old machine, as they come.
#[derive(Default)]
struct Renumbered {
    new: Vec<Option<Machine>>,
    next: Machine,
}

impl Renumbered {
    fn stays(&mut self) {
        self.new.push(Some(self.next));
        self.next += 1;
    }

    fn goes(&mut self, instead: Option<Machine>) {
        self.new.push(instead);
    }

    fn of(&self, old: Machine) -> Option<Machine> {
        self.new.get(usize::from(old)).copied().flatten()
    }
}

fn simplify(best: &mut Script, tries: &mut Tries<'_>) {
    for at in 0..best.steps.len() {
        // The boldest first; what is left is tried again from there.
        while simpler::of_step(best, at).into_iter().any(|simpler| tries.take(best, simpler)) {}
    }
    while simpler::of_whole(best).into_iter().any(|simpler| tries.take(best, simpler)) {}
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::company::{Act, Moment, OtherAct, Service, Stored};
    use super::super::draw::{Profile, draw};
    use super::super::text;
    use super::*;

    fn is(step: &Step, kind: &str) -> bool {
        kinds::kind(step) == kind
    }

    #[test]
    fn what_does_not_matter_goes() {
        let script = draw(3, &Profile::named("machines").unwrap());
        let mut shows = |script: &Script| {
            let removed = script.steps.iter().position(|step| is(step, "remove"));
            let synced = script.steps.iter().rposition(|step| is(step, "sync"));
            removed.zip(synced).is_some_and(|(removed, synced)| removed < synced)
        };
        assert!(shows(&script));
        let small = shrink(&script, 10_000, &mut shows);
        assert_eq!(small.steps.len(), 2, "{small:?}");
        assert!(is(&small.steps[0], "remove") && is(&small.steps[1], "sync"));
        assert_eq!(small.settings.len(), 1, "nobody else takes part");
    }

    /// Each kind of a drawn script in turn must be there so many times.
    fn for_each_kind(mut check: impl FnMut(&Script, &mut dyn FnMut(&Script) -> bool)) {
        for seed in 0..6 {
            let script = draw(seed, &Profile::named("all").unwrap());
            let kinds: BTreeSet<_> = script.steps.iter().map(kinds::kind).collect();
            for kind in kinds {
                let count = |s: &Script| s.steps.iter().filter(|step| is(step, kind)).count();
                let wanted = count(&script).min(3);
                check(&script, &mut |s: &Script| count(s) >= wanted);
            }
        }
    }

    #[test]
    fn what_is_given_back_shows_it_and_nothing_can_be_left_out() {
        for_each_kind(|script, shows| {
            let small = shrink(script, 20_000, shows);
            assert!(shows(&small));
            for at in 0..small.steps.len() {
                let mut fewer = small.clone();
                fewer.steps.remove(at);
                assert!(!shows(&fewer), "step {at} is not needed: {small:?}");
            }
            assert_eq!(small, shrink(script, 20_000, shows), "it is the same each time");
        });
    }

    #[test]
    fn what_is_tried_keeps_the_rules() {
        for_each_kind(|script, shows| {
            shrink(script, 2_000, &mut |candidate| {
                assert_eq!(text::check(candidate), Ok(()));
                shows(candidate)
            });
        });
    }

    #[test]
    fn no_more_is_tried_than_was_allowed() {
        let script = draw(1, &Profile::named("all").unwrap());
        for budget in [0, 1, 17, 300] {
            let mut tried = 0;
            let small = shrink(&script, budget, &mut |_| {
                tried += 1;
                tried % 3 == 0
            });
            assert!(tried <= budget, "{tried} of {budget}");
            assert_eq!(small == script, budget < 3, "what was taken is given back");
        }
    }

    fn settings(poll_secs: u32) -> super::super::company::Settings {
        super::super::company::Settings { trash_days: 7, split_above: 100, part: 50, poll_secs }
    }

    fn write(on: Machine, at: &str, size: u32) -> Step {
        Step::Do(on, Act::Write { at: at.into(), size })
    }

    /// Machines 0 to 2; 3 is a copy of 1, 4 of 3, 5 of 2.
    fn family() -> Script {
        let clone = |on| Step::Fate(Fate::Duplicate { on });
        Script {
            schedule: 1,
            settings: vec![settings(0), settings(1), settings(2)],
            steps: vec![
                write(0, "a", 1),
                clone(1),
                clone(3),
                clone(2),
                write(4, "a", 2),
                write(5, "a", 3),
                Step::Service(Service::Withhold { what: Stored::File, of: 0, on: Some(5) }),
                Step::Service(Service::Withhold { what: Stored::File, of: 0, on: None }),
                Step::Wait { ms: 1 },
            ],
        }
    }

    fn names(script: &Script) -> Vec<Option<Machine>> {
        script.steps.iter().map(|s| kinds::machine_mut(&mut s.clone()).copied()).collect()
    }

    #[test]
    fn a_machine_goes_with_its_copies_and_the_others_move_up() {
        let first = without(&family(), 0, None).unwrap();
        assert_eq!(first.settings, [settings(1), settings(2)]);
        let expected = [Some(0), Some(2), Some(1), Some(3), Some(4), Some(4), None, None];
        assert_eq!(names(&first), expected);
        // 3 and 4 go with 1; what was 2 is 1, and its copy 2.
        let second = without(&family(), 1, None).unwrap();
        assert_eq!(second.settings, [settings(0), settings(2)]);
        assert_eq!(names(&second), [Some(0), Some(1), Some(2), Some(2), None, None]);
        // Only the copy of the copy.
        let copy = without(&family(), 4, None).unwrap();
        assert_eq!(copy.settings.len(), 3);
        let expected = [Some(0), Some(1), Some(2), Some(4), Some(4), None, None];
        assert_eq!(names(&copy), expected);
    }

    #[test]
    fn the_last_machine_stays() {
        let alone = Script { settings: vec![settings(0)], ..family() };
        assert_eq!(without(&alone, 0, None), None);
    }

    #[test]
    fn what_a_machine_does_another_can_do() {
        // 0 takes the part of 1; of the copies, what was 5 is 4.
        let merged = without(&family(), 1, Some(0)).unwrap();
        assert_eq!(merged.settings, [settings(0), settings(2)]);
        let expected = [Some(0), Some(0), Some(2), Some(1), Some(3), Some(4), Some(4), None, None];
        assert_eq!(names(&merged), expected);
        // The copy of 1 is not made, and its own copy is one of 1.
        let merged = without(&family(), 3, Some(1)).unwrap();
        let expected = [Some(0), Some(1), Some(2), Some(3), Some(4), Some(4), None, None];
        assert_eq!(names(&merged), expected);
    }

    #[test]
    fn two_machines_are_left_of_what_takes_two() {
        let shows = &mut |script: &Script| {
            let writes = script.steps.iter().filter(|step| is(step, "write"));
            let there = |on: &Machine| usize::from(*on) < machines(script);
            let writers: BTreeSet<_> = writes.filter_map(kinds::machine).filter(there).collect();
            writers.len() >= 2
        };
        let small = shrink(&family(), 1_000, shows);
        assert_eq!(machines(&small), 2, "{small:?}");
        assert_eq!(small.steps.len(), 2, "{small:?}");
    }

    #[test]
    fn what_is_left_is_simple() {
        let steps = vec![
            Step::Wait { ms: 90_000 },
            Step::Do(0, Act::Save { at: "dir0/dir1/a very long name".into(), size: 12_345 }),
            Step::Other(OtherAct::Store { at: "b".into(), size: 1 }),
            Step::Do(0, Act::Edit { at: "b".into(), from: 700, cells: 50, size: 900 }),
            Step::Fate(Fate::Kill { on: 0, when: Moment::Disk(7) }),
            Step::Service(Service::LostAck { n: 4 }),
            Step::Do(0, Act::Sync { wait: false }),
        ];
        let script = Script { schedule: 1, settings: vec![settings(30)], steps };
        // All steps are needed, an edit must stay one, the kill must come at a call, and time
        // must pass for more than a second.
        let shows = &mut |s: &Script| {
            let waits = |step: &Step| matches!(step, Step::Wait { ms } if *ms > 20_000);
            let dies = |step: &Step| matches!(step, Step::Fate(Fate::Kill { when, .. }) if *when != Moment::Now);
            s.steps.len() == 7
                && s.steps.iter().any(waits)
                && s.steps.iter().any(dies)
                && s.steps.iter().any(|step| is(step, "edit"))
        };
        let small = shrink(&script, 10_000, shows);
        assert_eq!(
            text::write(&small),
            "schedule: 1\n\
             machine: (trash_days:7,split_above:100,part:50,poll_secs:0)\n\
             Wait(ms:22500)\n\
             Do(0,Write(at:\"a\",size:2))\n\
             Other(Store(at:\"b\",size:1))\n\
             Do(0,Edit(at:\"b\",from:0,cells:1,size:3))\n\
             Fate(Kill(on:0,when:Disk(1)))\n\
             Service(LostAck(n:1))\n\
             Do(0,Sync(wait:true))\n"
        );
    }
}
