//! The kinds of what happens, by name: for choosing, counting and signatures.

use super::company::{Act, Fate, Machine, OtherAct, Path, Service, Step};

/// The name of a step's kind.
pub fn kind(step: &Step) -> &'static str {
    match step {
        Step::Do(_, act) => act_kind(act),
        Step::Other(OtherAct::Store { .. }) => "other-store",
        Step::Other(OtherAct::Update { .. }) => "other-update",
        Step::Other(OtherAct::Delete { .. }) => "other-delete",
        Step::Fate(fate) => fate_kind(fate),
        Step::Service(service) => service_kind(service),
        Step::Newcomer => "newcomer",
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

/// The machine that a fate is about.
pub fn fate_machine(fate: &Fate) -> Machine {
    *fate_machine_mut(&mut fate.clone())
}

fn fate_machine_mut(fate: &mut Fate) -> &mut Machine {
    let (Fate::Mount { on }
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
    | Fate::Checkpoint { on }) = fate;
    on
}

/// The machine that a step is about.
pub fn machine(step: &Step) -> Option<Machine> {
    match step {
        Step::Do(on, _) => Some(*on),
        Step::Fate(fate) => Some(fate_machine(fate)),
        _ => None,
    }
}

/// The machine that a step names, the one for which the service behaves otherwise included.
pub fn machine_mut(step: &mut Step) -> Option<&mut Machine> {
    match step {
        Step::Do(on, _) => Some(on),
        Step::Fate(fate) => Some(fate_machine_mut(fate)),
        Step::Service(
            Service::Lag { on, .. } | Service::RollBack { on, .. } | Service::Withhold { on, .. },
        ) => on.as_mut(),
        _ => None,
    }
}

/// The size at which a step leaves a content; no two steps of a script have the same.
pub fn size_mut(step: &mut Step) -> Option<&mut u32> {
    match step {
        Step::Do(
            _,
            Act::Write { size, .. }
            | Act::Edit { size, .. }
            | Act::Truncate { size, .. }
            | Act::Punch { size, .. }
            | Act::Clone { size, .. }
            | Act::Save { size, .. }
            | Act::WriteSlot { size, .. },
        )
        | Step::Other(OtherAct::Store { size, .. } | OtherAct::Update { size, .. }) => Some(size),
        _ => None,
    }
}

/// See [`size_mut`].
pub fn size(step: &Step) -> Option<u32> {
    size_mut(&mut step.clone()).copied()
}

/// The paths that an act names, in its order.
pub fn act_paths(act: &Act) -> Vec<Path> {
    act_paths_mut(&mut act.clone()).into_iter().map(std::mem::take).collect()
}

fn act_paths_mut(act: &mut Act) -> Vec<&mut Path> {
    match act {
        Act::Write { at, .. }
        | Act::Edit { at, .. }
        | Act::Truncate { at, .. }
        | Act::Punch { at, .. }
        | Act::Save { at, .. }
        | Act::Open { at, .. }
        | Act::Mkdir { at }
        | Act::Rmdir { at }
        | Act::Remove { at }
        | Act::Symlink { at }
        | Act::Chmod { at, .. }
        | Act::Xattr { at, .. }
        | Act::Fsync { at, .. }
        | Act::Read { at } => vec![at],
        Act::Clone { from, to, .. } | Act::Rename { from, to } | Act::Link { from, to } => {
            vec![from, to]
        }
        Act::Exchange { a, b } => vec![a, b],
        Act::WriteSlot { .. } | Act::Close { .. } | Act::FsyncSlot { .. } | Act::Sync { .. } => {
            Vec::new()
        }
    }
}

/// The paths that a step names.
pub fn paths_mut(step: &mut Step) -> Vec<&mut Path> {
    match step {
        Step::Do(_, act) => act_paths_mut(act),
        Step::Other(
            OtherAct::Store { at, .. } | OtherAct::Update { at, .. } | OtherAct::Delete { at },
        ) => vec![at],
        Step::Fate(_) | Step::Service(_) | Step::Newcomer | Step::Wait { .. } => Vec::new(),
    }
}
