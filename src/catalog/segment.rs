//! What the vault keeps of the catalog: segments, and pages of checkpoints.
//!
//! Plain form: eight bytes of magic, then the postcard encoding of [`Segment`]. It is
//! sealed like any payload and stored under the hidden context (see [`Paths`]).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::hlc::Stamp;
use super::record::{Attrs, Content, Ino, Inode, Kind, Link, Local, Time};
use crate::db::{DbError, DbResult, decode, encode};
use crate::store::Token;

/// Format mark and version of segments and checkpoint pages.
const MAGIC: &[u8; 8] = b"pcfsseg2";

/// The published part of an inode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields of `Inode`")]
pub struct InodeRecord {
    pub ino: Ino,
    pub kind: Kind,
    pub born: Time,
    pub rdev: u32,
    pub target: Vec<u8>,
    pub attrs_stamp: Stamp,
    pub attrs: Attrs,
    pub content: Content,
    pub xattrs: BTreeMap<Vec<u8>, (Stamp, Option<Vec<u8>>)>,
}

impl From<&Inode> for InodeRecord {
    fn from(inode: &Inode) -> Self {
        Self {
            ino: inode.ino,
            kind: inode.kind,
            born: inode.born,
            rdev: inode.rdev,
            target: inode.target.clone(),
            attrs_stamp: inode.attrs_stamp,
            attrs: inode.attrs.clone(),
            content: inode.content.clone(),
            xattrs: inode.xattrs.clone(),
        }
    }
}

impl InodeRecord {
    /// The inode, with nothing local yet.
    pub fn into_inode(self) -> Inode {
        Inode {
            ino: self.ino,
            kind: self.kind,
            born: self.born,
            rdev: self.rdev,
            target: self.target,
            attrs_stamp: self.attrs_stamp,
            attrs: self.attrs,
            content: self.content,
            xattrs: self.xattrs,
            local: Local::default(),
        }
    }
}

/// One published record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// An inode's registers.
    Inode(Box<InodeRecord>),
    /// A link's place.
    Link(Link),
}

/// A batch of records of one writer, or one page of a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Who wrote it.
    pub writer: u32,
    /// Its number, never used again by this writer; the page number in a checkpoint.
    pub seq: u64,
    /// The records, inodes before the links to them.
    pub records: Vec<Record>,
    /// The exact tokens it refers to.
    pub tokens: Vec<Token>,
}

impl Segment {
    /// The plain bytes to seal.
    pub fn to_bytes(&self) -> Vec<u8> {
        with_magic(MAGIC, self)
    }

    /// Reads opened bytes.
    pub fn from_bytes(bytes: &[u8]) -> DbResult<Self> {
        without_magic(MAGIC, bytes)
    }
}

/// Format mark and version of checkpoint manifests.
const CHECKPOINT_MAGIC: &[u8; 8] = b"pcfsckp2";

/// What a checkpoint holds: which segments it covers and where its pages are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointManifest {
    /// For each writer, the segments covered.
    pub covers: BTreeMap<u32, Applied>,
    /// Pages in order.
    pub pages: Vec<Token>,
}

impl CheckpointManifest {
    /// The plain bytes to seal.
    pub fn to_bytes(&self) -> Vec<u8> {
        with_magic(CHECKPOINT_MAGIC, self)
    }

    /// Reads opened bytes.
    pub fn from_bytes(bytes: &[u8]) -> DbResult<Self> {
        without_magic(CHECKPOINT_MAGIC, bytes)
    }
}

fn with_magic<T: Serialize>(magic: &[u8; 8], value: &T) -> Vec<u8> {
    let mut out = magic.to_vec();
    out.extend_from_slice(&encode(value));
    out
}

fn without_magic<T: serde::de::DeserializeOwned>(magic: &[u8; 8], bytes: &[u8]) -> DbResult<T> {
    match bytes.strip_prefix(magic) {
        Some(rest) => decode(rest),
        None => Err(DbError::Corrupt("a catalog payload of another kind or version".into())),
    }
}

/// Which segments of one writer have been applied: all up to `through`, and those `beyond`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// Every number up to this.
    pub through: u64,
    /// Single numbers above, with gaps.
    pub beyond: BTreeSet<u64>,
}

impl Applied {
    /// Whether `seq` has been applied.
    pub fn has(&self, seq: u64) -> bool {
        seq <= self.through || self.beyond.contains(&seq)
    }

    /// Adds `seq`.
    pub fn add(&mut self, seq: u64) {
        if seq > self.through {
            self.beyond.insert(seq);
            self.close_gaps();
        }
    }

    /// Adds all of `other`.
    pub fn join(&mut self, other: &Self) {
        self.through = self.through.max(other.through);
        self.beyond.extend(other.beyond.iter().copied());
        self.close_gaps();
    }

    fn close_gaps(&mut self) {
        self.beyond.retain(|&seq| seq > self.through);
        while self.beyond.remove(&(self.through + 1)) {
            self.through += 1;
        }
    }
}

/// Where the catalog's payloads are stored: contexts and file names.
#[derive(Clone, Debug)]
pub struct Paths {
    root: String,
}

/// First component of every hidden context.
pub const HIDDEN: &str = ".privicorefs";

impl Paths {
    /// The paths of the catalog that belongs to the key with this id: two keys in one
    /// profile keep two catalogs.
    pub fn new(key_id: &str) -> Self {
        Self { root: format!("{HIDDEN}/{key_id}") }
    }

    /// Context of segments.
    pub fn log(&self) -> String {
        format!("{}/log", self.root)
    }

    /// Context of checkpoints.
    pub fn checkpoints(&self) -> String {
        format!("{}/checkpoint", self.root)
    }

    /// Context of parts of large files.
    pub fn parts(&self) -> String {
        format!("{}/parts", self.root)
    }

    /// Whether a context is hidden from the tree, whoever's key it belongs to.
    pub fn is_hidden(context: &str) -> bool {
        context == HIDDEN || context.strip_prefix(HIDDEN).is_some_and(|rest| rest.starts_with('/'))
    }

    /// File name of a segment.
    pub fn segment_name(writer: u32, seq: u64) -> String {
        format!("{writer:08x}-{seq:016x}")
    }

    /// Writer and number from a segment's file name.
    pub fn parse_segment(name: &str) -> Option<(u32, u64)> {
        let (writer, seq) = name.split_once('-')?;
        Some((u32::from_str_radix(writer, 16).ok()?, u64::from_str_radix(seq, 16).ok()?))
    }

    /// File name of a checkpoint's manifest: names sort by age.
    pub fn checkpoint_name(stamp: Stamp) -> String {
        format!("{:016x}-{:08x}.checkpoint", stamp.hlc, stamp.writer)
    }

    /// File name of a checkpoint's page.
    pub fn page_name(stamp: Stamp, page: usize) -> String {
        format!("{:016x}-{:08x}.page{page:06}", stamp.hlc, stamp.writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn applied_closes_gaps_in_any_order() {
        let mut applied = Applied::default();
        for seq in [3, 1, 5, 2] {
            applied.add(seq);
        }
        assert_eq!((applied.through, applied.has(4), applied.has(5)), (3, false, true));
        applied.add(4);
        assert_eq!((applied.through, applied.beyond.len()), (5, 0));
    }

    #[test]
    fn hidden_contexts_are_whole_components() {
        assert!(Paths::is_hidden(".privicorefs/ab/log") && Paths::is_hidden(".privicorefs"));
        assert!(!Paths::is_hidden(".privicorefs2/x") && !Paths::is_hidden("a/.privicorefs/x"));
        assert_eq!(Paths::parse_segment(&Paths::segment_name(7, 9)), Some((7, 9)));
    }
}
