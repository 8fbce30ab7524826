//! The clock that stamps are made with: one for all writers of this journal.
//!
//! Invariants
//! 1. A stamp is greater than every one that this machine has made or seen.
//! 2. The writer is drawn by each mount anew; it is in the vault once it has published.

use super::schema;
use crate::catalog::format::{Stamp, record::FIRST_NUMBER};
use crate::db::{Batch, Db, DbResult};
use crate::env::Env;

/// The clock, and who counts with it.
#[derive(Clone, Copy, Debug)]
pub struct StampClock {
    last: u64,
    kept: u64,
    writer: u64,
}

impl StampClock {
    /// A clock that goes on after everything this journal has seen, for a new writer.
    pub fn load(db: &Db, env: &Env) -> DbResult<Self> {
        let last = db.load::<u64>(&schema::meta("clock"))?.unwrap_or(0);
        Ok(Self { last, kept: last, writer: new_writer(env) })
    }

    /// The writer of the stamps that it makes.
    pub fn writer(&self) -> u64 {
        self.writer
    }

    /// Goes on as another writer.
    pub fn start_writer(&mut self, env: &Env) {
        self.writer = new_writer(env);
    }

    /// The newest stamp made or seen.
    pub fn last(&self) -> Stamp {
        Stamp { hlc: self.last, writer: u64::MAX }
    }

    /// A stamp greater than all before, not below the wall clock's `millis`.
    pub fn tick(&mut self, millis: u64) -> Stamp {
        self.last = (millis << 16).max(self.last + 1);
        Stamp { hlc: self.last, writer: self.writer }
    }

    /// Takes note of a stamp of another.
    pub fn observe(&mut self, stamp: Stamp) {
        self.last = self.last.max(stamp.hlc);
    }

    /// Records how far it has counted, with what it has stamped.
    pub fn record(&mut self, batch: &mut Batch<'_>) {
        if self.kept < self.last {
            self.kept = self.last;
            batch.store(&schema::meta("clock"), &self.last);
        }
    }
}

/// A random number for an object or a link (docs/format.md, 4.1).
pub fn new_number(env: &Env) -> u64 {
    loop {
        let number = env.random_u64() >> 1;
        if number >= FIRST_NUMBER {
            return number;
        }
    }
}

fn new_writer(env: &Env) -> u64 {
    loop {
        let writer = env.random_u64();
        if writer != 0 {
            return writer;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_grow_even_when_the_wall_clock_goes_back() {
        let mut clock = StampClock { last: 0, kept: 0, writer: 1 };
        let first = clock.tick(1000);
        let second = clock.tick(10);
        assert!(second > first);
        clock.observe(Stamp { hlc: u64::MAX >> 3, writer: 9 });
        assert!(clock.tick(2000).hlc > u64::MAX >> 3);
    }
}
