//! Payloads: how the catalog's are sealed, what identifies any of them, and what refers to one
//! (docs/format.md, 1 to 3).

use data_encoding::HEXLOWER;

use super::cbor::{Item, WrongType};
use crate::crypto::CatalogKeys;
pub use crate::crypto::Identity;
use crate::env::Random;
pub use crate::store::Reference;
use crate::store::Token;

/// What tells master keys apart.
pub type KeyId = [u8; 8];

/// First bytes of every catalog payload.
const MAGIC: &[u8; 11] = b"PRIVICOREFS";

/// The format's number.
const FORMAT: u8 = 2;

/// Bytes of the header, which is clear, and authenticated with the rest.
pub const HEADER_LEN: usize = 48;

/// First byte of a plaintext that is the content as it is.
const UNPACKED: u8 = 0;

/// The kinds of catalog payloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PayloadKind {
    /// Records of one writer.
    Segment,
    /// What a checkpoint covers, and its pages.
    Manifest,
    /// Records of a checkpoint.
    Page,
    /// What has changed of a file since its last whole content.
    Change,
}

impl PayloadKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Segment, Self::Manifest, Self::Page, Self::Change];

    fn number(self) -> u8 {
        match self {
            Self::Segment => 1,
            Self::Manifest => 2,
            Self::Page => 3,
            Self::Change => 4,
        }
    }

    /// The word in its subkey's name.
    fn word(self) -> &'static str {
        match self {
            Self::Segment => "segment",
            Self::Manifest => "manifest",
            Self::Page => "page",
            Self::Change => "change",
        }
    }

    /// Most bytes of such a payload as it is stored.
    pub fn limit(self) -> u64 {
        match self {
            Self::Segment | Self::Page => 8 << 20,
            Self::Manifest => 64 << 20,
            Self::Change => 16 << 20,
        }
    }
}

/// What a catalog payload says of itself before it is opened; true once it has been.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Header {
    /// Its kind.
    pub kind: PayloadKind,
    /// The key that sealed it.
    pub key: KeyId,
    /// Who wrote it; not zero.
    pub writer: u64,
    /// Of a segment or a manifest its own number, of a page that of its manifest, of a change 1;
    /// not zero.
    pub sequence: u64,
    /// Of a page its number, from 0.
    pub number: u32,
    /// Of a page how many its manifest has.
    pub count: u32,
}

impl Header {
    fn to_bytes(self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..11].copy_from_slice(MAGIC);
        bytes[11] = FORMAT;
        bytes[12] = self.kind.number();
        bytes[16..24].copy_from_slice(&self.key);
        bytes[24..32].copy_from_slice(&self.writer.to_be_bytes());
        bytes[32..40].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[40..44].copy_from_slice(&self.number.to_be_bytes());
        bytes[44..].copy_from_slice(&self.count.to_be_bytes());
        bytes
    }

    /// What a payload says of itself; nothing of it has been proved.
    pub fn claimed(payload: &[u8]) -> Result<Self, Unopened> {
        let bytes = payload.get(..HEADER_LEN).ok_or(Unopened::NotCatalog)?;
        if !bytes.starts_with(MAGIC) {
            return Err(Unopened::NotCatalog);
        }
        if bytes[11] != FORMAT {
            return Err(Unopened::Newer(format!("format {}", bytes[11])));
        }
        let kind = PayloadKind::ALL.into_iter().find(|kind| kind.number() == bytes[12]);
        let kind = kind.ok_or_else(|| match bytes[12] {
            0 => Unopened::NotCatalog,
            other => Unopened::Newer(format!("a payload of kind {other}")),
        })?;
        let eight = |at: usize| {
            let mut eight = [0; 8];
            eight.copy_from_slice(&bytes[at..at + 8]);
            eight
        };
        let halves = u64::from_be_bytes(eight(40));
        let header = Self {
            kind,
            key: eight(16),
            writer: u64::from_be_bytes(eight(24)),
            sequence: u64::from_be_bytes(eight(32)),
            number: (halves >> 32) as u32,
            count: halves as u32,
        };
        let of_page = kind == PayloadKind::Page;
        let fits = match of_page {
            true => header.number < header.count,
            false => halves == 0,
        };
        let first = kind != PayloadKind::Change || header.sequence == 1;
        if bytes[13..16] != [0; 3] || header.writer == 0 || header.sequence == 0 || !fits || !first
        {
            return Err(Unopened::NotCatalog);
        }
        Ok(header)
    }
}

/// Why a payload did not open as catalog.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unopened {
    /// It is nothing of the catalog, whatever it is stored under.
    #[error("not a payload of the catalog")]
    NotCatalog,
    /// A newer program wrote it.
    #[error("written by a newer version of the program: {0}")]
    Newer(String),
    /// Another key sealed it.
    #[error("sealed with another key ({})", HEXLOWER.encode(.0))]
    OtherKey(KeyId),
    /// It is longer than its kind may be.
    #[error("longer than such a payload may be")]
    TooLong,
    /// It was altered, or cut, or is not of the kind and writer that it names.
    #[error("altered, or not what it says it is")]
    Altered,
}

/// Seals a payload of the catalog. `identity` is that of a change, and nothing else's.
pub fn seal(
    keys: &CatalogKeys,
    random: &dyn Random,
    header: Header,
    identity: Option<&[u8; 16]>,
    content: &[u8],
) -> Vec<u8> {
    let head = header.to_bytes();
    let mut plain = Vec::with_capacity(content.len() + 1);
    plain.push(UNPACKED);
    plain.extend_from_slice(content);
    let of = (header.kind.word(), header.writer);
    let sealed = keys.seal(random, of, &associated(&head, identity), &plain);
    [&head[..], &sealed].concat()
}

fn associated(head: &[u8; HEADER_LEN], identity: Option<&[u8; 16]>) -> Vec<u8> {
    [&head[..], identity.map_or(&[][..], |identity| &identity[..])].concat()
}

/// Opens a payload of the catalog; the header that it gives has been authenticated.
pub fn open(
    keys: &CatalogKeys,
    payload: &[u8],
    identity: Option<&[u8; 16]>,
) -> Result<(Header, Vec<u8>), Unopened> {
    let header = Header::claimed(payload)?;
    if payload.len() as u64 > header.kind.limit() {
        return Err(Unopened::TooLong);
    }
    if header.key != keys.id() {
        return Err(Unopened::OtherKey(header.key));
    }
    let sealed = &payload[HEADER_LEN..];
    let of = (header.kind.word(), header.writer);
    let plain = keys
        .open(of, &associated(&header.to_bytes(), identity), sealed)
        .map_err(|_| Unopened::Altered)?;
    match plain.split_first() {
        Some((&UNPACKED, content)) => Ok((header, content.to_vec())),
        Some((other, _)) => Err(Unopened::Newer(format!("packing {other}"))),
        None => Err(Unopened::Altered),
    }
}

/// The form of an identity in records.
impl Identity {
    /// That of a payload of the catalog.
    pub fn of_catalog(payload: &[u8]) -> Option<Self> {
        let mut key = [0; 8];
        key.copy_from_slice(payload.get(16..24)?);
        Self::of(payload, HEADER_LEN, key)
    }

    pub(super) fn to_item(self) -> Item {
        Item::Array(self.items().to_vec())
    }

    fn items(self) -> [Item; 4] {
        let Self { len, iv, tag, key } = self;
        let bytes = |bytes: &[u8]| Item::Bytes(bytes.to_vec());
        [Item::Unsigned(len), bytes(&iv), bytes(&tag), bytes(&key)]
    }

    pub(super) fn from_item(item: Item) -> Result<Self, WrongType> {
        Self::from_items(item.into_row()?)
    }

    fn from_items([len, iv, tag, key]: [Item; 4]) -> Result<Self, WrongType> {
        Ok(Self {
            len: len.into_number()?,
            iv: iv.into_fixed()?,
            tag: tag.into_fixed()?,
            key: key.into_fixed()?,
        })
    }
}

/// The form of a reference in records.
impl Reference {
    pub(super) fn to_item(&self) -> Item {
        let [len, iv, tag, key] = self.identity.items();
        Item::Array(vec![Item::text(self.token.as_str()), len, iv, tag, key])
    }

    pub(super) fn from_item(item: Item) -> Result<Self, WrongType> {
        let [token, len, iv, tag, key] = item.into_row()?;
        let identity = Identity::from_items([len, iv, tag, key])?;
        Ok(Self { token: Token::new(token.into_text()?), identity })
    }
}

/// A new mark: the `uuid` of a reservation, by which a key holder tells what a drive has stored.
pub fn new_mark(keys: &CatalogKeys, random: &dyn Random) -> String {
    let mut bytes = [0; 16];
    random.fill(&mut bytes[..8]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    let half = mark_half(keys, &bytes);
    bytes[8..].copy_from_slice(&half);
    uuid::Uuid::from_bytes(bytes).to_string()
}

/// Whether a `uuid` is a mark of this key.
pub fn is_mark(keys: &CatalogKeys, text: &str) -> bool {
    let Ok(uuid) = uuid::Uuid::try_parse(text) else { return false };
    let bytes = uuid.as_bytes();
    bytes[6] >> 4 == 8 && bytes[8..] == mark_half(keys, bytes)
}

fn mark_half(keys: &CatalogKeys, bytes: &[u8; 16]) -> [u8; 8] {
    let mut random = [0; 8];
    random.copy_from_slice(&bytes[..8]);
    let mut half = keys.mark(&random);
    half[0] = half[0] & 0x3f | 0x80;
    half
}
