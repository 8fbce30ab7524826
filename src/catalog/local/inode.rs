//! An inode as the operations see it: what an object's records come to, and what waits here.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::catalog::cleared::Cleared;
pub use crate::catalog::format::record::Moment as Time;
use crate::catalog::format::record::{ObjectKind, ROOT};
use crate::catalog::format::{Reference, Stamp, VersionId};
use crate::crypto::Identity;
use crate::store::{RiskMeta, Token};

/// Inode number; stable for a file's whole life, on every machine. The root is 1.
pub type Ino = u64;

/// The root directory's inode number (FUSE's `FUSE_ROOT_ID`).
pub const ROOT_INO: Ino = ROOT;

/// What an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// Regular file.
    File,
    /// Directory.
    Dir,
    /// Symbolic link.
    Symlink,
    /// Named pipe.
    Fifo,
    /// Unix socket.
    Socket,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
}

impl From<ObjectKind> for Kind {
    fn from(kind: ObjectKind) -> Self {
        match kind {
            ObjectKind::File => Self::File,
            ObjectKind::Folder => Self::Dir,
            ObjectKind::Symlink => Self::Symlink,
            ObjectKind::Fifo => Self::Fifo,
            ObjectKind::Socket => Self::Socket,
            ObjectKind::CharDevice => Self::CharDevice,
            ObjectKind::BlockDevice => Self::BlockDevice,
        }
    }
}

impl From<Kind> for ObjectKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::File => Self::File,
            Kind::Dir => Self::Folder,
            Kind::Symlink => Self::Symlink,
            Kind::Fifo => Self::Fifo,
            Kind::Socket => Self::Socket,
            Kind::CharDevice => Self::CharDevice,
            Kind::BlockDevice => Self::BlockDevice,
        }
    }
}

impl From<SystemTime> for Time {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Self { secs: after.as_secs().cast_signed(), nanos: after.subsec_nanos() },
            Err(before) => {
                let before = before.duration();
                let secs = -before.as_secs().cast_signed();
                match before.subsec_nanos() {
                    0 => Self { secs, nanos: 0 },
                    nanos => Self { secs: secs - 1, nanos: 1_000_000_000 - nanos },
                }
            }
        }
    }
}

impl From<Time> for SystemTime {
    fn from(time: Time) -> Self {
        let nanos = Duration::from_nanos(u64::from(time.nanos));
        match u64::try_from(time.secs) {
            Ok(secs) => UNIX_EPOCH + Duration::from_secs(secs) + nanos,
            Err(_) => UNIX_EPOCH - Duration::from_secs(time.secs.unsigned_abs()) + nanos,
        }
    }
}

/// The moment of a stamp: the wall clock of who made it, to the millisecond.
pub fn time_of(stamp: Stamp) -> Time {
    let millis = stamp.hlc >> 16;
    let nanos = u32::try_from(millis % 1000).unwrap_or(0) * 1_000_000;
    Time { secs: (millis / 1000).cast_signed(), nanos }
}

/// Permission bits, owners and times, as they are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attrs {
    /// Permission, set-id and sticky bits.
    pub perm: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last access (set by `utimes` only: the drive behaves as `noatime`).
    pub atime: Time,
    /// Last content change.
    pub mtime: Time,
    /// Last attribute change.
    pub ctime: Time,
}

/// Where a committed content is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Version {
    /// Nowhere, and it has no bytes: nothing committed yet, or an empty content.
    #[default]
    Empty,
    /// One token holds all (design D1).
    Whole(Reference),
    /// A part list names the parts in order (design D2).
    Parts(Reference),
    /// Another client's token that nobody has read yet: what is in it is not known.
    Unread(Token),
    /// No place gives its bytes any more.
    Damaged,
}

impl Version {
    /// The token that other clients see.
    pub fn token(&self) -> Option<&Token> {
        match self {
            Self::Empty | Self::Damaged => None,
            Self::Whole(reference) | Self::Parts(reference) => Some(&reference.token),
            Self::Unread(token) => Some(token),
        }
    }

    /// What is known of the payload under that token.
    pub fn identity(&self) -> Option<Identity> {
        match self {
            Self::Whole(reference) | Self::Parts(reference) => Some(reference.identity),
            Self::Empty | Self::Damaged | Self::Unread(_) => None,
        }
    }
}

/// The committed content of a regular file that is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Its identity; none where nothing is committed.
    pub id: Option<VersionId>,
    /// When it was written, by whom.
    pub stamp: Stamp,
    /// Plaintext bytes.
    pub size: u64,
    /// Where.
    pub version: Version,
    /// Runs of zeros (offset, length), in order: what a sparse file looked like.
    pub holes: Vec<(u64, u64)>,
}

impl Content {
    /// Whether another client made it, and no drive has written over it.
    pub fn is_of_others(&self) -> bool {
        self.version.token().is_some() && self.stamp == Stamp::ZERO
    }
}

/// The attributes of security-risk meta (design section 4).
pub const RISK: [&[u8]; 3] = [
    b"user.privicore.risk.classification",
    b"user.privicore.risk.label",
    b"user.privicore.risk.handling",
];

/// How content that waits for the vault is kept on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DirtyKind {
    /// Whole, as one sealed value of the local database.
    Small,
    /// As an overlay of staged chunks over the committed version.
    Chunks,
}

/// Content that waits for the vault. Local: never published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dirty {
    /// How it is kept.
    pub kind: DirtyKind,
    /// Bytes of the file now.
    pub size: u64,
    /// Bytes of the committed version that still show through where nothing is staged;
    /// beyond them, absent means zero.
    pub base_len: u64,
    /// The committed version that was in view when this content was begun.
    pub base: Content,
    /// What of that version is zero now.
    pub cleared: Cleared,
    /// Bytes that are not holes, roughly.
    pub allocated: u64,
    /// The identities under which this journal has recorded it since then, the present one
    /// last: a copy of the journal may publish any of them.
    pub recorded: Vec<VersionId>,
    /// The stamp of the present one.
    pub stamp: Stamp,
}

/// An inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inode {
    /// Number.
    pub ino: Ino,
    /// Kind; never changes.
    pub kind: Kind,
    /// Birth; never changes.
    pub born: Time,
    /// Device number; never changes.
    pub rdev: u32,
    /// Symbolic link's target; never changes.
    pub target: Vec<u8>,
    /// Permission bits, owners, times.
    pub attrs: Attrs,
    /// The committed content that is shown (regular files).
    pub content: Content,
    /// Extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What only this machine knows.
    pub local: Local,
}

/// The part of an inode that is never published.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Local {
    /// Names (directories: 2 + subdirectories); computed, not kept.
    #[serde(skip)]
    pub nlink: u32,
    /// Content that waits for the vault.
    pub dirty: Option<Dirty>,
    /// Made by another client, and nobody has acted on it; computed, not kept.
    #[serde(skip)]
    pub foreign: bool,
    /// Named so that it is never wanted in a vault.
    pub unwanted: bool,
    /// Its last name was removed here: what still waits of its content went with that.
    pub unlinked: bool,
    /// File name and context under which the service knows the token.
    pub known_as: Option<(String, String)>,
    /// The risk meta that the service was last seen to have, and the file's own then: what
    /// has changed since says who changed it.
    pub risk_seen: Option<(RiskMeta, RiskMeta)>,
    /// The size of another client's payload that nobody has read, as a listing gives it.
    pub listed_size: u64,
}

impl Inode {
    /// The risk meta that the attributes ask for: an unset one is empty, as the call
    /// requires all three (protocol C.4.6).
    pub fn risk(&self) -> RiskMeta {
        let [classification, label, handling] = RISK.map(|name| {
            let value = self.xattr(name).map(|value| String::from_utf8_lossy(value).into_owned());
            value.unwrap_or_default()
        });
        RiskMeta { classification, label, handling }
    }

    /// Takes over the risk meta that another client has set.
    pub fn set_risk(&mut self, risk: &RiskMeta) {
        let RiskMeta { classification, label, handling } = risk;
        for (name, value) in RISK.into_iter().zip([classification, label, handling]) {
            self.set_xattr(name, (!value.is_empty()).then(|| value.clone().into_bytes()));
        }
    }

    /// Bytes of the file as this machine sees it.
    pub fn size(&self) -> u64 {
        match (self.kind, &self.local.dirty) {
            (Kind::Symlink, _) => self.target.len() as u64,
            (_, Some(dirty)) => dirty.size,
            (_, None) => self.content.size,
        }
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == Kind::Dir
    }

    /// Sets (or with `None` removes) an extended attribute.
    pub fn set_xattr(&mut self, name: &[u8], value: Option<Vec<u8>>) {
        match value {
            Some(value) => drop(self.xattrs.insert(name.to_vec(), value)),
            None => drop(self.xattrs.remove(name)),
        }
    }

    /// The value of an extended attribute.
    pub fn xattr(&self, name: &[u8]) -> Option<&Vec<u8>> {
        self.xattrs.get(name)
    }
}

/// One name of an inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Number.
    pub id: u64,
    /// Directory.
    pub parent: Ino,
    /// Name there, as it is shown.
    pub name: Vec<u8>,
    /// What it names.
    pub ino: Ino,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_survive() {
        for time in [
            UNIX_EPOCH,
            UNIX_EPOCH - Duration::from_nanos(1),
            UNIX_EPOCH - Duration::from_secs(5),
            UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789),
        ] {
            assert_eq!(SystemTime::from(Time::from(time)), time);
        }
    }
}
