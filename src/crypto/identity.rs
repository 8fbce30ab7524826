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

/// Learns the identity of a content that goes by in pieces.
#[derive(Clone, Debug, Default)]
pub struct IdentityOf {
    len: u64,
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl IdentityOf {
    /// The next bytes, as they are stored.
    pub fn push(&mut self, sealed: &[u8]) {
        self.len += sealed.len() as u64;
        let missing = (IV_LEN - self.head.len()).min(sealed.len());
        self.head.extend_from_slice(&sealed[..missing]);
        self.tail.extend_from_slice(&sealed[sealed.len().saturating_sub(TAG_LEN)..]);
        let over = self.tail.len().saturating_sub(TAG_LEN);
        self.tail.drain(..over);
    }

    /// The IV, once it has gone by.
    pub fn iv(&self) -> Option<[u8; IV_LEN]> {
        self.head.as_slice().try_into().ok()
    }

    /// The identity of all that has gone by, sealed with the key of this id; `None` if it is too
    /// short to be a payload.
    pub fn finish(&self, key: [u8; 8]) -> Option<Identity> {
        let (iv, tag) = (self.iv()?, self.tail.as_slice().try_into().ok()?);
        (self.len >= OVERHEAD as u64).then_some(Identity { len: self.len, iv, tag, key })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_does_not_depend_on_where_the_payload_is_cut() {
        let payload: Vec<u8> = (0..100).collect();
        for len in [0, 11, 27, 28, 29, 100] {
            for step in [1, 5, 12, 16, 17, 100] {
                let mut of = IdentityOf::default();
                payload[..len].chunks(step).for_each(|piece| of.push(piece));
                assert_eq!(of.finish([7; 8]), Identity::of_content(&payload[..len], [7; 8]));
            }
        }
    }
}
