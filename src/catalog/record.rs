//! Records of the local database; their published parts are what segments carry.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::cleared::Cleared;
use super::hlc::Stamp;
use crate::store::{RiskMeta, Token};

pub use super::local::inode::{Ino, Kind, RISK, ROOT_INO, Time};

/// The attribute register of an inode: one stamp for all.
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
    /// Nothing committed yet.
    #[default]
    Empty,
    /// One token holds all (D1).
    Single {
        /// The visible token.
        token: Token,
    },
    /// A manifest token names the parts in order (D2).
    Parts {
        /// The visible token, whose payload is the manifest.
        manifest: Token,
        /// Bytes of every part but the last.
        part_size: u64,
        /// Number of parts.
        count: u32,
        /// The inode that the oldest of the parts were made for. Files of one family may
        /// share parts: copies, and what two machines wrote at once.
        family: Ino,
    },
}

impl Version {
    /// The token that other clients see.
    pub fn token(&self) -> Option<&Token> {
        match self {
            Self::Empty => None,
            Self::Single { token } => Some(token),
            Self::Parts { manifest, .. } => Some(manifest),
        }
    }

    /// The family of a split version.
    pub fn family(&self) -> Option<Ino> {
        match self {
            Self::Parts { family, .. } => Some(*family),
            Self::Empty | Self::Single { .. } => None,
        }
    }
}

/// The content register of a regular file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// When, by whom.
    pub stamp: Stamp,
    /// Plaintext bytes.
    pub size: u64,
    /// Where.
    pub version: Version,
    /// Runs of zeros (offset, length), in order: what a sparse file looked like.
    pub holes: Vec<(u64, u64)>,
    /// For each writer, the newest version of it that this one builds on: two contents
    /// of which neither covers the other were written concurrently.
    pub seen: Vec<(u32, u64)>,
}

impl Content {
    /// Whether this version was written with `other` in view.
    pub fn covers(&self, other: &Self) -> bool {
        other.stamp == Stamp::ZERO
            || self.stamp == other.stamp
            || self.seen.iter().any(|&(w, h)| w == other.stamp.writer && h >= other.stamp.hlc)
    }

    /// The lineage for a successor of this version.
    pub fn lineage(&self) -> Vec<(u32, u64)> {
        let mut seen = self.seen.clone();
        seen.retain(|&(writer, _)| writer != self.stamp.writer);
        if self.stamp != Stamp::ZERO {
            seen.push((self.stamp.writer, self.stamp.hlc));
        }
        seen
    }
}

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
}

/// An inode: registers (published), then what is only this machine's business.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Stamp of `attrs`.
    pub attrs_stamp: Stamp,
    /// Attribute register.
    pub attrs: Attrs,
    /// Content register (regular files).
    pub content: Content,
    /// Extended attributes: a register each; `None` is a removal.
    pub xattrs: BTreeMap<Vec<u8>, (Stamp, Option<Vec<u8>>)>,
    /// What only this machine knows.
    pub local: Local,
}

/// The part of an inode that is never published.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Local {
    /// Live links (directories: 2 + live subdirectories).
    pub nlink: u32,
    /// Content that waits for the vault.
    pub dirty: Option<Dirty>,
    /// Made by another client and not adopted: lives only in this listing's shadow.
    pub foreign: bool,
    /// Named so that it is never wanted in a vault.
    pub unwanted: bool,
    /// A name that was removed here is known to other machines.
    pub known: bool,
    /// Given up: no name, and its tokens are in the trash.
    pub gone: bool,
    /// File name and context under which the service knows the token.
    pub known_as: Option<(String, String)>,
    /// The risk meta that the service was last seen to have, and the file's own then: what
    /// has changed since says who changed it.
    pub risk_seen: Option<(RiskMeta, RiskMeta)>,
}

impl Inode {
    /// The families whose parts this file may use: of its committed content, and of what
    /// its uncommitted content was begun on.
    pub fn families(&self) -> impl Iterator<Item = Ino> + '_ {
        let begun_on = self.local.dirty.as_ref().map(|dirty| &dirty.base.version);
        [Some(&self.content.version), begun_on].into_iter().flatten().filter_map(Version::family)
    }

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
            let value = (!value.is_empty()).then(|| value.clone().into_bytes());
            if value.as_ref() != self.xattr(name) {
                self.set_xattr(name, value);
            }
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

    /// The newest stamp of its registers.
    pub fn newest(&self) -> Stamp {
        let xattrs = self.xattrs.values().map(|(stamp, _)| *stamp).max().unwrap_or_default();
        self.attrs_stamp.max(self.content.stamp).max(xattrs)
    }

    /// Whether any register's value was written by `writer`.
    pub fn has_stamp_of(&self, writer: u32) -> bool {
        let xattrs = self.xattrs.values().map(|(stamp, _)| stamp);
        [&self.attrs_stamp, &self.content.stamp]
            .into_iter()
            .chain(xattrs)
            .any(|stamp| stamp.writer == writer && *stamp != Stamp::ZERO)
    }

    /// Sets (or with `None` removes) an extended attribute, together with the attribute
    /// register, whose stamp it shares.
    pub fn set_xattr(&mut self, name: &[u8], value: Option<Vec<u8>>) {
        self.xattrs.insert(name.to_vec(), (self.attrs_stamp, value));
    }

    /// The value of an extended attribute.
    pub fn xattr(&self, name: &[u8]) -> Option<&Vec<u8>> {
        self.xattrs.get(name).and_then(|(_, value)| value.as_ref())
    }
}

/// One name of an inode: a register of its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Number; the first link of an inode has the inode's own.
    pub id: u64,
    /// When it came to this place.
    pub stamp: Stamp,
    /// Directory.
    pub parent: Ino,
    /// Name there.
    pub name: Vec<u8>,
    /// What it names; never changes.
    pub ino: Ino,
    /// Kind of that.
    pub kind: Kind,
    /// Whether it exists; a dead link keeps its last place.
    pub live: bool,
    /// Whether any segment has carried it. Local.
    pub published: bool,
}

/// What stands at one (parent, name): the entry table's value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The name.
    pub name: Vec<u8>,
    /// Live links here; the first has the name.
    pub links: Vec<EntryLink>,
}

/// One link in an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryLink {
    /// Link number.
    pub link: u64,
    /// Inode.
    pub ino: Ino,
    /// Kind.
    pub kind: Kind,
    /// The link's stamp: decides who has the name.
    pub stamp: Stamp,
}

impl From<&Link> for EntryLink {
    fn from(link: &Link) -> Self {
        Self { link: link.id, ino: link.ino, kind: link.kind, stamp: link.stamp }
    }
}

/// The name under which a link that lost its own is shown: `stem (conflict 1a2b3c4d).ext`.
pub fn conflict_name(name: &[u8], link: u64) -> Vec<u8> {
    let dot = name.iter().rposition(|&b| b == b'.').filter(|&at| at > 0).unwrap_or(name.len());
    let (stem, extension) = name.split_at(dot);
    let mark = format!(" (conflict {:08x})", link as u32 ^ (link >> 32) as u32);
    let extension = &extension[..extension.len().min(64)];
    let room = 255 - mark.len() - extension.len();
    let mut out = truncate_utf8(stem, room).to_vec();
    out.extend_from_slice(mark.as_bytes());
    out.extend_from_slice(extension);
    out
}

/// The name under which a link that lost its own is shown, where `taken` says whether an
/// entry of its directory really has a name.
pub fn shown_name<E>(
    name: &[u8],
    link: u64,
    mut taken: impl FnMut(&[u8]) -> Result<bool, E>,
) -> Result<Vec<u8>, E> {
    let [first, second, third] = conflict_names(name, link);
    for name in [first, second] {
        if !taken(&name)? {
            return Ok(name);
        }
    }
    Ok(third)
}

/// The names under which a link that lost its own may be shown: the first that no entry of
/// its directory really has.
pub fn conflict_names(name: &[u8], link: u64) -> [Vec<u8>; 3] {
    let first = conflict_name(name, link);
    let second = conflict_name(&first, link);
    let third = conflict_name(&second, link);
    [first, second, third]
}

/// The longest prefix of at most `room` bytes that does not cut a UTF-8 character.
pub fn truncate_utf8(bytes: &[u8], room: usize) -> &[u8] {
    if bytes.len() <= room {
        return bytes;
    }
    let mut end = room;
    while end > 0 && bytes[end] & 0xc0 == 0x80 {
        end -= 1;
    }
    &bytes[..end]
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

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

    #[test]
    fn conflict_names_keep_the_extension_and_fit() {
        assert_eq!(conflict_name(b"a.txt", 0x1a2b_3c4d), b"a (conflict 1a2b3c4d).txt");
        assert_eq!(conflict_name(b".rc", 1), b".rc (conflict 00000001)");
        assert!(conflict_name(&[b'x'; 255], 7).len() <= 255);
        assert!(conflict_name("ü".repeat(127).as_bytes(), 7).len() <= 255);
    }

    #[test]
    fn a_version_covers_its_ancestors_only() {
        let version = |writer, hlc, seen: &[(u32, u64)]| Content {
            stamp: Stamp { hlc, writer },
            seen: seen.to_vec(),
            ..Content::default()
        };
        let first = version(1, 10, &[]);
        let second = version(2, 20, &first.lineage());
        let third = version(1, 30, &second.lineage());
        assert!(third.covers(&first) && third.covers(&second) && second.covers(&first));
        let rival = version(3, 40, &first.lineage());
        assert!(!rival.covers(&third) && !third.covers(&rival));
    }
}
