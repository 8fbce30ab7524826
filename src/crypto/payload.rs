//! Sealing a whole payload, in the form that every Privicore client reads:
//! `IV(12) | AES-256-GCM ciphertext | tag(16)`, no additional data.

use std::fmt;

use aes::cipher::KeyInit;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use super::stream::{StreamOpener, StreamSealer};
use super::subkeys::{key_id, root};
use super::{CryptoError, IV_LEN, Identity, MasterKey, OVERHEAD, TAG_LEN};
use crate::env::Env;

/// Bytes of the sealed form of `plain_len` bytes.
pub const fn sealed_len(plain_len: u64) -> u64 {
    plain_len + OVERHEAD as u64
}

/// Seals and opens payloads under the master key.
///
/// Every seal draws a fresh random IV, so two contents never share one (the module's header
/// counts how many seals are safe). Where the very same bytes are needed once more, for a put
/// that goes on, [`PayloadCipher::seal_again`] makes sure that they are the same.
pub struct PayloadCipher {
    key: LessSafeKey,
    key_id: [u8; 8],
    /// The same key for the streaming form, which ring does not offer.
    stream_key: aes::Aes256,
    env: Env,
}

impl fmt::Debug for PayloadCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PayloadCipher(redacted)")
    }
}

impl PayloadCipher {
    /// A cipher under `key` with IVs from `env`.
    pub fn new(key: &MasterKey, env: Env) -> Self {
        Self {
            key: ring_key(key.bytes()),
            key_id: key_id(&root(key)),
            stream_key: aes::Aes256::new(key.bytes().into()),
            env,
        }
    }

    /// What tells its key from others: [`super::CatalogKeys::id`].
    pub fn key_id(&self) -> [u8; 8] {
        self.key_id
    }

    /// The identity of what it has sealed.
    pub fn identity(&self, sealed: &[u8]) -> Option<Identity> {
        Identity::of_content(sealed, self.key_id)
    }

    /// Seals `plain` into one new allocation.
    pub fn seal(&self, plain: &[u8]) -> Vec<u8> {
        let mut sealed = Vec::with_capacity(plain.len() + OVERHEAD);
        sealed.resize(IV_LEN, 0);
        sealed.extend_from_slice(plain);
        self.seal_in_place(&mut sealed);
        sealed
    }

    /// Seals without a copy: `buffer` is 12 bytes of room and then the plaintext, and
    /// becomes the sealed form. Reserve 16 bytes more to avoid a reallocation.
    ///
    /// # Panics
    /// If `buffer` is shorter than the 12 bytes of room, or longer than AES-GCM's 64 GiB.
    pub fn seal_in_place(&self, buffer: &mut Vec<u8>) {
        self.seal_with(self.fresh_iv(), buffer);
    }

    /// Makes the very bytes that were sealed before and have this identity; `buffer` as for
    /// [`seal_in_place`](Self::seal_in_place). False, and the plaintext is left as it was, if it
    /// is another content than then: nothing that was sealed with that IV is let out.
    pub fn seal_again(&self, of: &Identity, buffer: &mut Vec<u8>) -> bool {
        self.seal_with(of.iv, buffer);
        if self.identity(buffer) == Some(*of) {
            return true;
        }
        let opened = self.open_in_place(buffer).map(|plain| plain.len());
        buffer.truncate(IV_LEN + opened.unwrap_or(0));
        false
    }

    #[allow(clippy::expect_used, reason = "one buffer of 64 GiB is not made by accident")]
    fn seal_with(&self, with: [u8; IV_LEN], buffer: &mut Vec<u8>) {
        assert!(buffer.len() >= IV_LEN, "no room for the IV before the plaintext");
        let (iv, plain) = buffer.split_at_mut(IV_LEN);
        iv.copy_from_slice(&with);
        let nonce = Nonce::try_assume_unique_for_key(iv).expect("an IV has 12 bytes");
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce, Aad::empty(), plain)
            .expect("a payload in memory is shorter than 64 GiB");
        buffer.extend_from_slice(tag.as_ref());
    }

    /// Opens a sealed payload where it lies and returns the part that is plaintext.
    /// After an error the buffer's content is undefined, and no plaintext.
    pub fn open_in_place<'b>(&self, buffer: &'b mut [u8]) -> Result<&'b mut [u8], CryptoError> {
        if buffer.len() < OVERHEAD {
            return Err(CryptoError::TooShort);
        }
        let (iv, sealed) = buffer.split_at_mut(IV_LEN);
        let nonce =
            Nonce::try_assume_unique_for_key(iv).map_err(|_| CryptoError::Authentication)?;
        self.key.open_in_place(nonce, Aad::empty(), sealed).map_err(|_| CryptoError::Authentication)
    }

    /// Opens a sealed payload into a new buffer.
    pub fn open(&self, sealed: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let mut buffer = sealed.to_vec();
        let plain_len = self.open_in_place(&mut buffer)?.len();
        buffer.drain(..IV_LEN);
        buffer.truncate(plain_len);
        Ok(buffer)
    }

    /// Seals in pieces, for a payload that does not fit in memory.
    pub fn stream_sealer(&self) -> StreamSealer {
        self.stream_sealer_with(self.fresh_iv())
    }

    /// The same with an IV that was drawn by [`fresh_iv`](Self::fresh_iv), so that another
    /// attempt sends the very same bytes. **For one content only**: whoever keeps an IV makes
    /// sure that what is sealed with it has not changed.
    pub fn stream_sealer_with(&self, iv: [u8; IV_LEN]) -> StreamSealer {
        StreamSealer::new(&self.stream_key, iv)
    }

    /// Opens in pieces. Read the warning on [`StreamOpener`] first.
    pub fn stream_opener(&self) -> StreamOpener {
        StreamOpener::new(&self.stream_key)
    }

    /// A new IV, for one content.
    pub fn fresh_iv(&self) -> [u8; IV_LEN] {
        let mut iv = [0; IV_LEN];
        self.env.random.fill(&mut iv);
        iv
    }
}

/// Seals `plain` as `nonce | ciphertext | tag` into one new allocation, with `aad` as associated
/// data.
#[allow(clippy::expect_used, reason = "what is in memory is shorter than AES-GCM's 64 GiB")]
pub(super) fn seal_under(
    key: &LessSafeKey,
    nonce: [u8; IV_LEN],
    aad: &[u8],
    plain: &[u8],
) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(plain.len() + OVERHEAD);
    sealed.extend_from_slice(&nonce);
    sealed.extend_from_slice(plain);
    let nonce = Nonce::assume_unique_for_key(nonce);
    let tag = key
        .seal_in_place_separate_tag(nonce, Aad::from(aad), &mut sealed[IV_LEN..])
        .expect("shorter than 64 GiB");
    sealed.extend_from_slice(tag.as_ref());
    sealed
}

/// Opens what [`seal_under`] made with the same `aad`.
pub(super) fn open_under(
    key: &LessSafeKey,
    aad: &[u8],
    sealed: &[u8],
) -> Result<Vec<u8>, CryptoError> {
    if sealed.len() < OVERHEAD {
        return Err(CryptoError::TooShort);
    }
    let (nonce, text) = sealed.split_at(IV_LEN);
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| CryptoError::Authentication)?;
    let mut plain = text.to_vec();
    let opened = key.open_in_place(nonce, Aad::from(aad), &mut plain);
    let len = opened.map_err(|_| CryptoError::Authentication)?.len();
    plain.truncate(len);
    Ok(plain)
}

/// ring's form of a 256-bit key.
#[allow(clippy::expect_used, reason = "ring refuses only keys of another length")]
pub(super) fn ring_key(bytes: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, bytes).expect("a key of 32 bytes"))
}

// One tag length everywhere: checked where the constants meet ring's.
const _: () = assert!(TAG_LEN == ring::aead::MAX_TAG_LEN && IV_LEN == ring::aead::NONCE_LEN);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::env::doubles::seeded_env;

    fn cipher(seed: u64) -> PayloadCipher {
        PayloadCipher::new(&MasterKey::from_bytes([9; 32]), seeded_env(seed))
    }

    #[test]
    fn sealed_form_is_iv_ciphertext_tag_under_the_master_key() {
        let sealed = cipher(1).seal(b"hello");
        assert_eq!(sealed.len() as u64, sealed_len(5));
        // Opened by hand, as another client would.
        let key = ring_key(&[9; 32]);
        let nonce = Nonce::try_assume_unique_for_key(&sealed[..12]).unwrap();
        let mut rest = sealed[12..].to_vec();
        assert_eq!(key.open_in_place(nonce, Aad::empty(), &mut rest).unwrap(), b"hello");
    }

    #[test]
    fn two_seals_of_one_content_differ() {
        let cipher = cipher(1);
        assert_ne!(cipher.seal(b"same"), cipher.seal(b"same"));
    }

    #[test]
    fn what_is_sealed_again_is_the_same_or_nothing() {
        let cipher = cipher(1);
        let room = |plain: &[u8]| [&[0; IV_LEN], plain].concat();
        let sealed = cipher.seal(b"content");
        let identity = cipher.identity(&sealed).unwrap();
        let mut again = room(b"content");
        assert!(cipher.seal_again(&identity, &mut again));
        assert_eq!(again, sealed);
        for other in [&b"another"[..], b"more content", b""] {
            let mut buffer = room(other);
            assert!(!cipher.seal_again(&identity, &mut buffer));
            assert_eq!(&buffer[IV_LEN..], other);
        }
    }

    #[test]
    fn sealing_in_place_does_not_reallocate_when_room_is_reserved() {
        let mut buffer = Vec::with_capacity(OVERHEAD + 3);
        buffer.extend_from_slice(&[0; IV_LEN]);
        buffer.extend_from_slice(b"abc");
        let at = buffer.as_ptr();
        let cipher = cipher(1);
        cipher.seal_in_place(&mut buffer);
        assert_eq!(buffer.as_ptr(), at);
        assert_eq!(cipher.open_in_place(&mut buffer).unwrap(), b"abc");
    }

    #[test]
    fn short_foreign_and_cut_payloads_are_refused() {
        let cipher = cipher(1);
        assert_eq!(cipher.open(&[0; OVERHEAD - 1]), Err(CryptoError::TooShort));
        assert_eq!(cipher.open(&[0; OVERHEAD]), Err(CryptoError::Authentication));
        let sealed = cipher.seal(&[1; 100]);
        assert_eq!(cipher.open(&sealed[..127]), Err(CryptoError::Authentication));
        let other = PayloadCipher::new(&MasterKey::from_bytes([8; 32]), seeded_env(1));
        assert_eq!(other.open(&sealed), Err(CryptoError::Authentication));
        assert_eq!(format!("{cipher:?}"), "PayloadCipher(redacted)");
    }

    proptest! {
        #[test]
        fn opens_what_it_sealed_and_nothing_altered(
            plain in proptest::collection::vec(any::<u8>(), 0..300),
            at in any::<proptest::sample::Index>(),
            bit in 0..8u8,
        ) {
            let cipher = cipher(5);
            let mut sealed = cipher.seal(&plain);
            prop_assert_eq!(cipher.open(&sealed).unwrap(), plain);
            let at = at.index(sealed.len());
            sealed[at] ^= 1 << bit;
            prop_assert_eq!(cipher.open(&sealed), Err(CryptoError::Authentication));
        }
    }
}
