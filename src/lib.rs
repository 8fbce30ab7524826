//! `privicorefs` mounts a Privicore vault as a drive.
//!
//! ```text
//! cli        what the user typed                    config   typed, validated, redacted
//! mount      composition root, signals, drain       control  socket: status, sync
//! fuse       fuser callbacks, VfsError -> errno; the only code that names fuser
//! vfs        one method per operation: inodes, handles, xattrs
//! catalog    names, segments, publish, merge        content  staging, cache, write-back, fetch, parts
//! store      what a token store offers, with retry and limits as decorators
//! privicore  the client: HTTP, channel, flows       engine   the embedded server
//! db         the local database: sealed values over a backend that keeps them
//! protocol   wire words     crypto  seal/open       env  clock, randomness, tasks, disk     telemetry
//! ```
//!
//! Arrows point down only; `tests/source/layering.rs` enforces it. Without the feature `program`
//! there is what lies below `fuse` alone: the simulator is built so.

// The unit tests share doubles with the test programs, which name the crate so.
#[cfg(test)]
extern crate self as privicorefs;

pub mod catalog;
#[cfg(feature = "program")]
pub mod cli;
#[cfg(feature = "program")]
pub mod config;
pub mod content;
#[cfg(feature = "program")]
pub mod control;
pub mod crypto;
pub mod db;
#[cfg(feature = "program")]
pub mod engine;
pub mod env;
#[cfg(feature = "program")]
pub mod fuse;
#[cfg(feature = "program")]
pub mod mount;
pub mod privicore;
pub mod protocol;
pub mod store;
pub mod telemetry;
pub mod vfs;
