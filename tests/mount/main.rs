//! The drive as a kernel sees it: the real binary, mounted.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../house/mod.rs"]
mod house;

mod acl;
mod approval;
mod cli;
mod clients;
mod crash;
mod directories;
mod expected;
mod full;
mod latency;
mod outage;
mod risk;
mod secrecy;
mod session;
mod shapes;
mod sparse;
mod storage;
mod tree;
mod two_machines;
mod user;
