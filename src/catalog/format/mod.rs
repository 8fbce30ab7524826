//! What lies in the service, byte by byte: the second format of the catalog.
//!
//! The rules are in `docs/format.md`, section by section; this module turns bytes into values
//! and back, and knows nothing of a database, a network or a tree.
//!
//! Invariants
//! 1. Reading never panics, and needs memory in proportion to the bytes that are there:
//!    whatever a payload says of itself is checked against its own length first.
//! 2. A value has one encoding. Bytes that decode and are not that encoding are refused, so
//!    that records can be compared, sorted and passed on as bytes.
//! 3. One record that is malformed costs that record, and is the same to every reader: nothing
//!    but its own bytes decides.
//! 4. A record of an unknown kind, or with members that are not known, keeps its bytes.

mod body;
pub mod cbor;
mod decode;
pub mod names;
pub mod part_list;
pub mod payload;
pub mod record;
pub mod segment;
mod values;

#[cfg(test)]
mod tests;

pub use payload::{Header, Identity, KeyId, PayloadKind, Reference, Unopened};
pub use record::{Body, Malformed, Record, Stamp, Subject, VersionId};
pub use segment::{End, Manifest, Page, Segment};
