//! What is simpler than a step, or than a script of as many steps.
//!
//! Whatever is given back is smaller in a number, in the length of a path, or in the rank of
//! a kind, so that doing it again and again ends.

use std::collections::BTreeSet;

use super::super::company::{Act, Fate, Moment, Path, Script, Service, Step};
use super::super::kinds;

/// Longest name that is read without effort.
const SHORT: usize = 8;

/// Scripts in which one step is simpler, the boldest first.
pub fn of_step(script: &Script, at: usize) -> Vec<Script> {
    let step = &script.steps[at];
    let mut steps = sizes(script, step);
    steps.splice(0..0, kinds_of(step));
    steps.extend(numbers(step));
    let with = |step| {
        let mut simpler = script.clone();
        simpler.steps[at] = step;
        simpler
    };
    steps.into_iter().map(with).collect()
}

/// Scripts that are simpler in several steps at once, or in what comes before them.
pub fn of_whole(script: &Script) -> Vec<Script> {
    let mut simpler = Vec::new();
    for at in 0..script.settings.len() {
        let mut plain = script.clone();
        plain.settings[at].poll_secs = 0;
        simpler.push(plain);
    }
    simpler.extend(shorter_paths(script));
    simpler.retain(|simpler| simpler != script);
    simpler
}

/// Simpler kinds: a content that is written at once, a death between two steps, a wait for
/// the end, a behaviour towards everybody.
fn kinds_of(step: &Step) -> Vec<Step> {
    let mut simpler = step.clone();
    match &mut simpler {
        Step::Do(_, act) => match act {
            Act::Edit { at, size, .. }
            | Act::Truncate { at, size }
            | Act::Punch { at, size, .. }
            | Act::Save { at, size }
            | Act::Clone { to: at, size, .. } => {
                *act = Act::Write { at: std::mem::take(at), size: *size };
            }
            Act::Fsync { wait, .. } | Act::Sync { wait } => *wait = true,
            _ => {}
        },
        Step::Fate(Fate::Kill { when, .. } | Fate::PowerCut { when, .. }) => *when = Moment::Now,
        Step::Service(
            Service::Lag { on, .. } | Service::RollBack { on, .. } | Service::Withhold { on, .. },
        ) => *on = None,
        _ => {}
    }
    if simpler == *step { Vec::new() } else { vec![simpler] }
}

/// Smaller sizes that no other step uses: the least, and half.
fn sizes(script: &Script, step: &Step) -> Vec<Step> {
    let Some(size) = kinds::size(step) else { return Vec::new() };
    let used: BTreeSet<u32> = script.steps.iter().filter_map(kinds::size).collect();
    let free = |size: &u32| !used.contains(size);
    let least = (1..size).find(free);
    let half = (1..=size / 2).rev().find(free);
    let with = |size: u32| {
        let mut smaller = step.clone();
        if let Some(of) = kinds::size_mut(&mut smaller) {
            *of = size;
        }
        smaller
    };
    least.into_iter().chain(half).map(with).collect()
}

/// Smaller numbers, one at a time.
fn numbers(step: &Step) -> Vec<Step> {
    let mut simpler = Vec::new();
    let count = numbers_mut(&mut step.clone()).len();
    for at in 0..count {
        for bold in [true, false] {
            let mut smaller = step.clone();
            for (index, number) in numbers_mut(&mut smaller).into_iter().enumerate() {
                if index == at {
                    number.lessen(bold);
                }
            }
            if smaller != *step {
                simpler.push(smaller);
            }
        }
    }
    simpler
}

/// A number of a step, and the least that makes sense.
enum Number<'s> {
    Short(&'s mut u32, u32),
    Long(&'s mut u64, u64),
}

impl Number<'_> {
    /// To the least at once, or by half.
    fn lessen(self, bold: bool) {
        match self {
            Number::Short(number, least) if *number > least => {
                *number = if bold { least } else { least.max(*number / 2) };
            }
            Number::Long(number, least) if *number > least => {
                *number = if bold { least } else { least.max(*number / 2) };
            }
            _ => {}
        }
    }
}

/// Milliseconds below which a wait is as good as any.
const SOON: u32 = 1_000;

fn numbers_mut(step: &mut Step) -> Vec<Number<'_>> {
    use Number::{Long, Short};
    match step {
        Step::Wait { ms } => vec![Long(ms, u64::from(SOON))],
        Step::Do(
            _,
            Act::Edit { from, cells, .. }
            | Act::Punch { from, cells, .. }
            | Act::WriteSlot { from, cells, .. },
        ) => vec![Short(from, 0), Short(cells, 1)],
        Step::Fate(Fate::Kill { when, .. } | Fate::PowerCut { when, .. }) => match when {
            Moment::Now => Vec::new(),
            Moment::Disk(n) | Moment::Local(n) | Moment::Ask(n) | Moment::Answer(n) => {
                vec![Short(n, 1)]
            }
        },
        Step::Service(service) => of_service(service),
        Step::Do(..) | Step::Other(_) | Step::Fate(_) | Step::Newcomer => Vec::new(),
    }
}

fn of_service(service: &mut Service) -> Vec<Number<'_>> {
    use Number::{Long, Short};
    match service {
        Service::Slow { ms } | Service::Down { ms } | Service::Lag { ms, .. } => {
            vec![Short(ms, SOON)]
        }
        Service::RollBack { ms, .. } => vec![Long(ms, u64::from(SOON))],
        Service::LandsLate { n, ms } => vec![Short(n, 1), Short(ms, SOON)],
        Service::LostAck { n }
        | Service::FailPuts { n }
        | Service::FailGets { n }
        | Service::WrongPage { n }
        | Service::ShortPage { n }
        | Service::Shift { n }
        | Service::Answer { n, .. } => vec![Short(n, 1)],
        Service::Swap { a, b, .. } => vec![Short(a, 0), Short(b, 0)],
        Service::Replay { of, older, .. } => vec![Short(of, 0), Short(older, 0)],
        Service::Cut { of, bytes, .. } => vec![Short(of, 0), Short(bytes, 1)],
        Service::Withhold { of, .. } | Service::Erase { of, .. } => vec![Short(of, 0)],
        Service::CopyAs { of, number, .. } => vec![Short(of, 0), Long(number, 0)],
        Service::Honest
        | Service::Clock { .. }
        | Service::Duplicate
        | Service::Reorder
        | Service::NoSizes
        | Service::Year { .. }
        | Service::Entry { .. } => Vec::new(),
    }
}

/// Scripts without one of the folders, and with a short name in place of a long one.
fn shorter_paths(script: &Script) -> Vec<Script> {
    let mut steps = script.steps.clone();
    let paths: BTreeSet<Path> =
        steps.iter_mut().flat_map(kinds::paths_mut).map(std::mem::take).collect();
    let components: BTreeSet<&str> = paths.iter().flat_map(|path| path.split('/')).collect();
    let folders = paths
        .iter()
        .flat_map(|path| path.match_indices('/').map(|(at, _)| &path[..=at]).collect::<Vec<_>>());
    let folders: BTreeSet<&str> = folders.collect();
    let mut simpler = Vec::new();
    for folder in folders {
        simpler.push(renamed(script, |path| {
            path.strip_prefix(folder).filter(|rest| !rest.is_empty()).map(str::to_owned)
        }));
    }
    let free = ('a'..='z').map(String::from).find(|name| !components.contains(name.as_str()));
    let Some(free) = free else { return simpler };
    for long in components.iter().filter(|name| name.len() > SHORT) {
        simpler.push(renamed(script, |path| {
            let short = |name| if name == *long { free.as_str() } else { name };
            Some(path.split('/').map(short).collect::<Vec<_>>().join("/"))
        }));
    }
    simpler
}

/// The script with other paths, where `rename` gives one.
fn renamed(script: &Script, rename: impl Fn(&str) -> Option<Path>) -> Script {
    let mut out = script.clone();
    for path in out.steps.iter_mut().flat_map(kinds::paths_mut) {
        if let Some(other) = rename(path) {
            *path = other;
        }
    }
    out
}
