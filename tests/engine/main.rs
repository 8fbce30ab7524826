//! The embedded engine over the wire, spoken raw.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../house/mod.rs"]
mod house;

mod account;
mod channel;
mod devices;
mod directory;
mod gate;
mod oauth;
mod policy;
mod protocol;
mod storage;
mod variants;
