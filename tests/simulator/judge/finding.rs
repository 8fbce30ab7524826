//! Findings, and the promises that they are about.

use std::fmt;

/// A half-sentence of design D10 (and D6) that a run can break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Clause {
    /// A content that fsync, sync or unmount acknowledged is there, or one that grew from it,
    /// or what took it had seen it.
    KeptInVault,
    /// The same of one that `close` acknowledged, while the machine's disk lives.
    KeptHere,
    /// A content is under a name that it was given.
    OwnName,
    /// A conflict name is there only if two wrote without having seen each other.
    ConflictName,
    /// What a removal took that had seen it is gone.
    RemovalTakes,
    /// Nothing exists that nobody made.
    NobodyMade,
    /// No content is a mixture of versions, or older than its size says.
    WholeVersion,
    /// No byte is read that nobody wrote to that file.
    NobodyWrote,
    /// Nothing is deleted that its deleter's own tree names.
    DeletedNamed,
    /// Nothing is deleted that the trash promises.
    DeletedFromTrash,
    /// After the horizon nothing is left that nobody names.
    Leak,
    /// The trees of all machines agree.
    TreesAgree,
    /// Folders and links stay as they were made.
    FoldersKept,
    /// A machine that has seen more reports a service that withholds or goes back.
    Unreported,
    /// A new machine shows some state that the vault had, as a whole.
    HalfState,
    /// With an honest service nothing is reported as a lie.
    FalseAlarm,
    /// After the last fault no fsync fails.
    FsyncFails,
    /// A mount succeeds, and comes to rest.
    CannotMount,
    /// No operation waits for ever.
    NeverAnswers,
    /// Nothing panics, whatever the service sends.
    Panics,
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which promise.
    pub clause: Clause,
    /// The kind of the step that the subject is of.
    pub act: &'static str,
    /// The kind of the last fate or lie that touched it.
    pub fate: Option<&'static str>,
    /// For a person.
    pub text: String,
}

impl Finding {
    /// What findings of one cause have in common.
    pub fn signature(&self) -> String {
        format!("{:?}/{}/{}", self.clause, self.act, self.fate.unwrap_or("-"))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.signature(), self.text)
    }
}
