//! Keys for what lies on this machine, all derived from the master key.

use std::fmt;

use ring::aead::{Aad, LessSafeKey, Nonce};
use ring::hmac;
use zeroize::Zeroizing;

use super::nonce::NoncePool;
use super::payload::{open_under, ring_key, seal_under};
use super::{CryptoError, IV_LEN, MasterKey, TAG_LEN};
use crate::env::Random;

/// Subkeys for local data, one per purpose. Cheap to share (`Arc`), costly to make.
pub struct LocalKeys {
    values: LessSafeKey,
    names: hmac::Key,
    tags: hmac::Key,
    /// Makes the keys of containers.
    containers: hmac::Key,
    nonces: NoncePool,
}

impl fmt::Debug for LocalKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LocalKeys(redacted)")
    }
}

impl LocalKeys {
    /// Derives all subkeys.
    pub fn new(master: &MasterKey) -> Self {
        let subkey = |label| {
            let mut key = Zeroizing::new([0; 32]);
            master.derive(label, &mut key[..]);
            key
        };
        let mac = |label| hmac::Key::new(hmac::HMAC_SHA256, &subkey(label)[..]);
        Self {
            values: ring_key(&subkey("local values")),
            names: mac("local names"),
            tags: mac("local tags"),
            containers: mac("local containers"),
            nonces: NoncePool::new(),
        }
    }

    /// Seals one value as `nonce(12) | ciphertext | tag(16)`. `aad` is what the value
    /// belongs to (its database key, for example): it must be the same to open it, so a
    /// value moved elsewhere does not open. Always pass the process's own `random`.
    pub fn seal_value(&self, random: &dyn Random, aad: &[u8], plain: &[u8]) -> Vec<u8> {
        seal_under(&self.values, self.nonces.one(random), aad, plain)
    }

    /// Opens what [`seal_value`](Self::seal_value) made with the same `aad`.
    pub fn open_value(&self, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, CryptoError> {
        open_under(&self.values, aad, sealed)
    }

    /// The keyed lookup name of `name` in the folder `parent`: equal for equal names,
    /// telling nothing else.
    pub fn name_tag(&self, parent: u64, name: &[u8]) -> [u8; 16] {
        let mut context = hmac::Context::with_key(&self.names);
        context.update(&parent.to_le_bytes());
        context.update(name);
        truncated(&context.sign())
    }

    /// A keyed fingerprint of `bytes`; equal bytes in two `domain`s are unrelated.
    pub fn tag(&self, domain: &str, bytes: &[u8]) -> [u8; 16] {
        let mut context = hmac::Context::with_key(&self.tags);
        context.update(&(domain.len() as u64).to_le_bytes());
        context.update(domain.as_bytes());
        context.update(bytes);
        truncated(&context.sign())
    }

    /// The key of the container (one local file) that bears `id`.
    pub fn record_key(&self, id: &[u8; 16]) -> RecordKey {
        let mut key = Zeroizing::new([0; 32]);
        key.copy_from_slice(hmac::sign(&self.containers, id).as_ref());
        RecordKey(ring_key(&key))
    }

    /// Fills `out` with fresh nonces, none of them all zero.
    pub fn fill_nonces(&self, random: &dyn Random, out: &mut [[u8; IV_LEN]]) {
        self.nonces.fill(random, out);
    }
}

fn truncated(tag: &hmac::Tag) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&tag.as_ref()[..16]);
    short
}

/// The key of one container of records. Opening verifies; nothing is copied.
pub struct RecordKey(LessSafeKey);

impl fmt::Debug for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecordKey(redacted)")
    }
}

impl RecordKey {
    /// Seals `text` where it lies and returns its tag. `nonce` must be fresh
    /// ([`LocalKeys::fill_nonces`]).
    #[allow(clippy::expect_used, reason = "a record is far shorter than AES-GCM's 64 GiB")]
    pub fn seal(&self, nonce: [u8; IV_LEN], aad: &[u8], text: &mut [u8]) -> [u8; TAG_LEN] {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self
            .0
            .seal_in_place_separate_tag(nonce, Aad::from(aad), text)
            .expect("a record shorter than 64 GiB");
        let mut bytes = [0; TAG_LEN];
        bytes.copy_from_slice(tag.as_ref());
        bytes
    }

    /// Opens `text` where it lies. After an error it holds nothing of the plaintext.
    pub fn open(
        &self,
        nonce: [u8; IV_LEN],
        aad: &[u8],
        text: &mut [u8],
        tag: [u8; TAG_LEN],
    ) -> Result<(), CryptoError> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let opened =
            self.0.open_in_place_separate_tag(nonce, Aad::from(aad), tag.into(), text, 0..);
        opened.map(drop).map_err(|_| CryptoError::Authentication)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::OVERHEAD;
    use crate::env::doubles::{SeededRandom, seeded_env};

    fn keys(byte: u8) -> LocalKeys {
        LocalKeys::new(&MasterKey::from_bytes([byte; 32]))
    }

    #[test]
    fn a_value_opens_only_under_its_key_and_its_place() {
        let (keys, random) = (keys(1), SeededRandom::new(1));
        let sealed = keys.seal_value(&random, b"place", b"value");
        assert_eq!(sealed.len(), 5 + OVERHEAD);
        assert_eq!(keys.open_value(b"place", &sealed).unwrap(), b"value");
        let refused = Err(CryptoError::Authentication);
        assert_eq!(keys.open_value(b"other", &sealed), refused);
        assert_eq!(self::keys(2).open_value(b"place", &sealed), refused);
        assert_eq!(keys.open_value(b"place", &sealed[..27]), Err(CryptoError::TooShort));
        let master =
            crate::crypto::PayloadCipher::new(&MasterKey::from_bytes([1; 32]), seeded_env(1));
        assert!(master.open(&keys.seal_value(&random, b"", b"value")).is_err());
    }

    #[test]
    fn tags_depend_on_key_domain_parent_and_name() {
        let keys = keys(1);
        assert_eq!(keys.name_tag(1, b"a"), self::keys(1).name_tag(1, b"a"));
        assert_ne!(keys.name_tag(1, b"a"), keys.name_tag(2, b"a"));
        assert_ne!(keys.name_tag(1, b"a"), keys.name_tag(1, b"b"));
        assert_ne!(keys.name_tag(1, b"a"), self::keys(2).name_tag(1, b"a"));
        assert_ne!(keys.tag("x", b"yz"), keys.tag("xy", b"z"));
        assert_eq!(keys.tag("x", b"yz"), keys.tag("x", b"yz"));
    }

    #[test]
    fn containers_have_unrelated_keys() {
        let keys = keys(1);
        let mut text = *b"record";
        let tag = keys.record_key(&[1; 16]).seal([5; 12], b"0", &mut text);
        let mut stolen = text;
        let other = keys.record_key(&[2; 16]);
        assert!(other.open([5; 12], b"0", &mut stolen, tag).is_err());
        assert_ne!(&stolen, b"record");
        keys.record_key(&[1; 16]).open([5; 12], b"0", &mut text, tag).unwrap();
        assert_eq!(&text, b"record");
    }
}
