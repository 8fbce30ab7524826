//! The reference: a company in memory that keeps every promise of design D10, simply.
//!
//! Each machine knows records; its tree is a function of them (`tree`). What it does makes
//! records, which wait in its journal until they are published all at once; what it hears are
//! the records that others published. A record has one number for ever, so that it may be
//! published twice, by a clone or after a restore, and counts once.

mod acts;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use self::tree::original_name;
use self::tree::{Change, Id, Kind, ROOT, Record, Records, Tree};
use super::company::{
    Abilities, Company, Entry, Event, Failure, Fate, Final, Machine as Number, Moment, Observer,
    OtherAct, Outcome, Path, Script, Service, Step, Stored, View,
};
use super::kinds;
use super::planted::{Lies, Planted};
use super::random::{Draws, seed_of};

/// Younger than this, what is only here may be lost to a power cut.
const DURABLE_MS: u64 = 100;

/// One machine.
#[derive(Clone, Default)]
struct Machine {
    mounted: bool,
    lost: bool,
    away: bool,
    poll_secs: u32,
    heard: Records,
    /// Made here, and not published.
    journal: Records,
    slots: BTreeMap<u8, Id>,
    backups: BTreeMap<u8, (Records, Records)>,
    doom: Option<(usize, u32, Option<bool>)>,
}

impl Machine {
    fn knows(&self) -> Records {
        let mut all = self.heard.clone();
        all.extend(self.journal.iter().map(|(id, record)| (*id, record.clone())));
        all
    }
}

/// See the module's header.
pub struct Reference {
    pub(super) planted: Option<Planted>,
    machines: Vec<Machine>,
    vault: Records,
    /// When each record came there.
    published: BTreeMap<Id, u64>,
    next: Id,
    now: u64,
    draws: Draws,
    /// Objects of the other client, by path.
    others: BTreeMap<Path, Vec<Id>>,
    /// Until when the service is not reached.
    down: u64,
    /// What leaves something out, for whom, and all that came to the vault after which time.
    lie: Option<(usize, Option<Number>, u64)>,
    /// What the service has done so far.
    lies: Lies,
    was_down: bool,
    events: Vec<Event>,
}

impl Reference {
    /// The company of a script; with a planted fault it breaks one promise.
    pub fn new(script: &Script, planted: Option<Planted>) -> Self {
        let machine = |poll_secs| Machine { poll_secs, ..Machine::default() };
        Self {
            planted,
            machines: script.settings.iter().map(|s| machine(s.poll_secs)).collect(),
            vault: Records::new(),
            published: BTreeMap::new(),
            next: 1,
            now: 0,
            draws: Draws::new(seed_of(&[script.schedule, 5])),
            others: BTreeMap::new(),
            down: 0,
            lie: None,
            lies: Lies::default(),
            was_down: false,
            events: Vec::new(),
        }
    }

    fn record(&mut self, on: usize, change: Change) -> Id {
        let id = self.next;
        self.next += 1;
        let record = Arc::new(Record { id, at: self.now, on, change });
        self.machines[on].journal.insert(id, record);
        id
    }

    fn is_reached(&self, on: usize) -> bool {
        !self.machines[on].away && self.now >= self.down
    }

    fn publish(&mut self, on: usize) -> Option<Failure> {
        if !self.is_reached(on) {
            return Some(Failure::TimedOut);
        }
        let mut journal = std::mem::take(&mut self.machines[on].journal);
        self.store(&journal);
        self.machines[on].heard.append(&mut journal);
        None
    }

    /// A planted report of an honest service.
    fn cry(&mut self) {
        if self.planted == Some(Planted::CriesWhenSlow) {
            let text = "the vault lacks a segment".to_owned();
            self.events.push(Event::Reported { on: 0, text });
        }
    }

    fn store(&mut self, records: &Records) {
        for (id, record) in records {
            self.published.entry(*id).or_insert(self.now);
            self.vault.insert(*id, record.clone());
        }
    }

    /// What a new machine shows.
    fn newcomer(&self) -> Result<View, String> {
        if self.now < self.down {
            return Err("the service is down".into());
        }
        let until = match self.lie {
            Some((_, None, until)) => until,
            _ => u64::MAX,
        };
        let mut records = self.vault.clone();
        records.retain(|id, _| self.published[id] <= until);
        let mut view = self.view(&records);
        super::planted::spoil_newcomer(self.planted, &mut view);
        Ok(view)
    }

    /// Begins to hide what came to the vault after a time.
    fn hide(&mut self, step: usize, service: &Service) {
        let times: Vec<u64> = self.published.values().copied().collect();
        self.lie = match service {
            Service::RollBack { on, ms } => Some((step, *on, self.now.saturating_sub(*ms))),
            Service::Withhold { on, of, .. } => {
                let at = *of as usize % times.len().max(1);
                Some((step, *on, times.get(at).copied().unwrap_or_default()))
            }
            _ => return,
        };
        self.lies.hid = true;
    }

    /// Takes in what others published. A machine that knows of something that the service
    /// leaves out says so.
    fn hear(&mut self, on: usize) {
        if self.is_reached(on) {
            if let Some((step, of, _)) = self.lie
                && of.is_none_or(|of| usize::from(of) == on)
                && !self.machines[on].heard.is_empty()
            {
                self.events.push(Event::Met { step });
                if self.planted != Some(Planted::Silence) {
                    let text = "the vault lacks what it had".to_owned();
                    self.events.push(Event::Reported { on: on as Number, text });
                }
                return;
            }
            let new = self.vault.iter().map(|(id, record)| (*id, record.clone()));
            self.machines[on].heard.extend(new);
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now += ms;
        for on in 0..self.machines.len() {
            let machine = &self.machines[on];
            if !machine.mounted || ms < 2_000 {
                continue;
            }
            drop(self.publish(on));
            if self.machines[on].poll_secs > 0
                && ms > u64::from(self.machines[on].poll_secs) * 1_000
            {
                self.hear(on);
            }
        }
    }

    /// A machine's program ends; open files are closed by that, unacknowledged.
    fn die(&mut self, on: usize, by: usize, power: Option<bool>) {
        self.machines[on].mounted = false;
        self.machines[on].slots.clear();
        self.machines[on].doom = None;
        if power.is_some() {
            let young: Vec<Id> = self.machines[on]
                .journal
                .values()
                .filter(|record| {
                    let old = self.planted == Some(Planted::CutTakesOld);
                    record.at + DURABLE_MS > self.now || old
                })
                .map(|record| record.id)
                .collect();
            let kept = self.draws.below(young.len() as u64 + 1) as usize;
            // All of an act goes, or none.
            if let Some(first) = young.get(kept).map(|id| self.machines[on].journal[id].at) {
                self.machines[on].journal.retain(|_, record| record.at < first);
            }
        }
        self.events.push(Event::Died { on: on as Number, by });
    }

    fn other(&mut self, number: usize, act: &OtherAct) {
        let (OtherAct::Store { at, .. } | OtherAct::Update { at, .. } | OtherAct::Delete { at }) =
            act;
        let stamp = number as u32 + 1;
        let mut made = Vec::new();
        let mut change = |this: &mut Self, change| {
            let id = this.next;
            this.next += 1;
            made.push(Arc::new(Record { id, at: this.now, on: usize::MAX, change }));
            id
        };
        if let OtherAct::Update { .. } | OtherAct::Delete { .. } = act
            && let Some(entry) = self.others.get_mut(at).and_then(Vec::pop)
        {
            let seen = Tree::of(&self.vault).versions.keys().copied().collect();
            change(self, Change::Remove { entry, seen });
        }
        if let OtherAct::Store { size, .. } | OtherAct::Update { size, .. } = act {
            let object = change(self, Change::Object(Kind::File));
            let content = vec![super::company::Cells::Of(stamp, *size)];
            change(self, Change::Version { object, from: None, content });
            let entry = change(self, Change::Entry { object, parent: ROOT, name: at.clone() });
            self.others.entry(at.clone()).or_default().push(entry);
        }
        self.store(&made.into_iter().map(|record| (record.id, record)).collect());
    }

    fn fate(&mut self, number: usize, fate: &Fate) -> Option<Failure> {
        let on = usize::from(kinds::fate_machine(fate));
        if self.machines.get(on).is_none_or(|machine| machine.lost) {
            return Some(Failure::NotMounted);
        }
        let mounted = self.machines[on].mounted;
        match fate {
            Fate::Mount { .. } if mounted => {
                return Some(Failure::Refused { errno: "EBUSY".into() });
            }
            Fate::Mount { .. } => {
                if self.planted == Some(Planted::MountRefused) && self.draws.below(3) == 0 {
                    return Some(Failure::Broken { why: "it does not".into() });
                }
                self.machines[on].mounted = true;
                self.hear(on);
            }
            Fate::Unmount { .. } if mounted => {
                if self.planted == Some(Planted::UnmountForgets) {
                    self.machines[on].journal.clear();
                }
                if let Some(failure) = self.publish(on) {
                    self.machines[on].mounted = false;
                    self.machines[on].slots.clear();
                    return Some(failure);
                }
                self.machines[on].mounted = false;
                self.machines[on].slots.clear();
            }
            Fate::Kill { when: Moment::Now, .. } if mounted => self.die(on, number, None),
            Fate::PowerCut { when: Moment::Now, together, .. } if mounted => {
                self.die(on, number, Some(*together));
            }
            Fate::Kill { when, .. } if mounted => self.doom(on, number, *when, None),
            Fate::PowerCut { when, together, .. } if mounted => {
                self.doom(on, number, *when, Some(*together));
            }
            Fate::LoseCache { .. } => self.die(on, number, None),
            Fate::Backup { slot, .. } => {
                let machine = &mut self.machines[on];
                let copy = (machine.heard.clone(), machine.journal.clone());
                machine.backups.insert(*slot, copy);
            }
            Fate::Restore { slot, .. } | Fate::SetBack { slot, .. } => {
                let machine = &mut self.machines[on];
                let Some((heard, journal)) = machine.backups.get(slot).cloned() else {
                    return Some(Failure::Refused { errno: "ENOENT".into() });
                };
                (machine.heard, machine.journal, machine.mounted) = (heard, journal, true);
                machine.slots.clear();
                machine.doom = None;
                self.hear(on);
            }
            Fate::Duplicate { .. } => {
                let mut twin = self.machines[on].clone();
                twin.away = false;
                twin.slots.clear();
                twin.doom = None;
                twin.mounted = true;
                self.machines.push(twin);
            }
            Fate::Lose { .. } => {
                self.machines[on].mounted = false;
                self.machines[on].lost = true;
            }
            Fate::Away { .. } => self.machines[on].away = true,
            Fate::Back { .. } => self.machines[on].away = false,
            Fate::Look { .. } if mounted => {
                self.hear(on);
                if self.planted == Some(Planted::FalseAlarm) {
                    let text = "the vault lacks a segment".to_owned();
                    self.events.push(Event::Reported { on: on as Number, text });
                }
            }
            Fate::Clock { .. } | Fate::Housekeep { .. } | Fate::Checkpoint { .. } if mounted => {}
            Fate::Clock { .. } => {}
            _ => return Some(Failure::NotMounted),
        }
        None
    }

    fn doom(&mut self, on: usize, by: usize, when: Moment, power: Option<bool>) {
        let left = match when {
            Moment::Now => 1,
            Moment::Disk(n) | Moment::Local(n) | Moment::Ask(n) | Moment::Answer(n) => n,
        };
        self.machines[on].doom = Some((by, left, power));
    }

    /// A tree for the judge.
    fn view(&self, records: &Records) -> View {
        let tree = Tree::of(records);
        let mut view = View::new();
        let mut folders = vec![(ROOT, String::new())];
        let mut seen = BTreeSet::new();
        while let Some((folder, path)) = folders.pop() {
            if !seen.insert(folder) {
                continue;
            }
            for (name, place) in tree.names.get(&folder).into_iter().flatten() {
                let path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
                let object = &tree.objects[&place.object];
                let (perm, xattr) = (object.perm, object.xattr);
                let entry = match object.kind {
                    Kind::Dir(made) => {
                        folders.push((place.object, path.clone()));
                        Entry::Dir { made: Some(made), perm, xattr }
                    }
                    Kind::Symlink(made) => Entry::Symlink { made: Some(made) },
                    Kind::File => Entry::File {
                        content: place
                            .version
                            .map(|v| tree.versions[&v].1.clone())
                            .unwrap_or_default(),
                        perm,
                        xattr,
                        links: tree.links.get(&place.object).copied().unwrap_or(1),
                        token: place.version.map(token),
                    },
                };
                view.insert(path, entry);
            }
        }
        view
    }
}

fn token(version: Id) -> String {
    format!("t{version}")
}

impl Company for Reference {
    fn abilities(&self) -> Abilities {
        Abilities { horizon: true, reports: true }
    }

    fn step(&mut self, number: usize, step: &Step) -> Outcome {
        let mut outcome = Outcome::default();
        self.now += 1;
        match step {
            Step::Do(on, act) => self.act(number, usize::from(*on), act, &mut outcome),
            Step::Other(act) => self.other(number, act),
            Step::Fate(fate) => outcome.failure = self.fate(number, fate),
            Step::Service(service) => match service {
                Service::Honest => (self.down, self.lie) = (0, None),
                Service::Down { ms } => {
                    self.down = self.now + u64::from(*ms);
                    self.was_down = true;
                }
                Service::Slow { .. } | Service::Lag { .. } => self.cry(),
                Service::RollBack { .. } | Service::Withhold { .. } => self.hide(number, service),
                _ => self.lies.lied |= kinds::is_lie(service),
            },
            Step::Newcomer => outcome.newcomer = Some(self.newcomer()),
            Step::Wait { ms } => self.pass(*ms),
        }
        outcome.at = self.now;
        outcome.events = std::mem::take(&mut self.events);
        outcome
    }

    fn finish(&mut self) -> Final {
        (self.down, self.lie) = (0, None);
        for on in 0..self.machines.len() {
            self.machines[on].away = false;
            if !self.machines[on].lost {
                self.machines[on].mounted = true;
                drop(self.publish(on));
            }
        }
        for on in 0..self.machines.len() {
            self.hear(on);
        }
        let mut views = BTreeMap::new();
        for (on, machine) in self.machines.iter().enumerate() {
            if !machine.lost {
                views.insert(Observer::Machine(on as Number), Ok(self.view(&machine.heard)));
            }
        }
        let fresh = self.view(&self.vault);
        let named = fresh.values().filter_map(|entry| match entry {
            Entry::File { token, .. } => token.clone(),
            _ => None,
        });
        let stored = named.map(|token| (token, Stored::File)).collect();
        views.insert(Observer::Fresh, Ok(fresh));
        let events = std::mem::take(&mut self.events);
        let mut ending = Final { views, stored, events };
        super::planted::spoil_ending(self.planted, self.lies, &mut ending);
        ending
    }

    fn original_name(&self, name: &str) -> Option<String> {
        original_name(name)
    }
}
