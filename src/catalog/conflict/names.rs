//! One folder: who has which name (docs/format.md, 8.5).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::catalog::format::names::{conflict_name, derive};
use crate::catalog::format::{Stamp, VersionId};

/// The number of the file that a copy becomes.
pub fn copy_number(version: VersionId) -> u64 {
    derive("copy", &version.0, |_| false)
}

/// The number of a copy's link.
pub fn copy_link(version: VersionId) -> u64 {
    derive("copy link", &version.0, |_| false)
}

/// What asks for a name. The order is the one in which names are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Claimant {
    /// A link.
    Link {
        /// Whether it lives again.
        again: bool,
        /// What goes first.
        rank: Stamp,
        /// Its number.
        link: u64,
    },
    /// A content beside its file; it has a conflict name always.
    Copy {
        /// The version's stamp.
        stamp: Stamp,
        /// The version.
        version: VersionId,
    },
    /// What only a listing shows: it takes no name from anything that the catalog has.
    Other {
        /// Its number.
        number: u64,
    },
}

/// A claim to a name in a folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// Who.
    pub claimant: Claimant,
    /// The name as it was recorded.
    pub name: Vec<u8>,
    /// The machine that a conflict name has.
    pub machine: String,
    /// The time that it has, in milliseconds since 1970.
    pub millis: u64,
}

/// Gives each claim its name: the first that asks for one has it, the others, and all copies,
/// the first conflict name that is free. `is_had` says which names others have that are not among
/// the claims.
pub fn assign<E>(
    mut claims: Vec<Claim>,
    is_had: impl Fn(&[u8]) -> Result<bool, E>,
) -> Result<BTreeMap<Vec<u8>, Claim>, E> {
    claims.sort();
    let mut named = BTreeMap::new();
    let mut losers = Vec::new();
    for claim in claims {
        let is_copy = matches!(claim.claimant, Claimant::Copy { .. });
        if !is_copy && !named.contains_key(&claim.name) {
            named.insert(claim.name.clone(), claim);
        } else {
            losers.push(claim);
        }
    }
    let had: BTreeSet<Vec<u8>> = named.keys().cloned().collect();
    for claim in losers {
        // Each number gives another name, so one of them is free.
        for number in 1.. {
            let name = conflict_name(&claim.name, &claim.machine, claim.millis, number);
            if !had.contains(&name) && !named.contains_key(&name) && !is_had(&name)? {
                named.insert(name, claim);
                break;
            }
        }
    }
    Ok(named)
}
