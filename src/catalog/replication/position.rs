//! How far a mount has come: with what it writes, and with what it lists.

use std::collections::BTreeMap;

use tokio::time::Instant;

use crate::catalog::format::{Identity, Reference};
use crate::store::Token;

/// What is said of a vault without anything of the catalog that this machine knows.
pub(super) const EMPTIED: &str = "the vault shows nothing of the catalog that this machine knows: nothing is written to it until it does again";

/// What this mount has written.
#[derive(Clone, Debug, Default)]
pub(super) struct Chain {
    pub(super) writer: u64,
    pub(super) sequence: u64,
    pub(super) manifests: u64,
    pub(super) last: Option<Reference>,
    /// The ends of others that it has named.
    pub(super) named: BTreeMap<u64, Vec<Identity>>,
    /// The manifests that it has named.
    pub(super) loaded: Vec<Token>,
}

impl Chain {
    pub(super) fn has_named(&self, writer: u64, identity: &Identity) -> bool {
        self.named.get(&writer).is_some_and(|named| named.contains(identity))
    }
}

/// What is known of the listing of the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogListing {
    /// How many pages it had.
    pub(super) pages: u32,
    /// When all of it was listed.
    pub(super) complete: Instant,
}
