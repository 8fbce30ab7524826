//! What tells one sealed payload from every other.

use serde::{Deserialize, Serialize};

use super::{IV_LEN, OVERHEAD, TAG_LEN};

/// A sealed payload's identity: two tokens with one identity hold one payload, and whoever knows
/// it knows before it decrypts whether a payload is the one that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// Bytes as stored.
    pub len: u64,
    /// Its IV.
    pub iv: [u8; IV_LEN],
    /// Its authentication tag.
    pub tag: [u8; TAG_LEN],
    /// The id of the key that sealed it.
    pub key: [u8; 8],
}

impl Identity {
    /// That of a payload whose sealed part begins behind `header` bytes; `None` if it is too short
    /// to be one.
    pub fn of(payload: &[u8], header: usize, key: [u8; 8]) -> Option<Self> {
        let sealed = payload.get(header..).filter(|sealed| sealed.len() >= OVERHEAD)?;
        let mut identity = Self { len: payload.len() as u64, iv: [0; 12], tag: [0; 16], key };
        identity.iv.copy_from_slice(&sealed[..IV_LEN]);
        identity.tag.copy_from_slice(&sealed[sealed.len() - TAG_LEN..]);
        Some(identity)
    }

    /// That of a content, in the form that every client reads.
    pub fn of_content(payload: &[u8], key: [u8; 8]) -> Option<Self> {
        Self::of(payload, 0, key)
    }
}
