//! The order of a profile's tokens, in memory, so that any page of a listing is found
//! without walking the pages before it.
//!
//! Only sequence numbers are held (8 bytes per token), in sorted blocks. A profile's list
//! is built from the order keyspace when a listing first asks; the committer keeps it in
//! step from then on, before it tells anyone of the change.

use std::collections::HashMap;

use parking_lot::Mutex;
use uuid::Uuid;

use super::db::{Db, Space, StorageError};
use super::records::trailing_sequence;

const BLOCK: usize = 1_024;

/// The lists built so far, by profile.
#[derive(Debug, Default)]
pub(super) struct Listings(Mutex<HashMap<Uuid, Sequences>>);

impl Listings {
    /// `count` sequence numbers from position `skip` on, and how many there are.
    /// `None` if the list has not been built.
    pub(super) fn page(
        &self,
        profile: Uuid,
        skip: usize,
        count: usize,
    ) -> Option<(Vec<u64>, usize)> {
        let lists = self.0.lock();
        let list = lists.get(&profile)?;
        Some((list.page(skip, count), list.len))
    }

    /// Builds a profile's list. Runs on the committer, so no commit can slip between the
    /// scan and the list's birth.
    pub(super) fn build(&self, db: &Db, profile: Uuid) -> Result<(), StorageError> {
        let mut list = Sequences::default();
        for item in db.view().from(Space::Order, profile.as_bytes(), profile.as_bytes()) {
            let (key, _) = item?;
            list.push(trailing_sequence(&key).ok_or(StorageError::Record)?);
        }
        self.0.lock().insert(profile, list);
        Ok(())
    }

    /// Follows a commit.
    pub(super) fn apply(&self, listed: &[(Uuid, u64)], unlisted: &[(Uuid, u64)]) {
        if listed.is_empty() && unlisted.is_empty() {
            return;
        }
        let mut lists = self.0.lock();
        for (profile, sequence) in listed {
            if let Some(list) = lists.get_mut(profile) {
                list.push(*sequence);
            }
        }
        for (profile, sequence) in unlisted {
            if let Some(list) = lists.get_mut(profile) {
                list.remove(*sequence);
            }
        }
    }
}

/// Ascending numbers in blocks of at most [`BLOCK`]; no block is empty.
#[derive(Debug, Default)]
struct Sequences {
    blocks: Vec<Vec<u64>>,
    len: usize,
}

impl Sequences {
    /// Appends a number; one that is not above the last (a list built in the same group
    /// that made it) is there already.
    fn push(&mut self, sequence: u64) {
        let last = self.blocks.last().and_then(|block| block.last());
        if last.is_some_and(|last| *last >= sequence) {
            return;
        }
        match self.blocks.last_mut() {
            Some(block) if block.len() < BLOCK => block.push(sequence),
            _ => self.blocks.push(vec![sequence]),
        }
        self.len += 1;
    }

    fn remove(&mut self, sequence: u64) {
        let at = self.blocks.partition_point(|block| block[0] <= sequence);
        let Some(index) = at.checked_sub(1) else { return };
        let block = &mut self.blocks[index];
        if let Ok(position) = block.binary_search(&sequence) {
            block.remove(position);
            self.len -= 1;
            if block.is_empty() {
                self.blocks.remove(index);
            }
        }
    }

    fn page(&self, mut skip: usize, count: usize) -> Vec<u64> {
        let mut blocks = self.blocks.iter();
        for block in blocks.by_ref() {
            if skip < block.len() {
                let first = &block[skip..];
                return first.iter().chain(blocks.flatten()).take(count).copied().collect();
            }
            skip -= block.len();
        }
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pages_are_those_of_a_plain_list(
            removed in proptest::collection::vec(1_u64..3_000, 0..200),
            skip in 0_usize..3_200,
            count in 0_usize..150,
        ) {
            let mut list = Sequences::default();
            let mut plain: Vec<u64> = (1..3_000).collect();
            plain.iter().for_each(|n| list.push(*n));
            for n in removed {
                list.remove(n);
                plain.retain(|m| *m != n);
            }
            let expected: Vec<u64> = plain.iter().skip(skip).take(count).copied().collect();
            prop_assert_eq!(list.page(skip, count), expected);
            prop_assert_eq!(list.len, plain.len());
            list.push(2);
            prop_assert_eq!(list.len, plain.len());
        }
    }

    #[test]
    fn removing_everything_leaves_an_empty_list() {
        let mut list = Sequences::default();
        list.push(5);
        list.remove(4);
        list.remove(5);
        list.remove(5);
        assert_eq!(list.page(0, 10), Vec::<u64>::new());
        list.push(6);
        assert_eq!(list.page(0, 10), [6]);
    }
}
