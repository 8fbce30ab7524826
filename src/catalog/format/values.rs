//! Values that records are made of (docs/format.md, 4.1 and 5).

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use super::cbor::{Item, WrongType};

/// The root's number.
pub const ROOT: u64 = 1;

/// The least number that another object or link may have.
pub const FIRST_NUMBER: u64 = 256;

/// Longest name of a machine that is shown, in bytes.
pub const MACHINE_MAX: usize = 64;

/// Longest name of a file, in bytes.
pub const NAME_MAX: usize = 255;

/// Whether a folder can hold something of this name.
pub fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= NAME_MAX
        && name != b"."
        && name != b".."
        && !name.iter().any(|byte| matches!(byte, b'/' | 0))
}

/// What one hybrid logical clock has counted: milliseconds since 1970 times 65,536 and a counter,
/// and who counted.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Stamp {
    /// The clock; below 2^62.
    pub hlc: u64,
    /// The writer that made it.
    pub writer: u64,
}

impl Stamp {
    /// Older than every other.
    pub const ZERO: Self = Self { hlc: 0, writer: 0 };

    pub(super) fn to_item(self) -> Item {
        Item::Array(vec![Item::Unsigned(self.hlc), Item::Unsigned(self.writer)])
    }

    pub(super) fn from_item(item: Item) -> Result<Self, WrongType> {
        let [hlc, writer] = item.into_row()?;
        let (hlc, writer) = (hlc.into_unsigned()?, writer.into_unsigned()?);
        if hlc >> 62 == 0 { Ok(Self { hlc, writer }) } else { Err(WrongType) }
    }
}

/// What a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Subject {
    /// The vault.
    Vault,
    /// What is no folder.
    File(u64),
    /// A folder.
    Folder(u64),
}

impl Subject {
    pub(super) fn to_item(self) -> Item {
        let (kind, number) = match self {
            Self::Vault => (0, 0),
            Self::File(number) => (1, number),
            Self::Folder(number) => (2, number),
        };
        Item::Array(vec![Item::Unsigned(kind), Item::Unsigned(number)])
    }

    pub(super) fn from_item(item: Item) -> Result<Self, WrongType> {
        let [kind, number] = item.into_row()?;
        let (kind, number) = (kind.into_number()?, number.into_number()?);
        let is_object = number == ROOT || number >= FIRST_NUMBER;
        match kind {
            0 if number == 0 => Ok(Self::Vault),
            1 if number >= FIRST_NUMBER => Ok(Self::File(number)),
            2 if is_object => Ok(Self::Folder(number)),
            _ => Err(WrongType),
        }
    }

    /// The number of an object.
    pub fn number(self) -> Option<u64> {
        match self {
            Self::Vault => None,
            Self::File(number) | Self::Folder(number) => Some(number),
        }
    }
}

/// What was written, once and for all: a version's identity.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VersionId(pub [u8; 16]);

impl std::fmt::Debug for VersionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

/// A moment as files have it: seconds since 1970, and nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Moment {
    /// Seconds, before 1970 negative.
    pub secs: i64,
    /// Nanoseconds, below 10^9.
    pub nanos: u32,
}

impl Moment {
    pub(super) fn to_item(self) -> Item {
        Item::Array(vec![Item::signed(self.secs), Item::Unsigned(self.nanos.into())])
    }

    pub(super) fn from_item(item: Item) -> Result<Self, WrongType> {
        let [secs, nanos] = item.into_row()?;
        let (secs, nanos) = (secs.into_signed()?, nanos.into_number()?);
        match u32::try_from(nanos) {
            Ok(nanos) if nanos < 1_000_000_000 => Ok(Self { secs, nanos }),
            _ => Err(WrongType),
        }
    }
}

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the kinds of a file system")]
pub enum ObjectKind {
    File,
    Folder,
    Symlink,
    Fifo,
    Socket,
    CharDevice,
    BlockDevice,
}

impl ObjectKind {
    pub(super) const ALL: [Self; 7] = [
        Self::File,
        Self::Folder,
        Self::Symlink,
        Self::Fifo,
        Self::Socket,
        Self::CharDevice,
        Self::BlockDevice,
    ];

    pub(super) fn from_item(item: Item) -> Result<Self, WrongType> {
        let number = usize::try_from(item.into_number()?).map_err(|_| WrongType)?;
        Self::ALL.get(number).copied().ok_or(WrongType)
    }
}
