//! What drawn scripts have in common, and how they differ.

use std::collections::BTreeMap;

use super::super::text;
use super::*;

const PROFILES: [&str; 5] = ["quiet", "machines", "fates", "lies", "all"];
const SEEDS: u64 = 2_000;

fn named(name: &str) -> Profile {
    Profile::named(name).unwrap()
}

fn counted(script: &Script) -> Vec<&'static str> {
    script.steps.iter().filter(|step| kinds::is_counted(step)).map(kinds::kind).collect()
}

/// What is there at some step: machines that were mounted, backups, open slots.
#[derive(Default)]
struct Seen {
    mounted: BTreeSet<Machine>,
    lost: BTreeSet<Machine>,
    away: BTreeSet<Machine>,
    backups: BTreeSet<(Machine, u8)>,
    open: BTreeSet<(Machine, u8)>,
    machines: Machine,
    slots_used: u32,
    slots_unopened: u32,
}

impl Seen {
    fn note(&mut self, step: &Step, what: &str) {
        if let Some(on) = kinds::machine_mut(&mut step.clone()) {
            assert!(*on < self.machines, "{what}: nobody is {on}: {step:?}");
            assert!(!self.lost.contains(on), "{what}: {on} is lost: {step:?}");
        }
        match step {
            Step::Do(on, act) => {
                assert!(self.mounted.contains(on), "{what}: not mounted: {step:?}");
                self.act(*on, act);
            }
            Step::Fate(fate) => self.fate(fate, what),
            _ => {}
        }
    }

    fn act(&mut self, on: Machine, act: &Act) {
        match act {
            Act::Open { slot, .. } => {
                self.open.insert((on, *slot));
            }
            Act::WriteSlot { slot, .. } | Act::Close { slot } | Act::FsyncSlot { slot } => {
                self.slots_used += 1;
                self.slots_unopened += u32::from(!self.open.contains(&(on, *slot)));
                if let Act::Close { .. } = act {
                    self.open.remove(&(on, *slot));
                }
            }
            _ => {}
        }
    }

    fn fate(&mut self, fate: &Fate, what: &str) {
        match fate {
            Fate::Mount { on } => {
                self.mounted.insert(*on);
            }
            Fate::Kill { on, when: Moment::Now }
            | Fate::PowerCut { on, when: Moment::Now, .. }
            | Fate::Unmount { on }
            | Fate::LoseCache { on } => {
                self.mounted.remove(on);
                self.open.retain(|(of, _)| of != on);
            }
            Fate::Backup { on, slot } => {
                self.backups.insert((*on, *slot));
            }
            Fate::Restore { on, slot } | Fate::SetBack { on, slot } => {
                assert!(self.backups.contains(&(*on, *slot)), "{what}: no backup for {fate:?}");
                self.mounted.insert(*on);
                self.open.retain(|(of, _)| of != on);
            }
            Fate::Duplicate { .. } => {
                self.mounted.insert(self.machines);
                self.machines += 1;
            }
            Fate::Lose { on } => {
                self.lost.insert(*on);
                self.away.remove(on);
            }
            Fate::Away { on } => {
                self.away.insert(*on);
            }
            Fate::Back { on } => {
                self.away.remove(on);
            }
            _ => {}
        }
    }
}

fn check(script: &Script, what: &str) -> Seen {
    assert_eq!(text::check(script), Ok(()), "{what}");
    let operations = script.steps.iter().filter(|s| matches!(s, Step::Do(..) | Step::Other(_)));
    let operations = operations.count();
    assert!((200..450).contains(&operations), "{what}: {operations} operations");
    let made: BTreeSet<&Path> = script
        .steps
        .iter()
        .filter_map(|step| match step {
            Step::Do(_, Act::Write { at, .. } | Act::Save { at, .. }) => Some(at),
            Step::Do(_, Act::Clone { to, .. } | Act::Link { to, .. }) => Some(to),
            _ => None,
        })
        .collect();
    assert!(made.len() >= 20, "{what}: {} files", made.len());
    let mut paths: Vec<Step> = script.steps.clone();
    for path in paths.iter_mut().flat_map(kinds::paths_mut) {
        let long = path.split('/').find(|name| name.is_empty() || name.len() > 255);
        assert_eq!(long, None, "{what}: {path}");
    }
    let machines = script.settings.len() as Machine;
    let mut seen = Seen { machines, ..Seen::default() };
    script.steps.iter().for_each(|step| seen.note(step, what));
    assert!(seen.away.is_empty(), "{what}: {:?} never come back", seen.away);
    seen
}

#[test]
fn scripts_keep_the_rules_of_the_company() {
    for name in PROFILES {
        let profile = named(name);
        let (mut used, mut unopened) = (0, 0);
        for seed in 0..SEEDS {
            let (script, what) = (draw(seed, &profile), format!("{name} {seed}"));
            let seen = check(&script, &what);
            let fates = counted(&script);
            assert!((6..=12).contains(&fates.len()), "{what}: {} fates", fates.len());
            let several: BTreeSet<_> = fates.iter().collect();
            assert!(several.len() <= 4, "{what}: {several:?}");
            assert!(fates.iter().all(|kind| profile.kinds.contains(kind)), "{what}: {fates:?}");
            (used, unopened) = (used + seen.slots_used, unopened + seen.slots_unopened);
        }
        assert!(used > 10_000 && unopened * 10 < used, "{name}: {unopened} of {used} slots");
    }
}

#[test]
fn one_seed_one_script_and_no_two_alike() {
    for name in PROFILES {
        let profile = named(name);
        let scripts: BTreeSet<String> = (0..400)
            .map(|seed| {
                let script = draw(seed, &profile);
                assert_eq!(script, draw(seed, &profile), "{name} {seed}");
                // The seed itself is in the script; what it draws must differ too.
                text::write(&Script { schedule: 0, ..script })
            })
            .collect();
        assert_eq!(scripts.len(), 400, "{name}");
    }
}

#[test]
fn every_kind_and_every_moment_occurs_in_enough_seeds() {
    for name in PROFILES {
        let profile = named(name);
        let mut seeds: BTreeMap<&str, u64> = BTreeMap::new();
        let mut pairs: BTreeSet<(&str, &str)> = BTreeSet::new();
        let mut moments: BTreeMap<&str, u64> = BTreeMap::new();
        let mut machines: BTreeMap<usize, u64> = BTreeMap::new();
        for seed in 0..SEEDS {
            let script = draw(seed, &profile);
            *machines.entry(script.settings.len()).or_default() += 1;
            let of_seed: BTreeSet<_> = script.steps.iter().map(kinds::kind).collect();
            of_seed.iter().for_each(|kind| *seeds.entry(kind).or_default() += 1);
            let fates: BTreeSet<_> = counted(&script).into_iter().collect();
            pairs.extend(fates.iter().flat_map(|a| fates.iter().map(|b| (*a, *b))));
            for step in &script.steps {
                if let Step::Fate(Fate::Kill { when, .. } | Fate::PowerCut { when, .. }) = step {
                    *moments.entry(moment(*when)).or_default() += 1;
                }
            }
        }
        let least = |kind: &str| if profile.kinds.contains(&kind) { SEEDS / 25 } else { SEEDS / 2 };
        let acts = "write edit truncate punch clone save open write-slot close fsync-slot mkdir \
                    rmdir remove rename exchange link symlink chmod xattr fsync sync read look \
                    housekeep checkpoint mount wait";
        let others = "other-store other-update other-delete";
        let others = if profile.others { others } else { "" };
        let all = acts.split_whitespace().chain(others.split_whitespace());
        for kind in all.chain(profile.kinds.iter().copied()) {
            let count = seeds.get(kind).copied().unwrap_or_default();
            assert!(count >= least(kind), "{name}: {kind} in {count} seeds");
        }
        // Nearly every pair of kinds meets in some seed.
        let possible = profile.kinds.len() * profile.kinds.len();
        assert!(pairs.len() * 10 >= possible * 9, "{name}: {} of {possible}", pairs.len());
        for when in ["now", "disk", "local", "ask", "answer"] {
            assert!(moments.get(when).is_some_and(|n| *n > 80), "{name}: {when} {moments:?}");
        }
        assert!(machines.values().all(|n| *n > SEEDS / 8), "{name}: {machines:?}");
        assert_eq!(machines.len() as u64, profile.machines.1, "{name}: {machines:?}");
    }
}

fn moment(when: Moment) -> &'static str {
    match when {
        Moment::Now => "now",
        Moment::Disk(_) => "disk",
        Moment::Local(_) => "local",
        Moment::Ask(_) => "ask",
        Moment::Answer(_) => "answer",
    }
}

#[test]
fn waits_and_sizes_are_of_every_class() {
    let profile = named("all");
    let (mut waits, mut sizes) = ([0; 5], [0; 4]);
    for seed in 0..200 {
        for step in draw(seed, &profile).steps {
            if let Step::Wait { ms } = step {
                let classes = [1_000, 60_000, 660_000, DAY];
                waits[classes.iter().filter(|least| ms >= **least).count()] += 1;
            }
            if let Some(size) = kinds::size(&step) {
                let classes = [400, 9_000, 12_000];
                sizes[classes.iter().filter(|least| size >= **least).count()] += 1;
            }
        }
    }
    // Milliseconds, seconds, minutes, past grace periods and checkpoints, past the trash.
    assert!(waits.iter().all(|n| *n > 200), "{waits:?}");
    // Small, around a block and more, around the threshold, several parts.
    assert!(sizes.iter().all(|n| *n > 1_000), "{sizes:?}");
}

#[test]
fn only_and_without_choose() {
    let all = named("all");
    for kind in &all.kinds {
        let only = Profile { only: vec![(*kind).to_owned()], ..all.clone() };
        let without = Profile { without: vec![(*kind).to_owned()], ..all.clone() };
        assert_eq!((only.check(), without.check()), (Ok(()), Ok(())));
        for seed in 0..60 {
            let fates = counted(&draw(seed, &only));
            assert!(!fates.is_empty() && fates.iter().all(|of| of == kind), "{kind}: {fates:?}");
            // Machines run out, nothing else does.
            assert!(["lose", "duplicate"].contains(kind) || fates.len() >= 6, "{kind}: {fates:?}");
            let fates = counted(&draw(seed, &without));
            assert!(!fates.contains(kind), "{kind}: {fates:?}");
        }
    }
    let both = Profile {
        only: vec!["kill".into(), "slow".into()],
        without: vec!["slow".into()],
        ..all.clone()
    };
    assert!((0..60).all(|seed| counted(&draw(seed, &both)).iter().all(|kind| *kind == "kill")));
}

#[test]
fn names_that_choose_nothing_are_refused() {
    for (profile, name) in [("quiet", "kil"), ("quiet", "power-cut"), ("lies", "remove")] {
        let profile = named(profile);
        let only = Profile { only: vec![name.into()], ..profile.clone() };
        let without = Profile { without: vec![name.into()], ..profile };
        assert!(only.check().unwrap_err().contains(name));
        assert!(without.check().unwrap_err().contains(name));
    }
}

#[test]
fn cuts_together_are_together() {
    let profile = Profile { together: true, only: vec!["power-cut".into()], ..named("fates") };
    let mut cuts = 0;
    for seed in 0..60 {
        for step in draw(seed, &profile).steps {
            if let Step::Fate(Fate::PowerCut { together, .. }) = step {
                assert!(together, "{seed}");
                cuts += 1;
            }
        }
    }
    assert!(cuts > 300);
}
