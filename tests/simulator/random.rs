//! Random choices that a seed fixes, wholly and everywhere alike.

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Draws(u64);

impl Draws {
    /// All that it draws follows from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `bound`, which is at least 1.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

/// Spreads a number over all 64 bits.
pub fn mix(n: u64) -> u64 {
    let z = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// One seed out of several numbers.
pub fn seed_of(numbers: &[u64]) -> u64 {
    numbers.iter().fold(0, |seed, n| mix(seed ^ mix(n.wrapping_add(0x9e37_79b9_7f4a_7c15))))
}
