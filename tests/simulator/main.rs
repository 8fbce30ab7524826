//! The simulator: several machines on one vault, in virtual time, one seed one schedule,
//! judged by what was acknowledged and shown.
//!
//! `company` says what a run is made of; `draw` draws one, `drive` carries it out with the
//! real operations layer over simulated disks (`disk`, `local`), tasks and clocks (`tasks`)
//! and a simulated service (`service`), `judge` says which promise of the design it broke,
//! `shrink` makes it small, `text` writes it down. `reference` is a company that keeps every
//! promise, and `planted` spoils it, so that the judge is judged (`judged`). `expected` holds
//! what today's drive is known to break, a script each. The flows of the client run over a
//! simulated transport of their own (`wire`, `wire_flows`).
//!
//! `model` draws histories of its own: one machine's operations against a model of a tree.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and has no public"
)]

mod batch;
mod company;
mod digests;
mod disk;
#[allow(dead_code, reason = "the simulator uses a part of what the test house has")]
#[path = "../house/doubles.rs"]
mod doubles;
mod draw;
mod drive;
mod expected;
mod histories;
mod judge;
mod judged;
mod kinds;
mod known;
mod local;
mod model;
mod planted;
mod random;
mod reference;
mod service;
mod short;
mod shrink;
mod tasks;
mod text;
mod wire;
mod wire_flows;
