//! Keys of what lies in the service besides contents (docs/format.md, 3): every kind of
//! catalog payload, and every writer, has a subkey of its own, so that no payload of one can be
//! opened as another, and no content of a file as either.

use std::fmt;

use ring::{hkdf, hmac};

use super::payload::{open_under, ring_key, seal_under};
use super::subkeys::{key_id, root, subkey};
use super::{CryptoError, IV_LEN, MasterKey};
use crate::env::Random;

/// Subkeys of one master key for the catalog, part lists and marks.
pub struct CatalogKeys {
    root: hkdf::Prk,
    id: [u8; 8],
    marks: hmac::Key,
    part_lists: hmac::Key,
}

impl fmt::Debug for CatalogKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CatalogKeys(redacted)")
    }
}

impl CatalogKeys {
    /// Derives them.
    pub fn new(master: &MasterKey) -> Self {
        let root = root(master);
        let mac = |info: &[u8]| hmac::Key::new(hmac::HMAC_SHA256, &*subkey::<32>(&root, &[info]));
        let (marks, part_lists) = (mac(b"mark"), mac(b"part list"));
        let id = key_id(&root);
        Self { root, id, marks, part_lists }
    }

    /// What tells this key from others; derived one-way, not secret.
    pub fn id(&self) -> [u8; 8] {
        self.id
    }

    /// Seals `plain` as `IV | ciphertext | tag` under the subkey of a kind of payload (a word)
    /// and a writer, with `aad` as associated data.
    pub fn seal(
        &self,
        random: &dyn Random,
        (kind, writer): (&str, u64),
        aad: &[u8],
        plain: &[u8],
    ) -> Vec<u8> {
        let mut iv = [0; IV_LEN];
        random.fill(&mut iv);
        seal_under(&self.of_writer(kind, writer), iv, aad, plain)
    }

    /// Opens what [`CatalogKeys::seal`] made for the same kind, writer and `aad`.
    pub fn open(
        &self,
        (kind, writer): (&str, u64),
        aad: &[u8],
        sealed: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        open_under(&self.of_writer(kind, writer), aad, sealed)
    }

    fn of_writer(&self, kind: &str, writer: u64) -> ring::aead::LessSafeKey {
        ring_key(&subkey(&self.root, &[kind.as_bytes(), &writer.to_be_bytes()]))
    }

    /// The last half of a mark whose first half is `random` (docs/format.md, 1), without regard to
    /// the bits that a UUID fixes.
    pub fn mark(&self, random: &[u8; 8]) -> [u8; 8] {
        let mut half = [0; 8];
        half.copy_from_slice(&hmac::sign(&self.marks, random).as_ref()[..8]);
        half
    }

    /// The authentication code of a part list (docs/format.md, 7).
    pub fn part_list_mac(&self, bytes: &[u8]) -> [u8; 32] {
        let mut mac = [0; 32];
        mac.copy_from_slice(hmac::sign(&self.part_lists, bytes).as_ref());
        mac
    }

    /// Whether `mac` is that of a part list; takes the same time for every wrong one.
    pub fn is_part_list_mac(&self, bytes: &[u8], mac: &[u8]) -> bool {
        hmac::verify(&self.part_lists, bytes, mac).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;
    use crate::crypto::OVERHEAD;
    use crate::crypto::PayloadCipher;
    use crate::env::doubles::{SeededRandom, seeded_env};

    #[test]
    fn what_was_sealed_opens_for_its_kind_its_writer_and_its_header_only() {
        let master = MasterKey::from_bytes([7; 32]);
        let keys = CatalogKeys::new(&master);
        let sealed = keys.seal(&SeededRandom::new(1), ("segment", 5), b"header", b"records");
        assert_eq!(sealed.len(), 7 + OVERHEAD);
        assert_eq!(keys.open(("segment", 5), b"header", &sealed).unwrap(), b"records");
        let refused = |of, aad: &[u8]| {
            assert_eq!(keys.open(of, aad, &sealed), Err(CryptoError::Authentication));
        };
        refused(("page", 5), b"header");
        refused(("segment", 6), b"header");
        refused(("segment", 5), b"Header");
        assert_eq!(keys.open(("segment", 5), b"", &sealed[..27]), Err(CryptoError::TooShort));
        let other = CatalogKeys::new(&MasterKey::from_bytes([8; 32]));
        assert!(other.open(("segment", 5), b"header", &sealed).is_err());
        assert_ne!(keys.id(), other.id());
        // Neither is it a content, nor a content catalog.
        let contents = PayloadCipher::new(&master, seeded_env(2));
        assert!(contents.open(&sealed).is_err());
        assert!(keys.open(("segment", 5), b"", &contents.seal(b"records")).is_err());
        assert_eq!(format!("{keys:?}"), "CatalogKeys(redacted)");
    }

    /// Computed once by another implementation (Python's hmac and hashlib), from the document.
    #[test]
    fn subkeys_are_those_of_the_document() {
        let keys = CatalogKeys::new(&MasterKey::from_bytes([0x11; 32]));
        assert_eq!(HEXLOWER.encode(&keys.id()), KEY_ID);
        let cipher = PayloadCipher::new(&MasterKey::from_bytes([0x11; 32]), seeded_env(1));
        assert_eq!(cipher.key_id(), keys.id());
        assert_eq!(HEXLOWER.encode(&keys.mark(&[1, 2, 3, 4, 5, 6, 7, 8])), MARK);
        assert_eq!(HEXLOWER.encode(&keys.part_list_mac(b"list")), MAC);
    }
    const KEY_ID: &str = "41fafab956128bda";
    const MARK: &str = "df5f0d8783c80005";
    const MAC: &str = "02baae38d452baded745ecfa4b353e57a28855969bb1cdd20c4d62179c5e864f";
}
