//! A whole tree in memory, to compare two of them.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::house::attributes;
use crate::ops::SET_BEFORE;
use crate::ops::tree::entries;

/// What must agree about one name.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    mode: u32,
    owner: (u32, u32),
    device: u64,
    /// The first name, in order, of the same file.
    same_as: PathBuf,
    /// How many names it has; 0 for folders, where it is a filesystem's own.
    links: u64,
    /// When it was set by somebody; `None` when a change made it, which happens at
    /// different moments in two worlds.
    modified: Option<(i64, i64)>,
    /// When it was set by somebody and nobody has read it since; `None` otherwise. A local
    /// folder moves it when it is read and the drive does not, so it is compared only
    /// where the local folder has it.
    accessed: Option<(i64, i64)>,
    content: Content,
    attributes: Vec<(String, Vec<u8>)>,
}

#[derive(PartialEq, Eq)]
enum Content {
    File(Vec<u8>),
    Link(PathBuf),
    Folder,
    /// A pipe, a socket or a device: nobody opens it.
    Special,
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            // Not the bytes: a page of them helps nobody.
            Self::File(bytes) => write!(f, "{} bytes", bytes.len()),
            Self::Link(target) => write!(f, "link to {target:?}"),
            Self::Folder => write!(f, "folder"),
            Self::Special => write!(f, "special"),
        }
    }
}

type Tree = BTreeMap<PathBuf, Entry>;

/// Panics with the first name that differs between two trees.
#[track_caller]
pub(crate) fn assert_same(local: &Path, drive: &Path, seed: u64, recent: &[String]) {
    let (expected, mut found) = (snapshot(local), snapshot(drive));
    for (name, entry) in &mut found {
        if expected.get(name).is_some_and(|local| local.accessed.is_none()) {
            entry.accessed = None;
        }
    }
    if expected == found {
        return;
    }
    let names = expected.keys().chain(found.keys());
    let differs = names.into_iter().find(|name| expected.get(*name) != found.get(*name));
    let name = differs.map_or(Path::new(""), PathBuf::as_path);
    let (expected, found) = (expected.get(name), found.get(name));
    panic!(
        "seed {seed}: {name:?} is {found:?}, and should be {expected:?}{}, after:\n{}",
        first_difference(expected, found),
        recent.join("\n")
    );
}

/// Where two contents begin to differ, for the message.
fn first_difference(expected: Option<&Entry>, found: Option<&Entry>) -> String {
    let (Some(Content::File(expected)), Some(Content::File(found))) =
        (expected.map(|entry| &entry.content), found.map(|entry| &entry.content))
    else {
        return String::new();
    };
    let differs = expected.iter().zip(found).map(|(one, other)| one != other);
    let places: Vec<_> = differs.enumerate().filter(|(_, differs)| *differs).collect();
    match (places.first(), places.last()) {
        (Some((first, _)), Some((last, _))) => {
            let holes = places.iter().all(|(place, _)| found[*place] == 0);
            format!(", with {} bytes wrong in {first}..={last} (all zero: {holes})", places.len())
        }
        _ => String::new(),
    }
}

fn snapshot(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut first_names = HashMap::new();
    add(root, Path::new(""), &mut tree, &mut first_names);
    tree
}

fn add(root: &Path, folder: &Path, tree: &mut Tree, first_names: &mut HashMap<u64, PathBuf>) {
    for (name, _) in entries(&root.join(folder)) {
        let path = folder.join(name);
        let full = root.join(&path);
        let status = fs::symlink_metadata(&full).unwrap();
        let first_name = first_names.entry(status.ino()).or_insert_with(|| path.clone()).clone();
        let entry = entry(&full, &status, first_name);
        let is_folder = entry.content == Content::Folder;
        tree.insert(path.clone(), entry);
        if is_folder {
            add(root, &path, tree, first_names);
        }
    }
}

fn entry(path: &Path, status: &fs::Metadata, same_as: PathBuf) -> Entry {
    let listed = attributes::list(path).unwrap();
    let attributes = listed.into_iter().map(|name| {
        let value = attributes::get(path, &name).unwrap();
        (name, value)
    });
    Entry {
        mode: status.mode(),
        owner: (status.uid(), status.gid()),
        device: status.rdev(),
        same_as,
        links: if status.is_dir() { 0 } else { status.nlink() },
        modified: set(status.mtime(), status.mtime_nsec()),
        accessed: set(status.atime(), status.atime_nsec()),
        content: content(path, status),
        attributes: attributes.collect(),
    }
}

/// A time that somebody set.
fn set(seconds: i64, nanoseconds: i64) -> Option<(i64, i64)> {
    (seconds < SET_BEFORE).then_some((seconds, nanoseconds))
}

fn content(path: &Path, status: &fs::Metadata) -> Content {
    if status.is_dir() {
        return Content::Folder;
    }
    if status.is_symlink() {
        return Content::Link(fs::read_link(path).unwrap());
    }
    if !status.is_file() {
        return Content::Special;
    }
    // To look is not to read: the access time stays.
    let flags = libc::O_NOATIME | libc::O_CLOEXEC;
    let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path).unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    Content::File(bytes)
}
