//! Ranges of a file that were made zero while it waits for the vault (`fallocate(2)` with
//! PUNCH_HOLE or ZERO_RANGE), and what its committed version has there does not show.
//!
//! Invariants
//! * Ranges are in order, do not touch each other with the same generation, and never
//!   overlap: a byte was cleared last by one change, whose generation its range has.
//! * So what was cleared before a snapshot of the file can be forgotten when that is
//!   committed, and what was cleared since stays.

use serde::{Deserialize, Serialize};

/// A cleared range: offset, length, and the file's generation when it was cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// Where it starts.
    pub offset: u64,
    /// Bytes; never none.
    pub len: u64,
    /// By which change.
    pub generation: u64,
}

impl Range {
    fn end(&self) -> u64 {
        self.offset + self.len
    }
}

/// The cleared ranges of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cleared(Vec<Range>);

impl Cleared {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Clears `from..to`.
    pub fn add(&mut self, from: u64, to: u64, generation: u64) {
        if from >= to {
            return;
        }
        let mut ranges = Vec::with_capacity(self.0.len() + 2);
        for range in &self.0 {
            // what the new one leaves of it, before and behind
            for (start, end) in
                [(range.offset, range.end().min(from)), (range.offset.max(to), range.end())]
            {
                if start < end {
                    ranges.push(Range { offset: start, len: end - start, ..*range });
                }
            }
        }
        ranges.push(Range { offset: from, len: to - from, generation });
        ranges.sort_by_key(|range| range.offset);
        self.0 = join(ranges);
    }

    /// The same ranges, all cleared by one change: for a file that is loaded, whose generations
    /// are counted anew.
    #[must_use]
    pub fn as_of(&self, generation: u64) -> Self {
        Self(join(self.0.iter().map(|range| Range { generation, ..*range }).collect()))
    }

    /// Forgets what lies from `size` on.
    pub fn cut(&mut self, size: u64) {
        self.0.retain_mut(|range| {
            range.len = range.end().min(size).saturating_sub(range.offset);
            range.len > 0
        });
    }

    /// Forgets what was cleared up to a generation: that is committed.
    pub fn forget(&mut self, generation: u64) {
        self.0.retain(|range| range.generation > generation);
    }

    /// Whether `at` is cleared, and where that answer may change next.
    pub fn at(&self, at: u64) -> (bool, u64) {
        let next = self.0.partition_point(|range| range.end() <= at);
        match self.0.get(next) {
            Some(range) if range.offset <= at => (true, range.end()),
            Some(range) => (false, range.offset),
            None => (false, u64::MAX),
        }
    }

    /// The newest generation that cleared something of `from..to`.
    pub fn newest_within(&self, from: u64, to: u64) -> Option<u64> {
        let first = self.0.partition_point(|range| range.end() <= from);
        let within = self.0[first..].iter().take_while(|range| range.offset < to);
        within.map(|range| range.generation).max()
    }
}

/// Makes one range of neighbours that the same change cleared.
fn join(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.dedup_by(|next, last| {
        let joined = last.end() == next.offset && last.generation == next.generation;
        last.len += if joined { next.len } else { 0 };
        joined
    });
    ranges
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against one generation per byte.
        #[test]
        fn ranges_say_what_each_byte_says(
            steps in prop::collection::vec((0u8..4, 0u64..40, 0u64..40), 1..30)
        ) {
            let (mut cleared, mut bytes) = (Cleared::default(), [0u64; 40]);
            for (generation, (kind, from, to)) in (1..).zip(steps) {
                match kind {
                    0 | 1 => {
                        cleared.add(from, to, generation);
                        (from..to).for_each(|at| bytes[at as usize] = generation);
                    }
                    2 => {
                        cleared.cut(from);
                        (from..40).for_each(|at| bytes[at as usize] = 0);
                    }
                    _ => {
                        cleared.forget(from);
                        bytes.iter_mut().filter(|g| **g <= from).for_each(|g| *g = 0);
                    }
                }
                for at in 0..40 {
                    let (is, next) = cleared.at(at);
                    prop_assert_eq!(is, bytes[at as usize] > 0);
                    prop_assert!(next > at);
                    let same = (at..next.min(40)).all(|b| (bytes[b as usize] > 0) == is);
                    prop_assert!(same, "the answer holds up to {}", next);
                }
                let newest = bytes[10..30].iter().copied().max().filter(|g| *g > 0);
                prop_assert_eq!(cleared.newest_within(10, 30), newest);
            }
        }
    }

    #[test]
    fn a_loaded_file_has_one_generation() {
        let mut cleared = Cleared::default();
        cleared.add(0, 8, 9);
        cleared.add(8, 12, 10);
        cleared.add(20, 24, 11);
        let mut loaded = cleared.as_of(3);
        assert_eq!(loaded.len(), 2, "neighbours are one range");
        assert_eq!((loaded.at(0), loaded.newest_within(0, 40)), ((true, 12), Some(3)));
        loaded.forget(3);
        assert!(loaded.is_empty());
    }
}
