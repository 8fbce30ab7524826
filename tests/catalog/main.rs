//! The catalog and the operations above it, in this process, over a store in memory.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../house/mod.rs"]
mod house;

mod merge;
mod model;
