//! Machines in memory, and a log of what they have sent.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::catalog::conflict::object::{Brought, Origin};
use crate::catalog::format::Record;
use crate::catalog::local::inode::{Ino, Kind};
use crate::catalog::namespace::{NewInode, Stale, Tree};
use crate::crypto::{LocalKeys, MasterKey};
use crate::db::backend::{Backend, Change, Each, Reader};
use crate::db::{Db, DbResult, Space};
use crate::env::SplitMix64;
use crate::env::doubles::{FixedClock, seeded_env};

type Pairs = BTreeMap<(Space, Vec<u8>), Vec<u8>>;

/// A database that is never on a disk.
#[derive(Debug, Default)]
struct Memory(Mutex<Pairs>);

/// A moment of one.
struct Moment(Pairs);

fn get(
    pairs: &Pairs,
    space: Space,
    key: &[u8],
    with: &mut dyn FnMut(&[u8]) -> DbResult<()>,
) -> DbResult<bool> {
    match pairs.get(&(space, key.to_vec())).cloned() {
        Some(value) => with(&value).map(|()| true),
        None => Ok(false),
    }
}

fn scan(pairs: &Pairs, from: &[u8], end: Bound<Vec<u8>>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let first = Bound::Included((Space::Meta, from.to_vec()));
    let end = match end {
        Bound::Included(end) => Bound::Included((Space::Meta, end)),
        Bound::Excluded(end) => Bound::Excluded((Space::Meta, end)),
        Bound::Unbounded => Bound::Excluded((Space::Data, Vec::new())),
    };
    pairs.range((first, end)).map(|((_, key), value)| (key.clone(), value.clone())).collect()
}

fn tell(found: Vec<(Vec<u8>, Vec<u8>)>, each: Each<'_>) -> DbResult<()> {
    for (key, value) in found {
        if !each(&key, &value)? {
            break;
        }
    }
    Ok(())
}

impl Reader for Memory {
    fn get(
        &self,
        space: Space,
        key: &[u8],
        with: &mut dyn FnMut(&[u8]) -> DbResult<()>,
    ) -> DbResult<bool> {
        let now = self.0.lock().get(&(space, key.to_vec())).cloned();
        now.map_or(Ok(false), |value| with(&value).map(|()| true))
    }

    fn contains(&self, space: Space, key: &[u8]) -> DbResult<bool> {
        Ok(self.0.lock().contains_key(&(space, key.to_vec())))
    }

    fn scan(&self, from: &[u8], end: Bound<Vec<u8>>, each: Each<'_>) -> DbResult<()> {
        let found = scan(&self.0.lock(), from, end);
        tell(found, each)
    }
}

impl Reader for Moment {
    fn get(
        &self,
        space: Space,
        key: &[u8],
        with: &mut dyn FnMut(&[u8]) -> DbResult<()>,
    ) -> DbResult<bool> {
        get(&self.0, space, key, with)
    }

    fn contains(&self, space: Space, key: &[u8]) -> DbResult<bool> {
        Ok(self.0.contains_key(&(space, key.to_vec())))
    }

    fn scan(&self, from: &[u8], end: Bound<Vec<u8>>, each: Each<'_>) -> DbResult<()> {
        tell(scan(&self.0, from, end), each)
    }
}

impl Backend for Memory {
    fn snapshot(&self) -> Box<dyn Reader> {
        Box::new(Moment(self.0.lock().clone()))
    }

    fn commit(&self, changes: Vec<Change>) -> DbResult<()> {
        let mut pairs = self.0.lock();
        for Change { space, key, value } in changes {
            match value {
                Some(value) => drop(pairs.insert((space, key), value)),
                None => drop(pairs.remove(&(space, key))),
            }
        }
        Ok(())
    }

    fn sync(&self) -> DbResult<()> {
        Ok(())
    }

    fn write_buffer(&self) -> u64 {
        0
    }

    fn disk_bytes(&self) -> u64 {
        0
    }
}

/// A machine.
pub(super) struct Machine {
    pub(super) tree: Tree,
    pub(super) clock: Arc<FixedClock>,
    writer: u64,
    sent: u64,
}

impl Machine {
    pub(super) fn new(seed: u64, name: &str) -> Self {
        let clock = Arc::new(FixedClock::default());
        let mut env = seeded_env(seed);
        env.clock = clock.clone();
        let key = MasterKey::from_bytes([5; 32]);
        let keys = Arc::new(LocalKeys::new(&key));
        let db = Db::over(Arc::new(Memory::default()), keys.clone(), env.clone());
        db.close().unwrap();
        let tree = Tree::open(Arc::new(db), keys, env, name.to_owned(), (7, 7)).unwrap();
        let writer = tree.begin().writer();
        Self { tree, clock, writer, sent: 0 }
    }

    /// What waits, sent: as the records of one segment, which count from now on as on their way.
    pub(super) fn send(&mut self) -> Option<(Vec<Ino>, Vec<Record>)> {
        let waiting = self.tree.find_ready(u64::MAX).unwrap();
        let mut txn = self.tree.begin();
        let mut records = Vec::new();
        for ino in &waiting.ready {
            records.extend(txn.send(*ino).unwrap());
        }
        txn.commit().unwrap();
        // What is sent is read by others.
        for record in &records {
            assert_eq!(Record::decode(&record.encode()).as_ref(), Ok(record));
        }
        (!records.is_empty()).then_some((waiting.ready, records))
    }

    /// As they are in the vault.
    pub(super) fn published(&mut self, records: Vec<Record>) -> Segment {
        self.sent += 1;
        let brought = Brought { writer: self.writer, sequence: self.sent, day: self.sent / 3 };
        records.into_iter().map(|record| (record, Origin::Published(brought))).collect()
    }

    pub(super) fn apply(&self, records: &[(Record, Origin)]) -> Vec<Stale> {
        self.tree.apply(records, |_| {}).unwrap()
    }

    pub(super) fn tick(&self, minutes: u64) {
        self.clock.advance(Duration::from_secs(60 * minutes));
    }
}

/// Records that are in the vault.
pub(super) type Segment = Vec<(Record, Origin)>;

/// What is to be made.
pub(super) fn new_inode(kind: Kind) -> NewInode {
    let target = if kind == Kind::Symlink { b"somewhere".to_vec() } else { Vec::new() };
    let (uid, gid, rdev) = (7, 7, 0);
    NewInode { kind, perm: 0o644, uid, gid, rdev, target, unwanted: false, xattrs: Vec::new() }
}

/// Chooses.
pub(super) struct Draw(SplitMix64);

impl Draw {
    pub(super) fn new(seed: u64) -> Self {
        Self(SplitMix64::new(seed))
    }

    /// One of so many numbers.
    pub(super) fn below(&self, most: usize) -> usize {
        (self.0.next_u64() % most as u64) as usize
    }

    /// Whether something of this chance happens.
    pub(super) fn one_in(&self, chance: usize) -> bool {
        self.below(chance) == 0
    }

    /// One of them, if there are any.
    pub(super) fn of<'a, T>(&self, all: &'a [T]) -> Option<&'a T> {
        if all.is_empty() { None } else { Some(&all[self.below(all.len())]) }
    }

    pub(super) fn shuffle<T>(&self, all: &mut [T]) {
        for at in (1..all.len()).rev() {
            all.swap(at, self.below(at + 1));
        }
    }

    pub(super) fn bytes(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.0.next_u64().to_be_bytes());
        bytes[8..].copy_from_slice(&self.0.next_u64().to_be_bytes());
        bytes
    }
}
