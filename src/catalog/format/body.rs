//! What records say (docs/format.md, 6), and how it is written.

use serde::{Deserialize, Serialize};

use super::cbor::Item;
use super::payload::{Identity, KeyId, Reference};
use super::values::{Moment, ObjectKind, Stamp, VersionId};
use crate::store::Token;

/// A key that seals others, and the sealed one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrapped {
    /// `IV | ciphertext | tag`.
    pub sealed: Vec<u8>,
    /// The key whose wrapping subkey opens it.
    pub by: KeyId,
}

/// Where a version's bytes are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The version.
    pub version: VersionId,
    /// The base; `None` is empty.
    pub base: Option<PlaceBase>,
    /// Changes over the base, in order, each with the identity that it was sealed for.
    pub changes: Vec<(Reference, [u8; 16])>,
    /// Bytes of the base, where there are changes.
    pub base_size: Option<u64>,
}

/// The base of a place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PlaceBase {
    /// One token has all.
    Whole(Reference),
    /// A part list.
    Parts(Reference),
}

impl PlaceBase {
    /// The visible token.
    pub fn reference(&self) -> &Reference {
        match self {
            Self::Whole(reference) | Self::Parts(reference) => reference,
        }
    }
}

/// A version, as its writer recorded it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Its identity.
    pub id: VersionId,
    /// The versions that it was made with knowledge of, ascending.
    pub covers: Vec<VersionId>,
    /// Bytes of the file.
    pub size: u64,
    /// What may be sparse: offset and length, ascending and apart.
    pub holes: Vec<(u64, u64)>,
    /// The machine, for people.
    pub machine: String,
    /// When, in milliseconds since 1970, for people.
    pub millis: u64,
    /// The version whose bytes these are, of a restored or cloned one.
    pub source: Option<VersionId>,
}

/// The name of a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Name {
    /// The link.
    pub link: u64,
    /// The folder it is in.
    pub folder: u64,
    /// Its name there.
    pub name: Vec<u8>,
    /// What goes first among links of one name.
    pub rank: Stamp,
    /// The machine, for people.
    pub machine: String,
    /// When, in milliseconds since 1970, for people.
    pub millis: u64,
}

/// The end of a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// The link.
    pub link: u64,
    /// Whether the machine showed no other name.
    pub last: bool,
    /// The versions that went with it, ascending.
    pub takes: Vec<VersionId>,
    /// The machine, for people.
    pub machine: String,
    /// When, in milliseconds since 1970, for people.
    pub millis: u64,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the members of docs/format.md, 6, under the names used there")]
pub enum Body {
    Vault {
        identity: [u8; 16],
        made_by: String,
    },
    Setting {
        name: String,
        value: Item,
    },
    Day {
        count: u64,
        server_millis: u64,
        own_millis: u64,
    },
    Writer {
        machine: String,
        program: String,
    },
    WriterEnd,
    GivenUp {
        identities: Vec<Identity>,
        tokens: Vec<Token>,
        reason: Option<String>,
    },
    Key {
        id: KeyId,
        wrapped: Option<Wrapped>,
        ended: bool,
    },
    NamesKey {
        wrapped: Wrapped,
    },
    NeverNamed {
        tokens: Vec<(Token, KeyId)>,
    },
    Emptied {
        versions: Option<Vec<VersionId>>,
    },
    Snapshot {
        name: String,
        lives: bool,
    },
    Object {
        kind: ObjectKind,
        birth: Moment,
        device: u64,
        target: Vec<u8>,
    },
    Attributes {
        mode: u16,
        owner: u32,
        group: u32,
        changed: Moment,
    },
    Times {
        access: Moment,
        modification: Moment,
    },
    Xattr {
        name: Vec<u8>,
        value: Option<Vec<u8>>,
    },
    Version(Version),
    Covered {
        version: Option<VersionId>,
        covers: Vec<VersionId>,
    },
    Place(Place),
    Name(Name),
    Removal(Removal),
    Split {
        version: VersionId,
        file: u64,
    },
    Others {
        token: Token,
        reference: Option<Reference>,
    },
    Accepted(Place),
    /// Of a kind that is not known.
    Unknown {
        kind: u64,
    },
}

/// The kinds, by their numbers.
pub(super) mod kind {
    pub(in crate::catalog::format) const VAULT: u64 = 1;
    pub(in crate::catalog::format) const SETTING: u64 = 2;
    pub(in crate::catalog::format) const DAY: u64 = 3;
    pub(in crate::catalog::format) const WRITER: u64 = 4;
    pub(in crate::catalog::format) const WRITER_END: u64 = 5;
    pub(in crate::catalog::format) const GIVEN_UP: u64 = 6;
    pub(in crate::catalog::format) const KEY: u64 = 7;
    pub(in crate::catalog::format) const NAMES_KEY: u64 = 8;
    pub(in crate::catalog::format) const NEVER_NAMED: u64 = 9;
    pub(in crate::catalog::format) const EMPTIED: u64 = 10;
    pub(in crate::catalog::format) const SNAPSHOT: u64 = 11;
    pub(in crate::catalog::format) const OBJECT: u64 = 16;
    pub(in crate::catalog::format) const ATTRIBUTES: u64 = 17;
    pub(in crate::catalog::format) const TIMES: u64 = 18;
    pub(in crate::catalog::format) const XATTR: u64 = 19;
    pub(in crate::catalog::format) const VERSION: u64 = 20;
    pub(in crate::catalog::format) const COVERED: u64 = 21;
    pub(in crate::catalog::format) const PLACE: u64 = 22;
    pub(in crate::catalog::format) const NAME: u64 = 23;
    pub(in crate::catalog::format) const REMOVAL: u64 = 24;
    pub(in crate::catalog::format) const SPLIT: u64 = 25;
    pub(in crate::catalog::format) const OTHERS: u64 = 26;
    pub(in crate::catalog::format) const ACCEPTED: u64 = 27;
}

impl Body {
    /// The number of its kind, and its members but the stamp.
    pub(super) fn members(&self) -> (u64, Vec<(u64, Item)>) {
        let bytes = |bytes: &[u8]| Item::Bytes(bytes.to_vec());
        let number = |value: u64| Item::Unsigned(value);
        let text = |text: &String| Item::text(text.as_str());
        let ids = |ids: &[VersionId]| Item::Array(ids.iter().map(|id| bytes(&id.0)).collect());
        match self {
            Self::Vault { identity, made_by } => {
                (kind::VAULT, vec![(1, bytes(identity)), (2, text(made_by))])
            }
            Self::Setting { name, value } => {
                (kind::SETTING, vec![(1, text(name)), (2, value.clone())])
            }
            Self::Day { count, server_millis, own_millis } => {
                let (server, own) = (number(*server_millis), number(*own_millis));
                (kind::DAY, vec![(1, number(*count)), (2, server), (3, own)])
            }
            Self::Writer { machine, program } => {
                (kind::WRITER, vec![(1, text(machine)), (2, text(program))])
            }
            Self::WriterEnd => (kind::WRITER_END, Vec::new()),
            Self::GivenUp { identities, tokens, reason } => {
                let tokens = tokens.iter().map(|token| Item::text(token.as_str())).collect();
                let given_up = identities.iter().map(|identity| identity.to_item()).collect();
                let mut members = vec![(1, Item::Array(given_up)), (2, Item::Array(tokens))];
                members.extend(reason.as_ref().map(|reason| (3, text(reason))));
                (kind::GIVEN_UP, members)
            }
            Self::Key { id, wrapped, ended } => {
                let mut members = vec![(1, bytes(id))];
                members.extend(wrapped.iter().flat_map(Wrapped::members));
                members.extend(ended.then_some((4, Item::Bool(true))));
                (kind::KEY, members)
            }
            Self::NamesKey { wrapped } => (kind::NAMES_KEY, wrapped.members().to_vec()),
            Self::NeverNamed { tokens } => {
                let row = |(token, key): &(Token, KeyId)| {
                    Item::Array(vec![Item::text(token.as_str()), bytes(key)])
                };
                (kind::NEVER_NAMED, vec![(1, Item::Array(tokens.iter().map(row).collect()))])
            }
            Self::Emptied { versions } => {
                (kind::EMPTIED, vec![(1, versions.as_deref().map_or(Item::Null, ids))])
            }
            Self::Snapshot { name, lives } => {
                (kind::SNAPSHOT, vec![(1, text(name)), (2, Item::Bool(*lives))])
            }
            Self::Object { kind: what, birth, device, target } => {
                let what = ObjectKind::ALL.iter().position(|kind| kind == what).unwrap_or(0);
                let first = [(1, number(what as u64)), (2, birth.to_item())];
                let rest = [(3, number(*device)), (4, bytes(target))];
                (kind::OBJECT, [first, rest].concat())
            }
            Self::Attributes { mode, owner, group, changed } => {
                let first = [(1, number((*mode).into())), (2, number((*owner).into()))];
                let rest = [(3, number((*group).into())), (4, changed.to_item())];
                (kind::ATTRIBUTES, [first, rest].concat())
            }
            Self::Times { access, modification } => {
                (kind::TIMES, vec![(1, access.to_item()), (2, modification.to_item())])
            }
            Self::Xattr { name, value } => {
                let value = value.as_deref().map_or(Item::Null, bytes);
                (kind::XATTR, vec![(1, bytes(name)), (2, value)])
            }
            Self::Version(version) => (kind::VERSION, version.members()),
            Self::Covered { version, covers } => {
                let version = version.map_or(Item::Null, |id| bytes(&id.0));
                (kind::COVERED, vec![(1, version), (2, ids(covers))])
            }
            Self::Place(place) => (kind::PLACE, place.members()),
            Self::Name(Name { link, folder, name, rank, machine, millis }) => {
                let first = [(1, number(*link)), (2, number(*folder)), (3, bytes(name))];
                let rest = [(4, rank.to_item()), (5, text(machine)), (6, number(*millis))];
                (kind::NAME, [first, rest].concat())
            }
            Self::Removal(Removal { link, last, takes, machine, millis }) => {
                let first = [(1, number(*link)), (2, Item::Bool(*last)), (3, ids(takes))];
                let rest = [(4, text(machine)), (5, number(*millis))];
                (kind::REMOVAL, [&first[..], &rest[..]].concat())
            }
            Self::Split { version, file } => {
                (kind::SPLIT, vec![(1, bytes(&version.0)), (2, number(*file))])
            }
            Self::Others { token, reference } => {
                let reference = reference.as_ref().map_or(Item::Null, Reference::to_item);
                (kind::OTHERS, vec![(1, Item::text(token.as_str())), (2, reference)])
            }
            Self::Accepted(place) => (kind::ACCEPTED, place.members()),
            Self::Unknown { kind } => (*kind, Vec::new()),
        }
    }
}

impl Wrapped {
    fn members(&self) -> [(u64, Item); 2] {
        [(2, Item::Bytes(self.sealed.clone())), (3, Item::Bytes(self.by.to_vec()))]
    }
}

impl Version {
    fn members(&self) -> Vec<(u64, Item)> {
        let id = |id: &VersionId| Item::Bytes(id.0.to_vec());
        let hole = |&(offset, len): &(u64, u64)| {
            Item::Array(vec![Item::Unsigned(offset), Item::Unsigned(len)])
        };
        let mut members = vec![
            (1, id(&self.id)),
            (2, Item::Array(self.covers.iter().map(id).collect())),
            (3, Item::Unsigned(self.size)),
            (4, Item::Array(self.holes.iter().map(hole).collect())),
            (5, Item::text(self.machine.as_str())),
            (6, Item::Unsigned(self.millis)),
        ];
        members.extend(self.source.iter().map(|source| (7, id(source))));
        members
    }
}

impl Place {
    fn members(&self) -> Vec<(u64, Item)> {
        let mut members = vec![(1, Item::Bytes(self.version.0.to_vec()))];
        members.extend(self.base.as_ref().map(|base| match base {
            PlaceBase::Whole(whole) => (2, whole.to_item()),
            PlaceBase::Parts(parts) => (3, parts.to_item()),
        }));
        let change = |(reference, identity): &(Reference, [u8; 16])| {
            Item::Array(vec![reference.to_item(), Item::Bytes(identity.to_vec())])
        };
        if !self.changes.is_empty() {
            members.push((4, Item::Array(self.changes.iter().map(change).collect())));
        }
        members.extend(self.base_size.map(|size| (5, Item::Unsigned(size))));
        members
    }

    /// The visible token.
    pub fn first_token(&self) -> Option<&Token> {
        self.base.as_ref().map(|base| &base.reference().token)
    }
}
