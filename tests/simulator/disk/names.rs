//! A folder's names: what processes see, what is on the platter, and the changes between.

use std::collections::BTreeMap;
use std::ffi::OsString;

/// The number of a file or folder; never used twice.
pub(super) type Id = u64;

pub(super) type Names = BTreeMap<OsString, Id>;

/// One change of a folder's names. A rename within the folder has both halves; one between
/// two folders is a change of each, with the same `rename` number.
#[derive(Clone, Debug, Default)]
pub(super) struct NameChange {
    pub(super) removed: Option<(OsString, Id)>,
    pub(super) added: Option<(OsString, Id)>,
    pub(super) rename: Option<Rename>,
}

/// The other half of a rename between two folders.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rename {
    pub(super) number: u64,
    pub(super) other: Id,
}

/// A folder. Invariant: `synced`, with `unsynced` applied to it, is `now`.
#[derive(Debug, Default)]
pub(super) struct Folder {
    pub(super) now: Names,
    synced: Names,
    unsynced: Vec<NameChange>,
}

impl Folder {
    /// A folder whose names are durable.
    pub(super) fn new(names: Names) -> Self {
        Self { synced: names.clone(), now: names, unsynced: Vec::new() }
    }

    pub(super) fn change(&mut self, change: NameChange) {
        apply(&mut self.now, &change);
        self.unsynced.push(change);
    }

    pub(super) fn unsynced(&self) -> &[NameChange] {
        &self.unsynced
    }

    /// How many changes have to be kept for this rename to be among them; 0 if it is durable.
    pub(super) fn upto(&self, rename: u64) -> usize {
        let is_it = |change: &NameChange| change.rename.is_some_and(|half| half.number == rename);
        self.unsynced.iter().position(is_it).map_or(0, |at| at + 1)
    }

    /// Makes the first `count` changes durable.
    pub(super) fn sync(&mut self, count: usize) {
        for change in self.unsynced.drain(..count) {
            apply(&mut self.synced, &change);
        }
    }

    /// Loses what is not durable; returns how many changes that were.
    pub(super) fn power_cut(&mut self) -> usize {
        self.now = self.synced.clone();
        std::mem::take(&mut self.unsynced).len()
    }

    /// Everything that has a name here, or may have one again after a power cut.
    pub(super) fn reachable(&self) -> impl Iterator<Item = Id> {
        let added = self.unsynced.iter().filter_map(|change| Some(change.added.as_ref()?.1));
        self.now.values().chain(self.synced.values()).copied().chain(added)
    }

    #[cfg(test)]
    pub(super) fn check(&self) {
        let mut expected = self.synced.clone();
        self.unsynced.iter().for_each(|change| apply(&mut expected, change));
        assert_eq!(expected, self.now);
    }
}

fn apply(names: &mut Names, change: &NameChange) {
    if let Some((name, _)) = &change.removed {
        names.remove(name);
    }
    if let Some((name, id)) = &change.added {
        names.insert(name.clone(), *id);
    }
}
