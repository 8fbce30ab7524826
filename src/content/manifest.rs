//! The manifest of a split file (design D2): small JSON, sealed like any payload.
//!
//! ```json
//! {"privicorefs":"parts","version":1,"size":33554433,"part_size":16777216,"parts":["dtk-…","dtk-…","dtk-…"]}
//! ```
//!
//! Whoever has the key fetches the parts in order, opens each (`IV | ciphertext | tag`)
//! and concatenates them: every part but the last has `part_size` bytes.

use serde::{Deserialize, Serialize};

use crate::store::Token;

/// Value of the `privicorefs` member.
const KIND: &str = "parts";

/// The version written, and the only one read.
const VERSION: u32 = 1;

/// A manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    privicorefs: String,
    version: u32,
    /// Bytes of the whole file.
    pub size: u64,
    /// Bytes of every part but the last.
    pub part_size: u64,
    /// Part tokens in order.
    pub parts: Vec<Token>,
}

/// Why bytes are not a usable manifest.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a parts manifest: {0}")]
pub struct ManifestError(String);

impl Manifest {
    /// A manifest of these parts.
    pub fn new(size: u64, part_size: u64, parts: Vec<Token>) -> Self {
        Self { privicorefs: KIND.into(), version: VERSION, size, part_size, parts }
    }

    /// The plain bytes to seal.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads opened bytes and checks that the figures agree.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ManifestError> {
        let manifest: Self =
            serde_json::from_slice(bytes).map_err(|e| ManifestError(e.to_string()))?;
        if manifest.privicorefs != KIND || manifest.version != VERSION {
            return Err(ManifestError("of another kind or version".into()));
        }
        let expected = part_count(manifest.size, manifest.part_size);
        if manifest.part_size == 0 || manifest.parts.len() as u64 != expected {
            return Err(ManifestError("number of parts and size disagree".into()));
        }
        Ok(manifest)
    }

    /// Whether bytes look like a manifest at all (so that a manifest another drive wrote
    /// can be told from a file that other clients stored).
    pub fn sniff(bytes: &[u8]) -> bool {
        bytes.starts_with(br#"{"privicorefs":"parts""#)
    }
}

/// Number of parts of a file of `size` bytes.
pub fn part_count(size: u64, part_size: u64) -> u64 {
    if part_size == 0 { 0 } else { size.div_ceil(part_size) }
}

/// Bytes of part `index`.
pub fn part_len(size: u64, part_size: u64, index: u64) -> u64 {
    size.saturating_sub(index * part_size).min(part_size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_survives_and_is_checked() {
        let parts = vec![Token::new("a"), Token::new("b"), Token::new("c")];
        let manifest = Manifest::new(33, 16, parts);
        let bytes = manifest.to_bytes();
        assert!(Manifest::sniff(&bytes));
        assert_eq!(Manifest::from_bytes(&bytes).unwrap(), manifest);
        let wrong = Manifest::new(32, 16, manifest.parts.clone());
        assert!(Manifest::from_bytes(&wrong.to_bytes()).is_err());
        assert_eq!((part_len(33, 16, 2), part_len(33, 16, 0), part_count(0, 16)), (1, 16, 0));
    }
}
