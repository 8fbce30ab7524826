//! The published form of a profile's public key (section A, "Key format").
//!
//! 100 bytes as 200 hexadecimal digits: `version(4) | Curve25519 key(32) |
//! BLAKE2b-512(version | key)(64)`. Two version tags are in use; a reader takes both and
//! compares without regard to case, a writer uses [`VERSION`] and lower case.

use blake2::{Blake2b512, Digest};
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use thiserror::Error;

/// Version tag that every current source gives.
pub const VERSION: [u8; 4] = [0x31, 0x42, 0x05, 0x00];
/// Version tag of older keys, still accepted.
pub const OLD_VERSION: [u8; 4] = [0x31, 0x40, 0x05, 0x00];
/// Length of the text form, in characters.
pub const TEXT_LEN: usize = 200;

const KEY_LEN: usize = 32;
const BODY_LEN: usize = VERSION.len() + KEY_LEN;

/// Why a text is not a public key.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum KeyFormatError {
    /// Not 200 hexadecimal digits.
    #[error("a public key is 200 hexadecimal digits")]
    NotHex,
    /// Neither of the two known version tags.
    #[error("the public key has an unknown version tag")]
    Version,
    /// The checksum does not belong to the key.
    #[error("the public key's checksum does not match")]
    Checksum,
}

/// The text form of a Curve25519 public key.
pub fn encode(key: &[u8; KEY_LEN]) -> String {
    let mut bytes = Vec::with_capacity(TEXT_LEN / 2);
    bytes.extend_from_slice(&VERSION);
    bytes.extend_from_slice(key);
    let sum = Blake2b512::digest(&bytes);
    bytes.extend_from_slice(&sum);
    HEXLOWER.encode(&bytes)
}

/// The Curve25519 key inside a text form, its version and checksum verified.
///
/// # Errors
/// [`KeyFormatError`], by what is wrong with it.
pub fn parse(text: &str) -> Result<[u8; KEY_LEN], KeyFormatError> {
    let digits = HEXLOWER_PERMISSIVE.decode(text.as_bytes());
    let bytes = digits.map_err(|_| KeyFormatError::NotHex)?;
    if bytes.len() != TEXT_LEN / 2 {
        return Err(KeyFormatError::NotHex);
    }
    let (body, sum) = bytes.split_at(BODY_LEN);
    let (version, key) = body.split_at(VERSION.len());
    if version != VERSION && version != OLD_VERSION {
        return Err(KeyFormatError::Version);
    }
    if Blake2b512::digest(body).as_slice() != sum {
        return Err(KeyFormatError::Checksum);
    }
    key.try_into().map_err(|_| KeyFormatError::NotHex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_parses_in_either_case() {
        let text = encode(&[7; 32]);
        assert_eq!(text.len(), TEXT_LEN);
        assert!(text.starts_with("31420500"));
        assert_eq!(parse(&text), Ok([7; 32]));
        assert_eq!(parse(&text.to_uppercase()), Ok([7; 32]));
    }

    #[test]
    fn a_changed_digit_fails_the_checksum() {
        let text = encode(&[7; 32]).replacen("0707", "0708", 1);
        assert_eq!(parse(&text), Err(KeyFormatError::Checksum));
    }

    #[test]
    fn other_lengths_and_versions_are_refused() {
        assert_eq!(parse("31"), Err(KeyFormatError::NotHex));
        assert_eq!(parse(&"é".repeat(100)), Err(KeyFormatError::NotHex));
        assert_eq!(parse(&"00".repeat(100)), Err(KeyFormatError::Version));
    }
}
