//! The commands without the drive: the real binary and an engine process.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../house/mod.rs"]
mod house;

mod account;
mod directory;
mod governance;
mod keyring;
mod oauth;
mod token;
