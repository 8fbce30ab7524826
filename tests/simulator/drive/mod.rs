//! The drive as a company: the real operations layer of each machine, on simulated disks
//! and a simulated service.

mod acts;
mod cells;
mod ending;
pub(super) mod machine;
pub(super) mod panics;
mod tree;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use privicorefs::crypto::MasterKey;
use privicorefs::vfs::VfsError;
use tokio::runtime::Runtime;
use tokio::time::Instant;

use self::machine::{Backup, Doom, Machine};
use super::company::{
    Abilities, CELL, Company, Event, Failure, Fate, Final, Moment, OtherAct, Outcome, Script, Step,
};
use super::kinds;
use super::random::seed_of;
use super::service::Service;
use super::tasks;

/// The key of every simulated vault.
pub(super) const KEY: [u8; 32] = [7; 32];

/// Waits longer than this are slept through but for so much at both ends, as a machine that
/// is suspended does: else a week would be ten million group commits.
const AWAKE: Duration = Duration::from_secs(60);

/// Longest time that anything of a step may take; more is a machine that never answers.
pub(super) const NEVER: Duration = Duration::from_secs(3600);

/// See the module's header.
pub struct Drive {
    world: World,
    runtime: Runtime,
}

/// All of it but the runtime that it lives in.
struct World {
    began: Instant,
    seed: u64,
    key: MasterKey,
    service: Arc<Service>,
    machines: Vec<Machine>,
    /// The other client's latest token of each name.
    others: BTreeMap<String, Vec<privicorefs::store::Token>>,
    /// Outcomes of what was not waited for.
    ended: Arc<Mutex<Vec<Event>>>,
    events: Vec<Event>,
}

impl Drive {
    /// The company of a script, nothing of it done yet.
    pub fn new(script: &Script) -> Self {
        panics::listen();
        let runtime = tasks::runtime();
        let world = runtime.block_on(async { World::new(script) });
        Self { world, runtime }
    }
}

impl Company for Drive {
    fn abilities(&self) -> Abilities {
        Abilities::default()
    }

    fn step(&mut self, number: usize, step: &Step) -> Outcome {
        self.runtime.block_on(self.world.step(number, step))
    }

    fn finish(&mut self) -> Final {
        self.runtime.block_on(self.world.finish())
    }

    /// `name (conflict MACHINE YYYY-MM-DD HHMM)`, before the extension or behind.
    fn original_name(&self, name: &str) -> Option<String> {
        tree::original_name(name)
    }
}

impl Drop for Drive {
    fn drop(&mut self) {
        let world = &mut self.world;
        self.runtime.block_on(async {
            for machine in &mut world.machines {
                machine.kill();
            }
        });
    }
}

impl World {
    fn new(script: &Script) -> Self {
        let began = Instant::now();
        let seed = script.schedule;
        let key = MasterKey::from_bytes(KEY);
        let service = Service::new(&key, seed_of(&[seed, 1]), began);
        let machine = |(number, settings)| Machine::new(number, settings, seed, began);
        let machines = (0u8..).zip(script.settings.iter().copied()).map(machine).collect();
        let (others, ended, events) = (BTreeMap::new(), Arc::default(), Vec::new());
        Self { began, seed, key, service, machines, others, ended, events }
    }

    async fn step(&mut self, number: usize, step: &Step) -> Outcome {
        let mut outcome = Outcome::default();
        match step {
            Step::Do(on, act) => self.act(number, *on, act, &mut outcome).await,
            Step::Other(act) => self.other(number, act),
            Step::Fate(fate) => outcome.failure = self.fate(number, fate).await,
            Step::Service(order) => self.service.obey(number, order),
            Step::Newcomer => outcome.newcomer = Some(self.newcomer(number).await),
            Step::Wait { ms } => wait(Duration::from_millis(*ms)).await,
        }
        self.reap().await;
        self.listen();
        outcome.events = std::mem::take(&mut self.events);
        outcome.at = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        outcome
    }

    /// What another client does, which reaches the service at all times.
    fn other(&mut self, number: usize, act: &OtherAct) {
        let (OtherAct::Store { at, .. } | OtherAct::Update { at, .. } | OtherAct::Delete { at }) =
            act;
        let (context, name) = at.rsplit_once('/').unwrap_or(("/", at));
        let stamp = number as u32 + 1;
        if let OtherAct::Update { .. } | OtherAct::Delete { .. } = act
            && let Some(token) = self.others.get_mut(at).and_then(Vec::pop)
        {
            self.service.erase(&token);
        }
        if let OtherAct::Store { size, .. } | OtherAct::Update { size, .. } = act {
            let plain = cells::bytes(stamp, 0, u64::from(*size));
            let token = self.service.store_plain(context, name, &plain);
            self.others.entry(at.clone()).or_default().push(token);
        }
    }

    async fn fate(&mut self, number: usize, fate: &Fate) -> Option<Failure> {
        let on = kinds::fate_machine(fate);
        let at = usize::from(on);
        if self.machines.get(at).is_none_or(|machine| machine.lost) {
            return Some(Failure::NotMounted);
        }
        match fate {
            Fate::Mount { .. } => return self.mount(at).await,
            Fate::Unmount { .. } => {
                self.note_unsent(number, at);
                return self.unmount(at).await;
            }
            Fate::Kill { when, .. } => {
                return self.doom(at, Doom { by: number, when: *when, power: None });
            }
            Fate::PowerCut { when, together, .. } => {
                let doom = Doom { by: number, when: *when, power: Some(*together) };
                return self.doom(at, doom);
            }
            Fate::LoseCache { .. } => {
                self.machines[at].kill();
                self.machines[at].lose_cache();
                self.service.watch(number, on, true);
            }
            Fate::Backup { slot, .. } => {
                let backup = self.machines[at].backup();
                self.machines[at].backups.insert(*slot, backup);
            }
            Fate::Restore { slot, .. } | Fate::SetBack { slot, .. } => {
                let Some(backup) = self.machines[at].backups.get(slot).cloned() else {
                    return Some(Failure::Refused { errno: "ENOENT".into() });
                };
                return self.restore(number, at, &backup).await;
            }
            Fate::Duplicate { .. } => return self.duplicate(number, at).await,
            Fate::Lose { .. } => {
                self.note_unsent(number, at);
                self.machines[at].kill();
                self.machines[at].lost = true;
            }
            Fate::Away { .. } => self.service.set_away(on, Some(number)),
            Fate::Back { .. } => self.service.set_away(on, None),
            Fate::Clock { ms, .. } => {
                self.machines[at].clock.jump(*ms);
                self.service.watch(number, on, false);
            }
            Fate::Look { .. } | Fate::Housekeep { .. } | Fate::Checkpoint { .. } => {
                return self.chore(at, fate).await;
            }
        }
        None
    }

    fn met(&mut self, step: usize) {
        self.events.push(Event::Met { step });
    }

    /// A fate counts when it meets unsent work.
    fn note_unsent(&mut self, step: usize, at: usize) {
        let unsent = self.machines[at].running.as_ref().is_some_and(|running| {
            let status = running.vfs.status();
            status.dirty_files + status.pending_records + status.uploading > 0
        });
        if unsent {
            self.met(step);
        }
    }

    async fn mount(&mut self, at: usize) -> Option<Failure> {
        if self.machines[at].running.is_some() {
            return Some(Failure::Refused { errno: "EBUSY".into() });
        }
        let (service, key) = (self.service.clone(), MasterKey::from_bytes(KEY));
        let mounting = tokio::time::timeout(NEVER, self.machines[at].mount(&service, &key));
        match mounting.await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(failure(&error)),
            Err(_) => Some(Failure::Broken { why: "the mount never answers".into() }),
        }
    }

    async fn unmount(&mut self, at: usize) -> Option<Failure> {
        let Some(running) = &self.machines[at].running else { return Some(Failure::NotMounted) };
        let (vfs, process) = (running.vfs.clone(), running.process.clone());
        let handles: Vec<(u64, u64)> = running.slots.values().copied().collect();
        let done = async move {
            for (_, fh) in handles {
                let _ = vfs.clone().flush(fh).await;
                let _ = vfs.release(fh);
            }
            vfs.shutdown(Duration::from_secs(60)).await
        };
        let report = tokio::select! {
            biased;
            report = tokio::time::timeout(NEVER, done) => report,
            () = process.death() => return Some(Failure::Died),
        };
        self.machines[at].kill();
        match report {
            Ok(report) if report.files_left + report.records_left == 0 => None,
            Ok(report) => Some(Failure::Broken { why: format!("{report:?}") }),
            Err(_) => Some(Failure::Broken { why: "the unmount never ends".into() }),
        }
    }

    fn doom(&mut self, at: usize, doom: Doom) -> Option<Failure> {
        if self.machines[at].running.is_none() {
            return Some(Failure::NotMounted);
        }
        match doom.when {
            Moment::Now => self.strike(at, doom),
            _ => self.machines[at].fuse.set(doom),
        }
        None
    }

    /// The death of a machine's program, which may have come already.
    fn strike(&mut self, at: usize, doom: Doom) {
        self.note_unsent(doom.by, at);
        let machine = &mut self.machines[at];
        match doom.power {
            Some(together) => {
                if machine.is_unsynced() {
                    self.events.push(Event::Met { step: doom.by });
                }
                machine.power_cut(together);
            }
            None => machine.kill(),
        }
        self.events.push(Event::Died { on: machine.number, by: doom.by });
    }

    async fn restore(&mut self, number: usize, at: usize, backup: &Backup) -> Option<Failure> {
        self.machines[at].kill();
        self.machines[at].set_back(backup);
        self.service.watch(number, self.machines[at].number, false);
        self.mount(at).await
    }

    async fn duplicate(&mut self, step: usize, at: usize) -> Option<Failure> {
        let Ok(number) = u8::try_from(self.machines.len()) else { return None };
        let twin = self.machines[at].duplicate(number, self.began);
        self.machines.push(twin);
        self.service.watch(step, number, false);
        self.mount(usize::from(number)).await
    }

    async fn chore(&mut self, at: usize, fate: &Fate) -> Option<Failure> {
        let Some(running) = &self.machines[at].running else { return Some(Failure::NotMounted) };
        let (vfs, process) = (running.vfs.clone(), running.process.clone());
        let fate = fate.clone();
        let chore = async move {
            match fate {
                Fate::Look { .. } => drop(vfs.look_now().await),
                Fate::Housekeep { .. } => vfs.tidy().await,
                _ => drop(vfs.checkpoint_now().await),
            }
        };
        tokio::select! {
            biased;
            done = tokio::time::timeout(NEVER, chore) => match done {
                Ok(()) => None,
                Err(_) => Some(Failure::Broken { why: "it never ends".into() }),
            },
            () = process.death() => Some(Failure::Died),
        }
    }

    /// Deaths that have come become known.
    async fn reap(&mut self) {
        // What was woken runs before anybody looks.
        tokio::task::yield_now().await;
        for at in 0..self.machines.len() {
            if let Some(doom) = self.machines[at].fuse.take_struck() {
                self.strike(at, doom);
            }
        }
    }

    /// Takes in what happened beside the steps.
    fn listen(&mut self) {
        self.events.append(&mut self.ended.lock());
        self.events.extend(panics::take().into_iter().map(|text| Event::Panicked { text }));
        for event in self.service.take_events() {
            let event = match event {
                Event::Deleted { on, token, what, .. } => {
                    let named = self.names(usize::from(on), &token);
                    Event::Deleted { on, token, what, named }
                }
                other => other,
            };
            self.events.push(event);
        }
        for machine in &mut self.machines {
            let on = machine.number;
            let Some(running) = &mut machine.running else { continue };
            let says = running.vfs.status().catalog;
            if says != running.said {
                running.said.clone_from(&says);
                if says != "ok" {
                    self.events.push(Event::Reported { on, text: says });
                }
            }
        }
    }
}

/// Time passes.
async fn wait(time: Duration) {
    if time <= AWAKE * 4 {
        return tokio::time::sleep(time).await;
    }
    tokio::time::sleep(AWAKE).await;
    tokio::time::advance(time - AWAKE * 2).await;
    tokio::time::sleep(AWAKE).await;
}

/// An error as a person meets it.
fn failure(error: &VfsError) -> Failure {
    use VfsError as E;
    let errno = match error {
        E::NotFound { .. } => "ENOENT",
        E::Exists { .. } => "EEXIST",
        E::NotDir { .. } => "ENOTDIR",
        E::IsDir { .. } => "EISDIR",
        E::NotEmpty { .. } => "ENOTEMPTY",
        E::Invalid { .. } => "EINVAL",
        E::BadHandle { .. } => "EBADF",
        E::NoAttr { .. } => "ENODATA",
        E::NameTooLong { .. } => "ENAMETOOLONG",
        E::TimedOut { .. } => return Failure::TimedOut,
        other => return Failure::Broken { why: other.to_string() },
    };
    Failure::Refused { errno: errno.into() }
}

/// Cells that so many bytes fill, the last one perhaps in part.
fn cells_of(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(CELL)).unwrap_or(u32::MAX)
}
