//! Records: what segments and pages are made of (docs/format.md, 5).

use std::cmp::Ordering;
use std::collections::BTreeMap;

pub use super::body::{Body, Name, Place, PlaceBase, Removal, Version, Wrapped};
use super::cbor::Item;
use super::decode::{Members, fits, of_tomorrow};
pub use super::values::{
    FIRST_NUMBER, MACHINE_MAX, Moment, ObjectKind, ROOT, Stamp, Subject, VersionId,
};

/// Longest record, in bytes.
pub const RECORD_MAX: usize = 1 << 20;
/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What it is about.
    pub subject: Subject,
    /// When, by whom.
    pub stamp: Stamp,
    /// What it says.
    pub body: Body,
    /// Members that are not known, which are kept with it.
    pub more: BTreeMap<u64, Item>,
}

/// Bytes are no record. Everybody drops them, and reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a malformed record of kind {kind}: {why}")]
pub struct Malformed {
    /// Its kind, as far as it could be read.
    pub kind: u64,
    /// What rule it breaks.
    pub why: &'static str,
}
impl Record {
    /// Reads the bytes of one record.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let bad = |why| Malformed { kind: 0, why };
        if bytes.len() > RECORD_MAX {
            return Err(bad("longer than a record may be"));
        }
        let item = Item::decode(bytes).map_err(|_| bad("not deterministic CBOR"))?;
        let row: Result<[Item; 3], _> = item.into_row();
        let [kind, subject, members] = row.map_err(|_| bad("not kind, subject and members"))?;
        let kind = kind.into_number().map_err(|_| bad("no kind"))?;
        let bad = |why| Malformed { kind, why };
        let subject = Subject::from_item(subject).map_err(|_| bad("no such subject"))?;
        if !fits(kind, subject) {
            return Err(bad("about something that it cannot be about"));
        }
        let members = members.into_map().map_err(|_| bad("no members"))?;
        let mut members = Members(members);
        let stamp = members.take(0).map_err(bad)?;
        let stamp = Stamp::from_item(stamp).map_err(|_| bad("no stamp"))?;
        let body = match of_tomorrow(kind, &members) {
            true => Body::Unknown { kind },
            false => Body::take(kind, subject, &mut members).map_err(bad)?,
        };
        Ok(Self { subject, stamp, body, more: members.0 })
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, members) = self.body.members();
        let mut map = self.more.clone();
        map.insert(0, self.stamp.to_item());
        map.extend(members);
        Item::Array(vec![Item::Unsigned(kind), self.subject.to_item(), Item::Map(map)]).encode()
    }

    /// A record with nothing unknown in it.
    pub fn new(subject: Subject, stamp: Stamp, body: Body) -> Self {
        Self { subject, stamp, body, more: BTreeMap::new() }
    }

    /// Whether a newer program wrote it: its subject is read-only here.
    pub fn is_newer(&self) -> bool {
        !self.more.is_empty() || matches!(self.body, Body::Unknown { .. })
    }

    /// The number of its kind.
    pub fn kind(&self) -> u64 {
        self.body.members().0
    }

    /// Every text and byte string in it, at any depth: of a record that is not wholly known, each
    /// may be a token.
    pub fn strings(&self) -> Vec<Vec<u8>> {
        fn walk(item: &Item, found: &mut Vec<Vec<u8>>) {
            match item {
                Item::Bytes(bytes) => found.push(bytes.clone()),
                Item::Text(text) => found.push(text.clone().into_bytes()),
                Item::Array(items) => items.iter().for_each(|item| walk(item, found)),
                Item::Map(members) => members.values().for_each(|item| walk(item, found)),
                Item::Unsigned(_) | Item::Negative(_) | Item::Bool(_) | Item::Null => {}
            }
        }
        let mut found = Vec::new();
        let (_, members) = self.body.members();
        members.iter().map(|(_, item)| item).chain(self.more.values()).for_each(|item| {
            walk(item, &mut found);
        });
        found
    }

    /// The register that it is a value of; `None` for a record that is there beside all others.
    pub fn register(&self) -> Option<Register> {
        let key = match &self.body {
            Body::Setting { name, .. } | Body::Snapshot { name, .. } => name.clone().into_bytes(),
            Body::Xattr { name, .. } => name.clone(),
            Body::Place(place) => place.version.0.to_vec(),
            Body::Name(name) => name.link.to_be_bytes().to_vec(),
            Body::Attributes { .. } | Body::Times { .. } => Vec::new(),
            _ => return None,
        };
        Some(Register { subject: self.subject, kind: self.kind(), key })
    }

    /// Of two values of one register, whether this one holds.
    pub fn beats(&self, other: &Self) -> bool {
        let later = self.stamp.cmp(&other.stamp);
        let bytes = || self.encode().cmp(&other.encode());
        let order = match (&self.body, &other.body) {
            (Body::Place(mine), Body::Place(theirs)) => later
                .then_with(|| theirs.first_token().cmp(&mine.first_token()))
                .then_with(|| bytes().reverse()),
            _ => later.then_with(bytes),
        };
        order == Ordering::Greater
    }
}
/// One register: of all records for it, one holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Register {
    /// Whose.
    pub subject: Subject,
    /// Which kind of record.
    pub kind: u64,
    /// Which of that kind.
    pub key: Vec<u8>,
}
