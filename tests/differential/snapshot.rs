//! A whole tree in memory, to compare two of them.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::common::attributes;
use crate::ops::SET_BEFORE;

/// What must agree about one name.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    mode: u32,
    owner: (u32, u32),
    /// The first name, in order, of the same file.
    same_as: String,
    /// When it was set by somebody; `None` when a change made it, which happens at
    /// different moments in two worlds.
    modified: Option<(i64, i64)>,
    content: Content,
    attributes: Vec<(String, Vec<u8>)>,
}

#[derive(PartialEq, Eq)]
enum Content {
    File(Vec<u8>),
    Link(String),
    Folder,
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            // Not the bytes: a page of them helps nobody.
            Self::File(bytes) => write!(f, "{} bytes", bytes.len()),
            Self::Link(target) => write!(f, "link to {target:?}"),
            Self::Folder => write!(f, "folder"),
        }
    }
}

type Tree = BTreeMap<String, Entry>;

/// Panics with the first name that differs between two trees.
#[track_caller]
pub(crate) fn assert_same(local: &Path, drive: &Path, seed: u64, recent: &[String]) {
    let (expected, found) = (snapshot(local), snapshot(drive));
    if expected == found {
        return;
    }
    let names = expected.keys().chain(found.keys());
    let differs = names.into_iter().find(|name| expected.get(*name) != found.get(*name));
    let name = differs.map_or("", String::as_str);
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
    add(root, "", &mut tree, &mut first_names);
    tree
}

fn add(root: &Path, folder: &str, tree: &mut Tree, first_names: &mut HashMap<u64, String>) {
    let mut names: Vec<_> = fs::read_dir(root.join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    for name in names {
        let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
        let full = root.join(&path);
        let status = fs::symlink_metadata(&full).unwrap();
        let content = if status.is_dir() {
            Content::Folder
        } else if status.is_symlink() {
            Content::Link(fs::read_link(&full).unwrap().to_string_lossy().into_owned())
        } else {
            Content::File(fs::read(&full).unwrap())
        };
        let listed = attributes::list(&full).unwrap();
        let attributes = listed.into_iter().map(|name| {
            let value = attributes::get(&full, &name).unwrap();
            (name, value)
        });
        let set = status.mtime() < SET_BEFORE;
        let entry = Entry {
            mode: status.mode(),
            owner: (status.uid(), status.gid()),
            same_as: first_names.entry(status.ino()).or_insert_with(|| path.clone()).clone(),
            modified: set.then_some((status.mtime(), status.mtime_nsec())),
            content,
            attributes: attributes.collect(),
        };
        let is_folder = entry.content == Content::Folder;
        tree.insert(path.clone(), entry);
        if is_folder {
            add(root, &path, tree, first_names);
        }
    }
}
