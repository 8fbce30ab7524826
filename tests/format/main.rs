//! What lies in the vault (`docs/format.md`): the rules by which histories of several machines are
//! resolved, and an independent reader that was written from the document alone.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../house/mod.rs"]
mod house;

mod company;
mod independent;
mod written;
