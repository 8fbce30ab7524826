//! The records of one object, and which of them hold.
//!
//! This is also what the local database keeps of an object, and all of it: what is shown is
//! computed from here.
//!
//! Invariants
//! 1. Of every register the value that holds is here. What has lost goes, but for a place whose
//!    token may still be there.
//! 2. A record that is not wholly known is kept as its bytes, besides what of it is known.
//! 3. What was published is never changed but by a record that wins over it; what was not may be
//!    replaced by a later one of the same register, and is then never sent.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::catalog::format::names::version_of_others;
use crate::catalog::format::record::{Moment, Name, ObjectKind, Place, Removal, Version};
use crate::catalog::format::{Body, Record, Reference, Stamp, Subject, VersionId};
use crate::store::Token;

/// Which segment brought a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Brought {
    /// The segment's writer.
    pub writer: u64,
    /// Its number.
    pub sequence: u64,
    /// The day that it named; of several segments the greatest.
    pub day: u64,
}

/// Where a record is besides here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Origin {
    /// Nowhere: every machine derives it, and it is published once somebody acts on the object.
    Derived,
    /// It waits to be published.
    Unpublished,
    /// It is in a segment that is being sent: others may know it.
    Sent,
    /// In the vault.
    Published(Brought),
}

/// A record that holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held<T> {
    /// Its stamp.
    pub stamp: Stamp,
    /// Where it is besides here.
    pub origin: Origin,
    /// What it says.
    pub value: T,
}

/// What an object is, once and for all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nature {
    /// Its kind.
    pub kind: ObjectKind,
    /// When it was made.
    pub birth: Moment,
    /// Device number, 0 for none.
    pub device: u64,
    /// Where a symbolic link leads.
    pub target: Vec<u8>,
}

/// Mode, owner, group and when they changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// Permission, set-id and sticky bits.
    pub mode: u16,
    /// Owner.
    pub owner: u32,
    /// Group.
    pub group: u32,
    /// When they changed.
    pub changed: Moment,
}

/// Access and modification.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// Last access.
    pub access: Moment,
    /// Last change of content.
    pub modification: Moment,
}

/// A token that another client made: the payload that was first found under it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Others {
    /// The token.
    pub token: Token,
    /// What was in it.
    pub reference: Option<Reference>,
}

/// A version that was written to another file, and has become this one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Borrowed {
    /// The file that it was written to.
    pub from: u64,
    /// The version, once that file has it.
    pub version: Option<Held<Version>>,
    /// Where it is, once that file knows.
    pub place: Option<Held<Place>>,
    /// Whether something that was written to that file covers it, or a removal of that file took
    /// it: what is done to a copy in passing does not bring it back.
    pub covered: bool,
}

/// The records of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// What it is; an object without it does not exist yet.
    pub nature: Option<Held<Nature>>,
    /// Mode and owners.
    pub attributes: Option<Held<Attributes>>,
    /// Access and modification.
    pub times: Option<Held<Times>>,
    /// Extended attributes; without a value, removed.
    pub xattrs: BTreeMap<Vec<u8>, Held<Option<Vec<u8>>>>,
    /// What was written to it.
    pub versions: BTreeMap<VersionId, Held<Version>>,
    /// Where those are.
    pub places: BTreeMap<VersionId, Held<Place>>,
    /// Places that have lost to others, while their tokens may still be there.
    pub lost_places: Vec<Held<Place>>,
    /// Lists of identities that are covered besides what versions list.
    pub covered: Vec<Held<CoveredList>>,
    /// Its names by link.
    pub names: BTreeMap<u64, Held<Name>>,
    /// The ends of links; a link may have been removed by several.
    pub removals: Vec<Held<Removal>>,
    /// That a version of another file has become this one, and which.
    pub split: Option<Held<(VersionId, u64)>>,
    /// That version.
    pub borrowed: Option<Borrowed>,
    /// Versions that have become other files: the split of the least stamp, and its file.
    pub split_off: BTreeMap<VersionId, (Stamp, u64)>,
    /// What it was before somebody acted on it: another client's.
    pub others: Option<Held<Others>>,
    /// Records that are not wholly known, as they came.
    pub newer: Vec<Held<Vec<u8>>>,
}

/// A list of identities that are covered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoveredList {
    /// The version that it counts with, if it needs one.
    pub version: Option<VersionId>,
    /// What is covered.
    pub covers: Vec<VersionId>,
}

/// What became of a record that was taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It holds, and is new here.
    New,
    /// It is here already, and may have come with another segment.
    Known,
    /// Another of its register holds.
    Lost,
}

/// How two values of one register, or two of one identity, are told apart.
#[derive(Clone, Copy)]
enum Wins {
    /// As [`Record::beats`] says.
    Latest,
    /// The least stamp, then the lesser bytes: what never changes.
    First,
}

impl Object {
    /// Takes a record of this object in. Everything but a split concerns it alone.
    pub fn take(&mut self, record: &Record, origin: Origin) -> Taken {
        let (subject, stamp) = (record.subject, record.stamp);
        if record.is_newer() {
            let taken = keep(&mut self.newer, Held { stamp, origin, value: record.encode() });
            if matches!(record.body, Body::Unknown { .. }) {
                return taken;
            }
        }
        match record.body.clone() {
            Body::Object { kind, birth, device, target } => {
                let value = Nature { kind, birth, device, target };
                let held = Held { stamp, origin, value };
                set(subject, &mut self.nature, held, Wins::First, Nature::body)
            }
            Body::Attributes { mode, owner, group, changed } => {
                let value = Attributes { mode, owner, group, changed };
                let held = Held { stamp, origin, value };
                set(subject, &mut self.attributes, held, Wins::Latest, Attributes::body)
            }
            Body::Times { access, modification } => {
                let held = Held { stamp, origin, value: Times { access, modification } };
                set(subject, &mut self.times, held, Wins::Latest, Times::body)
            }
            Body::Xattr { name, value } => {
                let held = Held { stamp, origin, value };
                let body = |value: &Option<Vec<u8>>| Body::Xattr {
                    name: name.clone(),
                    value: value.clone(),
                };
                put(subject, &mut self.xattrs, name.clone(), held, Wins::Latest, body)
            }
            Body::Version(version) => {
                let (id, held) = (version.id, Held { stamp, origin, value: version });
                let body = |version: &Version| Body::Version(version.clone());
                put(subject, &mut self.versions, id, held, Wins::First, body)
            }
            Body::Place(place) | Body::Accepted(place) => {
                self.take_place(subject, stamp, origin, place)
            }
            Body::Covered { version, covers } => keep(
                &mut self.covered,
                Held { stamp, origin, value: CoveredList { version, covers } },
            ),
            Body::Name(name) => {
                let (link, held) = (name.link, Held { stamp, origin, value: name });
                let body = |name: &Name| Body::Name(name.clone());
                put(subject, &mut self.names, link, held, Wins::Latest, body)
            }
            Body::Removal(removal) => {
                keep(&mut self.removals, Held { stamp, origin, value: removal })
            }
            Body::Split { version, file } => {
                let held = Held { stamp, origin, value: (version, file) };
                let body = |(version, file): &(VersionId, u64)| Body::Split {
                    version: *version,
                    file: *file,
                };
                let taken = set(subject, &mut self.split, held, Wins::First, body);
                if taken == Taken::New {
                    let (version, place, covered) = (None, None, false);
                    self.borrowed = Some(Borrowed { from: file, version, place, covered });
                }
                taken
            }
            Body::Others { token, reference } => {
                let held = Held { stamp, origin, value: Others { token, reference } };
                set(subject, &mut self.others, held, Wins::First, Others::body)
            }
            _ => Taken::Lost,
        }
    }

    fn take_place(
        &mut self,
        subject: Subject,
        stamp: Stamp,
        origin: Origin,
        place: Place,
    ) -> Taken {
        let (id, held) = (place.version, Held { stamp, origin, value: place });
        let before = self.places.get(&id).cloned();
        let body = |place: &Place| Body::Place(place.clone());
        let taken = put(subject, &mut self.places, id, held.clone(), Wins::Latest, body);
        let lost = match taken {
            Taken::New => before,
            Taken::Lost => Some(held),
            Taken::Known => None,
        };
        if let Some(lost) = lost.filter(|lost| lost.value.base.is_some()) {
            keep(&mut self.lost_places, lost);
        }
        taken
    }

    /// Whether a link has been removed: that is never undone.
    pub fn is_removed(&self, link: u64) -> bool {
        self.removals.iter().any(|removal| removal.value.link == link)
    }

    /// The stamp of a link's latest removal.
    pub fn removed_at(&self, link: u64) -> Option<Stamp> {
        let removals = self.removals.iter().filter(|removal| removal.value.link == link);
        removals.map(|removal| removal.stamp).max()
    }

    /// Of its links that were removed, the one that was so last.
    pub fn last_removed(&self) -> Option<u64> {
        let removed = self.names.keys().filter_map(|link| Some((self.removed_at(*link)?, *link)));
        removed.max().map(|(_, link)| link)
    }

    /// A version of the file: written to it, or borrowed.
    pub fn version(&self, id: VersionId) -> Option<&Held<Version>> {
        let borrowed = || self.borrowed.as_ref()?.version.as_ref();
        self.versions.get(&id).or_else(|| borrowed().filter(|held| held.value.id == id))
    }

    /// Where a version of the file is.
    pub fn place(&self, id: VersionId) -> Option<&Held<Place>> {
        let borrowed = || self.borrowed.as_ref()?.place.as_ref();
        self.places.get(&id).or_else(|| borrowed().filter(|held| held.value.version == id))
    }

    /// Every record of it, with where it is besides here.
    pub fn records(&self, subject: Subject) -> Vec<(Record, Origin)> {
        let mut all = Vec::new();
        let mut add = |stamp, origin, body| all.push((Record::new(subject, stamp, body), origin));
        self.nature.iter().for_each(|h| add(h.stamp, h.origin, h.value.body()));
        self.attributes.iter().for_each(|h| add(h.stamp, h.origin, h.value.body()));
        self.times.iter().for_each(|h| add(h.stamp, h.origin, h.value.body()));
        for (name, h) in &self.xattrs {
            add(h.stamp, h.origin, Body::Xattr { name: name.clone(), value: h.value.clone() });
        }
        for h in self.versions.values() {
            add(h.stamp, h.origin, Body::Version(h.value.clone()));
        }
        for h in self.places.values().chain(&self.lost_places) {
            add(h.stamp, h.origin, Body::Place(h.value.clone()));
        }
        for h in &self.covered {
            let CoveredList { version, covers } = h.value.clone();
            add(h.stamp, h.origin, Body::Covered { version, covers });
        }
        self.names.values().for_each(|h| add(h.stamp, h.origin, Body::Name(h.value.clone())));
        self.removals.iter().for_each(|h| add(h.stamp, h.origin, Body::Removal(h.value.clone())));
        if let Some(h) = &self.split {
            let (version, file) = h.value;
            add(h.stamp, h.origin, Body::Split { version, file });
        }
        self.others.iter().for_each(|h| add(h.stamp, h.origin, h.value.body()));
        // What is wholly known of a newer record is here twice: its bytes are the record.
        let newer: Vec<(Record, Origin)> = self
            .newer
            .iter()
            .filter_map(|h| Some((Record::decode(&h.value).ok()?, h.origin)))
            .collect();
        let known = |record: &Record| Record { more: BTreeMap::new(), ..record.clone() };
        all.retain(|(record, _)| newer.iter().all(|(newer, _)| known(newer) != *record));
        all.extend(newer);
        all
    }

    /// Where every record is.
    pub fn origins(&self) -> impl Iterator<Item = Origin> + '_ {
        let one = self.nature.iter().map(|h| h.origin);
        let one = one.chain(self.attributes.iter().map(|h| h.origin));
        let one = one.chain(self.times.iter().map(|h| h.origin));
        let one = one.chain(self.split.iter().map(|h| h.origin));
        let one = one.chain(self.others.iter().map(|h| h.origin));
        let many = self.xattrs.values().map(|h| h.origin);
        let many = many.chain(self.versions.values().map(|h| h.origin));
        let many = many.chain(self.places.values().map(|h| h.origin));
        let many = many.chain(self.lost_places.iter().map(|h| h.origin));
        let many = many.chain(self.covered.iter().map(|h| h.origin));
        let many = many.chain(self.names.values().map(|h| h.origin));
        let many = many.chain(self.removals.iter().map(|h| h.origin));
        one.chain(many).chain(self.newer.iter().map(|h| h.origin))
    }

    /// Calls `each` for where every record is, which it may change.
    pub fn each_origin(&mut self, mut each: impl FnMut(&mut Origin)) {
        self.nature.iter_mut().for_each(|h| each(&mut h.origin));
        self.attributes.iter_mut().for_each(|h| each(&mut h.origin));
        self.times.iter_mut().for_each(|h| each(&mut h.origin));
        self.xattrs.values_mut().for_each(|h| each(&mut h.origin));
        self.versions.values_mut().for_each(|h| each(&mut h.origin));
        self.places.values_mut().for_each(|h| each(&mut h.origin));
        self.lost_places.iter_mut().for_each(|h| each(&mut h.origin));
        self.covered.iter_mut().for_each(|h| each(&mut h.origin));
        self.names.values_mut().for_each(|h| each(&mut h.origin));
        self.removals.iter_mut().for_each(|h| each(&mut h.origin));
        self.split.iter_mut().for_each(|h| each(&mut h.origin));
        self.others.iter_mut().for_each(|h| each(&mut h.origin));
        self.newer.iter_mut().for_each(|h| each(&mut h.origin));
    }

    /// The registers and records that are not known wholly, and so read-only here.
    pub fn is_newer(&self) -> bool {
        !self.newer.is_empty()
    }
}

/// The origin of a record that has come again: what was published stays so, with the greatest
/// day that it came with.
fn join(now: &mut Origin, again: Origin) {
    match (*now, again) {
        (Origin::Published(held), Origin::Published(new)) => {
            if new.day > held.day {
                *now = again;
            }
        }
        (Origin::Published(_), _) => {}
        (_, Origin::Published(_)) => *now = again,
        (Origin::Derived, Origin::Unpublished | Origin::Sent) => *now = again,
        (_, _) => {}
    }
}

/// Keeps a record that stands beside all others.
fn keep<T: PartialEq>(all: &mut Vec<Held<T>>, held: Held<T>) -> Taken {
    let same = |now: &&mut Held<T>| now.stamp == held.stamp && now.value == held.value;
    if let Some(now) = all.iter_mut().find(same) {
        join(&mut now.origin, held.origin);
        return Taken::Known;
    }
    all.push(held);
    Taken::New
}

/// Sets a register, if `held` wins.
fn set<T: PartialEq>(
    subject: Subject,
    now: &mut Option<Held<T>>,
    held: Held<T>,
    wins: Wins,
    body: impl Fn(&T) -> Body,
) -> Taken {
    let Some(before) = now else {
        *now = Some(held);
        return Taken::New;
    };
    if before.stamp == held.stamp && before.value == held.value {
        join(&mut before.origin, held.origin);
        return Taken::Known;
    }
    let record = |held: &Held<T>| Record::new(subject, held.stamp, body(&held.value));
    let (old, new) = (record(before), record(&held));
    let new_wins = match wins {
        Wins::Latest => new.beats(&old),
        Wins::First => (new.stamp, new.encode()) < (old.stamp, old.encode()),
    };
    if !new_wins {
        return Taken::Lost;
    }
    *now = Some(held);
    Taken::New
}

/// As [`set`], of one of several registers.
fn put<K: Ord, T: PartialEq>(
    subject: Subject,
    all: &mut BTreeMap<K, Held<T>>,
    key: K,
    held: Held<T>,
    wins: Wins,
    body: impl Fn(&T) -> Body,
) -> Taken {
    let mut now = all.remove(&key);
    let taken = set(subject, &mut now, held, wins, body);
    if let Some(now) = now {
        all.insert(key, now);
    }
    taken
}

impl Nature {
    /// The body of its record.
    pub fn body(&self) -> Body {
        let Self { kind, birth, device, target } = self.clone();
        Body::Object { kind, birth, device, target }
    }
}

impl Attributes {
    /// The body of its record.
    pub fn body(&self) -> Body {
        let Self { mode, owner, group, changed } = *self;
        Body::Attributes { mode, owner, group, changed }
    }
}

impl Times {
    /// The body of its record.
    pub fn body(&self) -> Body {
        let Self { access, modification } = *self;
        Body::Times { access, modification }
    }
}

impl Others {
    /// The version that the payload which was first found is.
    pub fn version(&self) -> Option<VersionId> {
        let Reference { token, identity } = self.reference.as_ref()?;
        Some(version_of_others(token, identity))
    }

    /// The body of its record.
    pub fn body(&self) -> Body {
        let Self { token, reference } = self.clone();
        Body::Others { token, reference }
    }
}
