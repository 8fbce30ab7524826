//! Part lists: the payload of a split file's visible token (docs/format.md, 7). JSON, so that
//! whoever has the key can join the parts without this program.

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use super::cbor::Item;
use super::payload::{Identity, KeyId, Reference};
use crate::crypto::CatalogKeys;
use crate::store::Token;

/// Value of the `privicorefs` member.
const KIND: &str = "parts";

/// The version written, and the only one read.
const VERSION: u32 = 2;

/// Longest part list, in bytes of JSON.
pub const LIST_MAX: usize = 256 << 20;

/// Most parts.
pub const PARTS_MAX: usize = 1 << 20;

/// Smallest and largest part, in bytes; the last may be smaller.
pub const PART_SIZES: std::ops::RangeInclusive<u64> = 4096..=1 << 30;

/// Largest file: what JSON readers keep exactly.
const SIZE_MAX: u64 = 1 << 53;

/// A file in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartList {
    /// Bytes of the file.
    pub size: u64,
    /// Bytes of every part but the last.
    pub part_size: u64,
    /// The parts in order; `None` for one of zeros that is not stored.
    pub parts: Vec<Option<Reference>>,
}

/// As JSON has it.
#[derive(Serialize, Deserialize)]
struct Json {
    privicorefs: String,
    version: u32,
    size: u64,
    part_size: u64,
    parts: Vec<String>,
    pins: Vec<(u64, String, String, String)>,
    mac: String,
}

/// Why bytes are not a part list that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotParts {
    /// Not of this form.
    #[error("not a list of parts")]
    Form,
    /// Its figures do not agree, or are beyond what there can be.
    #[error("a list of parts whose figures do not agree")]
    Figures,
    /// Nobody with this key has made it.
    #[error("a list of parts that no drive of this key has made")]
    Mac,
}

/// Number of parts of a file of `size` bytes.
pub fn part_count(size: u64, part_size: u64) -> u64 {
    if part_size == 0 { 0 } else { size.div_ceil(part_size) }
}

/// Bytes of part `index`.
pub fn part_len(size: u64, part_size: u64, index: u64) -> u64 {
    size.saturating_sub(index.saturating_mul(part_size)).min(part_size)
}

impl PartList {
    /// The content of the visible token.
    pub fn to_json(&self, keys: &CatalogKeys) -> Vec<u8> {
        let pin = |part: &Option<Reference>| match part {
            None => (0, String::new(), String::new(), String::new()),
            Some(Reference { identity: Identity { len, iv, tag, key }, .. }) => {
                (*len, HEXLOWER.encode(iv), HEXLOWER.encode(tag), HEXLOWER.encode(key))
            }
        };
        let token = |part: &Option<Reference>| {
            part.as_ref().map_or_else(String::new, |part| part.token.as_str().to_owned())
        };
        let json = Json {
            privicorefs: KIND.into(),
            version: VERSION,
            size: self.size,
            part_size: self.part_size,
            parts: self.parts.iter().map(token).collect(),
            pins: self.parts.iter().map(pin).collect(),
            mac: HEXLOWER.encode(&keys.part_list_mac(&self.authenticated())),
        };
        serde_json::to_vec(&json).unwrap_or_default()
    }

    /// Reads the content of a visible token: what it names is only what a holder of this key has
    /// written.
    pub fn from_json(bytes: &[u8], keys: &CatalogKeys) -> Result<Self, NotParts> {
        if bytes.len() > LIST_MAX {
            return Err(NotParts::Form);
        }
        let json: Json = serde_json::from_slice(bytes).map_err(|_| NotParts::Form)?;
        if json.privicorefs != KIND || json.version != VERSION {
            return Err(NotParts::Form);
        }
        if json.parts.len() > PARTS_MAX || json.parts.len() != json.pins.len() {
            return Err(NotParts::Figures);
        }
        let parts: Option<Vec<_>> =
            json.parts.into_iter().zip(json.pins).map(|(token, pin)| part(token, &pin)).collect();
        let parts = parts.ok_or(NotParts::Form)?;
        let list = Self { size: json.size, part_size: json.part_size, parts };
        if !list.is_sound() {
            return Err(NotParts::Figures);
        }
        let mac = HEXLOWER.decode(json.mac.as_bytes()).map_err(|_| NotParts::Form)?;
        match keys.is_part_list_mac(&list.authenticated(), &mac) {
            true => Ok(list),
            false => Err(NotParts::Mac),
        }
    }

    /// Whether the figures agree: as many parts as the size asks for, each as long as its place.
    pub fn is_sound(&self) -> bool {
        let counted = PART_SIZES.contains(&self.part_size)
            && self.size < SIZE_MAX
            && part_count(self.size, self.part_size) == self.parts.len() as u64;
        let fits = |(index, part): (usize, &Option<Reference>)| {
            let len = part_len(self.size, self.part_size, index as u64);
            let len = crate::crypto::sealed_len(len);
            part.as_ref().is_none_or(|part| part.identity.len == len)
        };
        counted && self.parts.iter().enumerate().all(fits)
    }

    /// What the authentication code is of.
    fn authenticated(&self) -> Vec<u8> {
        let empty = || Item::Bytes(Vec::new());
        let part = |part: &Option<Reference>| match part {
            Some(reference) => reference.to_item(),
            None => Item::Array(vec![Item::text(""), Item::Unsigned(0), empty(), empty(), empty()]),
        };
        let parts = self.parts.iter().map(part).collect();
        let numbers = [u64::from(VERSION), self.size, self.part_size].map(Item::Unsigned);
        Item::Array([&numbers[..], &[Item::Array(parts)]].concat()).encode()
    }
}

/// A part, `None` within for one of zeros; nothing if it is neither.
fn part(
    token: String,
    (len, iv, tag, key): &(u64, String, String, String),
) -> Option<Option<Reference>> {
    if token.is_empty() {
        let nothing = *len == 0 && iv.is_empty() && tag.is_empty() && key.is_empty();
        return nothing.then_some(None);
    }
    let unhex = |digits: &String| HEXLOWER.decode(digits.as_bytes()).ok();
    let identity = Identity {
        len: *len,
        iv: unhex(iv)?.try_into().ok()?,
        tag: unhex(tag)?.try_into().ok()?,
        key: <KeyId>::try_from(unhex(key)?).ok()?,
    };
    Some(Some(Reference { token: Token::new(token), identity }))
}
