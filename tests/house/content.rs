//! File contents that can be made, and checked, at any offset without keeping them.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// A generator of numbers whose whole output follows from its seed (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    /// A number below `limit`, which must not be 0.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// One of the values.
    pub(crate) fn choose<'a, T>(&mut self, values: &'a [T]) -> &'a T {
        &values[usize::try_from(self.below(values.len() as u64)).unwrap()]
    }

    /// True once in `n` times.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Fills `out` with the bytes that content `seed` has at `offset`, a multiple of 8.
pub(crate) fn fill_at(seed: u64, offset: u64, out: &mut [u8]) {
    assert_eq!(offset % 8, 0, "content is made of 8-byte words");
    let first = offset / 8;
    for (index, word) in out.chunks_mut(8).enumerate() {
        let value = mix(seed.wrapping_add((first + index as u64).wrapping_mul(GOLDEN)));
        word.copy_from_slice(&value.to_le_bytes()[..word.len()]);
    }
}

/// The first `len` bytes of content `seed`.
pub(crate) fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fill_at(seed, 0, &mut bytes);
    bytes
}

/// How much of a large file is written or checked at a time.
const STEP: usize = 1 << 20;

/// Writes content `seed` at `offset..offset + len` of an open file.
pub(crate) fn write_pattern(file: &File, seed: u64, offset: u64, len: u64) -> io::Result<()> {
    let mut buffer = vec![0; STEP];
    let mut done = 0;
    while done < len {
        let n = usize::try_from((len - done).min(STEP as u64)).unwrap();
        fill_at(seed, offset + done, &mut buffer[..n]);
        file.write_all_at(&buffer[..n], offset + done)?;
        done += n as u64;
    }
    Ok(())
}

/// Panics unless the file has content `seed` at `offset..offset + len`.
#[track_caller]
pub(crate) fn assert_pattern(file: &File, seed: u64, offset: u64, len: u64) {
    let mut expected = vec![0; STEP];
    let mut found = vec![0; STEP];
    let mut done = 0;
    while done < len {
        let n = usize::try_from((len - done).min(STEP as u64)).unwrap();
        fill_at(seed, offset + done, &mut expected[..n]);
        file.read_exact_at(&mut found[..n], offset + done)
            .unwrap_or_else(|error| panic!("reading at {}: {error}", offset + done));
        // Not assert_eq: a page of bytes helps nobody.
        assert!(expected[..n] == found[..n], "content differs in {}..+{n}", offset + done);
        done += n as u64;
    }
}
