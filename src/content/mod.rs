//! Content on this machine: staging, cache, write-back, fetch, parts.

pub mod blob;
pub mod buffers;
pub mod cache;
pub mod fetch;
pub mod holes;
pub mod staging;

/// Bytes of a chunk: the unit of staged overlays and of the cache. A multiple of
/// [`blob::BLOCK`]; equal to the default part size, so that one part is one chunk.
pub const CHUNK: u64 = 16 << 20;
