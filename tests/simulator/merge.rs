//! Three machines change one tree, publish and follow when it suits them. Once all have
//! heard of everything they show the same tree, and so does a machine that comes later,
//! in whatever order it takes the segments in.
//!
//! `PRIVICOREFS_MERGE_CASES` sets how many histories a run tries (default 1000), and
//! `PRIVICOREFS_MERGE_SEED` which. What a failure prints goes into [`run`].

mod known;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use privicorefs::catalog::checkpoint::FORGET_MS;
use privicorefs::catalog::cleared::Cleared;
use privicorefs::catalog::follow::Followed;
use privicorefs::catalog::keys;
use privicorefs::catalog::segment::{Paths, Segment};
use privicorefs::catalog::{
    Content, Dirty, DirtyKind, Ino, Kind, Link, NewInode, ROOT_INO, Remote, Tree, Version,
};
use privicorefs::crypto::{LocalKeys, MasterKey, PayloadCipher};
use privicorefs::db::{Db, decode};
use privicorefs::env::Env;
use privicorefs::store::{ListFilter, Token, list_all};
use proptest::prelude::*;
use tokio::time::{Instant, advance};

use super::disk::SimDisk;
use super::histories::histories;
use super::local::LocalDisk;
use super::service::{Endpoint, Service};
use super::tasks::{EPOCH_MS, Process, SimClock, SimTasks, random, runtime};

const MACHINES: usize = 3;
const NAMES: [&str; 4] = ["a", "b", "c", "d"];
/// Machines that still have something to say after so many rounds of exchange always will.
const ROUNDS: usize = 12;
const KEY: [u8; 32] = [5; 32];

#[derive(Clone, Debug)]
enum Op {
    Make {
        dir: usize,
        name: usize,
        folder: bool,
    },
    Link {
        file: usize,
        dir: usize,
        name: usize,
    },
    Remove {
        entry: usize,
    },
    Rename {
        entry: usize,
        dir: usize,
        name: usize,
    },
    Exchange {
        entry: usize,
        with: usize,
    },
    Chmod {
        entry: usize,
        perm: u16,
    },
    Xattr {
        entry: usize,
        value: Option<u8>,
    },
    /// A content that is not in the vault yet.
    Begin {
        file: usize,
    },
    /// It is, now.
    Write {
        file: usize,
    },
    Publish,
    Follow,
}

fn op() -> impl Strategy<Value = (usize, Op)> {
    let (d, e, n) = (0usize..6, 0usize..16, 0usize..NAMES.len());
    let op = prop_oneof![
        6 => (d.clone(), n.clone(), any::<bool>())
            .prop_map(|(dir, name, folder)| Op::Make { dir, name, folder }),
        1 => (e.clone(), d.clone(), n.clone())
            .prop_map(|(file, dir, name)| Op::Link { file, dir, name }),
        3 => e.clone().prop_map(|entry| Op::Remove { entry }),
        6 => (e.clone(), d, n).prop_map(|(entry, dir, name)| Op::Rename { entry, dir, name }),
        1 => (e.clone(), e.clone()).prop_map(|(entry, with)| Op::Exchange { entry, with }),
        1 => (e.clone(), 0u16..0o1000).prop_map(|(entry, perm)| Op::Chmod { entry, perm }),
        1 => (e.clone(), any::<Option<u8>>()).prop_map(|(entry, value)| Op::Xattr { entry, value }),
        1 => e.clone().prop_map(|file| Op::Begin { file }),
        2 => e.prop_map(|file| Op::Write { file }),
        3 => Just(Op::Publish),
        3 => Just(Op::Follow),
    ];
    (0..MACHINES, op)
}

/// What the machines have in common.
struct World {
    began: Instant,
    service: Arc<Service>,
}

impl World {
    /// An empty vault; `seed` fixes how long each call takes.
    fn new(seed: u64) -> Self {
        let began = Instant::now();
        Self { began, service: Service::new(&MasterKey::from_bytes(KEY), seed, began) }
    }

    /// A new machine.
    fn machine(&self, number: u8) -> Machine {
        let key = MasterKey::from_bytes(KEY);
        let keys = Arc::new(LocalKeys::new(&key));
        let process = Process::new(number, number.into());
        let clock = SimClock::new(self.began);
        let env = Env {
            disk: SimDisk::new(clock.clone()).process(),
            clock,
            random: random(number.into()),
            tasks: Arc::new(SimTasks(process.clone())),
        };
        let local = LocalDisk::default().open(process.clone(), Arc::new(|| true));
        let db = Arc::new(Db::over(local, keys.clone(), env.clone()));
        let tree = Arc::new(Tree::open(db, keys.clone(), env.clone(), 0, 0).unwrap());
        let cipher = Arc::new(PayloadCipher::new(&key, env.clone()));
        let paths = Paths::new(&key.key_id());
        let store = Arc::new(Endpoint::new(self.service.clone(), process, Arc::new(|_| ())));
        Machine { remote: Remote::new(tree, store, cipher, keys, env, paths) }
    }

    /// What a machine's clock shows, in milliseconds since 1970.
    fn millis(&self) -> u64 {
        EPOCH_MS + self.began.elapsed().as_millis() as u64
    }
}

/// One machine's catalog.
struct Machine {
    remote: Remote,
}

/// A name: its directory, its last component, what it leads to.
#[derive(Clone, Debug)]
struct Name {
    parent: Ino,
    name: Vec<u8>,
    path: String,
    ino: Ino,
    kind: Kind,
}

/// What must agree about a name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    ino: Ino,
    kind: Kind,
    perm: u16,
    links: u32,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    content: Option<Token>,
}

impl Machine {
    fn tree(&self) -> &Tree {
        &self.remote.tree
    }

    /// Every name below the root, in the order of its path.
    fn names(&self) -> Vec<Name> {
        let mut found = Vec::new();
        let mut dirs = vec![(ROOT_INO, String::new())];
        let mut walked = BTreeSet::new();
        while let Some((dir, path)) = dirs.pop() {
            assert!(walked.insert(dir), "directory {dir} at {path:?} is in two places");
            self.tree()
                .list(dir, 0, |_, name, link| {
                    let path = format!("{path}/{}", String::from_utf8_lossy(name));
                    if link.kind == Kind::Dir {
                        dirs.push((link.ino, path.clone()));
                    }
                    let (ino, kind) = (link.ino, link.kind);
                    found.push(Name { parent: dir, name: name.to_vec(), path, ino, kind });
                    true
                })
                .unwrap();
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        found
    }

    fn pick(&self, index: usize, want: impl Fn(&Name) -> bool) -> Option<Name> {
        let mut names = self.names();
        names.retain(want);
        (!names.is_empty()).then(|| names[index % names.len()].clone())
    }

    fn dir(&self, index: usize) -> Ino {
        let mut dirs = vec![ROOT_INO];
        dirs.extend(self.names().into_iter().filter(|n| n.kind == Kind::Dir).map(|n| n.ino));
        dirs[index % dirs.len()]
    }

    /// What the tree refuses (a name that is taken, a directory into itself) is no change.
    async fn apply(&self, op: &Op) {
        let tree = self.tree();
        match *op {
            Op::Make { dir, name, folder } => {
                let kind = if folder { Kind::Dir } else { Kind::File };
                let new = NewInode {
                    kind,
                    perm: 0o644,
                    uid: 0,
                    gid: 0,
                    rdev: 0,
                    target: Vec::new(),
                    unwanted: false,
                    xattrs: Vec::new(),
                };
                let _taken = tree.create(self.dir(dir), NAMES[name].as_bytes(), new);
            }
            Op::Link { file, dir, name } => {
                if let Some(file) = self.pick(file, |n| n.kind == Kind::File) {
                    let _taken = tree.link(file.ino, self.dir(dir), NAMES[name].as_bytes());
                }
            }
            Op::Remove { entry } => {
                if let Some(entry) = self.pick(entry, |_| true) {
                    let dir = entry.kind == Kind::Dir;
                    if let Ok(removed) = tree.unlink(entry.parent, &entry.name, dir)
                        && removed.last
                    {
                        tree.purge(entry.ino, 0).unwrap();
                    }
                }
            }
            Op::Rename { entry, dir, name } => {
                if let Some(entry) = self.pick(entry, |_| true) {
                    let to = (self.dir(dir), NAMES[name].as_bytes());
                    let renamed = tree.rename((entry.parent, &entry.name), to, true, false);
                    if let Ok(Some(removed)) = renamed
                        && removed.last
                    {
                        tree.purge(removed.inode.ino, 0).unwrap();
                    }
                }
            }
            Op::Exchange { entry, with } => {
                if let (Some(a), Some(b)) = (self.pick(entry, |_| true), self.pick(with, |_| true))
                {
                    let _refused = tree.exchange((a.parent, &a.name), (b.parent, &b.name));
                }
            }
            Op::Chmod { entry, perm } => {
                if let Some(entry) = self.pick(entry, |_| true) {
                    tree.set_attrs(entry.ino, |inode, _| inode.attrs.perm = perm).unwrap();
                }
            }
            Op::Xattr { entry, value } => {
                if let Some(entry) = self.pick(entry, |_| true) {
                    let value = value.map(|v| vec![v]);
                    tree.set_xattr(entry.ino, b"user.x", value).unwrap();
                }
            }
            Op::Begin { file } => {
                if let Some(file) = self.pick(file, |n| n.kind == Kind::File) {
                    self.begin(file.ino);
                }
            }
            Op::Write { file } => {
                if let Some(file) = self.pick(file, |n| n.kind == Kind::File) {
                    self.write(file.ino);
                }
            }
            Op::Publish => drop(self.publish().await),
            Op::Follow => drop(self.follow().await),
        }
    }

    /// A content that waits for the vault, as a close records it.
    fn begin(&self, ino: Ino) {
        let mut txn = self.tree().begin();
        let mut inode = txn.inode(ino).unwrap();
        let base = inode.content.clone();
        let (kind, cleared) = (DirtyKind::Small, Cleared::default());
        let waits = Dirty { kind, size: 2, base_len: 0, base, cleared, allocated: 2 };
        inode.local.dirty = Some(waits);
        txn.put_inode(inode);
        txn.publish_inode(ino);
        txn.commit().unwrap();
    }

    /// Everything that waits reaches the vault.
    fn write_all(&self) {
        for name in self.names() {
            if self.tree().inode(name.ino).unwrap().local.dirty.is_some() {
                self.write(name.ino);
            }
        }
    }

    /// A new version of a content, as the end of an upload records it.
    fn write(&self, ino: Ino) {
        let mut txn = self.tree().begin();
        let mut inode = txn.inode(ino).unwrap();
        let stamp = txn.stamp();
        let token = Token::new(format!("content-{}-{}", stamp.writer, stamp.hlc));
        let seen = inode.content.lineage();
        let version = Version::Single { token: token.clone() };
        inode.local.dirty = None;
        txn.know_token(&token, ino);
        inode.content = Content { stamp, size: 1, version, holes: Vec::new(), seen };
        txn.put_inode(inode);
        txn.publish_inode(ino);
        txn.commit().unwrap();
    }

    /// Records sent.
    async fn publish(&self) -> u64 {
        self.remote.publish().await.unwrap().sent
    }

    /// Segments taken in.
    async fn follow(&self) -> u64 {
        let mut followed = Followed::default();
        self.remote.follow(&mut followed).await.unwrap();
        assert_eq!(followed.damaged, Vec::<String>::new());
        followed.segments
    }

    async fn segments(&self) -> Vec<Segment> {
        let log = ListFilter { context: Some(self.remote.paths.log()), ..ListFilter::default() };
        let mut segments = Vec::new();
        for record in list_all(&*self.remote.store, &log).await.unwrap() {
            let payload = self.remote.get(&record.token).await.unwrap();
            segments.push(Segment::from_bytes(&payload).unwrap());
        }
        segments
    }

    fn view(&self) -> BTreeMap<String, Seen> {
        let mut view = BTreeMap::new();
        for name in self.names() {
            let inode = self.tree().inode(name.ino).unwrap();
            let xattrs = inode.xattrs.iter();
            let seen = Seen {
                ino: name.ino,
                kind: name.kind,
                perm: inode.attrs.perm,
                links: inode.local.nlink,
                xattrs: xattrs.filter_map(|(k, (_, v))| Some((k.clone(), v.clone()?))).collect(),
                content: inode.content.version.token().cloned(),
            };
            assert!(
                view.insert(name.path.clone(), seen).is_none(),
                "two names are {:?}",
                name.path
            );
        }
        view
    }

    /// The catalog's invariants 2, 3 and 4: every live link is found by its name from the
    /// root, and links are counted right. And housekeeping, which asks whether a token that
    /// was given up has a name again, hears so of every content that has one.
    fn check(&self) {
        let mut live = BTreeMap::new();
        let links = keys::link(0);
        self.tree()
            .db()
            .scan(&links[..1], &links, |_, value| {
                let link: Link = decode(&value)?;
                if link.live {
                    live.insert(link.id, link);
                }
                Ok(true)
            })
            .unwrap();
        let names = self.names();
        assert_eq!(names.len(), live.len(), "out of reach: {names:#?} of {live:#?}");
        for name in &names {
            let found = self.tree().lookup(name.parent, &name.name).unwrap();
            assert_eq!(found.ino, name.ino, "{}", name.path);
            let counted = match name.kind {
                Kind::Dir => {
                    let inside = |n: &&Name| n.parent == name.ino && n.kind == Kind::Dir;
                    2 + names.iter().filter(inside).count()
                }
                _ => names.iter().filter(|n| n.ino == name.ino).count(),
            };
            assert_eq!(found.local.nlink as usize, counted, "links of {}", name.path);
            if let Some(token) = found.content.version.token() {
                assert!(self.tree().is_content(token).unwrap(), "content of {}", name.path);
            }
        }
    }
}

/// All publish and follow until nobody has anything left.
async fn exchange(machines: &[Machine]) {
    for _ in 0..ROUNDS {
        let mut moved = 0;
        for machine in machines {
            moved += machine.publish().await;
        }
        for machine in machines {
            moved += machine.follow().await;
        }
        if moved == 0 {
            for machine in machines {
                assert_eq!(machine.remote.outbox_len(9).unwrap(), 0, "never sent");
            }
            return;
        }
    }
    panic!("the machines never come to an end");
}

/// `order` is the order in which segments come, and how long each call takes.
async fn run(history: &[(usize, Op)], order: u64) {
    let world = World::new(order);
    let machines: Vec<_> = (0..MACHINES as u8).map(|number| world.machine(number)).collect();
    for (at, (machine, op)) in history.iter().enumerate() {
        // Now and then two things happen in the same millisecond.
        advance(Duration::from_millis(at as u64 % 2)).await;
        machines[*machine].apply(op).await;
    }
    // One that only reads and knows all that was published so far, in two orders.
    for machine in &machines {
        machine.publish().await;
    }
    for machine in &machines {
        machine.write_all();
    }
    let (early, shuffled) = (world.machine(10), world.machine(11));
    early.follow().await;
    let mut segments = early.segments().await;
    shuffle(&mut segments, order);
    for segment in &segments {
        shuffled.tree().apply_segment(segment).unwrap();
    }
    shuffled.tree().settle().unwrap();
    early.check();
    assert_eq!(early.view(), shuffled.view(), "the order of arrival shows");

    exchange(&machines).await;
    let expected = machines[0].view();
    for machine in &machines {
        machine.check();
        assert_eq!(machine.view(), expected);
    }
    let late = world.machine(12);
    late.follow().await;
    late.check();
    assert_eq!(late.view(), expected, "a machine that comes later");
    assert_eq!(late.publish().await, 0, "what is resolved is not resolved again");
}

/// One machine writes, another reads along: there is never anything for it to resolve.
async fn follow_one(history: &[(usize, Op)]) {
    let world = World::new(0);
    let (writer, reader) = (world.machine(0), world.machine(1));
    for (who, op) in history {
        advance(Duration::from_millis(1)).await;
        match (who, op) {
            (_, Op::Follow) | (0, Op::Publish) => {
                writer.publish().await;
                reader.follow().await;
                assert_eq!(reader.remote.outbox_len(9).unwrap(), 0, "the reader meddles");
            }
            _ => writer.apply(op).await,
        }
    }
    writer.write_all();
    writer.publish().await;
    reader.follow().await;
    assert_eq!(reader.publish().await, 0);
    reader.check();
    assert_eq!(reader.view(), writer.view());
}

fn shuffle<T>(items: &mut [T], seed: u64) {
    let mut state = seed | 1;
    for at in (1..items.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        items.swap(at, (state >> 33) as usize % (at + 1));
    }
}

proptest! {
    #![proptest_config(histories("MERGE", 1_000, 4_000))]

    #[test]
    fn machines_that_have_heard_the_same_hold_the_same(
        history in proptest::collection::vec(op(), 1..60),
        order in any::<u64>(),
    ) {
        runtime().block_on(run(&history, order));
    }

    #[test]
    fn a_machine_that_only_reads_along_settles_nothing(
        history in proptest::collection::vec(op(), 1..60),
    ) {
        runtime().block_on(follow_one(&history));
    }
}

/// Names and inodes that were removed are remembered for a time, and not for ever.
#[test]
fn a_removal_is_forgotten_after_its_time() {
    runtime().block_on(async {
        let world = World::new(0);
        let machine = world.machine(0);
        for (name, folder) in [(0, true), (1, false), (2, false)] {
            machine.apply(&Op::Make { dir: 0, name, folder }).await;
        }
        machine.publish().await;
        for entry in [0, 0] {
            machine.apply(&Op::Remove { entry }).await;
        }
        machine.publish().await;
        let kept = machine.view();
        let day = Duration::from_millis(FORGET_MS / 90);
        let horizon = || world.millis() - FORGET_MS;
        advance(day * 89).await;
        machine.remote.checkpoint().await.unwrap();
        assert_eq!(machine.remote.forget_old(0).unwrap(), 0);
        assert_eq!(machine.remote.forget_old(horizon()).unwrap(), 0, "too early");
        advance(day * 2).await;
        let forgotten = machine.remote.forget_old(horizon()).unwrap();
        assert_eq!(forgotten, 4, "two names, two inodes");
        machine.remote.checkpoint().await.unwrap();
        machine.check();
        assert_eq!(machine.view(), kept);
        let late = world.machine(1);
        late.follow().await;
        assert_eq!(late.view(), kept);
    });
}
