//! What several machines did without having seen each other, resolved: a pure function of the
//! set of records, the same on every machine, for which nothing is published
//! (docs/format.md, 8).
//!
//! Invariants
//! 1. The order in which records come decides nothing, and neither does a record that comes
//!    twice.
//! 2. A content that no removal has seen, and no other content covers, is shown: under its own
//!    name, or under a conflict name beside it.
//! 3. A content that a removal of the last name has seen is not shown, unless the file has a
//!    name that was not removed and nothing else to show.
//! 4. Every folder that something is shown in is shown, and is reached from the root.

pub mod file;
pub mod folder;
pub mod names;
pub mod object;
pub mod tree;
