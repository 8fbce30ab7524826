//! Content on this machine: staging, cache, write-back, fetch, parts.

pub mod blob;
pub mod cache;
