//! The end of a run: everybody hears everything, and everybody is looked at.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use privicorefs::vfs::Vfs;
use tokio::time::timeout;

use super::super::company::{Event, Final, Observer, Service as Order, View};
use super::super::random::seed_of;
use super::machine::Machine;
use super::{NEVER, World, tree, wait};

/// Rounds in which each machine sends all it has and hears what others sent: what a change
/// of one brings about on another comes a round later.
const ROUNDS: usize = 4;

/// A lag of listings is over after an hour, and so is whatever else waited for something.
const PATIENCE: Duration = Duration::from_secs(2 * 3600);

impl World {
    pub(super) async fn finish(&mut self) -> Final {
        self.service.obey(usize::MAX, &Order::Honest);
        for machine in &self.machines {
            self.service.set_away(machine.number, None);
            machine.fuse.clear();
        }
        let mut views = BTreeMap::new();
        for at in 0..self.machines.len() {
            if self.machines[at].lost || self.machines[at].running.is_some() {
                continue;
            }
            if let Some(why) = self.mount(at).await {
                let who = Observer::Machine(self.machines[at].number);
                views.insert(who, Err(format!("cannot be mounted: {why:?}")));
            }
        }
        self.close_slots().await;
        wait(PATIENCE).await;
        for round in 0..ROUNDS {
            for at in 0..self.machines.len() {
                if let Err(why) = self.exchange(at).await
                    && round + 1 == ROUNDS
                {
                    let who = Observer::Machine(self.machines[at].number);
                    views.insert(who, Err(why));
                }
            }
        }
        // Nothing is changed by anybody now: once more only to hear.
        self.listen();
        let fresh = self.fresh(&mut views).await;
        for at in 0..self.machines.len() {
            let Some(running) = &self.machines[at].running else { continue };
            let who = Observer::Machine(self.machines[at].number);
            let seen = look(&running.vfs).await;
            views.entry(who).or_insert(seen);
        }
        self.listen();
        if let Some(mut fresh) = fresh {
            fresh.kill();
        }
        let events = std::mem::take(&mut self.events);
        Final { views, stored: self.service.contents(), events }
    }

    /// Programs that still had files open end.
    async fn close_slots(&mut self) {
        for machine in &mut self.machines {
            let Some(running) = &mut machine.running else { continue };
            for (_, fh) in std::mem::take(&mut running.slots).into_values() {
                let _ = timeout(NEVER, running.vfs.clone().flush(fh)).await;
                let _ = running.vfs.release(fh);
            }
        }
    }

    /// Sends what waits here, sees to what is due, and hears what others sent.
    async fn exchange(&mut self, at: usize) -> Result<(), String> {
        let Some(running) = &self.machines[at].running else { return Ok(()) };
        let vfs = running.vfs.clone();
        let exchanged = async {
            vfs.look_now().await.map_err(|error| format!("cannot look: {error}"))?;
            let sync = vfs.clone().sync_all(None, Arc::new(|_| ()));
            sync.await.map_err(|error| format!("cannot sync: {error}"))?;
            vfs.hint_changes();
            tokio::time::sleep(Duration::from_secs(30)).await;
            vfs.clone().tidy().await;
            Ok(())
        };
        timeout(NEVER, exchanged).await.unwrap_or_else(|_| Err("never comes to rest".into()))
    }

    /// What somebody sees who mounts on a new machine in the middle of a run, at once.
    pub(super) async fn newcomer(&mut self, number: usize) -> Result<View, String> {
        let settings = self.machines.first().ok_or("no machine")?.settings;
        let seed = seed_of(&[self.seed, number as u64]);
        let mut newcomer = Machine::new(u8::MAX, settings, seed, self.began);
        let seen = match self.arrive(&mut newcomer).await {
            Ok(vfs) => look(&vfs).await,
            Err(why) => Err(why),
        };
        newcomer.kill();
        seen
    }

    /// A new machine mounts.
    async fn arrive(&self, machine: &mut Machine) -> Result<Arc<Vfs>, String> {
        let mounted = timeout(NEVER, machine.mount(&self.service, &self.key)).await;
        match (mounted, &machine.running) {
            (Ok(Ok(())), Some(running)) => Ok(running.vfs.clone()),
            (Ok(Err(error)), _) => Err(format!("cannot be mounted: {error}")),
            _ => Err("the mount never answers".into()),
        }
    }

    /// What a new machine sees that has the key and the login.
    async fn fresh(
        &mut self,
        views: &mut BTreeMap<Observer, Result<View, String>>,
    ) -> Option<Machine> {
        let settings = self.machines.first()?.settings;
        let mut fresh = Machine::new(u8::MAX, settings, self.seed, self.began);
        let seen = match self.arrive(&mut fresh).await {
            Ok(vfs) => {
                // Files of other clients are looked for beside the mount.
                vfs.hint_changes();
                tokio::time::sleep(Duration::from_secs(60)).await;
                let seen = look(&vfs).await;
                let says = vfs.status().catalog;
                if says != "ok" {
                    self.events.push(Event::Reported { on: u8::MAX, text: says });
                }
                seen
            }
            Err(why) => Err(why),
        };
        views.insert(Observer::Fresh, seen);
        Some(fresh)
    }
}

/// Everything that a machine shows.
async fn look(vfs: &Arc<Vfs>) -> Result<View, String> {
    let seen = timeout(NEVER, tree::view(vfs)).await;
    seen.unwrap_or_else(|_| Err("reading never ends".into()))
}
