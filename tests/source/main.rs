//! Checks of the repository itself: the layers of the sources, and what its documents claim.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../house/mod.rs"]
mod house;

mod api_table;
mod arrows;
mod circles;
mod layering;
mod named;
mod promises;
mod reader;
mod simulated;
