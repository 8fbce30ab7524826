//! What of the outbox can be sent now, without looking through all of it.
//!
//! The outbox itself is in the local database: one record per changed inode or link. While
//! a hundred thousand files wait for their uploads, nearly all of it waits for contents,
//! and a look at each record per segment (or per `fsync`) would make copying in quadratic.
//! So memory keeps two lists of the same records: those to look at, and those that are
//! known to wait, by the inode whose content they wait for.
//!
//! Invariants
//! 1. Once loaded, every record of the outbox is in one of the lists; or `beyond` is set,
//!    and only a scan of the database finds all.
//! 2. A record is moved to the waiting ones only by someone who has seen that the content
//!    waits and looks again afterwards: a commit in between would have waked nobody.
//! 3. Every commit that settles an inode's content wakes what waits for it.
//! 4. A list may name a record that is no longer there: whoever looks drops it.

use std::collections::{BTreeMap, BTreeSet};

use super::keys;
use super::record::Ino;

/// Most records kept in memory: about 72 bytes each.
const KEPT: usize = 400_000;

/// A record of the outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Change {
    /// Attributes and content of an inode.
    Inode(Ino),
    /// The place of a link.
    Link(u64),
}

impl Change {
    /// The change that a key of the local database is of.
    pub(super) fn of_key(key: &[u8]) -> Option<Self> {
        if !key.starts_with(keys::OUTBOX) {
            return None;
        }
        match key.get(1) {
            Some(b'I') => Some(Self::Inode(keys::number(key, 2))),
            Some(b'L') => Some(Self::Link(keys::number(key, 2))),
            _ => None,
        }
    }

    /// Its key.
    pub(super) fn key(self) -> Vec<u8> {
        match self {
            Self::Inode(ino) => keys::outbox_inode(ino),
            Self::Link(id) => keys::outbox_link(id),
        }
    }
}

/// The two lists. Inode 0 does not exist: under it are the records to look at.
#[derive(Debug)]
pub(super) struct Outbox {
    place: BTreeMap<Change, Ino>,
    by_place: BTreeSet<(Ino, Change)>,
    beyond: bool,
    /// Most records kept.
    kept: usize,
}

impl Default for Outbox {
    fn default() -> Self {
        Self::keeping(KEPT)
    }
}

const TO_LOOK_AT: Ino = 0;
const FIRST: Change = Change::Inode(0);

impl Outbox {
    /// An empty one that keeps so many records.
    pub(super) fn keeping(kept: usize) -> Self {
        let (place, by_place) = (BTreeMap::new(), BTreeSet::new());
        Self { place, by_place, beyond: false, kept }
    }

    /// A record was made or changed.
    pub(super) fn add(&mut self, change: Change) {
        self.put(change, TO_LOOK_AT);
    }

    /// A record is gone.
    pub(super) fn remove(&mut self, change: Change) {
        if let Some(place) = self.place.remove(&change) {
            self.by_place.remove(&(place, change));
        }
    }

    /// A record waits for the content of an inode (see invariant 2).
    pub(super) fn park(&mut self, change: Change, ino: Ino) {
        if self.place.contains_key(&change) {
            self.put(change, ino);
        }
    }

    /// The content of an inode waits no more.
    pub(super) fn wake(&mut self, ino: Ino) {
        while let Some(&(place, change)) = self.by_place.range((ino, FIRST)..).next()
            && place == ino
        {
            self.put(change, TO_LOOK_AT);
        }
    }

    /// The first of those to look at behind `after`, in order.
    pub(super) fn look_behind(&self, after: Option<Change>, most: usize) -> Vec<Change> {
        use std::ops::Bound::{Excluded, Included};
        let from = after.map_or(Included((TO_LOOK_AT, FIRST)), |last| Excluded((TO_LOOK_AT, last)));
        let to = Excluded((TO_LOOK_AT + 1, FIRST));
        self.by_place.range((from, to)).take(most).map(|(_, change)| *change).collect()
    }

    /// How many there are; `None` if only the database knows.
    pub(super) fn len(&self) -> Option<u64> {
        (!self.beyond).then_some(self.place.len() as u64)
    }

    /// The links among them; `None` if only the database knows.
    pub(super) fn links(&self) -> Option<Vec<Change>> {
        let links = self.place.range(Change::Link(0)..).map(|(change, _)| *change);
        (!self.beyond).then(|| links.collect())
    }

    /// Whether there are more than are kept here. Then the lists are empty from now on,
    /// and whoever asked adds all records again.
    pub(super) fn start_over(&mut self) -> bool {
        if self.beyond {
            *self = Self::keeping(self.kept);
            return true;
        }
        false
    }

    /// Not all records have been added.
    pub(super) fn miss(&mut self) {
        self.beyond = true;
    }

    fn put(&mut self, change: Change, place: Ino) {
        let full = self.place.len() >= self.kept;
        match self.place.get_mut(&change) {
            Some(now) => {
                self.by_place.remove(&(*now, change));
                *now = place;
            }
            None if full => {
                self.beyond = true;
                return;
            }
            None => drop(self.place.insert(change, place)),
        }
        self.by_place.insert((place, change));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_wait_and_are_waked() {
        let mut outbox = Outbox::default();
        let (inode, link, other) = (Change::Inode(7), Change::Link(7), Change::Link(9));
        for change in [inode, link, other] {
            assert_eq!(Change::of_key(&change.key()), Some(change));
            outbox.add(change);
        }
        outbox.park(inode, 7);
        outbox.park(link, 7);
        outbox.park(Change::Link(8), 7); // gone meanwhile: nothing to park
        assert_eq!(outbox.look_behind(None, 9), [other]);
        assert_eq!(outbox.len(), Some(3));
        assert_eq!(outbox.links(), Some(vec![link, other]));
        outbox.wake(8);
        assert_eq!(outbox.look_behind(None, 9), [other]);
        outbox.wake(7);
        assert_eq!(outbox.look_behind(None, 9), [inode, link, other]);
        assert_eq!(outbox.look_behind(Some(inode), 1), [link]);
        outbox.remove(link);
        outbox.park(inode, 7);
        outbox.remove(inode);
        outbox.wake(7);
        assert_eq!(outbox.look_behind(None, 9), [other]);
    }

    #[test]
    fn what_is_not_kept_is_known_to_be_missing() {
        let mut outbox = Outbox::keeping(2);
        assert!(!outbox.start_over());
        (0..3).for_each(|id| outbox.add(Change::Link(id)));
        assert_eq!((outbox.len(), outbox.look_behind(None, 9).len()), (None, 2));
        assert!(outbox.start_over());
        assert_eq!((outbox.len(), outbox.kept), (Some(0), 2));
        outbox.miss();
        assert!(outbox.start_over());
    }
}
