//! What stands at a name.

use serde::{Deserialize, Serialize};

use super::inode::{Ino, Kind};
use crate::catalog::conflict::names::Claimant;

/// What claims a name: the record of it, and what it leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EntryClaim {
    /// Who, in the order in which names are given.
    pub claimant: Claimant,
    /// What it leads to.
    pub ino: Ino,
    /// Kind of that.
    pub kind: Kind,
}

/// One name in a folder: those that ask for it, and the one that has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The name.
    pub name: Vec<u8>,
    /// Those whose records name it.
    pub claims: Vec<EntryClaim>,
    /// Who is shown under it: one of them, or one that has lost another name.
    pub holder: Option<EntryClaim>,
}

impl Entry {
    /// Whether it says nothing.
    pub fn is_vacant(&self) -> bool {
        self.claims.is_empty() && self.holder.is_none()
    }
}

/// One name as an operation finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryLink {
    /// Link number; of a copy that nobody has acted on the one that it would get.
    pub link: u64,
    /// Inode.
    pub ino: Ino,
    /// Kind.
    pub kind: Kind,
}
