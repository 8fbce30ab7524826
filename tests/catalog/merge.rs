//! Three machines change one tree, publish and follow when it suits them. Once all have
//! heard of everything they hold the same tree, and so does a machine that comes later,
//! in whatever order it takes the segments in.
//!
//! `PRIVICOREFS_MERGE_CASES` sets how many histories a run tries (default 200).

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
use privicorefs::env::{Env, FixedClock, SeededRandom};
use privicorefs::store::{ListFilter, Store, Token, list_all};
use proptest::prelude::*;

use crate::house::MemoryStore;

const MACHINES: usize = 3;
const NAMES: [&str; 4] = ["a", "b", "c", "d"];
/// A system that has not settled after so many rounds of exchange never will.
const ROUNDS: usize = 12;

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

/// One machine's catalog.
struct Machine {
    remote: Remote,
    _dir: tempfile::TempDir,
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
    fn new(store: &Arc<MemoryStore>, clock: &Arc<FixedClock>, number: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = MasterKey::from_bytes([5; 32]);
        let keys = Arc::new(LocalKeys::new(&key));
        let random = Arc::new(SeededRandom::new(number));
        let env = Env { clock: clock.clone(), random, ..Env::system() };
        let db = Arc::new(Db::open(&dir.path().join("db"), keys.clone(), env.clone()).unwrap());
        let tree = Arc::new(Tree::open(db, keys.clone(), env.clone(), 0, 0).unwrap());
        let cipher = Arc::new(PayloadCipher::new(&key, env.clone()));
        let paths = Paths::new(&key.key_id());
        let store: Arc<dyn Store> = store.clone();
        Self { remote: Remote::new(tree, store, cipher, keys, env, paths), _dir: dir }
    }

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
    fn apply(&self, op: &Op) {
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
            Op::Publish => drop(self.publish()),
            Op::Follow => drop(self.follow()),
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
    fn publish(&self) -> u64 {
        now(self.remote.publish()).unwrap().sent
    }

    /// Segments taken in.
    fn follow(&self) -> u64 {
        let mut followed = Followed::default();
        now(self.remote.follow(&mut followed)).unwrap();
        assert_eq!(followed.damaged, Vec::<String>::new());
        followed.segments
    }

    fn segments(&self) -> Vec<Segment> {
        let log = ListFilter { context: Some(self.remote.paths.log()), ..ListFilter::default() };
        let listed = now(list_all(&*self.remote.store, &log)).unwrap();
        listed
            .iter()
            .map(|r| Segment::from_bytes(&now(self.remote.get(&r.token)).unwrap()).unwrap())
            .collect()
    }

    fn view(&self) -> BTreeMap<String, Seen> {
        let mut view = BTreeMap::new();
        for name in self.names() {
            let inode = self.tree().inode(name.ino).unwrap();
            let held = inode.xattrs.iter();
            let seen = Seen {
                ino: name.ino,
                kind: name.kind,
                perm: inode.attrs.perm,
                links: inode.local.nlink,
                xattrs: held.filter_map(|(k, (_, v))| Some((k.clone(), v.clone()?))).collect(),
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

/// Runs what never really waits: the store is in memory.
fn now<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn settle(machines: &[Machine]) {
    for _ in 0..ROUNDS {
        let sent: u64 = machines.iter().map(Machine::publish).sum();
        let taken: u64 = machines.iter().map(Machine::follow).sum();
        if sent + taken == 0 {
            for machine in machines {
                assert_eq!(machine.remote.outbox_len(9).unwrap(), 0, "never sent");
            }
            return;
        }
    }
    panic!("the machines never come to an end");
}

fn run(history: &[(usize, Op)], order: u64) {
    let store = Arc::new(MemoryStore::default());
    let clock = Arc::new(FixedClock::default());
    let new = |number| Machine::new(&store, &clock, number);
    let machines: Vec<_> = (0..MACHINES as u64).map(new).collect();
    for (at, (machine, op)) in history.iter().enumerate() {
        // Now and then two things happen in the same millisecond.
        clock.advance(Duration::from_millis(at as u64 % 2));
        machines[*machine].apply(op);
    }
    // One that only reads and knows all that was published so far, in two orders.
    for machine in &machines {
        machine.publish();
    }
    for machine in &machines {
        machine.write_all();
    }
    let (early, shuffled) = (new(10), new(11));
    early.follow();
    let mut segments = early.segments();
    shuffle(&mut segments, order);
    for segment in &segments {
        shuffled.tree().apply_segment(segment).unwrap();
    }
    shuffled.tree().settle().unwrap();
    early.check();
    assert_eq!(early.view(), shuffled.view(), "the order of arrival shows");

    settle(&machines);
    let expected = machines[0].view();
    for machine in &machines {
        machine.check();
        assert_eq!(machine.view(), expected);
    }
    let late = new(12);
    late.follow();
    late.check();
    assert_eq!(late.view(), expected, "a machine that comes later");
    assert_eq!(late.publish(), 0, "what is settled is not settled again");
}

/// One machine writes, another reads along: there is never anything for it to settle.
fn follow_one(history: &[(usize, Op)]) {
    let store = Arc::new(MemoryStore::default());
    let clock = Arc::new(FixedClock::default());
    let (writer, reader) = (Machine::new(&store, &clock, 0), Machine::new(&store, &clock, 1));
    for (who, op) in history {
        clock.advance(Duration::from_millis(1));
        match (who, op) {
            (_, Op::Follow) | (0, Op::Publish) => {
                writer.publish();
                reader.follow();
                assert_eq!(reader.remote.outbox_len(9).unwrap(), 0, "the reader meddles");
            }
            _ => writer.apply(op),
        }
    }
    writer.write_all();
    writer.publish();
    reader.follow();
    assert_eq!(reader.publish(), 0);
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
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PRIVICOREFS_MERGE_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(200),
        max_shrink_iters: 4000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn machines_that_have_heard_the_same_hold_the_same(
        history in proptest::collection::vec(op(), 1..60),
        order in any::<u64>(),
    ) {
        run(&history, order);
    }

    #[test]
    fn a_machine_that_only_reads_along_settles_nothing(
        history in proptest::collection::vec(op(), 1..60),
    ) {
        follow_one(&history);
    }
}

/// Names and inodes that were removed are remembered for a time, and not for ever.
#[test]
fn a_removal_is_forgotten_after_its_time() {
    let store = Arc::new(MemoryStore::default());
    let clock = Arc::new(FixedClock::default());
    let machine = Machine::new(&store, &clock, 0);
    for (name, folder) in [(0, true), (1, false), (2, false)] {
        machine.apply(&Op::Make { dir: 0, name, folder });
    }
    machine.publish();
    clock.advance(Duration::from_millis(1));
    for entry in [0, 0] {
        machine.apply(&Op::Remove { entry });
    }
    machine.publish();
    let kept = machine.view();
    let day = Duration::from_millis(FORGET_MS / 90);
    clock.advance(day * 89);
    now(machine.remote.checkpoint()).unwrap();
    assert_eq!(machine.remote.forget_old(0).unwrap(), 0);
    let horizon = |days: u32| {
        let env =
            Env { clock: clock.clone(), random: Arc::new(SeededRandom::new(1)), ..Env::system() };
        env.millis() - day.as_millis() as u64 * u64::from(days)
    };
    assert_eq!(machine.remote.forget_old(horizon(90)).unwrap(), 0, "too early");
    clock.advance(day * 2);
    assert_eq!(machine.remote.forget_old(horizon(90)).unwrap(), 4, "two names, two inodes");
    now(machine.remote.checkpoint()).unwrap();
    machine.check();
    assert_eq!(machine.view(), kept);
    let late = Machine::new(&store, &clock, 1);
    late.follow();
    assert_eq!(late.view(), kept);
}
