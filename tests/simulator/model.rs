//! The operations layer against a reference model, without a kernel: random operations on
//! both, the whole tree compared after each remount, crash, cache loss and on a second
//! machine; over a service that fails now and then.
//!
//! `PRIVICOREFS_MODEL_CASES` sets how many histories a run tries (default 500), and
//! `PRIVICOREFS_MODEL_SEED` which. What a failure prints goes into [`run`].

mod content;
mod look;
mod names;
mod tree;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use privicorefs::crypto::MasterKey;
use privicorefs::store::{ListFilter, Store, TokenRecord, list_all};
use privicorefs::vfs::{Caller, OpenMode, Vfs};
use proptest::prelude::*;
use tokio::time::{Instant, sleep, timeout};

use self::tree::Model;
use super::company::{CELL, Service as Order, Settings};
use super::drive::machine::Machine;
use super::drive::{KEY, NEVER, panics};
use super::histories::histories;
use super::random::{Draws, seed_of};
use super::service::{Endpoint, Service};
use super::tasks::{Process, runtime};

const CALLER: Caller = Caller { uid: 0, gid: 0, pid: 1, umask: 0 };
const READ: OpenMode = OpenMode { read: true, write: false, truncate: false, sync: false };
const WRITE: OpenMode = OpenMode { read: true, write: true, ..READ };

/// Names are few, so that operations meet.
const NAMES: [&str; 5] = ["a", "b.txt", "c", "d", "ü\n"];

/// Some contents are split, in several parts; deleted content goes as soon as the calendar lets
/// it, and nobody looks at the vault unasked.
const SETTINGS: Settings = Settings {
    trash_days: 0,
    split_above: 80_000 / CELL as u32,
    part: 32_768 / CELL as u32,
    poll_secs: 0,
};

/// Longest pauses between two operations, in milliseconds: within a debounce of the product,
/// and long enough for what it does in the background.
const PAUSES: [u64; 2] = [30, 3_000];

#[derive(Clone, Debug)]
enum Op {
    Create { dir: usize, name: usize },
    Mkdir { dir: usize, name: usize },
    Symlink { dir: usize, name: usize },
    Link { file: usize, dir: usize, name: usize },
    Write { file: usize, offset: u32, len: u32, byte: u8 },
    Truncate { file: usize, size: u32 },
    Zero { file: usize, offset: u32, len: u32, keep: bool },
    Copy { from: usize, to: usize },
    Housekeep,
    Remove { dir: usize, name: usize },
    Rename { from: usize, name: usize, to: usize, new: usize, exchange: bool },
    Chmod { file: usize, perm: u16 },
    Xattr { file: usize, value: Option<u8> },
    Sync,
    Fsync { file: usize },
    Remount,
    Crash,
    LoseCache,
    OtherMachine,
    FailPuts { n: u32 },
}

fn op() -> impl Strategy<Value = Op> {
    let d = 0usize..8;
    let n = 0usize..NAMES.len();
    let size = prop_oneof![0u32..200, 4000u32..4200, 60_000u32..70_000, 100_000u32..200_000];
    prop_oneof![
        6 => (d.clone(), n.clone()).prop_map(|(dir, name)| Op::Create { dir, name }),
        2 => (d.clone(), n.clone()).prop_map(|(dir, name)| Op::Mkdir { dir, name }),
        1 => (d.clone(), n.clone()).prop_map(|(dir, name)| Op::Symlink { dir, name }),
        2 => (d.clone(), d.clone(), n.clone())
            .prop_map(|(file, dir, name)| Op::Link { file, dir, name }),
        8 => (d.clone(), size.clone(), prop_oneof![1u32..300, 4000u32..9000, 50_000u32..90_000], any::<u8>())
            .prop_map(|(file, offset, len, byte)| Op::Write { file, offset, len, byte }),
        4 => (d.clone(), size.clone()).prop_map(|(file, size)| Op::Truncate { file, size }),
        4 => (d.clone(), size.clone(), size.clone(), any::<bool>())
            .prop_map(|(file, offset, len, keep)| Op::Zero { file, offset, len, keep }),
        3 => (d.clone(), d.clone()).prop_map(|(from, to)| Op::Copy { from, to }),
        1 => Just(Op::Housekeep),
        4 => (d.clone(), n.clone()).prop_map(|(dir, name)| Op::Remove { dir, name }),
        4 => (d.clone(), n.clone(), d.clone(), n, any::<bool>()).prop_map(
            |(from, name, to, new, exchange)| Op::Rename { from, name, to, new, exchange }
        ),
        2 => (d.clone(), 0u16..0o1000).prop_map(|(file, perm)| Op::Chmod { file, perm }),
        2 => (d.clone(), proptest::option::of(any::<u8>()))
            .prop_map(|(file, value)| Op::Xattr { file, value }),
        2 => Just(Op::Sync),
        2 => d.prop_map(|file| Op::Fsync { file }),
        1 => Just(Op::Remount),
        1 => Just(Op::Crash),
        1 => Just(Op::LoseCache),
        1 => Just(Op::OtherMachine),
        1 => (1u32..4).prop_map(|n| Op::FailPuts { n }),
    ]
}

struct World {
    began: Instant,
    schedule: u64,
    pauses: Draws,
    service: Arc<Service>,
    own: Machine,
    model: Model,
    others: u8,
}

/// A machine on whose store every failure of the service shows.
fn machine(number: u8, schedule: u64, began: Instant) -> Machine {
    let mut machine = Machine::new(number, SETTINGS, schedule, began);
    machine.retry.attempts = 1;
    machine
}

fn vfs(machine: &Machine) -> Arc<Vfs> {
    machine.running.as_ref().expect("it is mounted").vfs.clone()
}

/// Ends it as `kill -9` would: no drain, no flush of open files.
async fn crash(machine: &mut Machine) {
    let vfs = Arc::downgrade(&vfs(machine));
    machine.kill();
    // The runtime drops what was aborted in its turn.
    sleep(Duration::from_millis(1)).await;
    assert_eq!(vfs.strong_count(), 0, "something outlives the process");
}

impl World {
    /// An empty vault, and a machine on it; `schedule` fixes all that is left to chance.
    async fn new(schedule: u64) -> Self {
        let began = Instant::now();
        let service = Service::new(&MasterKey::from_bytes(KEY), seed_of(&[schedule, 1]), began);
        let mut world = Self {
            began,
            schedule,
            pauses: Draws::new(seed_of(&[schedule, 2])),
            service,
            own: machine(0, schedule, began),
            model: Model::new(),
            others: 0,
        };
        world.mount().await;
        world
    }

    async fn mount(&mut self) {
        let key = MasterKey::from_bytes(KEY);
        self.own.mount(&self.service, &key).await.unwrap();
    }

    fn vfs(&self) -> Arc<Vfs> {
        vfs(&self.own)
    }

    fn ino(&self, path: &str) -> u64 {
        look::ino(&self.vfs(), path)
    }

    async fn sync(&self) {
        self.vfs().sync_all(None, Arc::new(|_| ())).await.unwrap();
    }

    /// A clean unmount.
    async fn unmount(&mut self) {
        let report = self.vfs().shutdown(Duration::from_secs(30)).await;
        assert_eq!((report.files_left, report.records_left), (0, 0), "{report:?}");
        crash(&mut self.own).await;
    }

    async fn remount(&mut self) {
        self.mount().await;
        self.compare().await;
    }

    async fn compare(&self) {
        look::compare(&self.vfs(), &self.model).await;
    }

    /// The whole tree is on a machine that comes now.
    async fn other_machine(&mut self) {
        self.sync().await;
        self.others += 1;
        let mut other = machine(self.others, self.schedule, self.began);
        other.mount(&self.service, &MasterKey::from_bytes(KEY)).await.unwrap();
        look::compare(&vfs(&other), &self.model).await;
        crash(&mut other).await;
    }

    /// One operation, and some time.
    async fn step(&mut self, op: &Op) {
        timeout(NEVER, self.apply(op)).await.expect("it ends");
        if let Some(longest) = PAUSES.get(self.pauses.below(4) as usize) {
            sleep(Duration::from_millis(self.pauses.below(*longest))).await;
        }
    }

    async fn apply(&mut self, op: &Op) {
        match *op {
            Op::Create { dir, name } => self.create(dir, name).await,
            Op::Mkdir { dir, name } => self.mkdir(dir, name),
            Op::Symlink { dir, name } => self.symlink(dir, name),
            Op::Link { file, dir, name } => self.link(file, dir, name),
            Op::Write { file, offset, len, byte } => self.write(file, offset, len, byte).await,
            Op::Truncate { file, size } => self.truncate(file, size).await,
            Op::Zero { file, offset, len, keep } => self.zero(file, offset, len, keep).await,
            Op::Copy { from, to } => self.copy(from, to).await,
            Op::Housekeep => self.vfs().tidy().await,
            Op::Remove { dir, name } => self.remove(dir, name),
            Op::Rename { from, name, to, new, exchange } => {
                self.rename(from, name, to, new, exchange);
            }
            Op::Chmod { file, perm } => self.chmod(file, perm).await,
            Op::Xattr { file, value } => self.xattr(file, value),
            Op::Sync => self.sync().await,
            Op::Fsync { file } => self.fsync(file).await,
            Op::Remount => {
                self.unmount().await;
                self.remount().await;
            }
            Op::Crash => {
                crash(&mut self.own).await;
                self.remount().await;
            }
            Op::LoseCache => {
                self.unmount().await;
                self.own.lose_cache();
                self.remount().await;
            }
            Op::OtherMachine => self.other_machine().await,
            Op::FailPuts { n } => self.service.obey(0, &Order::FailPuts { n }),
        }
    }

    /// Somebody with the login, who can see and delete every token.
    fn login(&self) -> Endpoint {
        Endpoint::new(self.service.clone(), Process::new(u8::MAX, 0), Arc::new(|_| ()))
    }

    async fn finish(mut self) {
        self.sync().await;
        self.compare().await;
        self.step(&Op::OtherMachine).await;
        self.unmount().await;
    }
}

/// Carries out `work` in virtual time. A panic of one of the product's tasks, which the runtime
/// keeps to itself, fails it too.
fn in_virtual_time(work: impl Future<Output = ()>) {
    panics::listen();
    let _earlier = panics::take();
    let outcome = catch_unwind(AssertUnwindSafe(|| runtime().block_on(work)));
    let panicked = panics::take();
    assert!(panicked.is_empty(), "the product panicked at {panicked:?}");
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
}

fn run(ops: &[Op], schedule: u64) {
    in_virtual_time(async {
        let mut world = World::new(schedule).await;
        for op in ops {
            world.step(op).await;
        }
        world.finish().await;
    });
}

proptest! {
    #![proptest_config(histories("MODEL", 500, 1_000))]

    #[test]
    fn any_history_gives_the_models_tree(
        ops in proptest::collection::vec(op(), 1..40),
        schedule in any::<u64>(),
    ) {
        run(&ops, schedule);
    }
}

#[test]
fn a_truncated_tail_never_comes_back() {
    let ops = [
        Op::Create { dir: 0, name: 0 },
        Op::Write { file: 0, offset: 0, len: 90_000, byte: 5 },
        Op::Sync,
        Op::Truncate { file: 0, size: 70_001 },
        Op::Truncate { file: 0, size: 90_000 },
        Op::Crash,
        Op::Sync,
        Op::OtherMachine,
    ];
    (0..8).for_each(|schedule| run(&ops, schedule));
}

/// A new machine reads one checkpoint and the segments after it; the segments that the
/// checkpoint covers may be gone.
#[test]
fn a_checkpoint_stands_for_the_segments_it_covers() {
    in_virtual_time(async {
        let mut world = World::new(0).await;
        let login = world.login();
        let listed = async || list_all(&login, &ListFilter::default()).await.unwrap();
        let name_of = |r: &TokenRecord| r.file_name.clone().unwrap_or_default();
        for round in 0..80 {
            world.step(&Op::Create { dir: 0, name: round % 3 }).await;
            world.step(&Op::Write { file: 0, offset: 0, len: 10, byte: round as u8 }).await;
            if round == 40 {
                world.step(&Op::Mkdir { dir: 0, name: 3 }).await;
            }
            world.step(&Op::Sync).await;
        }
        sleep(Duration::from_secs(60)).await;
        let checkpoint = listed().await.iter().any(|r| name_of(r).ends_with(".manifest"));
        assert!(checkpoint, "no checkpoint a minute after 80 segments");
        // What comes after the checkpoint is in segments of its own.
        world.step(&Op::Create { dir: 0, name: 4 }).await;
        world.step(&Op::Sync).await;
        let mut segments = listed().await;
        segments.retain(|r| r.context.ends_with("/log"));
        segments.sort_by_key(name_of);
        assert!(segments.len() > 64);
        for covered in &segments[..60] {
            login.delete(&covered.token).await.unwrap();
        }
        world.step(&Op::OtherMachine).await;
        world.finish().await;
    });
}

/// Whoever has a file open over its upload sees what was written over zeros before a kill: the
/// zeros are forgotten once they are committed, whatever process made them (seed 22).
#[test]
fn what_was_written_over_zeros_shows_through_a_kill_and_an_upload() {
    in_virtual_time(async {
        let mut world = World::new(0).await;
        for op in [
            Op::Create { dir: 0, name: 0 },
            Op::Write { file: 0, offset: 0, len: 131_072, byte: 1 },
            Op::Sync,
            Op::Zero { file: 0, offset: 190_454, len: 69_880, keep: false },
            Op::Write { file: 0, offset: 191_748, len: 58_473, byte: 198 },
            Op::Crash,
        ] {
            world.step(&op).await;
        }
        let (vfs, ino) = (world.vfs(), world.ino("/a"));
        let fh = vfs.open_file(ino, READ).unwrap().fh;
        world.sync().await;
        world.compare().await;
        vfs.release(fh).unwrap();
        drop(vfs);
        world.finish().await;
    });
}
