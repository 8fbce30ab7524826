//! Rows: an object with all its records that still decide something, and a version that is
//! covered, with its places.
//!
//! Invariants
//! 1. A version that a placed one in the vault covers is in the history, not in the row, unless it
//!    has become another file, or is itself still to be sent; so a row stays small however often
//!    its file is saved.
//! 2. Whether a version is covered is in its history row, also before it has come itself, and
//!    after it has been forgotten.
//! 3. What is shown of an object follows from its row alone.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::inode::{Attrs, Content, Ino, Inode, Kind, Local, Time, Version, time_of};
use crate::catalog::conflict::file::Shown;
use crate::catalog::conflict::names::Claimant;
use crate::catalog::conflict::object::{
    Attributes, Held, Nature, Object, Origin, Others, Taken, Times,
};
use crate::catalog::format::record::{self, Place, PlaceBase};
use crate::catalog::format::{Body, Record, Stamp, Subject, VersionId};

/// A claim to a name that an object has in the entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The folder.
    pub folder: Ino,
    /// The name that is recorded.
    pub name: Vec<u8>,
    /// The name that is shown, where that is another.
    pub shown: Option<Vec<u8>>,
    /// Who claims it.
    pub claimant: Claimant,
    /// What is found there: the object, or a copy beside it.
    pub ino: Ino,
}

impl Standing {
    /// The name under which it is found.
    pub fn shown(&self) -> &[u8] {
        self.shown.as_deref().unwrap_or(&self.name)
    }
}

/// What a folder holds.
///
/// Claims of what only a listing shows are among the entries, and keep nothing alive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holdings {
    /// How many claims there are in it.
    pub entries: u64,
    /// How many of them are folders.
    pub folders: u32,
    /// What it lives by, even if all its links were removed: names of files in it, and the
    /// folders that are recorded to be in it and live, wherever they stand.
    pub living: u64,
    /// Names that more than one claims, or a copy.
    pub contested: Vec<Vec<u8>>,
    /// Names that those are shown under which lost theirs.
    pub given: Vec<Vec<u8>>,
}

/// The row of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Its kind, as soon as it or its subject says so.
    pub is_folder: bool,
    /// Its records.
    pub object: Object,
    /// What only this machine knows.
    pub local: Local,
    /// The change time that was shown here, and the newest stamp that is accounted for in it.
    pub changed: Option<(Stamp, Time)>,
    /// Where it stands.
    pub standings: Vec<Standing>,
    /// Of a folder: what it holds.
    pub holdings: Holdings,
    /// Of a folder: it would stand in a circle, and so stands in the root.
    pub is_cut: bool,
    /// Of a folder that lives: the folder that it is recorded to be in, which lives by it.
    pub counted: Option<Ino>,
    /// Values of registers that are in the vault, while one that is not yet holds in their
    /// place.
    pub behind: Option<Box<Object>>,
    /// Links that others may know: what is sent, or came.
    pub known: BTreeSet<u64>,
}

/// A version that is covered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// The least day of a record that lists it; none: it is not covered (a place came first).
    pub ended: Option<u64>,
    /// Its record, once it has come, until it is forgotten.
    pub version: Option<Held<record::Version>>,
    /// Where it is.
    pub place: Option<Held<Place>>,
    /// Places that have lost to others.
    pub lost: Vec<Held<Place>>,
    /// The day on which its tokens were deleted.
    pub deleted: Option<u64>,
}

impl Row {
    /// An empty row for a subject.
    pub fn of(subject: Subject) -> Self {
        Self { is_folder: matches!(subject, Subject::Folder(_)), ..Self::default() }
    }

    /// What its records are about.
    pub fn subject(&self, ino: Ino) -> Subject {
        if self.is_folder { Subject::Folder(ino) } else { Subject::File(ino) }
    }

    /// Its kind, once its object record has come.
    pub fn kind(&self) -> Option<Kind> {
        self.object.nature.as_ref().map(|nature| nature.value.kind.into())
    }

    /// Whether only a listing, or a computation, shows it: no record of it is in the vault.
    pub fn is_derived(&self) -> bool {
        self.object.nature.as_ref().is_some_and(|nature| nature.origin == Origin::Derived)
    }

    /// Takes a record in. What only a listing, or a computation, has shown gives way to it; what
    /// is in the vault stays known while what is not yet there holds in its place.
    pub fn take(&mut self, record: &Record, origin: Origin) -> Taken {
        let derived = |held: &Option<(Record, Origin)>| {
            held.as_ref().is_some_and(|(_, origin)| *origin == Origin::Derived)
        };
        let mut before = register(&self.object, record);
        if origin != Origin::Derived && derived(&before) {
            match record.body {
                // Who tells of the object tells all of it.
                Body::Object { .. } => drop_derived(&mut self.object),
                _ => clear(&mut self.object, record),
            }
            before = None;
        }
        let taken = self.object.take(record, origin);
        let is_published = |origin: Origin| matches!(origin, Origin::Published(_));
        match register(&self.object, record) {
            Some((_, holds)) if is_published(holds) => {
                if let Some(behind) = &mut self.behind {
                    clear(behind, record);
                    if **behind == Object::default() {
                        self.behind = None;
                    }
                }
            }
            Some(_) => {
                let (lost, won) = (taken == Taken::Lost, taken == Taken::New);
                let left = match before {
                    Some((old, known)) if won && is_published(known) => Some((old, known)),
                    _ if lost && is_published(origin) => Some((record.clone(), origin)),
                    _ => None,
                };
                if let Some((left, origin)) = left {
                    self.behind.get_or_insert_default().take(&left, origin);
                }
            }
            None => {}
        }
        taken
    }

    /// What is shown of a file, with content that waits here as what no removal has seen.
    pub fn shown(&self) -> Shown {
        self.object.shown_with(self.local.dirty.is_some() && !self.local.unlinked)
    }

    /// Whether it is a regular file that other machines would not show, and that is not this
    /// machine's new one either.
    pub fn is_empty_shell(&self, shown: &Shown) -> bool {
        let new = |origin: Origin| matches!(origin, Origin::Unpublished | Origin::Sent);
        let is_new = self.object.nature.as_ref().is_some_and(|held| new(held.origin));
        !is_new && self.local.dirty.is_none() && self.object.is_empty_shell(shown)
    }

    /// The newest stamp of what counts for the change time.
    fn newest(&self) -> Stamp {
        let object = &self.object;
        let registers = [
            object.attributes.as_ref().map(|held| held.stamp),
            object.times.as_ref().map(|held| held.stamp),
        ];
        let many = object.xattrs.values().map(|held| held.stamp);
        let many = many.chain(object.names.values().map(|held| held.stamp));
        let many = many.chain(object.removals.iter().map(|held| held.stamp));
        let many = many.chain(object.versions.values().map(|held| held.stamp));
        registers.into_iter().flatten().chain(many).max().unwrap_or_default()
    }

    /// The change time that the records give (docs/format.md, 6.5).
    fn change_time(&self) -> Time {
        let newest = self.newest();
        if let Some((accounted, time)) = self.changed
            && newest <= accounted
        {
            return time;
        }
        let recorded = self.object.attributes.as_ref().map(|held| held.value.changed);
        recorded.unwrap_or_default().max(time_of(newest))
    }

    /// Notes the change time that is shown here: it accounts for every record so far.
    pub fn set_change_time(&mut self, time: Time) {
        self.changed = Some((self.newest(), time));
    }

    /// The content that is shown.
    pub fn content(&self, shown: &Shown) -> Content {
        let of_others = || {
            let others = self.object.others.as_ref()?;
            let version = Version::Unread(others.value.token.clone());
            let size = self.local.listed_size;
            Some(Content { version, size, ..Content::default() })
        };
        let Some(id) = shown.first else { return of_others().unwrap_or_default() };
        let Some(held) = self.object.version(id) else { return Content::default() };
        let base = self.object.place(id).and_then(|place| place.value.base.clone());
        let version = match base {
            Some(PlaceBase::Whole(reference)) => Version::Whole(reference),
            Some(PlaceBase::Parts(reference)) => Version::Parts(reference),
            None if held.value.size == 0 => Version::Empty,
            None => Version::Damaged,
        };
        let (size, holes) = (held.value.size, held.value.holes.clone());
        Content { id: Some(id), stamp: held.stamp, size, version, holes }
    }

    /// The inode, as soon as there is an object.
    pub fn inode(&self, ino: Ino) -> Option<Inode> {
        let nature = &self.object.nature.as_ref()?.value;
        let kind = Kind::from(nature.kind);
        let attributes = self.object.attributes.as_ref().map(|held| held.value);
        let times = self.object.times.as_ref().map(|held| held.value).unwrap_or_default();
        let (perm, uid, gid) = attributes.map_or((0o600, 0, 0), |a| (a.mode, a.owner, a.group));
        let xattrs = self.object.xattrs.iter();
        let xattrs = xattrs.filter_map(|(name, held)| Some((name.clone(), held.value.clone()?)));
        let content = match kind {
            Kind::File => self.content(&self.shown()),
            _ => Content::default(),
        };
        let attrs = Attrs {
            perm,
            uid,
            gid,
            atime: times.access,
            mtime: times.modification,
            ctime: self.change_time(),
        };
        let nlink = self.nlink(ino, kind);
        Some(Inode {
            ino,
            kind,
            born: nature.birth,
            rdev: u32::try_from(nature.device).unwrap_or(0),
            target: nature.target.clone(),
            attrs,
            content,
            xattrs: xattrs.collect(),
            local: Local { nlink, foreign: self.is_derived(), ..self.local.clone() },
        })
    }

    fn nlink(&self, ino: Ino, kind: Kind) -> u32 {
        let own = self.standings.iter().filter(|standing| standing.ino == ino).count();
        match kind {
            Kind::Dir if own > 0 || ino == super::inode::ROOT_INO => 2 + self.holdings.folders,
            Kind::Dir => 0,
            // A copy's name is kept by the file that it is a copy of.
            _ if self.object.borrowed.is_some() && self.is_derived() => 1,
            _ => u32::try_from(own).unwrap_or(u32::MAX),
        }
    }

    /// Whether something of it waits to be published.
    pub fn is_unpublished(&self) -> bool {
        let mut waits = false;
        self.each_origin(|origin| waits |= origin == Origin::Unpublished);
        waits
    }

    /// Calls `each` for where every record is.
    pub fn each_origin(&self, mut each: impl FnMut(Origin)) {
        self.object.origins().for_each(&mut each);
    }
}

/// The value of a record's register that holds in an object, of those that change.
fn register(object: &Object, record: &Record) -> Option<(Record, Origin)> {
    fn of<T>(
        subject: Subject,
        held: Option<&Held<T>>,
        body: impl Fn(&T) -> Body,
    ) -> Option<(Record, Origin)> {
        let held = held?;
        Some((Record::new(subject, held.stamp, body(&held.value)), held.origin))
    }
    let subject = record.subject;
    match &record.body {
        Body::Object { .. } => of(subject, object.nature.as_ref(), Nature::body),
        Body::Attributes { .. } => of(subject, object.attributes.as_ref(), Attributes::body),
        Body::Times { .. } => of(subject, object.times.as_ref(), Times::body),
        Body::Others { .. } => of(subject, object.others.as_ref(), Others::body),
        Body::Xattr { name, .. } => of(subject, object.xattrs.get(name), |value| Body::Xattr {
            name: name.clone(),
            value: value.clone(),
        }),
        Body::Name(name) => {
            of(subject, object.names.get(&name.link), |name| Body::Name(name.clone()))
        }
        _ => None,
    }
}

/// Takes the value of a record's register out of an object.
fn clear(object: &mut Object, record: &Record) {
    match &record.body {
        Body::Object { .. } => object.nature = None,
        Body::Attributes { .. } => object.attributes = None,
        Body::Times { .. } => object.times = None,
        // What was pinned of another client's token is the same on every machine.
        Body::Others { .. } if object.others.as_ref().is_some_and(is_derived) => {}
        Body::Others { .. } => object.others = None,
        Body::Xattr { name, .. } => drop(object.xattrs.remove(name)),
        Body::Name(name) => drop(object.names.remove(&name.link)),
        _ => {}
    }
}

fn is_derived<T>(held: &Held<T>) -> bool {
    held.origin == Origin::Derived
}

/// Takes out of an object what nobody has told; but a token that another client made, and what
/// was pinned of it, stay.
pub fn drop_derived(object: &mut Object) {
    object.nature.take_if(|held| is_derived(held));
    object.attributes.take_if(|held| is_derived(held));
    object.times.take_if(|held| is_derived(held));
    object.xattrs.retain(|_, held| !is_derived(held));
    object.names.retain(|_, held| !is_derived(held));
}

impl History {
    /// Whether there is nothing that anybody would need.
    pub fn is_vacant(&self) -> bool {
        self == &Self::default()
    }
}

/// The versions that one which is written over `head` and what this journal `recorded` since
/// must list.
pub fn least_cover(head: Option<VersionId>, recorded: &[VersionId]) -> Vec<VersionId> {
    let mut covers: Vec<_> = head.into_iter().chain(recorded.iter().copied()).collect();
    covers.sort_unstable();
    covers.dedup();
    covers
}
