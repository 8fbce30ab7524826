//! What of the outbox can be sent now, without looking through all of it.
//!
//! The outbox itself is in the local database: one record per changed object. While a hundred
//! thousand files wait for their uploads, nearly all of it waits for contents, and a look at
//! each record per segment (or per `fsync`) would make copying in quadratic. So memory keeps
//! two lists of the same records: those to look at, and those that are known to wait, by the
//! inode whose content they wait for.
//!
//! Invariants
//! 1. Once loaded, every record of the outbox is in one of the lists; or `beyond` is set,
//!    and only a scan of the database finds all.
//! 2. A record is moved to the waiting ones only by someone who has seen that the content
//!    waits and looks again afterwards: a commit in between would have waked nobody.
//! 3. Every commit that settles an inode's content wakes what waits for it.
//! 4. A list may name a record that is no longer there: whoever looks drops it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::catalog::local::inode::Ino;

/// Most records kept in memory: about 72 bytes each.
const KEPT: usize = 400_000;

/// What is known of a change that waits to be published.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OutboxEntry {
    /// Not before the contents of these are committed.
    pub after: Vec<Ino>,
}

/// The two lists. Under [`TO_LOOK_AT`], which is no inode, are the records to look at.
#[derive(Debug)]
pub(super) struct Outbox {
    place: BTreeMap<Ino, Ino>,
    by_place: BTreeSet<(Ino, Ino)>,
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

impl Outbox {
    /// An empty one that keeps so many records.
    pub(super) fn keeping(kept: usize) -> Self {
        let (place, by_place) = (BTreeMap::new(), BTreeSet::new());
        Self { place, by_place, beyond: false, kept }
    }

    /// A record was made or changed.
    pub(super) fn add(&mut self, change: Ino) {
        self.put(change, TO_LOOK_AT);
    }

    /// A record is gone.
    pub(super) fn remove(&mut self, change: Ino) {
        if let Some(place) = self.place.remove(&change) {
            self.by_place.remove(&(place, change));
        }
    }

    /// A record waits for the content of an inode (see invariant 2).
    pub(super) fn park(&mut self, change: Ino, ino: Ino) {
        if self.place.contains_key(&change) {
            self.put(change, ino);
        }
    }

    /// The content of an inode waits no more.
    pub(super) fn wake(&mut self, ino: Ino) {
        while let Some(&(place, change)) = self.by_place.range((ino, 0)..).next()
            && place == ino
            && ino != TO_LOOK_AT
        {
            self.put(change, TO_LOOK_AT);
        }
    }

    /// The first of those to look at from `from` on, in order.
    pub(super) fn look_from(&self, from: Ino, most: usize) -> Vec<Ino> {
        let range = (TO_LOOK_AT, from)..(TO_LOOK_AT + 1, 0);
        self.by_place.range(range).take(most).map(|(_, change)| *change).collect()
    }

    /// How many there are; `None` if only the database knows.
    pub(super) fn len(&self) -> Option<u64> {
        (!self.beyond).then_some(self.place.len() as u64)
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

    fn put(&mut self, change: Ino, place: Ino) {
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
        let (one, other) = (7, 9);
        outbox.add(one);
        outbox.add(other);
        outbox.park(one, 7);
        outbox.park(8, 7); // gone meanwhile: nothing to park
        assert_eq!(outbox.look_from(0, 9), [other]);
        assert_eq!(outbox.len(), Some(2));
        outbox.wake(8);
        assert_eq!(outbox.look_from(0, 9), [other]);
        outbox.wake(7);
        assert_eq!(outbox.look_from(0, 9), [one, other]);
        assert_eq!(outbox.look_from(one + 1, 1), [other]);
        outbox.park(one, 7);
        outbox.remove(one);
        outbox.wake(7);
        assert_eq!(outbox.look_from(0, 9), [other]);
    }

    #[test]
    fn what_is_not_kept_is_known_to_be_missing() {
        let mut outbox = Outbox::keeping(2);
        assert!(!outbox.start_over());
        (1..4).for_each(|id| outbox.add(id));
        assert_eq!((outbox.len(), outbox.look_from(0, 9).len()), (None, 2));
        assert!(outbox.start_over());
        assert_eq!((outbox.len(), outbox.kept), (Some(0), 2));
        outbox.miss();
        assert!(outbox.start_over());
    }
}
