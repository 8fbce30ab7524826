//! The catalog: names, attributes and versions, which tokens cannot carry (design D3).
//!
//! It is a set of *records*, each about one object, made by one machine at one time. What is
//! shown is a pure function of that set, the same on every machine that has the same records
//! (docs/format.md).
//!
//! * [`mod@format`]: what lies in the service, byte by byte.
//! * [`conflict`]: what a set of records comes to.
//! * [`local`]: what this machine keeps of it.
//! * [`namespace`]: the tree over that, with the operations of a drive.
//! * [`replication`]: exchanging records with the vault.
//! * [`discovery`]: files of other clients.

mod attributes;
pub mod cleared;
pub mod conflict;
pub mod discovery;
pub mod format;
pub mod local;
pub mod namespace;
pub mod replication;

pub use discovery::Discovered;
pub use local::inode::{
    Attrs, Content, Dirty, DirtyKind, Ino, Inode, Kind, Link, Local, ROOT_INO, Time, Version,
};
pub use namespace::{
    CatalogError, CatalogResult, NewInode, NewVersion, Owner, Removed, Stale, TopFolder, Tree, Txn,
};
pub use replication::{Followed, Paths, Published, Remote, RemoteError};
