//! What takes minutes, or the whole machine: the programs that people use and the suites that others
//! wrote, at work on a drive, and a large file.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../house/mod.rs"]
mod house;

mod large;
mod programs;
mod suites;
