//! What the machine offers that a test must be able to replace: wall time, randomness,
//! tasks and threads, the local disk.
//!
//! Nothing else in the crate calls `SystemTime::now`, `Instant::now` or a random
//! source (clippy's `disallowed-methods` says so). Deadlines use `tokio::time`, which
//! tests pause.

pub mod disk;
#[cfg(test)]
#[allow(dead_code, reason = "the unit tests use a part of what the test house has")]
#[path = "../../tests/house/doubles.rs"]
pub(crate) mod doubles;
pub mod tasks;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use ring::agreement::{EphemeralPrivateKey, X25519};
use ring::rand::{SecureRandom, SystemRandom};

use self::disk::{Disk, SystemDisk};
use self::tasks::{SystemTasks, Task, Tasks};

/// Wall-clock time.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The time now; may go backwards when the machine's clock is set.
    fn now(&self) -> SystemTime;
}

/// A source of bytes for nonces, identifiers and jitter.
pub trait Random: Send + Sync + fmt::Debug {
    /// Fills `out`. Must be unpredictable in production; panics if the operating
    /// system refuses, because no safe nonce can be made then.
    fn fill(&self, out: &mut [u8]);

    /// A new X25519 public key, whose private half nobody keeps; `None` if none can be made.
    fn x25519_public_key(&self) -> Option<[u8; 32]>;
}

/// All of it, as it is passed around.
#[derive(Clone, Debug)]
pub struct Env {
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// Local files.
    pub disk: Arc<dyn Disk>,
    /// Work beside the caller.
    pub tasks: Arc<dyn Tasks>,
}

impl Env {
    /// The machine's own clock, random source and disk.
    pub fn system() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            random: Arc::new(OsRandom(SystemRandom::new())),
            tasks: Arc::new(SystemTasks),
            disk: Arc::new(SystemDisk),
        }
    }

    /// Runs `future` as a task of its own. Must be called in a tokio runtime.
    pub fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Task<T> {
        tasks::spawn(&*self.tasks, future)
    }

    /// Milliseconds since the Unix epoch; 0 for a clock set before it.
    pub fn millis(&self) -> u64 {
        let since = self.clock.now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// A random 64-bit number.
    pub fn random_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.random.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}

#[derive(Debug)]
struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}

struct OsRandom(SystemRandom);

impl fmt::Debug for OsRandom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OsRandom")
    }
}

impl Random for OsRandom {
    #[allow(clippy::expect_used, reason = "without randomness no nonce is safe: stop")]
    fn fill(&self, out: &mut [u8]) {
        self.0.fill(out).expect("the operating system's random source failed");
    }

    // Here, because ring makes keys from its own random sources only.
    fn x25519_public_key(&self) -> Option<[u8; 32]> {
        let private = EphemeralPrivateKey::generate(&X25519, &self.0).ok()?;
        private.compute_public_key().ok()?.as_ref().try_into().ok()
    }
}

/// SplitMix64: numbers that follow from a seed, so that a run can be repeated. They are no
/// secret, hence it is no [`Random`] and makes no nonce, key or identifier.
#[derive(Debug)]
pub struct SplitMix64(AtomicU64);

impl SplitMix64 {
    /// A generator whose whole output follows from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// The next number.
    pub fn next_u64(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
