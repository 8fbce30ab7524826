//! What today's drive is known to break, until it is repaired.

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

/// The known fault that explains a finding.
pub fn explains(profile: &str, finding: &Finding) -> Option<&'static str> {
    let explains = |fault: &&Fault| {
        fault.profiles.contains(&profile) && fault.clauses.contains(&finding.clause)
    };
    KNOWN.iter().find(explains).map(|fault| fault.name)
}
