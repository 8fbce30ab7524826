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
//! Arrows point down only; `tests/source/layering.rs` enforces it.

// The unit tests share doubles with the test programs, which name the crate so.
#[cfg(test)]
extern crate self as privicorefs;

pub mod catalog;
pub mod cli;
pub mod config;
pub mod content;
pub mod control;
pub mod crypto;
pub mod db;
pub mod engine;
pub mod env;
pub mod fuse;
pub mod mount;
pub mod privicore;
pub mod protocol;
pub mod store;
pub mod telemetry;
pub mod vfs;
