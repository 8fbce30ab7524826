//! Histories that proptest draws.

use proptest::test_runner::{Config, RngSeed};

/// How proptest draws histories: so many (or `PRIVICOREFS_{name}_CASES`), the same each time
/// (or those of the seed `PRIVICOREFS_{name}_SEED`), and nothing of it in a file.
pub fn histories(name: &str, cases: u32, max_shrink_iters: u32) -> Config {
    let number = |what: &str| std::env::var(format!("PRIVICOREFS_{name}_{what}")).ok();
    let cases = number("CASES").and_then(|n| n.parse().ok()).unwrap_or(cases);
    let seed = number("SEED").and_then(|n| n.parse().ok()).unwrap_or(0);
    let rng_seed = RngSeed::Fixed(seed);
    Config { cases, rng_seed, max_shrink_iters, failure_persistence: None, ..Config::default() }
}
