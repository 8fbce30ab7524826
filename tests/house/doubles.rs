//! Doubles of the clock and of the random source, for tests of what is given an `Env`. The
//! unit tests of the crate and the simulator include this file too.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use privicorefs::env::{Clock, Env, Random, SplitMix64};

/// A clock that stands still and a seeded generator; tasks and disk are the machine's.
pub(crate) fn seeded_env(seed: u64) -> Env {
    Env {
        clock: Arc::new(FixedClock::default()),
        random: Arc::new(SeededRandom::new(seed)),
        ..Env::system()
    }
}

/// A clock that moves only when [`FixedClock::advance`] is called.
#[derive(Debug)]
pub(crate) struct FixedClock(AtomicU64);

impl Default for FixedClock {
    fn default() -> Self {
        Self(AtomicU64::new(1_700_000_000_000))
    }
}

impl FixedClock {
    /// Moves the clock on.
    pub(crate) fn advance(&self, by: Duration) {
        self.0.fetch_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }
}

impl Clock for FixedClock {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// A random source whose whole output follows from its seed.
#[derive(Debug)]
pub(crate) struct SeededRandom(SplitMix64);

impl SeededRandom {
    pub(crate) fn new(seed: u64) -> Self {
        Self(SplitMix64::new(seed))
    }
}

impl Random for SeededRandom {
    fn fill(&self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            let bytes = self.0.next_u64().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }

    /// Any 32 bytes are a public key; this one never had a private half.
    fn x25519_public_key(&self) -> Option<[u8; 32]> {
        let mut key = [0; 32];
        self.fill(&mut key);
        Some(key)
    }
}
