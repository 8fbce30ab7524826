//! Faults planted into the reference, one for each promise, for the judge to find.

use super::company::{Cells, Content, Entry, Final, Observer};

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

/// Spoils how everything stands at the end.
pub fn spoil_ending(planted: Option<Planted>, ending: &mut Final) {
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
