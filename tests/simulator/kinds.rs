//! The kinds of what happens, by name: for choosing, counting and signatures.

use super::company::{Act, Fate, OtherAct, Service, Step};

/// The name of a step's kind.
pub fn kind(step: &Step) -> &'static str {
    match step {
        Step::Do(_, act) => act_kind(act),
        Step::Other(OtherAct::Store { .. }) => "other-store",
        Step::Other(OtherAct::Update { .. }) => "other-update",
        Step::Other(OtherAct::Delete { .. }) => "other-delete",
        Step::Fate(fate) => fate_kind(fate),
        Step::Service(service) => service_kind(service),
        Step::Wait { .. } => "wait",
    }
}

/// The name of an act's kind.
pub fn act_kind(act: &Act) -> &'static str {
    match act {
        Act::Write { .. } => "write",
        Act::Edit { .. } => "edit",
        Act::Truncate { .. } => "truncate",
        Act::Punch { .. } => "punch",
        Act::Clone { .. } => "clone",
        Act::Save { .. } => "save",
        Act::Open { .. } => "open",
        Act::WriteSlot { .. } => "write-slot",
        Act::Close { .. } => "close",
        Act::FsyncSlot { .. } => "fsync-slot",
        Act::Mkdir { .. } => "mkdir",
        Act::Rmdir { .. } => "rmdir",
        Act::Remove { .. } => "remove",
        Act::Rename { .. } => "rename",
        Act::Exchange { .. } => "exchange",
        Act::Link { .. } => "link",
        Act::Symlink { .. } => "symlink",
        Act::Chmod { .. } => "chmod",
        Act::Xattr { .. } => "xattr",
        Act::Fsync { .. } => "fsync",
        Act::Sync { .. } => "sync",
        Act::Read { .. } => "read",
    }
}

/// The name of a fate's kind.
pub fn fate_kind(fate: &Fate) -> &'static str {
    match fate {
        Fate::Mount { .. } => "mount",
        Fate::Unmount { .. } => "unmount",
        Fate::Kill { .. } => "kill",
        Fate::PowerCut { .. } => "power-cut",
        Fate::LoseCache { .. } => "lose-cache",
        Fate::Backup { .. } => "backup",
        Fate::Restore { .. } => "restore",
        Fate::SetBack { .. } => "set-back",
        Fate::Duplicate { .. } => "duplicate",
        Fate::Lose { .. } => "lose",
        Fate::Away { .. } => "away",
        Fate::Back { .. } => "back",
        Fate::Clock { .. } => "clock",
        Fate::Look { .. } => "look",
        Fate::Housekeep { .. } => "housekeep",
        Fate::Checkpoint { .. } => "checkpoint",
    }
}

/// The name of a behaviour's kind.
pub fn service_kind(service: &Service) -> &'static str {
    match service {
        Service::Honest => "honest",
        Service::Slow { .. } => "slow",
        Service::Down { .. } => "down",
        Service::Lag { .. } => "lag",
        Service::LostAck { .. } => "lost-ack",
        Service::LandsLate { .. } => "lands-late",
        Service::FailPuts { .. } => "fail-puts",
        Service::FailGets { .. } => "fail-gets",
        Service::Clock { .. } => "service-clock",
        Service::Swap { .. } => "swap",
        Service::Replay { .. } => "replay",
        Service::Cut { .. } => "cut",
        Service::RollBack { .. } => "roll-back",
        Service::Withhold { .. } => "withhold",
        Service::CopyAs { .. } => "copy-as",
        Service::Duplicate => "duplicate-entries",
        Service::Reorder => "reorder",
        Service::WrongPage { .. } => "wrong-page",
        Service::ShortPage { .. } => "short-page",
        Service::Shift { .. } => "shift",
        Service::NoSizes => "no-sizes",
        Service::Year { .. } => "year",
        Service::Entry { .. } => "entry",
        Service::Answer { .. } => "answer",
        Service::Erase { .. } => "erase",
    }
}

/// Whether the service lies, rather than being slow, lagging or failing.
pub fn is_lie(service: &Service) -> bool {
    !matches!(
        service,
        Service::Honest
            | Service::Slow { .. }
            | Service::Down { .. }
            | Service::Lag { .. }
            | Service::LostAck { .. }
            | Service::LandsLate { .. }
            | Service::FailPuts { .. }
            | Service::FailGets { .. }
    )
}

/// Fates that a script counts: not the everyday ones that merely move it along.
pub fn is_counted(step: &Step) -> bool {
    match step {
        Step::Fate(
            Fate::Mount { .. }
            | Fate::Back { .. }
            | Fate::Backup { .. }
            | Fate::Look { .. }
            | Fate::Housekeep { .. }
            | Fate::Checkpoint { .. },
        )
        | Step::Service(Service::Honest) => false,
        Step::Fate(_) | Step::Service(_) => true,
        _ => false,
    }
}

/// The machine that a step is about.
pub fn machine(step: &Step) -> Option<u8> {
    match step {
        Step::Do(on, _) => Some(*on),
        Step::Fate(
            Fate::Mount { on }
            | Fate::Unmount { on }
            | Fate::Kill { on, .. }
            | Fate::PowerCut { on, .. }
            | Fate::LoseCache { on }
            | Fate::Backup { on, .. }
            | Fate::Restore { on, .. }
            | Fate::SetBack { on, .. }
            | Fate::Duplicate { on }
            | Fate::Lose { on }
            | Fate::Away { on }
            | Fate::Back { on }
            | Fate::Clock { on, .. }
            | Fate::Look { on }
            | Fate::Housekeep { on }
            | Fate::Checkpoint { on },
        ) => Some(*on),
        _ => None,
    }
}
