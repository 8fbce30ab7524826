//! What was done, in the words of the promises: versions, places, acknowledgements.

use std::collections::{BTreeMap, BTreeSet};

use super::super::company::{
    Act, Content, Event, Failure, Fate, Machine, OtherAct, Outcome, Path, Script, Service, Stamp,
    Step, What,
};
use super::super::kinds;
use super::contents;
use super::finding::{Clause, Finding};

/// What is acknowledged here survives a power cut from this age on, in milliseconds.
const DURABLE_MS: u64 = 100;
const DAY: u64 = 86_400_000;

/// Whether something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Did {
    /// It was refused: nothing happened.
    Not,
    /// It may have, in part too.
    Perhaps,
    /// It did, and this machine keeps it.
    Here,
    /// It did, and the vault has it.
    InVault,
}

/// A step that somebody took.
#[derive(Clone, Debug)]
pub struct Deed {
    pub step: usize,
    /// None: another client.
    pub on: Option<Machine>,
    pub act: Act,
    pub shown: Vec<(Path, What)>,
    pub did: Did,
    /// The step by which the vault was said to have it.
    pub vault_at: Option<usize>,
    pub at: u64,
}

/// What a step left in a file.
#[derive(Clone, Debug)]
pub struct Version {
    pub stamp: Stamp,
    pub on: Option<Machine>,
    pub kind: &'static str,
    /// What it grew from.
    pub from: Option<Stamp>,
    /// Of a clone: what it was copied from.
    pub source: Option<Stamp>,
    pub act: Act,
    pub content: Content,
    pub path: Path,
    pub did: Did,
    /// The step by which the vault was said to have it.
    pub vault_at: Option<usize>,
    pub at: u64,
}

/// See the module's header.
pub struct History {
    pub script: Script,
    pub deeds: Vec<Deed>,
    pub versions: BTreeMap<Stamp, Version>,
    by_size: BTreeMap<u32, Stamp>,
    /// For each open slot the path it was opened by, and writes that nobody acknowledged.
    slots: BTreeMap<(Machine, u8), (Path, Vec<Stamp>)>,
    /// For each machine and slot, the step of its last backup.
    backups: BTreeMap<(Machine, u8), usize>,
    /// The last fate or lie, per machine and for all.
    last_fate: BTreeMap<Option<Machine>, &'static str>,
    /// When a token was first replaced or removed somewhere.
    replaced: BTreeMap<String, u64>,
    /// Steps that were not waited for: the machine, and what `fsync` was about.
    open: BTreeMap<usize, (Machine, Option<Stamp>)>,
    /// The step that is being taken in.
    now: usize,
    /// Behaviours in force that may fail a call.
    pub failing: bool,
    away: BTreeSet<Machine>,
    /// Steps that were refused.
    refused: BTreeSet<Stamp>,
    pub lied: bool,
    /// Lies that left something out, met by somebody, of which nobody has said anything.
    pub unreported: BTreeSet<usize>,
    pub met: BTreeSet<usize>,
    pub findings: Vec<Finding>,
    /// Machines that were set back, copied or lost: others may have seen what they forgot.
    pub odd_machines: bool,
}

impl History {
    pub fn new(script: &Script) -> Self {
        Self {
            script: script.clone(),
            deeds: Vec::new(),
            versions: BTreeMap::new(),
            by_size: BTreeMap::new(),
            slots: BTreeMap::new(),
            backups: BTreeMap::new(),
            last_fate: BTreeMap::new(),
            replaced: BTreeMap::new(),
            open: BTreeMap::new(),
            now: 0,
            failing: false,
            away: BTreeSet::new(),
            refused: BTreeSet::new(),
            lied: false,
            unreported: BTreeSet::new(),
            met: BTreeSet::new(),
            findings: Vec::new(),
            odd_machines: false,
        }
    }

    /// Takes in a step and what it did.
    pub fn note(&mut self, number: usize, step: &Step, outcome: &Outcome) {
        self.now = number;
        match step {
            Step::Do(on, act) => self.deed(number, *on, act, outcome),
            Step::Other(act) => self.other(number, act, outcome.at),
            Step::Fate(fate) => self.fate(number, fate, outcome),
            Step::Service(service) => self.service(service),
            // Said by `newcomer`.
            Step::Newcomer | Step::Wait { .. } => {}
        }
        for event in &outcome.events {
            self.event(event, outcome.at);
        }
    }

    /// The version that a size says.
    pub fn of_size(&self, size: u32) -> Option<&Version> {
        self.versions.get(self.by_size.get(&size)?)
    }

    /// The size that a version is known by.
    pub fn size_of(&self, stamp: Stamp) -> Option<u32> {
        self.versions.get(&stamp).map(|version| contents::len(&version.content))
    }

    /// Whether `newer` is `older` or grew from it.
    pub fn includes(&self, newer: Stamp, older: Stamp) -> bool {
        let mut at = Some(newer);
        while let Some(stamp) = at {
            if stamp == older {
                return true;
            }
            at = self.versions.get(&stamp).and_then(|version| version.from);
        }
        false
    }

    /// The kind of the last fate or lie that touched a machine.
    pub fn fate_of(&self, on: Option<Machine>) -> Option<&'static str> {
        self.last_fate.get(&on).or_else(|| self.last_fate.get(&None)).copied()
    }

    pub fn find(&mut self, clause: Clause, act: &'static str, on: Option<Machine>, text: String) {
        let fate = self.fate_of(on);
        self.findings.push(Finding { clause, act, fate, text });
    }

    fn shown_version(&self, what: Option<&(Path, What)>) -> Option<Stamp> {
        let Some((path, What::File { size, .. })) = what else { return None };
        self.by_size.get(size).copied().or_else(|| self.left_half_done(path))
    }

    /// The version that is shown, if it is one that a step left behind as a whole.
    fn whole_version(&self, what: Option<&(Path, What)>) -> Option<Stamp> {
        match what {
            Some((_, What::File { size, .. })) => self.by_size.get(size).copied(),
            _ => None,
        }
    }

    /// The last step that may have left a file of this name half done.
    fn left_half_done(&self, path: &str) -> Option<Stamp> {
        let last = |path: &str| path.rsplit('/').next().map(str::to_owned);
        // One that was refused has done nothing, unless it is of several steps.
        let refused = |v: &&Version| {
            self.refused.contains(&v.stamp)
                && !matches!(v.act, Act::Save { .. } | Act::Clone { .. })
        };
        let perhaps = self.versions.values().rev().filter(|v| v.did == Did::Perhaps && !refused(v));
        let several: Vec<&Version> =
            perhaps.filter(|v| !matches!(v.act, Act::Truncate { .. })).collect();
        // Its folder may have moved, and it may have come here from another name.
        let here = several.iter().find(|v| v.path == path);
        let named = here.or_else(|| several.iter().find(|v| last(&v.path) == last(path)));
        named.map(|version| version.stamp)
    }

    fn deed(&mut self, step: usize, on: Machine, act: &Act, outcome: &Outcome) {
        let kind = kinds::act_kind(act);
        let did = match &outcome.failure {
            None => Did::Here,
            Some(Failure::NotMounted) => return,
            Some(Failure::Refused { .. }) => {
                self.refused.insert(step as Stamp + 1);
                Did::Perhaps
            }
            Some(Failure::Broken { why }) if why.contains("never answers") => {
                self.find(Clause::NeverAnswers, kind, Some(on), format!("step {step}: {act:?}"));
                Did::Perhaps
            }
            Some(_) => Did::Perhaps,
        };
        for (path, what) in &outcome.shown {
            if let What::Odd { why } = what
                && outcome.failure != Some(Failure::Died)
            {
                let text = format!("step {step}: {path:?} shows {why}");
                self.find(Clause::NobodyMade, kind, Some(on), text);
            }
        }
        self.version(step, on, act, outcome, did);
        self.slot(on, act, outcome);
        if did >= Did::Here {
            self.acknowledge(step, on, act, outcome);
        } else if let Act::Fsync { .. } | Act::Sync { .. } | Act::FsyncSlot { .. } = act {
            self.failed_sync(step, on, kind, outcome.failure.as_ref());
        }
        let (shown, at, machine) = (outcome.shown.clone(), outcome.at, on);
        self.promise(act, &shown, at);
        let (on, act) = (Some(on), act.clone());
        self.deeds.push(Deed { step, on, act, shown, did, vault_at: None, at });
        if let Some(content) = &outcome.read {
            self.read(step, machine, content, &outcome.shown);
        }
    }

    fn version(&mut self, step: usize, on: Machine, act: &Act, outcome: &Outcome, did: Did) {
        let stamp = step as Stamp + 1;
        let (size, from, source, path) = match act {
            Act::Write { at, size }
            | Act::Edit { at, size, .. }
            | Act::Truncate { at, size }
            | Act::Punch { at, size, .. }
            | Act::Save { at, size } => {
                (*size, self.shown_version(outcome.shown.first()), None, at.clone())
            }
            Act::Clone { to, size, .. } => {
                let source = self.shown_version(outcome.shown.first());
                (*size, self.shown_version(outcome.shown.get(1)), source, to.clone())
            }
            Act::WriteSlot { slot, size, .. } => match self.slots.get_mut(&(on, *slot)) {
                Some((path, writes)) => {
                    writes.extend((did >= Did::Here).then_some(stamp));
                    let path = path.clone();
                    let shown = outcome.shown.first().map(|(_, what)| (path.clone(), what.clone()));
                    (*size, self.shown_version(shown.as_ref()), None, path)
                }
                None => return,
            },
            _ => return,
        };
        let none = Content::new();
        let base = from.and_then(|from| self.versions.get(&from)).map_or(&none, |v| &v.content);
        let other = source.and_then(|from| self.versions.get(&from)).map_or(&none, |v| &v.content);
        let Some(content) = contents::apply(act, stamp, base, other) else { return };
        // Not acknowledged before its slot is.
        let did = if matches!(act, Act::WriteSlot { .. }) { Did::Perhaps } else { did };
        self.by_size.insert(size, stamp);
        let (kind, act, at) = (kinds::act_kind(act), act.clone(), outcome.at);
        let on = Some(on);
        let vault_at = None;
        let version =
            Version { stamp, on, kind, from, source, act, content, path, did, vault_at, at };
        self.versions.insert(stamp, version);
    }

    fn slot(&mut self, on: Machine, act: &Act, outcome: &Outcome) {
        if outcome.failure.is_some() {
            return;
        }
        match act {
            Act::Open { at, slot } => {
                self.close(on, *slot, Did::Here);
                self.slots.insert((on, *slot), (at.clone(), Vec::new()));
            }
            Act::Close { slot } => {
                self.close(on, *slot, Did::Here);
                self.slots.remove(&(on, *slot));
            }
            Act::FsyncSlot { slot } => self.close(on, *slot, Did::InVault),
            _ => {}
        }
    }

    /// The last write through a slot is acknowledged; earlier ones with it.
    fn close(&mut self, on: Machine, slot: u8, did: Did) {
        let Some((_, writes)) = self.slots.get_mut(&(on, slot)) else { return };
        if let Some(last) = std::mem::take(writes).pop() {
            self.raise(last, did);
        }
    }

    fn raise(&mut self, stamp: Stamp, did: Did) {
        if let Some(version) = self.versions.get_mut(&stamp) {
            version.did = version.did.max(did);
            if did == Did::InVault {
                version.vault_at.get_or_insert(self.now);
            }
        }
    }

    fn acknowledge(&mut self, step: usize, on: Machine, act: &Act, outcome: &Outcome) {
        match act {
            Act::Fsync { wait: true, .. } => {
                if let Some(stamp) = self.whole_version(outcome.shown.first()) {
                    self.raise(stamp, Did::InVault);
                }
            }
            Act::Sync { wait: true } => self.all_in_vault(on, step),
            Act::Fsync { wait: false, .. } => {
                let stamp = self.whole_version(outcome.shown.first());
                self.open.insert(step, (on, stamp));
            }
            Act::Sync { wait: false } => drop(self.open.insert(step, (on, None))),
            _ => {}
        }
    }

    /// What a machine did before a step, and kept, is in the vault.
    fn all_in_vault(&mut self, on: Machine, before: usize) {
        let versions = self.versions.values_mut();
        for version in versions.filter(|v| v.on == Some(on) && (v.stamp as usize) <= before) {
            if version.did == Did::Here {
                (version.did, version.vault_at) = (Did::InVault, Some(self.now));
            }
        }
        for deed in self.deeds.iter_mut().filter(|d| d.on == Some(on) && d.step < before) {
            if deed.did == Did::Here {
                (deed.did, deed.vault_at) = (Did::InVault, Some(self.now));
            }
        }
    }

    fn failed_sync(
        &mut self,
        step: usize,
        on: Machine,
        kind: &'static str,
        failure: Option<&Failure>,
    ) {
        let why = match failure {
            Some(Failure::Broken { why }) => why.as_str(),
            // All that a script has to send is sent within far less than any patience.
            Some(Failure::TimedOut) => "it timed out",
            _ => return,
        };
        if !self.failing && !self.lied && !self.away.contains(&on) {
            self.find(Clause::FsyncFails, kind, Some(on), format!("step {step}: {why}"));
        }
    }

    /// What an act replaces or removes is kept for the time of the trash.
    fn promise(&mut self, act: &Act, shown: &[(Path, What)], at: u64) {
        let taken = match act {
            Act::Remove { .. }
            | Act::Write { .. }
            | Act::Edit { .. }
            | Act::Truncate { .. }
            | Act::Punch { .. }
            | Act::Save { .. } => shown.first(),
            Act::Rename { .. } | Act::Clone { .. } => shown.get(1),
            _ => None,
        };
        if let Some((_, What::File { token: Some(token), .. })) = taken {
            self.replaced.entry(token.clone()).or_insert(at);
        }
    }

    fn read(&mut self, step: usize, on: Machine, content: &Content, shown: &[(Path, What)]) {
        let path = shown.first().map(|(path, _)| path.clone()).unwrap_or_default();
        if let Some((clause, kind, text)) = self.check_content(content) {
            self.find(clause, kind, Some(on), format!("step {step}: read of {path:?}: {text}"));
        }
    }

    fn other(&mut self, number: usize, act: &OtherAct, at: u64) {
        let stamp = number as Stamp + 1;
        let path = match act {
            OtherAct::Store { at, .. } | OtherAct::Update { at, .. } | OtherAct::Delete { at } => {
                at
            }
        };
        let last = self.versions.values().filter(|v| v.on.is_none() && v.path == *path);
        let last = last.map(|v| v.stamp).max();
        let size = match act {
            OtherAct::Store { size, .. } | OtherAct::Update { size, .. } => *size,
            OtherAct::Delete { .. } => {
                let shown =
                    last.and_then(|s| self.versions.get(&s)).map(|v| contents::len(&v.content));
                let what = shown.map_or(What::Absent, |size| What::File { size, token: None });
                let (act, shown) = (Act::Remove { at: path.clone() }, vec![(path.clone(), what)]);
                let (step, did, vault_at) = (number, Did::InVault, Some(number));
                self.deeds.push(Deed { step, on: None, act, shown, did, vault_at, at });
                return;
            }
        };
        let from = if matches!(act, OtherAct::Update { .. }) { last } else { None };
        let act = Act::Write { at: path.clone(), size };
        self.by_size.insert(size, stamp);
        let version = Version {
            stamp,
            on: None,
            kind: "other",
            from,
            source: None,
            content: contents::whole(stamp, size),
            path: path.clone(),
            did: Did::InVault,
            vault_at: Some(number),
            at,
            act: act.clone(),
        };
        self.versions.insert(stamp, version);
        let shown = vec![(path.clone(), What::Absent)];
        let (step, did, vault_at) = (number, Did::InVault, Some(number));
        self.deeds.push(Deed { step, on: None, act, shown, did, vault_at, at });
    }

    fn fate(&mut self, number: usize, fate: &Fate, outcome: &Outcome) {
        let on = Some(kinds::fate_machine(fate));
        if kinds::is_counted(&Step::Fate(fate.clone())) {
            self.last_fate.insert(on, kinds::fate_kind(fate));
        }
        match fate {
            Fate::Unmount { on } if outcome.failure.is_none() => {
                let slots: Vec<u8> =
                    self.slots.keys().filter(|k| k.0 == *on).map(|k| k.1).collect();
                slots.into_iter().for_each(|slot| self.close(*on, slot, Did::Here));
                self.drop_slots(*on);
                self.all_in_vault(*on, number);
            }
            Fate::Mount { on } => {
                if let Some(Failure::Broken { why }) = &outcome.failure {
                    let fine = self.lied || self.failing || self.away.contains(on);
                    if !fine {
                        self.find(Clause::CannotMount, "mount", Some(*on), why.clone());
                    }
                }
            }
            Fate::Backup { on, slot } => drop(self.backups.insert((*on, *slot), number)),
            Fate::Restore { on, slot } | Fate::SetBack { on, slot } => {
                if let Some(at) = self.backups.get(&(*on, *slot)).copied() {
                    self.odd_machines = true;
                    self.forget_since(*on, at);
                }
            }
            Fate::Lose { on } => {
                self.odd_machines = true;
                self.forget_since(*on, 0);
            }
            Fate::Duplicate { .. } => self.odd_machines = true,
            Fate::Away { on } => drop(self.away.insert(*on)),
            Fate::Back { on } => drop(self.away.remove(on)),
            Fate::LoseCache { on } => self.drop_slots(*on),
            _ => {}
        }
        if let Some(Failure::Broken { why }) = &outcome.failure
            && why.contains("never")
        {
            let kind = kinds::fate_kind(fate);
            self.find(Clause::NeverAnswers, kind, on, format!("step {number}: {why}"));
        }
    }

    /// A machine's program ended: what was open was not acknowledged.
    fn drop_slots(&mut self, on: Machine) {
        self.slots.retain(|(of, _), _| *of != on);
        self.open.retain(|_, (of, _)| *of != on);
    }

    /// What a machine did from a step on, and the vault does not have, may be gone.
    fn forget_since(&mut self, on: Machine, step: usize) {
        self.drop_slots(on);
        for version in self.versions.values_mut().filter(|v| v.on == Some(on)) {
            if version.stamp as usize > step && version.did == Did::Here {
                version.did = Did::Perhaps;
            }
        }
        for deed in self.deeds.iter_mut().filter(|d| d.on == Some(on) && d.step >= step) {
            if deed.did == Did::Here {
                deed.did = Did::Perhaps;
            }
        }
    }

    fn power_cut(&mut self, on: Machine, at: u64) {
        self.drop_slots(on);
        let young = |then: u64| then.saturating_add(DURABLE_MS) >= at;
        for version in self.versions.values_mut().filter(|v| v.on == Some(on)) {
            if version.did == Did::Here && young(version.at) {
                version.did = Did::Perhaps;
            }
        }
        for deed in self.deeds.iter_mut().filter(|d| d.on == Some(on)) {
            if deed.did == Did::Here && young(deed.at) {
                deed.did = Did::Perhaps;
            }
        }
    }

    fn service(&mut self, service: &Service) {
        let kind = kinds::service_kind(service);
        match service {
            Service::Honest => self.failing = false,
            _ => {
                self.last_fate.clear();
                self.last_fate.insert(None, kind);
                self.failing = true;
                self.lied |= kinds::is_lie(service);
            }
        }
    }

    fn event(&mut self, event: &Event, now: u64) {
        match event {
            Event::Ended { step, failure } => {
                let Some((on, stamp)) = self.open.remove(step) else { return };
                match (failure, stamp) {
                    (None, Some(stamp)) => self.raise(stamp, Did::InVault),
                    (None, None) => {
                        let sync = matches!(
                            self.script.steps.get(*step),
                            Some(Step::Do(_, Act::Sync { .. }))
                        );
                        if sync {
                            self.all_in_vault(on, *step);
                        }
                    }
                    (Some(_), _) => self.failed_sync(*step, on, "fsync", failure.as_ref()),
                }
            }
            Event::Died { on, by } => match self.script.steps.get(*by) {
                Some(Step::Fate(Fate::PowerCut { .. })) => self.power_cut(*on, now),
                _ => self.drop_slots(*on),
            },
            Event::Reported { on, text } => {
                self.unreported.clear();
                if !self.lied {
                    self.find(Clause::FalseAlarm, "-", Some(*on), text.clone());
                }
            }
            Event::Panicked { text } => self.find(Clause::Panics, "-", None, text.clone()),
            Event::Deleted { on, token, named, .. } => self.deleted(*on, token, *named, now),
            Event::Met { step } => {
                self.met.insert(*step);
                if let Some(Step::Service(Service::Withhold { .. } | Service::RollBack { .. })) =
                    self.script.steps.get(*step)
                {
                    self.unreported.insert(*step);
                }
            }
        }
    }

    fn deleted(&mut self, on: Machine, token: &str, named: bool, now: u64) {
        if named {
            let text = format!("machine {on} deletes {token}, which its tree names");
            self.find(Clause::DeletedNamed, "-", Some(on), text);
        }
        let days = self.script.settings.iter().map(|s| s.trash_days).min().unwrap_or(0);
        let Some(since) = self.replaced.get(token).copied() else { return };
        if now != u64::MAX && now < since.saturating_add(u64::from(days) * DAY) {
            let text =
                format!("machine {on} deletes {token} {} ms after it was replaced", now - since);
            self.find(Clause::DeletedFromTrash, "-", Some(on), text);
        }
    }
}
