//! What today's drive is known to break, until it is repaired.
//!
//! A finding is known if a fault of the list explains it, and if its signature is one of
//! those that the profile's first seeds have shown on the commit that wrote the list
//! (`known/PROFILE.txt`; of `all`, those of the others): the same promise broken by another act, or after another fate, is
//! new. `simulate known --profile PROFILE` writes the list anew; it may only shrink, but where
//! the simulator itself has learned something.

use super::judge::{Clause, Finding};

/// A known fault, the profiles in which it shows, and the promises that it breaks.
struct Fault {
    name: &'static str,
    profiles: &'static [&'static str],
    clauses: &'static [Clause],
}

/// Where several machines take part.
const COMPANY: &[&str] = &["machines", "fates", "all", "lies"];
const FATES: &[&str] = &["fates", "all"];
const LIES: &[&str] = &["lies", "all"];

/// The list of known faults; it may only shrink. Each is shown by a script of `expected`.
const KNOWN: &[Fault] = &[
    Fault {
        name: "what another machine did unseen is lost, or differs between machines",
        profiles: COMPANY,
        clauses: &[
            Clause::KeptInVault,
            Clause::KeptHere,
            Clause::TreesAgree,
            Clause::RemovalTakes,
            Clause::WholeVersion,
            Clause::NobodyWrote,
            Clause::OwnName,
            Clause::FoldersKept,
            Clause::NobodyMade,
            Clause::CannotMount,
        ],
    },
    Fault {
        name: "a clock that jumps, or a machine's own setting, empties the trash",
        profiles: COMPANY,
        clauses: &[Clause::DeletedFromTrash, Clause::DeletedNamed],
    },
    Fault {
        name: "an edit over what another machine has deleted can never be sent",
        profiles: COMPANY,
        clauses: &[Clause::FsyncFails],
    },
    Fault {
        name: "a power cut, a restored state or a copied one leaves what cannot be used",
        profiles: FATES,
        clauses: &[Clause::CannotMount, Clause::FsyncFails, Clause::ConflictName],
    },
    Fault {
        name: "a lying service is believed",
        profiles: LIES,
        clauses: &[
            Clause::CannotMount,
            Clause::FsyncFails,
            Clause::ConflictName,
            Clause::NeverAnswers,
            Clause::Panics,
        ],
    },
    Fault {
        name: "what was deleted meanwhile is reported as damage of the catalog",
        profiles: COMPANY,
        clauses: &[Clause::FalseAlarm],
    },
];

/// The signatures that a profile is known for, a line each; what follows them is for people.
fn listed(profile: &str) -> &'static [&'static str] {
    const MACHINES: &str = include_str!("known/machines.txt");
    const FATES: &str = include_str!("known/fates.txt");
    const LIES: &str = include_str!("known/lies.txt");
    match profile {
        "machines" => &[MACHINES],
        "fates" => &[FATES],
        "lies" => &[LIES],
        "all" => &[MACHINES, FATES, LIES],
        _ => &[],
    }
}

/// Whether a finding of this signature is in the profile's list.
pub fn is_listed(profile: &str, finding: &Finding) -> bool {
    let signature = finding.signature();
    let mut lines = listed(profile).iter().flat_map(|list| list.lines());
    lines.any(|line| line.split_whitespace().next() == Some(signature.as_str()))
}

/// The known fault that a finding is of.
pub fn fault(profile: &str, finding: &Finding) -> Option<&'static str> {
    let explains = |fault: &&Fault| {
        fault.profiles.contains(&profile) && fault.clauses.contains(&finding.clause)
    };
    KNOWN.iter().find(explains).map(|fault| fault.name)
}
