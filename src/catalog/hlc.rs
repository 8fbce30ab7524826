//! Hybrid logical clock: stamps that respect causality and stay close to wall time.

use serde::{Deserialize, Serialize};

/// A position in the total order of all writers' changes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Stamp {
    /// Milliseconds since 1970 in the upper 48 bits, a counter in the lower 16.
    pub hlc: u64,
    /// Writer that made it; breaks ties.
    pub writer: u32,
}

impl Stamp {
    /// Older than every change; the stamp of a register never written.
    pub const ZERO: Self = Self { hlc: 0, writer: 0 };
}

/// The clock of one writer. After [`Hlc::observe`] of a stamp, [`Hlc::tick`] gives greater ones.
#[derive(Clone, Copy, Debug)]
pub struct Hlc {
    last: u64,
    writer: u32,
}

impl Hlc {
    /// A clock that starts after `floor`.
    pub fn new(writer: u32, floor: u64) -> Self {
        Self { last: floor, writer }
    }

    /// This clock's writer.
    pub fn writer(&self) -> u32 {
        self.writer
    }

    /// The newest value given or seen.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// A stamp greater than all before, at least the wall clock's `millis`.
    pub fn tick(&mut self, millis: u64) -> Stamp {
        self.last = (millis << 16).max(self.last + 1);
        Stamp { hlc: self.last, writer: self.writer }
    }

    /// Takes note of another writer's stamp.
    pub fn observe(&mut self, stamp: Stamp) {
        self.last = self.last.max(stamp.hlc);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_grow_even_when_the_wall_clock_goes_back() {
        let mut clock = Hlc::new(1, 0);
        let first = clock.tick(1000);
        let second = clock.tick(10);
        assert!(second > first);
        clock.observe(Stamp { hlc: u64::MAX >> 1, writer: 9 });
        assert!(clock.tick(2000).hlc > u64::MAX >> 1);
    }
}
