//! Reading what records say: each member by the rules of its table (docs/format.md, 5 and 6).

use std::collections::BTreeMap;

use super::body::{Body, Name, Place, PlaceBase, Removal, Version, Wrapped, kind};
use super::cbor::{Item, WrongType};
use super::payload::{Identity, Reference};
use super::values::{FIRST_NUMBER, Moment, ObjectKind, ROOT, Stamp, Subject, VersionId, is_name};
use crate::store::Token;

/// Largest value of an extended attribute, in bytes.
const XATTR_MAX: usize = 65_536;

/// Longest target of a symbolic link, in bytes.
const TARGET_MAX: usize = 4095;
/// What is wrong with a member.
pub(super) type Bad = &'static str;

impl From<WrongType> for Bad {
    fn from(_: WrongType) -> Self {
        "a member of another type"
    }
}

/// The members of a record, as they are read one by one.
pub(super) struct Members(pub(super) BTreeMap<u64, Item>);

impl Members {
    fn find(&mut self, key: u64) -> Option<Item> {
        self.0.remove(&key)
    }

    pub(super) fn take(&mut self, key: u64) -> Result<Item, Bad> {
        self.find(key).ok_or("a member is missing")
    }

    fn number(&mut self, key: u64) -> Result<u64, Bad> {
        Ok(self.take(key)?.into_number()?)
    }

    fn small(&mut self, key: u64) -> Result<u32, Bad> {
        u32::try_from(self.number(key)?).map_err(|_| "a number too large")
    }

    fn text(&mut self, key: u64) -> Result<String, Bad> {
        Ok(self.take(key)?.into_text()?)
    }

    fn id(&mut self, key: u64) -> Result<VersionId, Bad> {
        Ok(VersionId(self.take(key)?.into_fixed()?))
    }

    /// Identities, ascending.
    fn ids(&mut self, key: u64) -> Result<Vec<VersionId>, Bad> {
        let ids = self.take(key)?.into_list(|item| Ok(VersionId(item.into_fixed()?)))?;
        match ids.is_sorted_by(|a, b| a < b) {
            true => Ok(ids),
            false => Err("identities out of order"),
        }
    }

    fn moment(&mut self, key: u64) -> Result<Moment, Bad> {
        Ok(Moment::from_item(self.take(key)?)?)
    }

    fn object(&mut self, key: u64) -> Result<u64, Bad> {
        let number = self.number(key)?;
        if number == ROOT || number >= FIRST_NUMBER { Ok(number) } else { Err("no such number") }
    }

    fn link(&mut self, key: u64) -> Result<u64, Bad> {
        let number = self.number(key)?;
        if number >= FIRST_NUMBER { Ok(number) } else { Err("no such number") }
    }

    fn wrapped(&mut self, sealed: u64, by: u64) -> Result<Option<Wrapped>, Bad> {
        match (self.find(sealed), self.find(by)) {
            (None, None) => Ok(None),
            (Some(sealed), Some(by)) => {
                Ok(Some(Wrapped { sealed: sealed.into_bytes()?, by: by.into_fixed()? }))
            }
            _ => Err("half a wrapped key"),
        }
    }
}
/// Whether a record says something that a list which may grow does not have yet.
pub(super) fn of_tomorrow(kind: u64, members: &Members) -> bool {
    match (kind, members.0.get(&1), members.0.get(&2)) {
        (kind::OBJECT, Some(Item::Unsigned(what)), _) => *what >= ObjectKind::ALL.len() as u64,
        (kind::SETTING, Some(Item::Text(name)), Some(Item::Text(how))) => {
            name == "names" && how != "clear" && how != "private"
        }
        _ => false,
    }
}

/// What a kind may be about.
pub(super) fn fits(kind: u64, subject: Subject) -> bool {
    match kind {
        kind::VAULT..=kind::SNAPSHOT => subject == Subject::Vault,
        kind::OBJECT..=kind::XATTR => subject != Subject::Vault,
        kind::NAME | kind::REMOVAL => {
            subject.number().is_some() && subject != Subject::Folder(ROOT)
        }
        kind::VERSION..=kind::ACCEPTED => matches!(subject, Subject::File(_)),
        _ => true,
    }
}
impl Body {
    /// Takes what a record of this kind has to have out of its members.
    pub(super) fn take(kind: u64, subject: Subject, m: &mut Members) -> Result<Self, Bad> {
        Ok(match kind {
            kind::VAULT => Self::Vault { identity: m.take(1)?.into_fixed()?, made_by: m.text(2)? },
            kind::SETTING => {
                let (name, value) = (m.text(1)?, m.take(2)?);
                check_setting(&name, &value)?;
                Self::Setting { name, value }
            }
            kind::DAY => Self::Day {
                count: m.number(1)?,
                server_millis: m.number(2)?,
                own_millis: m.number(3)?,
            },
            kind::WRITER => Self::Writer { machine: m.text(1)?, program: m.text(2)? },
            kind::WRITER_END => Self::WriterEnd,
            kind::GIVEN_UP => Self::GivenUp {
                identities: m.take(1)?.into_list(Identity::from_item)?,
                tokens: m.take(2)?.into_list(|item| Ok(Token::new(item.into_text()?)))?,
                reason: m.find(3).map(Item::into_text).transpose()?,
            },
            kind::KEY => Self::Key {
                id: m.take(1)?.into_fixed()?,
                wrapped: m.wrapped(2, 3)?,
                ended: match m.find(4).map(Item::into_bool).transpose()? {
                    None => false,
                    Some(true) => true,
                    Some(false) => return Err("a key that has not ended says nothing of it"),
                },
            },
            kind::NAMES_KEY => {
                Self::NamesKey { wrapped: m.wrapped(2, 3)?.ok_or("a member is missing")? }
            }
            kind::NEVER_NAMED => Self::NeverNamed {
                tokens: m.take(1)?.into_list(|item| {
                    let [token, key] = item.into_row()?;
                    Ok((Token::new(token.into_text()?), key.into_fixed()?))
                })?,
            },
            kind::EMPTIED => match m.take(1)? {
                Item::Null => Self::Emptied { versions: None },
                some => {
                    m.0.insert(1, some);
                    Self::Emptied { versions: Some(m.ids(1)?) }
                }
            },
            kind::SNAPSHOT => Self::Snapshot { name: m.text(1)?, lives: m.take(2)?.into_bool()? },
            kind::OBJECT => {
                let kind = ObjectKind::from_item(m.take(1)?)?;
                let (birth, device) = (m.moment(2)?, m.number(3)?);
                let target = m.take(4)?.into_bytes()?;
                let is_folder = matches!(subject, Subject::Folder(_));
                let is_link = kind == ObjectKind::Symlink;
                if is_folder != (kind == ObjectKind::Folder) {
                    return Err("a folder that is none");
                }
                if target.len() > TARGET_MAX || target.is_empty() == is_link || target.contains(&0)
                {
                    return Err("a target that none can be");
                }
                Self::Object { kind, birth, device, target }
            }
            kind::ATTRIBUTES => {
                let mode = u16::try_from(m.number(1)?).ok().filter(|mode| *mode <= 0o7777);
                Self::Attributes {
                    mode: mode.ok_or("no permission bits")?,
                    owner: m.small(2)?,
                    group: m.small(3)?,
                    changed: m.moment(4)?,
                }
            }
            kind::TIMES => Self::Times { access: m.moment(1)?, modification: m.moment(2)? },
            kind::XATTR => {
                let name = m.take(1)?.into_bytes()?;
                let value = m.take(2)?.into_option(Item::into_bytes)?;
                let too_long = value.as_ref().is_some_and(|value| value.len() > XATTR_MAX);
                if name.is_empty() || name.len() > 255 || name.contains(&0) || too_long {
                    return Err("no attribute that a file can have");
                }
                Self::Xattr { name, value }
            }
            kind::VERSION => Self::Version(Version::take(m)?),
            kind::COVERED => {
                let version = m.take(1)?.into_option(|item| Ok(VersionId(item.into_fixed()?)))?;
                Self::Covered { version, covers: m.ids(2)? }
            }
            kind::PLACE => Self::Place(Place::take(m)?),
            kind::NAME => {
                let name = Name {
                    link: m.link(1)?,
                    folder: m.object(2)?,
                    name: m.take(3)?.into_bytes()?,
                    rank: Stamp::from_item(m.take(4)?)?,
                    machine: m.text(5)?,
                    millis: m.number(6)?,
                };
                if !is_name(&name.name) {
                    return Err("no name of a file");
                }
                if subject == Subject::Folder(name.folder) {
                    return Err("a folder in itself");
                }
                Self::Name(name)
            }
            kind::REMOVAL => {
                let removal = Removal {
                    link: m.link(1)?,
                    last: m.take(2)?.into_bool()?,
                    takes: m.ids(3)?,
                    machine: m.text(4)?,
                    millis: m.number(5)?,
                };
                if !removal.takes.is_empty() && (!removal.last || subject_is_folder(subject)) {
                    return Err("takes what it cannot");
                }
                Self::Removal(removal)
            }
            kind::SPLIT => Self::Split { version: m.id(1)?, file: m.link(2)? },
            kind::OTHERS => Self::Others {
                token: Token::new(m.text(1)?),
                reference: m.take(2)?.into_option(Reference::from_item)?,
            },
            kind::ACCEPTED => Self::Accepted(Place::take(m)?),
            kind => Self::Unknown { kind },
        })
    }
}

fn subject_is_folder(subject: Subject) -> bool {
    matches!(subject, Subject::Folder(_))
}

/// A setting that is known has a value that it can have; others are kept as they are.
fn check_setting(name: &str, value: &Item) -> Result<(), Bad> {
    let fits = match (name, value) {
        ("trash-days", Item::Unsigned(days)) => *days <= 36_500,
        ("trash-size", Item::Unsigned(bytes)) => bytes >> 63 == 0,
        ("trash-size", Item::Null) => true,
        ("names", Item::Text(how)) => how == "clear" || how == "private",
        ("trash-days" | "trash-size" | "names", _) => false,
        _ => true,
    };
    if fits { Ok(()) } else { Err("a setting's value that it cannot have") }
}

impl Version {
    fn take(m: &mut Members) -> Result<Self, Bad> {
        let (id, covers, size) = (m.id(1)?, m.ids(2)?, m.number(3)?);
        let holes = m.take(4)?.into_list(|item| {
            let [offset, len] = item.into_row()?;
            Ok((offset.into_number()?, len.into_number()?))
        })?;
        let mut end = 0;
        for (at, (offset, len)) in holes.iter().enumerate() {
            // sums of two numbers below 2^63 do not overflow
            if *len == 0 || offset + len > size || (at > 0 && *offset <= end) {
                return Err("holes out of order, or beyond the end");
            }
            end = offset + len;
        }
        if covers.binary_search(&id).is_ok() {
            return Err("a version that covers itself");
        }
        let (machine, millis) = (m.text(5)?, m.number(6)?);
        let source = m.find(7).map(Item::into_fixed).transpose()?.map(VersionId);
        Ok(Self { id, covers, size, holes, machine, millis, source })
    }
}

impl Place {
    fn take(m: &mut Members) -> Result<Self, Bad> {
        let version = m.id(1)?;
        let whole = m.find(2).map(Reference::from_item).transpose()?;
        let parts = m.find(3).map(Reference::from_item).transpose()?;
        let base = match (whole, parts) {
            (None, None) => None,
            (Some(whole), None) => Some(PlaceBase::Whole(whole)),
            (None, Some(parts)) => Some(PlaceBase::Parts(parts)),
            (Some(_), Some(_)) => return Err("two places at once"),
        };
        let changes = m.find(4).map(|item| {
            item.into_list(|item| {
                let [reference, identity] = item.into_row()?;
                Ok((Reference::from_item(reference)?, identity.into_fixed()?))
            })
        });
        let changes = changes.transpose()?;
        let base_size = m.find(5).map(Item::into_number).transpose()?;
        if changes.as_ref().is_some_and(Vec::is_empty) || changes.is_some() != base_size.is_some() {
            return Err("changes without a size of what they are over");
        }
        Ok(Self { version, base, changes: changes.unwrap_or_default(), base_size })
    }
}
