//! The tree of a set of records: a pure function of the set, however it was heard.
//!
//! * An entry is a name of an object in a folder. It was made once, may have moved (the
//!   newest move counts) and may have been removed, by somebody who had seen some versions.
//! * An object whose entries were all removed, and that has a version which no removal had
//!   seen, gets its last removed entry back.
//! * Of several newest versions of a file the latest is under its name, each other one beside
//!   it under a conflict name.
//! * A folder lives while it was not removed or something in it lives. A circle of folders is
//!   cut at its newest move: that one is in the root.
//! * Of entries of one name the oldest has it; others have conflict names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::company::{Content, Stamp};

/// Identity of an object or entry: the number of the record that made it.
pub type Id = u64;

/// The root folder.
pub const ROOT: Id = 0;

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    Dir(Stamp),
    Symlink(Stamp),
}

/// One change; immutable once made.
#[derive(Clone, Debug)]
pub struct Record {
    /// Unique, and later than everything that its maker had heard of.
    pub id: Id,
    /// Virtual time.
    pub at: u64,
    pub change: Change,
}

#[derive(Clone, Debug)]
pub enum Change {
    Object(Kind),
    Entry {
        object: Id,
        parent: Id,
        name: String,
    },
    Move {
        entry: Id,
        parent: Id,
        name: String,
    },
    Remove {
        entry: Id,
        seen: BTreeSet<Id>,
    },
    Version {
        object: Id,
        from: Option<Id>,
        content: Content,
    },
    /// A version leaves its file and becomes one of its own.
    Split {
        version: Id,
        object: Id,
    },
    Perm {
        object: Id,
        perm: u16,
    },
    Xattr {
        object: Id,
        value: u32,
    },
}

/// An object with what it is now.
#[derive(Clone, Debug)]
pub struct Object {
    pub kind: Kind,
    pub perm: u16,
    pub xattr: Option<u32>,
    /// Newest versions, the latest first.
    pub heads: Vec<Id>,
}

/// What stands under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub object: Id,
    /// None: a version beside its file.
    pub entry: Option<Id>,
    /// Of a file.
    pub version: Option<Id>,
}

/// The records that a machine knows, by id.
pub type Records = BTreeMap<Id, Arc<Record>>;

/// A tree.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    pub objects: BTreeMap<Id, Object>,
    pub names: BTreeMap<Id, BTreeMap<String, Place>>,
    pub versions: BTreeMap<Id, (Option<Id>, Content)>,
    pub links: BTreeMap<Id, u32>,
}

#[derive(Clone, Debug)]
struct Entry {
    object: Id,
    parent: Id,
    name: String,
    moved: Id,
    removed: Option<(Id, BTreeSet<Id>)>,
}

/// Marks a name as that of a conflict copy.
pub fn conflict_name(name: &str, mark: u64) -> String {
    let (stem, extension) = match name.rfind('.').filter(|at| *at > 0) {
        Some(at) => name.split_at(at),
        None => (name, ""),
    };
    format!("{stem} (conflict {mark}){extension}")
}

/// The name without the marks.
pub fn original_name(name: &str) -> Option<String> {
    let mut rest = name.to_owned();
    while let Some(at) = rest.find(" (conflict ") {
        let end = at + rest[at..].find(')')?;
        rest.replace_range(at..=end, "");
    }
    (rest != name).then_some(rest)
}

impl Tree {
    /// The tree of `records`.
    pub fn of(records: &Records) -> Self {
        let mut tree = Self::default();
        let mut entries: BTreeMap<Id, Entry> = BTreeMap::new();
        let root = Object { kind: Kind::Dir(0), perm: 0o755, xattr: None, heads: Vec::new() };
        tree.objects.insert(ROOT, root);
        let mut owner: BTreeMap<Id, Id> = BTreeMap::new();
        for record in records.values() {
            let id = record.id;
            match &record.change {
                Change::Object(kind) => {
                    let perm = if matches!(kind, Kind::Dir(_)) { 0o755 } else { 0o644 };
                    let object = Object { kind: *kind, perm, xattr: None, heads: Vec::new() };
                    tree.objects.insert(id, object);
                }
                Change::Entry { object, parent, name } => {
                    let (object, parent, name) = (*object, *parent, name.clone());
                    entries.insert(id, Entry { object, parent, name, moved: id, removed: None });
                }
                Change::Move { entry, parent, name } => {
                    if let Some(entry) = entries.get_mut(entry) {
                        (entry.parent, entry.name, entry.moved) = (*parent, name.clone(), id);
                    }
                }
                Change::Remove { entry, seen } => {
                    if let Some(entry) = entries.get_mut(entry) {
                        entry.removed = Some((id, seen.clone()));
                    }
                }
                Change::Version { object, from, content } => {
                    tree.versions.insert(id, (*from, content.clone()));
                    owner.insert(id, *object);
                }
                Change::Split { version, object } => drop(owner.insert(*version, *object)),
                Change::Perm { object, perm } => {
                    tree.objects.entry(*object).and_modify(|o| o.perm = *perm);
                }
                Change::Xattr { object, value } => {
                    tree.objects.entry(*object).and_modify(|o| o.xattr = Some(*value));
                }
            }
        }
        tree.find_heads(&owner);
        tree.place(entries);
        tree
    }

    fn find_heads(&mut self, owner: &BTreeMap<Id, Id>) {
        // What somebody grew from is a head no more, within its file.
        let grown: BTreeSet<Id> = self
            .versions
            .iter()
            .filter_map(|(id, (from, _))| {
                let from = (*from)?;
                (owner.get(id) == owner.get(&from)).then_some(from)
            })
            .collect();
        for id in self.versions.keys().rev() {
            if !grown.contains(id)
                && let Some(object) = owner.get(id).and_then(|object| self.objects.get_mut(object))
            {
                object.heads.push(*id);
            }
        }
    }

    /// Whether a version is among the seen, or grew into one of them.
    fn place(&mut self, mut entries: BTreeMap<Id, Entry>) {
        self.revive(&mut entries);
        cut_circles(&mut entries);
        let living = living(&entries, &self.objects);
        let mut by_folder: BTreeMap<Id, Vec<(Id, Entry)>> = BTreeMap::new();
        for (id, entry) in entries {
            if living.contains(&id) {
                *self.links.entry(entry.object).or_default() += 1;
                by_folder.entry(entry.parent).or_default().push((id, entry));
            }
        }
        for (folder, mut inside) in by_folder {
            inside.sort_by_key(|(id, entry)| (entry.moved, *id));
            let names = self.names.entry(folder).or_default();
            let mut beside = Vec::new();
            for (id, entry) in inside {
                let object = &self.objects[&entry.object];
                let version = object.heads.first().copied();
                let place = Place { object: entry.object, entry: Some(id), version };
                let name = free_name(names, &entry.name, id);
                for other in object.heads.iter().skip(1) {
                    beside.push((entry.name.clone(), entry.object, *other));
                }
                names.insert(name, place);
            }
            for (name, object, version) in beside {
                let name = conflict_name(&name, version);
                names.entry(name).or_insert(Place { object, entry: None, version: Some(version) });
            }
        }
    }

    fn revive(&self, entries: &mut BTreeMap<Id, Entry>) {
        for (object, of) in &self.objects {
            let own: Vec<Id> =
                entries.iter().filter(|(_, e)| e.object == *object).map(|(id, _)| *id).collect();
            if own.iter().any(|id| entries[id].removed.is_none()) {
                continue;
            }
            let seen: BTreeSet<Id> = own
                .iter()
                .filter_map(|id| entries[id].removed.as_ref())
                .flat_map(|(_, seen)| seen.iter().copied())
                .collect();
            let unseen = of.heads.iter().any(|head| !seen.contains(head));
            let last = own.iter().max_by_key(|id| entries[*id].removed.as_ref().map(|r| r.0));
            if unseen && let Some(entry) = last.and_then(|id| entries.get_mut(id)) {
                entry.removed = None;
            }
        }
    }
}

fn free_name(names: &BTreeMap<String, Place>, name: &str, id: Id) -> String {
    let mut free = name.to_owned();
    while names.contains_key(&free) {
        free = conflict_name(&free, id);
    }
    free
}

/// A folder's own entry, as folders have one.
fn entry_of(entries: &BTreeMap<Id, Entry>, object: Id) -> Option<Id> {
    entries.iter().find(|(_, entry)| entry.object == object).map(|(id, _)| *id)
}

fn cut_circles(entries: &mut BTreeMap<Id, Entry>) {
    let all: Vec<Id> = entries.keys().copied().collect();
    for start in all {
        let (mut path, mut at) = (vec![start], entries[&start].parent);
        while at != ROOT {
            let Some(entry) = entry_of(entries, at) else { break };
            if let Some(first) = path.iter().position(|seen| *seen == entry) {
                let newest = path[first..].iter().max_by_key(|id| entries[*id].moved).copied();
                if let Some(entry) = newest.and_then(|id| entries.get_mut(&id)) {
                    entry.parent = ROOT;
                }
                break;
            }
            path.push(entry);
            at = entries[&entry].parent;
        }
    }
}

/// Entries that live: not removed, or folders above such.
fn living(entries: &BTreeMap<Id, Entry>, objects: &BTreeMap<Id, Object>) -> BTreeSet<Id> {
    let mut living = BTreeSet::new();
    for (id, entry) in entries {
        if entry.removed.is_some() || !objects.contains_key(&entry.object) {
            continue;
        }
        living.insert(*id);
        let mut at = entry.parent;
        while at != ROOT {
            let Some(above) = entry_of(entries, at) else { break };
            if !living.insert(above) {
                break;
            }
            at = entries[&above].parent;
        }
    }
    living
}
