//! Sealing and opening: the one place that names a cipher.
//!
//! One 32-byte [`MasterKey`] per vault. Three uses, kept apart:
//!
//! * [`PayloadCipher`] seals what goes to the vault: `IV(12) | AES-256-GCM ciphertext |
//!   tag(16)` under the master key itself, because that is what every other Privicore
//!   client reads. [`StreamSealer`] and [`StreamOpener`] do the same in pieces.
//! * [`CatalogKeys`] holds HKDF-SHA256 subkeys of it for the catalog in the vault, one for each
//!   kind of payload and writer, and what authenticates part lists and marks.
//! * [`LocalKeys`] holds HKDF-SHA256 subkeys of it for what lies on this machine
//!   (staging, cache, journal, database), and for keyed lookup names. Nothing local is ever
//!   sealed under the master key, so local volume does not wear it.
//!
//! **Nonces** are 96 random bits everywhere. A counter would need a durable home, and a
//! restored snapshot of that home would repeat it. The chance that any two of `n` seals
//! under one key share a nonce is below `n²/2⁹⁷`:
//!
//! * payloads: one per token written, by all machines together. 2³² of them (four
//!   thousand writes of each file of a million-file vault) give odds of 2⁻³³;
//! * 4 KiB records: each container (one file) has a key of its own
//!   ([`LocalKeys::record_key`]), so only the writes to one file count: 2³² are 16 TiB;
//! * values ([`LocalKeys::seal_value`]): one key for all, 2³² values.
//!
//! What may leak: lengths, and that two machines hold the same key (`key_id`).
//! ring keeps expanded keys in memory without wiping them; the bytes that this module
//! holds itself are wiped when dropped.

mod catalog;
mod identity;
mod key;
mod local;
mod nonce;
mod payload;
mod stream;
mod subkeys;

pub use catalog::CatalogKeys;
pub use identity::{Identity, IdentityOf};
pub use key::{KeyError, MasterKey};
pub use local::{LocalKeys, RecordKey};
pub use payload::{PayloadCipher, sealed_len};
pub use stream::{StreamOpener, StreamSealer};

/// Bytes of an IV (nonce) in every sealed form.
pub const IV_LEN: usize = 12;
/// Bytes of an authentication tag in every sealed form.
pub const TAG_LEN: usize = 16;
/// What sealing adds: IV and tag.
pub const OVERHEAD: usize = IV_LEN + TAG_LEN;

/// Why sealed bytes could not be opened. Says nothing about their content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CryptoError {
    /// Altered, cut short inside, or sealed under another key.
    #[error("authentication failed: altered, or sealed with another key")]
    Authentication,
    /// Fewer bytes than IV and tag need.
    #[error("too short to be sealed content")]
    TooShort,
    /// More than AES-GCM allows under one IV (2³⁶ - 32 bytes).
    #[error("longer than AES-GCM allows in one message")]
    TooLong,
}
