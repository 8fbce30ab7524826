//! The tree of names over the local database: lookups, changes, and what comes from others.
//!
//! Invariants
//! 1. Every change is one [`Txn`] under one lock: short, never across the network.
//! 2. What an operation changes becomes records with new stamps, which wait to be published;
//!    what comes from others becomes part of the same rows. What is shown is computed from the
//!    rows alone ([`crate::catalog::conflict`]), never acted upon.
//! 3. An entry is held by one claim, and every claim holds exactly one name of its folder.
//! 4. An object that waits for a content of its own, and one that was replaced by such, is not
//!    published before that content is in the vault.

mod act;
mod apply;
mod due;
mod history;
mod operations;
mod outbox;
mod placeholder;
mod show;
mod tree;
mod txn;
mod waiting;

#[cfg(test)]
mod tests;

pub use due::{Due, Unneeded};
pub use history::NewVersion;
pub use operations::{NewInode, Removed};
pub use placeholder::{Owner, TopFolder, number_of};
pub use tree::{CatalogError, CatalogResult, Tree, check_name};
pub use txn::{Stale, Txn};
pub use waiting::Waiting;
