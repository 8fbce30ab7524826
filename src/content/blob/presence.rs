//! Which blocks of a run are there.

/// Which blocks of a run are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    words: Vec<u64>,
    blocks: usize,
}

impl Presence {
    pub(super) fn absent(blocks: usize) -> Self {
        Self { words: vec![0; blocks.div_ceil(64)], blocks }
    }

    pub(super) fn set(&mut self, block: usize) {
        self.words[block / 64] |= 1 << (block % 64);
    }

    /// Whether the run's block `block` (from 0) is there; false past the run's end.
    pub fn get(&self, block: usize) -> bool {
        self.words.get(block / 64).is_some_and(|word| word >> (block % 64) & 1 == 1)
    }

    /// How many are there.
    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether all are there.
    pub fn is_all(&self) -> bool {
        self.count() == self.blocks
    }

    /// Whether none is there.
    pub fn is_none(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// One flag per block of the run, in order.
    pub fn iter(&self) -> impl Iterator<Item = bool> + '_ {
        (0..self.blocks).map(|block| self.get(block))
    }
}
