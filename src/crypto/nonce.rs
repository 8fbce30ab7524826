//! Random nonces in bulk: one system call per 4 KiB of randomness, not per record.
//!
//! Bytes are handed out once and in order, so nonces are as random as the source. Two
//! copies of the pool would hand out the same bytes: the pool therefore empties itself
//! when the process id changed (a fork).

use parking_lot::Mutex;

use super::IV_LEN;
use crate::env::Random;

/// One refill. 341 nonces, about one megabyte of records.
const BATCH: usize = 4096;

/// A buffer of randomness that has not been used yet.
pub(super) struct NoncePool(Mutex<Pool>);

struct Pool {
    bytes: Box<[u8; BATCH]>,
    used: usize,
    process: u32,
}

impl NoncePool {
    pub(super) fn new() -> Self {
        let bytes = Box::new([0; BATCH]);
        Self(Mutex::new(Pool { bytes, used: BATCH, process: 0 }))
    }

    /// Fills `out` with fresh nonces, none of them all zero (records use that for
    /// "absent"). `random` refills the pool: always pass the same source.
    pub(super) fn fill(&self, random: &dyn Random, out: &mut [[u8; IV_LEN]]) {
        let mut pool = self.0.lock();
        let process = std::process::id();
        if pool.process != process {
            pool.process = process;
            pool.used = BATCH;
        }
        for nonce in out {
            *nonce = pool.next(random);
            while *nonce == [0; IV_LEN] {
                *nonce = pool.next(random);
            }
        }
    }

    /// One fresh nonce.
    pub(super) fn one(&self, random: &dyn Random) -> [u8; IV_LEN] {
        let mut nonce = [[0; IV_LEN]];
        self.fill(random, &mut nonce);
        nonce[0]
    }
}

impl Pool {
    fn next(&mut self, random: &dyn Random) -> [u8; IV_LEN] {
        if self.used + IV_LEN > BATCH {
            random.fill(&mut self.bytes[..]);
            self.used = 0;
        }
        let mut nonce = [0; IV_LEN];
        nonce.copy_from_slice(&self.bytes[self.used..self.used + IV_LEN]);
        self.used += IV_LEN;
        nonce
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::env::doubles::SeededRandom;

    #[test]
    fn nonces_do_not_repeat_across_refills_and_threads() {
        let (pool, random) = (NoncePool::new(), SeededRandom::new(3));
        let seen = Mutex::new(HashSet::new());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut run = vec![[0; IV_LEN]; 5000];
                    pool.fill(&random, &mut run);
                    seen.lock().extend(run);
                    seen.lock().insert(pool.one(&random));
                });
            }
        });
        assert_eq!(seen.lock().len(), 4 * 5001);
    }

    /// Gives zeros twice, then ones.
    #[derive(Debug, Default)]
    struct Poor(AtomicUsize);

    impl Random for Poor {
        fn fill(&self, out: &mut [u8]) {
            out.fill(u8::from(self.0.fetch_add(1, Ordering::Relaxed) >= 2));
        }

        fn x25519_public_key(&self) -> Option<[u8; 32]> {
            None
        }
    }

    #[test]
    fn the_zero_nonce_is_never_given() {
        assert_eq!(NoncePool::new().one(&Poor::default()), [1; IV_LEN]);
    }
}
