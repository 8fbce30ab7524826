//! The key-value store under the local database: fjall, or memory in a simulator.
//!
//! Contract
//! * A commit is atomic: after any crash all of its changes are there or none.
//! * Commits reach the disk in their order. When [`Backend::sync`] returns, all that was
//!   committed before it was called survives a power cut; of the rest, a prefix may.
//! * What was committed survives the death of the process at once.
//! * A scan, and a [`Backend::snapshot`], see one moment, whatever is committed meanwhile.
//! * Keys are in byte order. Values are opaque here: the layer above seals them.

use std::ops::Bound;

use super::{DbResult, Space};

/// Receives a key and its value; answers whether to go on.
pub type Each<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> DbResult<bool>;

/// One change of a commit.
#[derive(Clone, Debug)]
pub struct Change {
    /// Which part of the database.
    pub space: Space,
    /// Its key.
    pub key: Vec<u8>,
    /// The new value; none removes the key.
    pub value: Option<Vec<u8>>,
}

/// Reads a moment of the store.
pub trait Reader: Send + Sync {
    /// Calls `with` on the value of a key; false if there is none.
    fn get(
        &self,
        space: Space,
        key: &[u8],
        with: &mut dyn FnMut(&[u8]) -> DbResult<()>,
    ) -> DbResult<bool>;

    /// Whether a key exists.
    fn contains(&self, space: Space, key: &[u8]) -> DbResult<bool>;

    /// Calls `each` for the pairs of `Space::Meta` from `from` on and before `end`, in the
    /// order of their keys, until it answers false. `each` may call the store.
    fn scan(&self, from: &[u8], end: Bound<Vec<u8>>, each: Each<'_>) -> DbResult<()>;
}

/// An open store. See the module's header for its contract.
pub trait Backend: Reader {
    /// The store as it is now, to be read later.
    fn snapshot(&self) -> Box<dyn Reader>;

    /// Makes the changes visible together.
    fn commit(&self, changes: Vec<Change>) -> DbResult<()>;

    /// Waits until everything committed so far is on the disk.
    fn sync(&self) -> DbResult<()>;

    /// Bytes in memory that wait to be written into tables: writers wait while it is large.
    fn write_buffer(&self) -> u64;

    /// Bytes on disk.
    fn disk_bytes(&self) -> u64;
}
