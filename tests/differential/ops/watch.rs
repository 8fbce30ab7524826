//! Which times an operation moves.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// The times of one file at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Times {
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Whether one file's times moved; both are false where the file came or went.
#[derive(PartialEq, Eq)]
pub(crate) struct Moved {
    modified: bool,
    changed: bool,
}

impl std::fmt::Debug for Moved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match (self.modified, self.changed) {
            (false, false) => "stayed",
            (false, true) => "ctime moved",
            (true, false) => "mtime moved",
            (true, true) => "both moved",
        })
    }
}

impl Times {
    pub(super) fn of(status: &fs::Metadata) -> Self {
        Self {
            inode: status.ino(),
            modified: (status.mtime(), status.mtime_nsec()),
            changed: (status.ctime(), status.ctime_nsec()),
        }
    }
}

/// What moved between two looks at the same files.
pub(super) fn moved(before: &[Option<Times>], after: &[Option<Times>]) -> Vec<Moved> {
    let pairs = before.iter().zip(after);
    pairs
        .map(|pair| match pair {
            (Some(before), Some(after)) if before.inode == after.inode => Moved {
                modified: before.modified != after.modified,
                changed: before.changed != after.changed,
            },
            _ => Moved { modified: false, changed: false },
        })
        .collect()
}

/// Whether the times in a folder are fine enough to tell two changes in a row apart. Older
/// kernels take them from a clock that ticks a few hundred times a second.
pub(crate) fn is_fine(folder: &Path) -> bool {
    let path = folder.join("fine");
    let file = File::create(&path).unwrap();
    let look = || Times::of(&file.metadata().unwrap());
    let fine = (0..50).all(|number| {
        let before = look();
        file.set_permissions(Permissions::from_mode(0o600 + number % 2)).unwrap();
        before != look()
    });
    fs::remove_file(&path).unwrap();
    fine
}
