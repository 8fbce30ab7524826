//! The local database of a simulated machine: memory with a journal, whose end a power cut
//! takes.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::Mutex;
use privicorefs::db::backend::{Backend, Change, Each, Reader};
use privicorefs::db::{DbError, DbResult, Space};

use super::tasks::Process;

type Pairs = BTreeMap<(Space, Vec<u8>), Vec<u8>>;

/// Called before a commit or a sync takes effect; false: the process is dead.
pub type Hook = Arc<dyn Fn() -> bool + Send + Sync>;

/// A machine's database, whoever has it open.
#[derive(Clone, Debug, Default)]
pub struct LocalDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Clone, Debug, Default)]
struct State {
    now: Pairs,
    /// As of the last sync.
    durable: Pairs,
    /// Commits since.
    unsynced: Vec<Vec<Change>>,
}

impl LocalDisk {
    /// What it holds now, apart from this one: all of it is on its disk.
    pub fn copy(&self) -> Self {
        let now = self.state.lock().now.clone();
        let state = State { durable: now.clone(), now, unsynced: Vec::new() };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// How many commits a power cut may take.
    pub fn unsynced(&self) -> usize {
        self.state.lock().unsynced.len()
    }

    /// Goes back to what was synced and the first `keep` commits after that.
    pub fn power_cut(&self, keep: usize) {
        let mut state = self.state.lock();
        let state = &mut *state;
        state.unsynced.truncate(keep);
        for changes in std::mem::take(&mut state.unsynced) {
            apply(&mut state.durable, changes);
        }
        state.now = state.durable.clone();
    }

    /// Opens it for a process.
    pub fn open(&self, process: Arc<Process>, hook: Hook) -> Arc<Open> {
        Arc::new(Open { state: self.state.clone(), process, hook })
    }
}

fn apply(pairs: &mut Pairs, changes: Vec<Change>) {
    for Change { space, key, value } in changes {
        match value {
            Some(value) => drop(pairs.insert((space, key), value)),
            None => drop(pairs.remove(&(space, key))),
        }
    }
}

/// The database as one process has it open.
pub struct Open {
    state: Arc<Mutex<State>>,
    process: Arc<Process>,
    hook: Hook,
}

impl fmt::Debug for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Open")
    }
}

fn dead<T>() -> DbResult<T> {
    Err(DbError::Corrupt("the process is dead".into()))
}

fn get(pairs: &Pairs, space: Space, key: &[u8]) -> Option<Vec<u8>> {
    pairs.get(&(space, key.to_vec())).cloned()
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

impl Reader for Open {
    fn get(
        &self,
        space: Space,
        key: &[u8],
        with: &mut dyn FnMut(&[u8]) -> DbResult<()>,
    ) -> DbResult<bool> {
        if !self.process.is_alive() {
            return dead();
        }
        let found = get(&self.state.lock().now, space, key);
        match found {
            Some(value) => with(&value).map(|()| true),
            None => Ok(false),
        }
    }

    fn contains(&self, space: Space, key: &[u8]) -> DbResult<bool> {
        self.get(space, key, &mut |_| Ok(()))
    }

    fn scan(&self, from: &[u8], end: Bound<Vec<u8>>, each: Each<'_>) -> DbResult<()> {
        if !self.process.is_alive() {
            return dead();
        }
        let found = scan(&self.state.lock().now, from, end);
        for (key, value) in found {
            if !each(&key, &value)? {
                break;
            }
        }
        Ok(())
    }
}

impl Backend for Open {
    fn snapshot(&self) -> Box<dyn Reader> {
        Box::new(Moment(self.state.lock().now.clone()))
    }

    fn commit(&self, changes: Vec<Change>) -> DbResult<()> {
        if !self.process.is_alive() || !(self.hook)() {
            return dead();
        }
        let mut state = self.state.lock();
        apply(&mut state.now, changes.clone());
        state.unsynced.push(changes);
        Ok(())
    }

    fn sync(&self) -> DbResult<()> {
        if !self.process.is_alive() || !(self.hook)() {
            return dead();
        }
        let mut state = self.state.lock();
        let state = &mut *state;
        for changes in std::mem::take(&mut state.unsynced) {
            apply(&mut state.durable, changes);
        }
        Ok(())
    }

    fn write_buffer(&self) -> u64 {
        0
    }

    fn disk_bytes(&self) -> u64 {
        0
    }
}

struct Moment(Pairs);

impl Reader for Moment {
    fn get(
        &self,
        space: Space,
        key: &[u8],
        with: &mut dyn FnMut(&[u8]) -> DbResult<()>,
    ) -> DbResult<bool> {
        match get(&self.0, space, key) {
            Some(value) => with(&value).map(|()| true),
            None => Ok(false),
        }
    }

    fn contains(&self, space: Space, key: &[u8]) -> DbResult<bool> {
        self.get(space, key, &mut |_| Ok(()))
    }

    fn scan(&self, from: &[u8], end: Bound<Vec<u8>>, each: Each<'_>) -> DbResult<()> {
        for (key, value) in scan(&self.0, from, end) {
            if !each(&key, &value)? {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(open: &Open, key: &str, value: Option<&str>) {
        let value = value.map(|v| v.as_bytes().to_vec());
        open.commit(vec![Change { space: Space::Meta, key: key.into(), value }]).unwrap();
    }

    #[test]
    fn a_power_cut_keeps_what_was_synced_and_a_prefix() {
        let disk = LocalDisk::default();
        let open = disk.open(Process::new(0, 1), Arc::new(|| true));
        set(&open, "a", Some("1"));
        open.sync().unwrap();
        set(&open, "a", Some("2"));
        set(&open, "b", Some("3"));
        set(&open, "a", None);
        disk.power_cut(2);
        assert_eq!(get(&disk.state.lock().now, Space::Meta, b"a"), Some(b"2".to_vec()));
        assert_eq!(get(&disk.state.lock().now, Space::Meta, b"b"), Some(b"3".to_vec()));
        disk.power_cut(0);
        assert!(open.contains(Space::Meta, b"b").unwrap(), "a cut keeps what it left");
    }

    #[test]
    fn a_dead_process_changes_nothing() {
        let disk = LocalDisk::default();
        let process = Process::new(0, 1);
        let open = disk.open(process.clone(), Arc::new(|| true));
        process.kill();
        assert!(open.commit(Vec::new()).is_err() && open.sync().is_err());
    }
}
