//! The catalog: names and attributes, which tokens cannot carry (design D3).
//!
//! State is a set of last-writer-wins *registers*, each with a [`Stamp`]: an inode's
//! attributes, its content version, each of its extended attributes, and the place
//! (parent, name) of each link. A local operation writes registers with new stamps; the
//! [`publish`] module sends the changed records, sealed, in numbered segments; [`merge`]
//! takes other writers' records in. Because a register's newest stamp wins whatever the
//! order of arrival, every machine that has seen the same records holds the same ones.
//!
//! Invariants
//! 1. Every stamp a writer makes is greater than every stamp it has seen ([`hlc`]).
//! 2. A link is in the entry table under exactly its record's place, or nowhere if dead.
//!    Of several live links at one place the greatest stamp has the name; the others are
//!    listed under a conflict name derived from their link number.
//! 3. `nlink` of a file is the number of its live links; of a directory 2 plus its
//!    live subdirectories.
//! 4. From every live directory the parents lead to the root (no cycle), once what the
//!    vault listed is in and settled ([`merge`]).
//! 5. A record leaves the outbox only when the vault has acknowledged a segment that
//!    holds the very stamps it has now.
//! 6. An inode whose content waits for the vault, the links to it, and the removals it
//!    caused (rename over an old file), are not published before that content is.
//! 7. Registers outlive names: what was removed is remembered for 90 days, so that a name
//!    that another machine gave meanwhile finds them ([`checkpoint`]).

mod attributes;
pub mod checkpoint;
pub mod cleared;
pub mod conflict;
pub mod discover;
pub mod discovery;
pub mod folders;
pub mod follow;
pub mod format;
pub mod hlc;
pub mod keys;
pub mod local;
pub mod merge;
pub mod namespace;
mod outbox;
pub mod publish;
pub mod record;
pub mod remote;
pub mod replication;
pub mod segment;
pub mod tree;
pub mod txn;
pub mod writer;

pub use hlc::Stamp;
pub use record::{
    Attrs, Content, Dirty, DirtyKind, Ino, Inode, Kind, Link, ROOT_INO, Time, Version,
};
pub use remote::{Remote, RemoteError};
pub use tree::{CatalogError, CatalogResult, NewInode, Removed, Tree};
pub use txn::{Stale, Txn};
