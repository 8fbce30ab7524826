//! One machine: its disks and clock, and the program while it runs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use privicorefs::crypto::{LocalKeys, MasterKey};
use privicorefs::db::Db;
use privicorefs::env::Env;
use privicorefs::store::{Limit, Proved, Retry, RetryConfig};
use privicorefs::vfs::{Durability, Shown, Vfs, VfsConfig, VfsResult};
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::super::company::{CELL, Machine as Number, Moment, Settings};
use super::super::disk::{SimDisk, Snapshot};
use super::super::local::LocalDisk;
use super::super::random::{Draws, seed_of};
use super::super::service::{Call, Endpoint, Service};
use super::super::tasks::{Process, SimClock, SimTasks, random};

/// Longest wait of one operation for the network, virtual.
const DEADLINE: Duration = Duration::from_secs(30);

/// Store calls at once that change something, and that read.
const PARALLEL: (usize, usize) = (4, 8);

/// A death that is to come: at which call of which kind, and by which step.
#[derive(Clone, Copy, Debug)]
pub struct Doom {
    pub by: usize,
    pub when: Moment,
    pub power: Option<bool>,
}

/// What the hooks of a process share with its machine.
#[derive(Debug, Default)]
pub struct Fuse {
    doom: Mutex<Option<(Doom, u32)>>,
    /// The death that came.
    struck: Mutex<Option<Doom>>,
}

impl Fuse {
    /// Sets a death that is to come.
    pub fn set(&self, doom: Doom) {
        let left = match doom.when {
            Moment::Now => 0,
            Moment::Disk(n) | Moment::Local(n) | Moment::Ask(n) | Moment::Answer(n) => n.max(1),
        };
        *self.doom.lock() = Some((doom, left));
    }

    /// Forgets it.
    pub fn clear(&self) {
        *self.doom.lock() = None;
    }

    /// The death that came since this was asked last.
    pub fn take_struck(&self) -> Option<Doom> {
        self.struck.lock().take()
    }

    /// A call of a kind is about to happen; false: the process is dead.
    fn pass(&self, process: &Process, is: impl Fn(Moment) -> bool) -> bool {
        if !process.is_alive() {
            return false;
        }
        let mut doom = self.doom.lock();
        let Some((of, left)) = doom.as_mut().filter(|(of, _)| is(of.when)) else { return true };
        *left -= 1;
        if *left > 0 {
            return true;
        }
        *self.struck.lock() = Some(*of);
        *doom = None;
        process.kill();
        false
    }
}

/// The state directory of a machine at one moment, as a file-by-file copy has it.
#[derive(Clone)]
pub struct Backup {
    local: LocalDisk,
    state: Option<Snapshot>,
}

/// The program while it runs.
pub struct Running {
    pub process: Arc<Process>,
    pub vfs: Arc<Vfs>,
    /// Open handles by slot: inode and handle.
    pub slots: BTreeMap<u8, (u64, u64)>,
    /// What `status` said of the catalog last.
    pub said: String,
}

/// See the module's header.
pub struct Machine {
    pub number: Number,
    pub settings: Settings,
    pub clock: Arc<SimClock>,
    pub fuse: Arc<Fuse>,
    pub running: Option<Running>,
    pub lost: bool,
    /// How often its store tries again; as the product does by default.
    pub retry: RetryConfig,
    pub backups: BTreeMap<u8, Backup>,
    local: LocalDisk,
    disk: SimDisk,
    lives: u64,
    seed: u64,
}

impl Machine {
    /// A new machine with an empty disk.
    pub fn new(number: Number, settings: Settings, seed: u64, began: Instant) -> Self {
        let clock = SimClock::new(began);
        Self {
            number,
            settings,
            disk: SimDisk::new(clock.clone()),
            clock,
            fuse: Arc::default(),
            running: None,
            lost: false,
            retry: RetryConfig::default(),
            backups: BTreeMap::new(),
            local: LocalDisk::default(),
            lives: 0,
            seed: seed_of(&[seed, u64::from(number)]),
        }
    }

    /// A new machine with a copy of this one's disks.
    pub fn duplicate(&self, number: Number, began: Instant) -> Self {
        let mut twin = Self::new(number, self.settings, self.seed, began);
        twin.clock.set_like(&self.clock);
        twin.set_back(&self.backup());
        twin
    }

    /// Its state directory as it is now.
    pub fn backup(&self) -> Backup {
        Backup { local: self.local.copy(), state: self.disk.snapshot(&state_dir()).ok() }
    }

    /// Replaces its state directory; the cache stays.
    pub fn set_back(&mut self, to: &Backup) {
        self.local = to.local.copy();
        if let Some(state) = &to.state {
            // The root is there always.
            let _ = self.disk.restore(&state_dir(), state);
        }
    }

    /// Its cache directory is gone.
    pub fn lose_cache(&self) {
        let _ = self.disk.process().remove_dir_all(&cache_dir());
    }

    /// Whether a power cut would take something.
    pub fn is_unsynced(&self) -> bool {
        self.local.unsynced() > 0
    }

    /// Its program ends at once; what it wrote stays.
    pub fn kill(&mut self) {
        self.fuse.clear();
        if let Some(running) = self.running.take() {
            running.process.kill();
        }
        self.disk.kill();
    }

    /// The power goes: what was not synced goes too. `together`: all of it, so that disk and
    /// local database are as they were when they were synced last; else each keeps a part.
    pub fn power_cut(&mut self, together: bool) {
        self.kill();
        let seed = seed_of(&[self.seed, self.lives, 77]);
        let mut draws = Draws::new(seed);
        let commits = self.local.unsynced() as u64;
        let keep = if together { 0 } else { draws.below(commits + 1) };
        self.local.power_cut(keep as usize);
        self.disk.power_cut(&*random(seed), together);
    }

    /// Mounts.
    pub async fn mount(&mut self, service: &Arc<Service>, key: &MasterKey) -> VfsResult<()> {
        self.lives += 1;
        let seed = seed_of(&[self.seed, self.lives]);
        let process = Process::new(self.number, seed);
        let opened = self.open(&process, service, key, seed);
        let opened = tokio::select! {
            biased;
            opened = opened => Some(opened),
            () = process.death() => None,
        };
        match opened {
            Some(Ok(vfs)) => {
                vfs.start(Handle::current(), Box::new(|_| ()));
                let slots = BTreeMap::new();
                self.running = Some(Running { process, vfs, slots, said: "ok".into() });
                Ok(())
            }
            Some(Err(error)) => {
                process.kill();
                self.disk.kill();
                Err(error)
            }
            None => {
                self.disk.kill();
                Ok(())
            }
        }
    }

    async fn open(
        &self,
        process: &Arc<Process>,
        service: &Arc<Service>,
        key: &MasterKey,
        seed: u64,
    ) -> VfsResult<Arc<Vfs>> {
        let (fuse, of) = (self.fuse.clone(), process.clone());
        let on_disk = Arc::new(move |_: &'static str| {
            match fuse.pass(&of, |when| matches!(when, Moment::Disk(_))) {
                true => Ok(()),
                false => Err(std::io::Error::other("the process is dead")),
            }
        });
        let (fuse, of) = (self.fuse.clone(), process.clone());
        let on_local = Arc::new(move || fuse.pass(&of, |when| matches!(when, Moment::Local(_))));
        let (fuse, of) = (self.fuse.clone(), process.clone());
        let on_call = Arc::new(move |call| {
            fuse.pass(&of, |when| match call {
                Call::Ask => matches!(when, Moment::Ask(_)),
                Call::Answer => matches!(when, Moment::Answer(_)),
            });
        });
        self.disk.set_hook(Some(on_disk));
        let env = Env {
            clock: self.clock.clone(),
            random: random(seed),
            tasks: Arc::new(SimTasks(process.clone())),
            disk: self.disk.process(),
        };
        let keys = Arc::new(LocalKeys::new(key));
        let backend = self.local.open(process.clone(), on_local);
        let db = Arc::new(Db::over(backend, keys, env.clone()));
        let endpoint = Endpoint::new(service.clone(), process.clone(), on_call);
        let limited = Limit::new(Arc::new(endpoint), PARALLEL.0, PARALLEL.1);
        let retry = Retry::new(Arc::new(limited), self.retry.clone(), env.clone());
        let store = Proved::new(Arc::new(retry));
        Vfs::open_over(self.config(), Arc::new(store), MasterKey::from_bytes(super::KEY), env, db)
            .await
    }

    fn config(&self) -> VfsConfig {
        let Settings { trash_days, split_above, part, poll_secs } = self.settings;
        VfsConfig {
            state_dir: state_dir(),
            cache_dir: cache_dir(),
            cache_limit: 64 << 20,
            cache_floor: 0,
            staging_limit: 1 << 30,
            memory: 8 << 20,
            split_above: Some(u64::from(split_above) * CELL),
            part_size: u64::from(part) * CELL,
            machine_name: Some(format!("machine {}", self.number)),
            new_catalog: false,
            durability: Durability::Fsync,
            trash_days: Some(trash_days),
            local_names: Vec::new(),
            parallel: PARALLEL.0,
            deadline: DEADLINE,
            approval_timeout: DEADLINE,
            poll_interval: Duration::from_secs(u64::from(poll_secs)),
            read_only: false,
            shown: Shown::default(),
            default_uid: 0,
            default_gid: 0,
        }
    }
}

fn state_dir() -> PathBuf {
    PathBuf::from("/state")
}

fn cache_dir() -> PathBuf {
    PathBuf::from("/cache")
}
