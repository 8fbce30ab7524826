//! The crate's own client against the engine and against scripted peers, and the contract of every
//! store.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../house/mod.rs"]
mod house;

mod account;
mod clock;
mod directory;
mod faults;
mod forged;
mod governance;
mod learning;
mod memory;
mod oauth;
mod peer;
mod session;
mod shapes;
mod store;
mod tls;
