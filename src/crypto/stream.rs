//! AES-256-GCM in pieces, for payloads too large for ring's one-shot interface.
//!
//! GCM (NIST SP 800-38D) with a 96-bit IV: the counter block starts at `IV | 1`, whose
//! encryption masks the tag; the text uses the counters from 2; the tag is GHASH over the
//! ciphertext, zero-padded, and a block with both lengths. The bytes are the same as
//! [`PayloadCipher`](super::PayloadCipher)'s, which the tests hold against it.

use std::fmt;

use aes::Aes256;
use aes::cipher::{BlockEncrypt, InnerIvInit, StreamCipher};
use ctr::{Ctr32BE, CtrCore};
use ghash::GHash;
use ghash::universal_hash::{KeyInit, UniversalHash};

use super::{CryptoError, IV_LEN, TAG_LEN};

const BLOCK: usize = 16;
/// SP 800-38D, 5.2.1.1: the 32-bit counter must not wrap.
const MAX_PLAIN: u64 = (1 << 36) - 32;

/// The keystream, the hash and the length: what sealing and opening share.
struct Gcm {
    keystream: Ctr32BE<Aes256>,
    hash: GHash,
    tag_mask: [u8; TAG_LEN],
    /// Ciphertext that does not fill a hash block yet.
    partial: [u8; BLOCK],
    partial_len: usize,
    len: u64,
}

impl Gcm {
    fn new(key: &Aes256, iv: [u8; IV_LEN]) -> Self {
        let mut hash_key = aes::Block::default();
        key.encrypt_block(&mut hash_key);
        let mut first = aes::Block::default();
        first[..IV_LEN].copy_from_slice(&iv);
        first[BLOCK - 1] = 1;
        let core = CtrCore::inner_iv_init(key.clone(), &first);
        let mut keystream = Ctr32BE::from_core(core);
        let mut tag_mask = [0; TAG_LEN];
        keystream.apply_keystream(&mut tag_mask);
        let hash = GHash::new(&hash_key);
        Self { keystream, hash, tag_mask, partial: [0; BLOCK], partial_len: 0, len: 0 }
    }

    fn grow(&mut self, by: usize) -> Result<(), CryptoError> {
        let len = self.len.saturating_add(by as u64);
        if len > MAX_PLAIN {
            return Err(CryptoError::TooLong);
        }
        self.len = len;
        Ok(())
    }

    fn absorb(&mut self, mut ciphertext: &[u8]) {
        if self.partial_len > 0 {
            let take = ciphertext.len().min(BLOCK - self.partial_len);
            let (head, rest) = ciphertext.split_at(take);
            self.partial[self.partial_len..self.partial_len + take].copy_from_slice(head);
            self.partial_len += take;
            ciphertext = rest;
            if self.partial_len < BLOCK {
                return;
            }
            self.hash.update_padded(&self.partial);
            self.partial_len = 0;
        }
        let whole = ciphertext.len() - ciphertext.len() % BLOCK;
        self.hash.update_padded(&ciphertext[..whole]);
        let rest = &ciphertext[whole..];
        self.partial[..rest.len()].copy_from_slice(rest);
        self.partial_len = rest.len();
    }

    fn tag(mut self) -> [u8; TAG_LEN] {
        self.hash.update_padded(&self.partial[..self.partial_len]);
        let mut lengths = [0; BLOCK];
        lengths[8..].copy_from_slice(&(self.len * 8).to_be_bytes());
        self.hash.update_padded(&lengths);
        let mut tag = self.tag_mask;
        for (byte, hashed) in tag.iter_mut().zip(self.hash.finalize()) {
            *byte ^= hashed;
        }
        tag
    }
}

/// Seals a payload in pieces; made by `PayloadCipher::stream_sealer`, which draws the IV.
///
/// An IV must never meet two contents: an attempt that sends the same bytes again
/// (`stream_sealer_with`) ends as soon as the content below it may have changed.
pub struct StreamSealer {
    gcm: Gcm,
    /// Goes out before the first ciphertext.
    iv: Option<[u8; IV_LEN]>,
}

impl fmt::Debug for StreamSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamSealer({} bytes)", self.gcm.len)
    }
}

impl StreamSealer {
    pub(super) fn new(key: &Aes256, iv: [u8; IV_LEN]) -> Self {
        Self { gcm: Gcm::new(key, iv), iv: Some(iv) }
    }

    /// Seals the next piece and appends what is ready to `out` (the IV too, first).
    pub fn push(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), CryptoError> {
        self.gcm.grow(plain.len())?;
        if let Some(iv) = self.iv.take() {
            out.extend_from_slice(&iv);
        }
        let start = out.len();
        out.extend_from_slice(plain);
        self.gcm.keystream.apply_keystream(&mut out[start..]);
        self.gcm.absorb(&out[start..]);
        Ok(())
    }

    /// Appends the end: the tag, and the IV if there was no piece at all.
    pub fn finish(mut self, out: &mut Vec<u8>) {
        if let Some(iv) = self.iv.take() {
            out.extend_from_slice(&iv);
        }
        out.extend_from_slice(&self.gcm.tag());
    }
}

/// Opens a payload in pieces; made by `PayloadCipher::stream_opener`.
///
/// **What [`push`](Self::push) gives out is not verified.** The tag comes last, so an
/// attacker's bytes look like content until [`finish`](Self::finish) returns `Ok`. The
/// caller must hold everything back (in memory or sealed on disk) until then, and throw
/// it away otherwise.
pub struct StreamOpener {
    key: Aes256,
    state: Opening,
}

enum Opening {
    /// The IV has not come whole.
    Iv(Vec<u8>),
    /// `held` are the last bytes seen, at most a tag long: perhaps the tag.
    Text { gcm: Box<Gcm>, held: Vec<u8> },
}

impl fmt::Debug for StreamOpener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StreamOpener(redacted)")
    }
}

impl StreamOpener {
    pub(super) fn new(key: &Aes256) -> Self {
        Self { key: key.clone(), state: Opening::Iv(Vec::with_capacity(IV_LEN)) }
    }

    /// Takes the next bytes of the sealed form, cut anywhere, and appends the
    /// **unverified** plaintext that they complete to `out`.
    pub fn push(&mut self, mut sealed: &[u8], out: &mut Vec<u8>) -> Result<(), CryptoError> {
        if let Opening::Iv(seen) = &mut self.state {
            let (head, rest) = sealed.split_at(sealed.len().min(IV_LEN - seen.len()));
            seen.extend_from_slice(head);
            sealed = rest;
            let Ok(iv) = <[u8; IV_LEN]>::try_from(seen.as_slice()) else { return Ok(()) };
            let gcm = Box::new(Gcm::new(&self.key, iv));
            self.state = Opening::Text { gcm, held: Vec::with_capacity(2 * TAG_LEN) };
        }
        let Opening::Text { gcm, held } = &mut self.state else { return Ok(()) };
        // Everything but the last 16 bytes seen so far is ciphertext.
        let ready = (held.len() + sealed.len()).saturating_sub(TAG_LEN);
        let from_held = ready.min(held.len());
        let (text, keep) = sealed.split_at(ready - from_held);
        gcm.grow(ready)?;
        let start = out.len();
        out.extend(held.drain(..from_held));
        out.extend_from_slice(text);
        held.extend_from_slice(keep);
        gcm.absorb(&out[start..]);
        gcm.keystream.apply_keystream(&mut out[start..]);
        Ok(())
    }

    /// Checks the tag: only `Ok` makes what was given out trustworthy.
    pub fn finish(self) -> Result<(), CryptoError> {
        let Opening::Text { gcm, held } = self.state else { return Err(CryptoError::TooShort) };
        if held.len() != TAG_LEN {
            return Err(CryptoError::TooShort);
        }
        // Constant time: no early end that tells how much of a forged tag fits.
        let differing = gcm.tag().iter().zip(&held).fold(0, |acc, (a, b)| acc | (a ^ b));
        if differing == 0 { Ok(()) } else { Err(CryptoError::Authentication) }
    }
}

#[cfg(test)]
mod tests {
    use aes::cipher::KeyInit as _;
    use proptest::prelude::*;

    use super::*;
    use crate::crypto::{MasterKey, PayloadCipher};
    use crate::env::doubles::seeded_env;

    fn hex(digits: &str) -> Vec<u8> {
        let digits: Vec<u8> = digits.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16);
        digits.chunks(2).map(|pair| byte(pair).unwrap()).collect()
    }

    /// Test cases 13 to 15 of the GCM specification (McGrew and Viega): AES-256, no AAD.
    const VECTORS: [[&str; 5]; 3] = [
        [
            "00000000000000000000000000000000 00000000000000000000000000000000",
            "000000000000000000000000",
            "",
            "",
            "530f8afbc74536b9a963b4f1c4cb738b",
        ],
        [
            "00000000000000000000000000000000 00000000000000000000000000000000",
            "000000000000000000000000",
            "00000000000000000000000000000000",
            "cea7403d4d606b6e074ec5d3baf39d18",
            "d0d1c8a799996bf0265b98b5d48ab919",
        ],
        [
            "feffe9928665731c6d6a8f9467308308 feffe9928665731c6d6a8f9467308308",
            "cafebabefacedbaddecaf888",
            "d9313225f88406e5a55909c5aff5269a 86a7a9531534f7da2e4c303d8a318a72
             1c3c0c95956809532fcf0e2449a6b525 b16aedf5aa0de657ba637b391aafd255",
            "522dc1f099567d07f47f37a32a84427d 643a8cdcbfe5c0c97598a2bd2555d1aa
             8cb08e48590dbb3da7b08b1056828838 c5f61e6393ba7a0abcc9f662898015ad",
            "b094dac5d93471bdec1a502270e3cc6c",
        ],
    ];

    #[test]
    fn agrees_with_the_published_vectors() {
        for [key, iv, plain, ciphertext, tag] in VECTORS {
            let key = Aes256::new_from_slice(&hex(key)).unwrap();
            let iv = <[u8; IV_LEN]>::try_from(hex(iv)).unwrap();
            let expected = [iv.to_vec(), hex(ciphertext), hex(tag)].concat();
            for piece in [1, 7, 16, 64] {
                let mut sealer = StreamSealer::new(&key, iv);
                let mut sealed = Vec::new();
                for part in hex(plain).chunks(piece) {
                    sealer.push(part, &mut sealed).unwrap();
                }
                sealer.finish(&mut sealed);
                assert_eq!(sealed, expected);
                let mut opener = StreamOpener::new(&key);
                let mut opened = Vec::new();
                for part in expected.chunks(piece) {
                    opener.push(part, &mut opened).unwrap();
                }
                opener.finish().unwrap();
                assert_eq!(opened, hex(plain));
            }
        }
    }

    #[test]
    fn more_than_gcm_allows_is_refused() {
        let mut sealer = StreamSealer::new(&Aes256::new(&[0; 32].into()), [0; IV_LEN]);
        sealer.gcm.len = MAX_PLAIN;
        assert_eq!(sealer.push(b"x", &mut Vec::new()), Err(CryptoError::TooLong));
    }

    #[test]
    fn a_payload_cut_anywhere_in_its_frame_is_refused() {
        let cipher = PayloadCipher::new(&MasterKey::from_bytes([1; 32]), seeded_env(1));
        let sealed = cipher.seal(b"content");
        for len in 0..sealed.len() {
            let mut opener = cipher.stream_opener();
            opener.push(&sealed[..len], &mut Vec::new()).unwrap();
            assert!(opener.finish().is_err(), "{len} bytes");
        }
    }

    /// Cuts `bytes` at the given steps, repeated.
    fn pieces<'a>(mut bytes: &'a [u8], steps: &[usize]) -> Vec<&'a [u8]> {
        let mut parts = Vec::new();
        for step in steps.iter().cycle() {
            let (part, rest) = bytes.split_at(bytes.len().min(*step));
            parts.push(part);
            bytes = rest;
            if bytes.is_empty() {
                break;
            }
        }
        parts
    }

    proptest! {
        #[test]
        fn agrees_with_ring_however_it_is_cut(
            plain in proptest::collection::vec(any::<u8>(), 0..2000),
            steps in proptest::collection::vec(1..200usize, 1..6),
            flip in any::<proptest::sample::Index>(),
        ) {
            let cipher = PayloadCipher::new(&MasterKey::from_bytes([3; 32]), seeded_env(2));
            let mut sealer = cipher.stream_sealer();
            let mut sealed = Vec::new();
            for part in pieces(&plain, &steps) {
                sealer.push(part, &mut sealed).unwrap();
            }
            sealer.finish(&mut sealed);
            prop_assert_eq!(&cipher.open(&sealed).unwrap(), &plain);

            let mut by_ring = cipher.seal(&plain);
            let mut opener = cipher.stream_opener();
            let mut opened = Vec::new();
            for part in pieces(&by_ring, &steps) {
                opener.push(part, &mut opened).unwrap();
            }
            prop_assert_eq!(opener.finish(), Ok(()));
            prop_assert_eq!(opened, plain);

            let at = flip.index(by_ring.len());
            by_ring[at] ^= 0x40;
            let mut opener = cipher.stream_opener();
            opener.push(&by_ring, &mut Vec::new()).unwrap();
            prop_assert_eq!(opener.finish(), Err(CryptoError::Authentication));
        }
    }
}
