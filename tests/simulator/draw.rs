//! Draws scripts: what people do, what happens to their machines, how the service behaves.
//!
//! * A script has at least 200 operations on at least 20 paths, and 6 to 12 fates or lies.
//! * Each script draws from a few kinds of fates and lies only, so that two of a kind, and
//!   pairs of kinds, meet.
//! * The drawer keeps a rough idea of what exists, so that most operations hit something.
//! * Sizes are never used twice in a script (see `company`).
//! * What was chosen with `only` and `without` is all that comes: a kind that cannot come any
//!   more (the last machine cannot be lost) gives way to another allowed one, or to none.

mod profile;
mod service;

use std::collections::BTreeSet;

pub use self::profile::Profile;
use super::company::{Act, Fate, Machine, Moment, OtherAct, Path, Script, Settings, Step};
use super::kinds;
use super::random::Draws;

/// Operations of a script: at least, and so many choices from there on.
const OPERATIONS: (u64, u64) = (200, 60);
/// Fates or lies of a script, likewise.
const FATES: (u64, u64) = (6, 7);
/// Most fates or lies. A death that is to come at some call counts twice: it is followed by
/// one at once, for the case that the call never comes.
const MOST_FATES: u64 = FATES.0 + FATES.1 - 1;
/// Files that a script makes, at least.
const FILES: usize = 20;
/// Most machines, clones included.
const MACHINES: Machine = 6;
/// Kinds of fates and lies that one script draws from, at most.
const KINDS: u64 = 4;

const DAY: u64 = 86_400_000;

/// The script of a seed.
pub fn draw(seed: u64, profile: &Profile) -> Script {
    let mut draws = Draws::new(seed ^ 0x5157_0000);
    let machines = profile.machines.0 + draws.below(profile.machines.1);
    let settings = (0..machines).map(|_| settings(&mut draws)).collect();
    let mut drawer = Drawer {
        kinds: few_of(&mut draws, profile.allowed()),
        draws,
        profile,
        machines: machines as Machine,
        alive: (0..machines as Machine).collect(),
        away: BTreeSet::new(),
        sizes: BTreeSet::new(),
        files: Vec::new(),
        folders: vec![String::new()],
        others: Vec::new(),
        slots: BTreeSet::new(),
        backups: BTreeSet::new(),
        fates: 0,
        script: Script { schedule: seed, settings, steps: Vec::new() },
    };
    drawer.run();
    drawer.script
}

fn settings(draws: &mut Draws) -> Settings {
    Settings {
        trash_days: [0, 1, 7, 7][draws.below(4) as usize],
        split_above: 10_000,
        part: 4_096,
        poll_secs: [0, 5, 30, 30][draws.below(4) as usize],
    }
}

fn few_of(draws: &mut Draws, mut kinds: Vec<&'static str>) -> Vec<&'static str> {
    let wanted = 1 + draws.below(KINDS) as usize;
    while kinds.len() > wanted {
        kinds.remove(draws.below(kinds.len() as u64) as usize);
    }
    kinds
}

/// Last components; few, so that operations meet.
const NAMES: [&str; 8] = ["a", "b.txt", "c.tar.gz", "d", "notes.md", "ü", "e", "x y"];

struct Drawer<'p> {
    draws: Draws,
    profile: &'p Profile,
    kinds: Vec<&'static str>,
    /// So many were ever there.
    machines: Machine,
    alive: Vec<Machine>,
    away: BTreeSet<Machine>,
    sizes: BTreeSet<u32>,
    /// What probably exists.
    files: Vec<Path>,
    folders: Vec<Path>,
    others: Vec<Path>,
    slots: BTreeSet<(Machine, u8)>,
    backups: BTreeSet<Machine>,
    /// Fates and lies so far.
    fates: u64,
    script: Script,
}

impl Drawer<'_> {
    fn run(&mut self) {
        for on in 0..self.machines {
            self.push(Step::Fate(Fate::Mount { on }));
        }
        let operations = OPERATIONS.0 + self.draws.below(OPERATIONS.1);
        let fates = match self.kinds.is_empty() {
            true => 0,
            false => FATES.0 + self.draws.below(FATES.1),
        };
        // At which operation each fate comes; none in the first tenth.
        let mut at: Vec<u64> = (0..fates)
            .map(|_| operations / 10 + self.draws.below(operations - operations / 10))
            .collect();
        at.sort_unstable();
        for operation in 0..operations {
            while at.first().is_some_and(|first| *first <= operation) {
                at.remove(0);
                self.fate();
            }
            self.operation(operation);
            self.pause();
        }
        while fates > 0 && self.fates < FATES.0 && self.fate() {
            self.operation(operations);
        }
        self.fill_up();
        for on in self.away.clone() {
            self.push(Step::Fate(Fate::Back { on }));
        }
    }

    /// Makes what is missing of the files of a script, should few have been new.
    fn fill_up(&mut self) {
        let mut made = files(&self.script);
        for number in 0.. {
            if made.len() >= FILES {
                return;
            }
            let at = format!("f{number}");
            if made.insert(at.clone()) {
                let (on, size) = (self.machine(), self.size());
                self.push(Step::Do(on, Act::Write { at, size }));
            }
        }
    }

    fn push(&mut self, step: Step) {
        self.fates += u64::from(kinds::is_counted(&step));
        self.script.steps.push(step);
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.draws.below(bound)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn machine(&mut self) -> Machine {
        let at = self.below(self.alive.len() as u64) as usize;
        self.alive[at]
    }

    fn pause(&mut self) {
        let ms = match self.below(40) {
            0..16 => return,
            16..26 => self.below(50),
            26..34 => 500 + self.below(3_000),
            34..38 => 5_000 + self.below(40_000),
            38 => 60_000 + self.below(240_000),
            _ if self.one_in(3) => match self.below(4) {
                0 => DAY + self.below(DAY),
                1 => 8 * DAY,
                _ => 700_000 + self.below(600_000),
            },
            _ => 120_000,
        };
        self.push(Step::Wait { ms });
    }

    /// A size that no other step uses.
    fn size(&mut self) -> u32 {
        let mut size = match self.below(20) {
            0..9 => 1 + self.below(60),
            9..13 => 500 + self.below(60),
            13..16 => 1_000 + self.below(3_000),
            16..18 => 9_900 + self.below(220),
            _ => 12_000 + self.below(12_000),
        } as u32;
        while !self.sizes.insert(size) {
            size += 1;
        }
        size
    }

    fn name(&mut self) -> Path {
        let folder = self.folders[self.draws.below(self.folders.len() as u64) as usize].clone();
        let name = match self.below(24) {
            0 => "long".repeat(62),
            1..5 => format!("f{}", self.below(12)),
            other => NAMES[other as usize % NAMES.len()].to_owned(),
        };
        if folder.is_empty() { name } else { format!("{folder}/{name}") }
    }

    /// Mostly one that exists.
    fn file(&mut self) -> Path {
        if self.files.is_empty() || self.one_in(12) {
            return self.name();
        }
        let at = self.below(self.files.len() as u64) as usize;
        self.files[at].clone()
    }

    fn made(&mut self, path: &Path) {
        if !self.files.contains(path) && !self.folders.contains(path) {
            self.files.push(path.clone());
        }
    }

    fn gone(&mut self, path: &Path) {
        self.files.retain(|file| file != path);
    }

    fn operation(&mut self, number: u64) {
        if self.profile.others && self.one_in(25) {
            let act = self.other();
            return self.push(Step::Other(act));
        }
        if self.one_in(if self.alive.len() > 1 { 9 } else { 25 }) {
            let on = self.machine();
            let fate = match self.below(6) {
                0 => Fate::Checkpoint { on },
                1 | 2 => Fate::Housekeep { on },
                _ => Fate::Look { on },
            };
            self.push(Step::Fate(fate));
        }
        let on = self.machine();
        // The first ones make what later ones need.
        let act =
            if number < 24 && number.is_multiple_of(2) { self.first(number) } else { self.act(on) };
        self.push(Step::Do(on, act));
    }

    fn first(&mut self, number: u64) -> Act {
        if number % 8 == 6 && self.folders.len() < 4 {
            return self.mkdir();
        }
        let (at, size) = (self.name(), self.size());
        self.made(&at);
        Act::Write { at, size }
    }

    fn mkdir(&mut self) -> Act {
        let below = self.folders[self.draws.below(self.folders.len() as u64) as usize].clone();
        let name = format!("dir{}", self.below(3));
        let at = if below.is_empty() { name } else { format!("{below}/{name}") };
        if at.matches('/').count() < 2 && !self.folders.contains(&at) {
            self.folders.push(at.clone());
        }
        Act::Mkdir { at }
    }

    fn range(&mut self) -> (u32, u32) {
        let from = match self.below(4) {
            0 => 0,
            1 => self.below(600),
            2 => self.below(5_000),
            _ => self.below(20_000),
        };
        let cells = if self.one_in(5) { self.below(6_000) } else { self.below(200) };
        (from as u32, 1 + cells as u32)
    }

    fn act(&mut self, on: Machine) -> Act {
        match self.below(100) {
            0..14 => {
                let (at, size) = (self.name(), self.size());
                self.made(&at);
                Act::Write { at, size }
            }
            14..20 => Act::Write { at: self.file(), size: self.size() },
            20..32 => {
                let (at, (from, cells), size) = (self.file(), self.range(), self.size());
                Act::Edit { at, from, cells, size }
            }
            32..36 => Act::Truncate { at: self.file(), size: self.size() },
            36..39 => {
                let (at, (from, cells), size) = (self.file(), self.range(), self.size());
                Act::Punch { at, from, cells, size }
            }
            39..42 => {
                let (from, to, size) = (self.file(), self.name(), self.size());
                self.made(&to);
                Act::Clone { from, to, size }
            }
            42..49 => {
                let (at, size) = (self.file(), self.size());
                self.made(&at);
                Act::Save { at, size }
            }
            49..57 => self.slot(on),
            57..60 => self.mkdir(),
            60..61 => Act::Rmdir { at: self.folder() },
            61..69 => {
                let at = self.file();
                self.gone(&at);
                Act::Remove { at }
            }
            69..76 => self.rename(),
            76..77 => Act::Exchange { a: self.file(), b: self.file() },
            77..79 => {
                let (from, to) = (self.file(), self.name());
                self.made(&to);
                Act::Link { from, to }
            }
            79..80 => Act::Symlink { at: self.name() },
            80..82 => Act::Chmod { at: self.file(), perm: 0o600 + self.below(64) as u16 },
            82..84 => Act::Xattr { at: self.file(), value: self.below(1_000) as u32 },
            84..92 => Act::Fsync { at: self.file(), wait: !self.one_in(4) },
            92..95 => Act::Sync { wait: !self.one_in(3) },
            _ => Act::Read { at: self.file() },
        }
    }

    fn folder(&mut self) -> Path {
        let at = self.below(self.folders.len() as u64) as usize;
        if self.folders[at].is_empty() { "dir0".into() } else { self.folders[at].clone() }
    }

    fn rename(&mut self) -> Act {
        if self.one_in(6) {
            let (from, to) = (self.folder(), self.name());
            let to = format!("{to}-{}", self.below(3));
            let moved = |path: &Path| path.strip_prefix(&from).map(|rest| format!("{to}{rest}"));
            let files = self.files.iter().map(|f| moved(f).unwrap_or_else(|| f.clone())).collect();
            self.files = files;
            self.folders =
                self.folders.iter().map(|f| moved(f).unwrap_or_else(|| f.clone())).collect();
            return Act::Rename { from, to };
        }
        let (from, to) = (self.file(), if self.one_in(2) { self.name() } else { self.file() });
        self.gone(&from);
        self.made(&to);
        Act::Rename { from, to }
    }

    fn slot(&mut self, on: Machine) -> Act {
        let slot = self.below(2) as u8;
        if self.slots.insert((on, slot)) || self.one_in(6) {
            return Act::Open { at: self.file(), slot };
        }
        match self.below(8) {
            0..4 => {
                let ((from, cells), size) = (self.range(), self.size());
                Act::WriteSlot { slot, from, cells, size }
            }
            4 | 5 => Act::FsyncSlot { slot },
            _ => {
                self.slots.remove(&(on, slot));
                Act::Close { slot }
            }
        }
    }

    fn other(&mut self) -> OtherAct {
        if self.others.is_empty() || self.one_in(3) {
            let at = format!("other{}", self.below(5));
            self.others.push(at.clone());
            return OtherAct::Store { at, size: self.size() };
        }
        let at = self.others[self.draws.below(self.others.len() as u64) as usize].clone();
        match self.one_in(3) {
            true => OtherAct::Delete { at },
            false => OtherAct::Update { at, size: self.size() },
        }
    }

    /// Whether a kind can come now.
    fn is_possible(&self, kind: &str) -> bool {
        match kind {
            "duplicate" => self.machines < MACHINES,
            "lose" => self.alive.len() > 1,
            _ => true,
        }
    }

    /// A kind that can come now: of the few of this script, or else one more that is allowed.
    fn kind(&mut self) -> Option<&'static str> {
        if !self.kinds.iter().any(|kind| self.is_possible(kind)) {
            let mut others = self.profile.allowed();
            others.retain(|kind| self.is_possible(kind));
            let at = self.below(others.len() as u64) as usize;
            self.kinds.push(others.get(at)?);
        }
        loop {
            let kind = self.kinds[self.draws.below(self.kinds.len() as u64) as usize];
            if self.is_possible(kind) {
                return Some(kind);
            }
        }
    }

    /// One more fate or lie, unless there are enough; false: none can come any more.
    fn fate(&mut self) -> bool {
        if self.fates >= MOST_FATES {
            return true;
        }
        let Some(kind) = self.kind() else { return false };
        match kind {
            "kill" | "power-cut" | "unmount" | "lose-cache" => self.death(kind),
            "restore" | "set-back" => self.restore(kind),
            "duplicate" => {
                let on = self.machine();
                self.push(Step::Fate(Fate::Duplicate { on }));
                self.alive.push(self.machines);
                self.machines += 1;
            }
            "lose" => {
                let on = self.machine();
                self.last_acts(on);
                self.alive.retain(|alive| *alive != on);
                self.away.remove(&on);
                self.push(Step::Fate(Fate::Lose { on }));
            }
            "away" => self.away(),
            "clock" => {
                let on = self.machine();
                let ms = [3_600_000, 8 * DAY as i64, 400 * DAY as i64][self.below(3) as usize];
                let ms = if self.one_in(2) { -ms } else { ms };
                self.push(Step::Fate(Fate::Clock { on, ms }));
            }
            service => self.service(service),
        }
        true
    }

    fn moment(&mut self) -> Moment {
        let n = 1 + self.below(12) as u32;
        match self.below(5) {
            0 => Moment::Now,
            1 => Moment::Disk(n),
            2 => Moment::Local(n),
            3 => Moment::Ask(n),
            _ => Moment::Answer(n),
        }
    }

    /// What somebody has just done when it happens.
    fn last_acts(&mut self, on: Machine) {
        for _ in 0..self.below(4) {
            let (at, size) = (self.file(), self.size());
            let act = if self.one_in(2) { Act::Write { at, size } } else { self.act(on) };
            self.push(Step::Do(on, act));
        }
    }

    fn death(&mut self, kind: &str) {
        let (on, mut when) = (self.machine(), self.moment());
        if self.fates + 1 >= MOST_FATES {
            when = Moment::Now;
        }
        if when == Moment::Now {
            self.last_acts(on);
        }
        let fate = match kind {
            "kill" => Fate::Kill { on, when },
            "power-cut" => {
                let together = self.profile.together || self.one_in(2);
                Fate::PowerCut { on, when, together }
            }
            "unmount" => Fate::Unmount { on },
            _ => Fate::LoseCache { on },
        };
        self.push(Step::Fate(fate));
        self.slots.retain(|(of, _)| *of != on);
        // Something goes on until death comes.
        if when != Moment::Now && (kind == "kill" || kind == "power-cut") {
            for _ in 0..1 + self.below(4) {
                let act = self.act(on);
                self.push(Step::Do(on, act));
            }
            self.push(Step::Wait { ms: 3_000 });
            let now = match kind {
                "kill" => Fate::Kill { on, when: Moment::Now },
                _ => Fate::PowerCut { on, when: Moment::Now, together: self.profile.together },
            };
            self.push(Step::Fate(now));
        }
        self.push(Step::Fate(Fate::Mount { on }));
    }

    fn restore(&mut self, kind: &str) {
        let on = self.machine();
        if self.backups.insert(on) {
            self.push(Step::Fate(Fate::Backup { on, slot: 0 }));
            for number in 0..8 + self.below(20) {
                self.operation(100 + number);
                self.pause();
            }
        }
        self.slots.retain(|(of, _)| *of != on);
        let fate = match kind {
            "restore" => Fate::Restore { on, slot: 0 },
            _ => Fate::SetBack { on, slot: 0 },
        };
        self.push(Step::Fate(fate));
        if self.one_in(2) {
            self.push(Step::Fate(Fate::Backup { on, slot: 0 }));
        }
    }

    fn away(&mut self) {
        let on = self.machine();
        if self.away.remove(&on) {
            return self.push(Step::Fate(Fate::Back { on }));
        }
        self.away.insert(on);
        self.push(Step::Fate(Fate::Away { on }));
        if self.one_in(2) {
            for number in 0..6 + self.below(12) {
                self.operation(100 + number);
            }
            let days = [1, 8, 30][self.below(3) as usize];
            self.push(Step::Wait { ms: days * DAY });
            self.away.remove(&on);
            self.push(Step::Fate(Fate::Back { on }));
        }
    }
}

/// The names that a script gives to contents.
fn files(script: &Script) -> BTreeSet<Path> {
    let file = |step: &Step| match step {
        Step::Do(_, Act::Write { at, .. } | Act::Save { at, .. }) => Some(at.clone()),
        Step::Do(_, Act::Clone { to, .. } | Act::Link { to, .. }) => Some(to.clone()),
        _ => None,
    };
    script.steps.iter().filter_map(file).collect()
}

#[cfg(test)]
mod tests;
