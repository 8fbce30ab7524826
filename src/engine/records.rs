//! The records the engine keeps, and their keys.
//!
//! A value is one version byte and a postcard body. A key is raw bytes whose order is the
//! order wanted: big-endian numbers, fixed-length prefixes.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::db::StorageError;
use super::secrets::{PasswordHash, short_digest};

const VERSION: u8 = 1;

/// A profile: an actor with a login and a public key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Profile {
    pub username: String,
    pub password: PasswordHash,
    pub created_at: u64,
    pub public_key: Option<PublicKey>,
}

/// A registered key, in its published text form.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct PublicKey {
    pub text: String,
    pub created_at: u64,
}

/// A device that belongs to a profile.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Device {
    pub profile: Uuid,
    pub identifier: String,
    pub name: String,
    /// Free text of the older configure-device-meta.
    pub tags: Option<String>,
    pub created_at: u64,
    pub approval: Approval,
    /// Whether it has the storage role now.
    pub storage: bool,
    /// Whether it is the virtual one that a profile begins with: the engine's own disk.
    pub embedded: bool,
    /// Whether it may vote now. Both roles at once are allowed (section A).
    pub authenticator: bool,
}

/// What the owner decided about a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Approval {
    /// Nothing yet.
    Pending,
    /// It may take a role.
    Approved,
    /// It never will.
    Rejected,
}

/// A login; its key is the digest of the bearer token.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Session {
    pub profile: Uuid,
    pub expires_at: u64,
}

/// The outcome of a command.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Command {
    pub profile: Option<Uuid>,
    /// Why it was rejected; `None` if it succeeded.
    pub rejected: Option<String>,
    /// What the command made, where a later call asks for it: a reservation's temporary
    /// token, a requested device's identifier.
    pub made: Option<String>,
}

/// What a token string leads to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Entry {
    /// The token itself.
    Token(Box<Token>),
    /// A temporary token that was promoted: good until it would have expired.
    Alias {
        /// The permanent token.
        to: String,
        /// Milliseconds since the epoch.
        expires_at: u64,
    },
}

/// A data token, temporary or permanent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Token {
    pub profile: Uuid,
    /// Chosen by the caller at reservation, or made then.
    pub uuid: String,
    /// Place in the order of promotion.
    pub sequence: u64,
    /// When it was reserved, and from promotion on, when it was promoted.
    pub created_at: u64,
    pub context: String,
    /// Reservation's free-form `meta`.
    pub note: Option<String>,
    pub file: Option<FileMeta>,
    pub data_type: Option<String>,
    pub risk: Option<RiskMeta>,
    pub payload: Option<Payload>,
    /// `Some` while temporary; milliseconds since the epoch.
    pub expires_at: Option<u64>,
    /// Reservation's time to live, in minutes.
    pub ttl: u32,
}

/// `meta.file`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct FileMeta {
    pub file_name: String,
    pub extension: String,
    pub size: u64,
    pub path: String,
}

/// `meta.information_security_risk`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct RiskMeta {
    pub classification: String,
    pub label: String,
    pub handling: String,
}

/// Where the bytes of a token are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Payload {
    pub id: Uuid,
    pub len: u64,
    pub place: Place,
}

/// Where the engine itself has payload bytes, whatever storage devices have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Place {
    /// A value of the database: one sync commits many.
    Record,
    /// A file of its own.
    File,
    /// Nowhere: storage devices have them.
    Devices,
}

/// Totals that must survive a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Totals {
    /// Last sequence number given.
    pub sequence: u64,
    /// Permanent tokens.
    pub tokens: u64,
}

pub(super) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, StorageError> {
    postcard::to_extend(value, vec![VERSION]).map_err(|_| StorageError::Record)
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StorageError> {
    match bytes.split_first() {
        Some((&VERSION, body)) => postcard::from_bytes(body).map_err(|_| StorageError::Record),
        _ => Err(StorageError::Record),
    }
}

/// `profile | sequence`.
pub(super) fn order_key(profile: Uuid, sequence: u64) -> Vec<u8> {
    [profile.as_bytes().as_slice(), &sequence.to_be_bytes()].concat()
}

/// `profile | digest of context`, the prefix of a context's index entries.
pub(super) fn context_prefix(profile: Uuid, context: &str) -> Vec<u8> {
    [profile.as_bytes().as_slice(), &short_digest(context)].concat()
}

/// `profile | digest of context | sequence`.
pub(super) fn context_key(profile: Uuid, context: &str, sequence: u64) -> Vec<u8> {
    [context_prefix(profile, context).as_slice(), &sequence.to_be_bytes()].concat()
}

/// `expiry | token`.
pub(super) fn expiry_key(expires_at: u64, token: &str) -> Vec<u8> {
    [expires_at.to_be_bytes().as_slice(), token.as_bytes()].concat()
}

/// The token of an expiry key.
pub(super) fn expiry_token(key: &[u8]) -> Option<&str> {
    std::str::from_utf8(key.get(8..)?).ok()
}

/// The sequence at the end of an order or context key.
pub(super) fn trailing_sequence(key: &[u8]) -> Option<u64> {
    key.last_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

/// `one | two`: something that belongs to two ids, found by the first.
pub(super) fn pair_key(one: Uuid, two: Uuid) -> Vec<u8> {
    [one.as_bytes().as_slice(), two.as_bytes()].concat()
}

/// The second id of a pair key.
pub(super) fn second_id(key: &[u8]) -> Result<Uuid, StorageError> {
    let id = key.get(16..).and_then(|id| Uuid::from_slice(id).ok());
    id.ok_or(StorageError::Record)
}
