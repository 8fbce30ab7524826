//! Faults planted into the reference, one for each promise, for the judge to find.

use super::company::{Cells, Content, Entry, Final, Observer, View};

/// A planted fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// A write is acknowledged and forgotten.
    LosesWrites,
    /// `fsync` says yes before anything is published, and the machine then loses its disk.
    AcknowledgesTooEarly,
    /// A removal takes what it had not seen.
    RemovesUnseen,
    /// A removal is forgotten.
    RemovalForgotten,
    /// A rename gives another name than was asked for.
    OtherName,
    /// A content keeps cells of what it replaced.
    Mixture,
    /// A read gives bytes that nobody wrote.
    Forgery,
    /// A file appears that nobody made.
    Invention,
    /// A conflict name without a conflict.
    NeedlessConflict,
    /// The fresh machine lacks a file.
    TreesDiffer,
    /// The fresh machine has other permission bits.
    AttributesDiffer,
    /// A token is left that nothing names.
    Leak,
    /// A mount is refused.
    MountRefused,
    /// `fsync` fails without a reason.
    FsyncFails,
    /// `fsync` never answers.
    NeverAnswers,
    /// A power cut takes what was acknowledged long before it.
    CutTakesOld,
    /// A folder is acknowledged and forgotten.
    FolderLost,
    /// A token is deleted that the deleter's tree names.
    DeletesNamed,
    /// A token is deleted as soon as it is replaced.
    DeletesAtOnce,
    /// An honest service is reported as a liar.
    FalseAlarm,
    /// Of a service that goes back, nothing is said.
    Silence,
    /// An unmount says yes and forgets what was not published.
    UnmountForgets,
    /// Of two contents that nobody had both seen, one is dropped.
    DropsConflict,
    /// A file shows what was written to another.
    OtherFile,
    /// A folder appears that nobody made.
    InventsFolder,
    /// A link appears that nobody made.
    InventsLink,
    /// A content cannot be read, and nothing is said of it.
    Unreadable,
    /// A file is called damaged though nobody lied.
    DamagedForNothing,
    /// A new machine sees what was done later, and not what came before it.
    HalfState,
    /// What was hidden for a while is missing afterwards.
    NotBack,
    /// A harmless lie takes a file.
    LieHarms,
    /// A slow or lagging service is reported as a liar.
    CriesWhenSlow,
    /// `fsync` times out without a reason.
    FsyncTimesOut,
    /// Once the service was down, no `fsync` succeeds again.
    NeverRecovers,
    /// Something panics.
    Panics,
}

/// The first file shows, in its own length, what the last one holds.
fn take_another(view: &mut View) {
    let stamp = |entry: &Entry| match entry {
        Entry::File { content, .. } => match content.first() {
            Some(Cells::Of(stamp, _)) => Some(*stamp),
            _ => None,
        },
        _ => None,
    };
    let Some(other) = view.values().rev().find_map(stamp) else { return };
    let first = view.values_mut().find(|entry| stamp(entry).is_some_and(|of| of != other));
    if let Some(Entry::File { content, .. }) = first
        && let Cells::Of(_, n) = content[0]
    {
        content[0] = Cells::Of(other, n);
    }
}

/// Spoils what is written.
pub fn spoil_write(planted: Option<Planted>, content: &mut Content, base: &Content) {
    if planted == Some(Planted::Mixture)
        && let (Some(Cells::Of(_, n)), Some(Cells::Of(old, m))) =
            (content.first().copied(), base.first())
        && let Cells::Of(new, _) = content[0]
        && n > 1
        && *m > 0
    {
        content.splice(0..1, [Cells::Of(*old, 1), Cells::Of(new, n - 1)]);
    }
}

/// Spoils what is read.
pub fn spoil_read(planted: Option<Planted>, mut content: Content) -> Content {
    if planted == Some(Planted::Forgery)
        && let Some(Cells::Of(_, n)) = content.first().copied()
    {
        content[0] = Cells::Alien(n);
    }
    content
}

/// Spoils the name that a rename gives.
pub fn spoil_name(planted: Option<Planted>, name: String) -> String {
    if planted == Some(Planted::OtherName) { format!("{name}~") } else { name }
}

/// Spoils what a new machine shows.
pub fn spoil_newcomer(planted: Option<Planted>, view: &mut View) {
    if planted == Some(Planted::HalfState) {
        let mut at = 0;
        view.retain(|_, entry| {
            at += usize::from(matches!(entry, Entry::File { .. }));
            at % 2 == 0 || !matches!(entry, Entry::File { .. })
        });
    }
}

/// What the service did in the course of a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lies {
    /// It hid something, for a while.
    pub hid: bool,
    /// It lied otherwise.
    pub lied: bool,
}

/// Spoils how everything stands at the end.
pub fn spoil_ending(planted: Option<Planted>, lies: Lies, ending: &mut Final) {
    let all = ending.views.len();
    for (at, (observer, view)) in ending.views.iter_mut().enumerate() {
        let Ok(view) = view else { continue };
        let file = view.iter().find(|(_, entry)| matches!(entry, Entry::File { .. }));
        let Some((path, entry)) = file.map(|(path, entry)| (path.clone(), entry.clone())) else {
            continue;
        };
        match planted {
            Some(Planted::Invention) => {
                let content = vec![Cells::Of(1_000_000, 3)];
                let (perm, xattr, links, token) = (0o644, None, 1, None);
                view.insert("ghost".into(), Entry::File { content, perm, xattr, links, token });
            }
            Some(Planted::NeedlessConflict) => {
                view.remove(&path);
                view.insert(format!("{path} (conflict 7)"), entry);
            }
            Some(Planted::InventsFolder) => {
                let (made, perm, xattr) = (None, 0o755, None);
                view.insert("ghosts".into(), Entry::Dir { made, perm, xattr });
            }
            Some(Planted::InventsLink) => {
                view.insert("ghost".into(), Entry::Symlink { made: Some(1_000_000) });
            }
            Some(Planted::Unreadable | Planted::DamagedForNothing) => {
                let damaged = planted == Some(Planted::DamagedForNothing);
                view.insert(path, Entry::Unreadable { why: "EIO".into(), damaged });
            }
            Some(Planted::OtherFile) => take_another(view),
            Some(Planted::NotBack) if lies.hid => drop(view.remove(&path)),
            Some(Planted::LieHarms) if lies.lied => drop(view.remove(&path)),
            Some(Planted::DropsConflict) => view.retain(|path, _| !path.contains("(conflict ")),
            Some(Planted::TreesDiffer) if at + 1 == all => drop(view.remove(&path)),
            Some(Planted::AttributesDiffer) if *observer == Observer::Fresh => {
                if let Some(Entry::File { perm, .. }) = view.get_mut(&path) {
                    *perm ^= 0o20;
                }
            }
            _ => {}
        }
    }
    if planted == Some(Planted::Leak) {
        ending.stored.push(("t999999".into(), super::company::Stored::File));
    }
}
