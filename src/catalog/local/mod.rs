//! What this machine keeps of the catalog: the records that it has applied or made, what is
//! shown of them, and what waits.
//!
//! Invariants
//! 1. A record that was applied is here until a checkpoint may leave it out (docs/format.md,
//!    4.5): in its object's row, in the history of its file, or among those of the vault.
//! 2. What is shown (entries, attributes, contents) is a pure function of these records and of
//!    what waits here; it changes with them, in the same batch.
//! 3. Nothing but this room knows how a key of the database is spelt.

pub mod clock;
pub mod entry;
pub mod inode;
pub mod row;
pub mod schema;
pub mod vault;
