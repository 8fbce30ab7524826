//! What a token store offers, whoever keeps it: the Privicore client, or memory in tests.
//!
//! A store moves *sealed* payloads. It never sees a key, a plaintext or a path of the
//! drive beyond the file meta that the caller chooses to show.
//!
//! Contract, checked by one conformance suite (`tests/client/store.rs`) on every
//! implementation:
//! * `put` is all or nothing: a token is returned only after the payload is committed
//!   and its file meta configured. A failed `put` leaves nothing, unless its error says
//!   [`StoreError::in_doubt`]: then it may leave an unreferenced token, which carries the
//!   caller's `mark`, so the caller can find and delete it.
//! * `get` of a committed token returns the very bytes that were put.
//! * `delete` of an unknown token succeeds.
//! * Errors say by kind whether trying again can help; `Retry` decides on that alone.
//! * A call that a vote holds fails at once with [`StoreErrorKind::AwaitingApproval`], so
//!   that it occupies nobody; the same call made again resumes it (see [`Hold`]).

mod hold;
mod limit;
#[cfg(test)]
#[allow(dead_code, reason = "the unit tests use a part of what the test house has")]
#[path = "../../tests/house/memory_store.rs"]
mod memory_store;
mod proved;
mod retry;

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};

use crate::crypto::Identity;

pub use hold::{Hold, Holding};
pub use limit::Limit;
#[cfg(test)]
pub(crate) use memory_store::{MemoryStore, Op};
pub use proved::Proved;
pub use retry::{Retry, RetryConfig, Told};

/// An opaque handle of one stored payload (a permanent data token).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Token(String);

impl Token {
    /// Wraps what the service gave; never parsed.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The token as the wire writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({})", self.0)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a payload is, and what it must be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Reference {
    /// Its token.
    pub token: Token,
    /// What it is.
    pub identity: Identity,
}

/// File meta as `configure-file-meta` takes it (protocol C.4.5). Readable by the service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileMeta {
    /// Display name, extension included.
    pub file_name: String,
    /// Extension without the dot; may be empty.
    pub extension: String,
    /// Folder path relative to the drive's root, no leading slash; `/` for the root.
    pub context: String,
    /// Virtual path within the context; the drive always writes `/`.
    pub path: String,
    /// Plaintext bytes.
    pub size: u64,
}

/// Information-security risk meta (protocol C.4.6): always all three.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RiskMeta {
    /// For example `confidential`.
    pub classification: String,
    /// Free label.
    pub label: String,
    /// Handling instruction.
    pub handling: String,
}

/// Opens the payload from its first byte; called again for every attempt.
pub type OpenStream = Arc<dyn Fn() -> BoxStream<'static, std::io::Result<Bytes>> + Send + Sync>;

/// A sealed payload on its way up.
#[derive(Clone)]
pub enum Payload {
    /// Whole, in memory.
    Bytes(Bytes),
    /// Produced while it is sent.
    Stream {
        /// Exact length in bytes.
        len: u64,
        /// Opens it from the start.
        open: OpenStream,
    },
}

impl Payload {
    /// Exact length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Stream { len, .. } => *len,
        }
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.len())
    }
}

/// A sealed payload on its way down.
pub struct Download {
    /// Length in bytes, where the service said it.
    pub len: Option<u64>,
    /// The bytes, in order; an error ends it.
    pub stream: BoxStream<'static, Result<Bytes, StoreError>>,
}

impl fmt::Debug for Download {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Download({:?} bytes)", self.len)
    }
}

/// One token as a listing shows it, normalised (protocol C.4.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRecord {
    /// The token.
    pub token: Token,
    /// Context; empty when absent.
    pub context: String,
    /// Display name, if configured.
    pub file_name: Option<String>,
    /// Extension, if configured.
    pub extension: Option<String>,
    /// Virtual path, if the listing carries it.
    pub path: Option<String>,
    /// Size as the writer declared it: informative only.
    pub size: Option<u64>,
    /// When it was made.
    pub created: Option<SystemTime>,
    /// The `uuid` given at the reservation, where the service keeps it.
    pub mark: Option<String>,
    /// Type of the data, if one was set.
    pub data_type: Option<String>,
    /// Risk meta, where the listing carries it.
    pub risk: Option<RiskMeta>,
}

/// Which tokens to list; all given filters must match exactly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListFilter {
    /// Exact context.
    pub context: Option<String>,
    /// Exact file name.
    pub file_name: Option<String>,
    /// Exact extension.
    pub extension: Option<String>,
    /// Exact type of the data.
    pub data_type: Option<String>,
    /// Exact token.
    pub token: Option<Token>,
}

impl ListFilter {
    /// Whether `record` passes: services may filter loosely, so callers filter again (E.2).
    pub fn matches(&self, record: &TokenRecord) -> bool {
        self.context.as_ref().is_none_or(|c| *c == record.context)
            && self.file_name.as_ref().is_none_or(|n| record.file_name.as_ref() == Some(n))
            && self.extension.as_ref().is_none_or(|e| record.extension.as_ref() == Some(e))
            && self.data_type.as_ref().is_none_or(|t| record.data_type.as_ref() == Some(t))
            && self.token.as_ref().is_none_or(|t| *t == record.token)
    }
}

/// One page of a listing.
#[derive(Clone, Debug, Default)]
pub struct ListPage {
    /// In the service's order (oldest first where it sorts).
    pub records: Vec<TokenRecord>,
    /// Whether there may be another page.
    pub more: bool,
}

/// Why a store call failed, by meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// No such token.
    NotFound,
    /// Credentials refused, after a refresh was tried.
    Unauthenticated,
    /// A policy, a vote or ownership forbids it.
    Denied,
    /// A vote has not decided yet: the error's [`Hold`] says when calling again helps.
    AwaitingApproval,
    /// The service refused the parameters.
    Invalid,
    /// Larger than the service takes.
    TooLarge,
    /// The service lacks the call.
    Unsupported,
    /// Not reachable, or a 5xx: trying again may help.
    Unavailable,
    /// A deadline passed; the outcome may be unknown.
    TimedOut,
    /// The service asked to slow down.
    RateLimited,
    /// A reply that the protocol does not allow.
    Protocol,
    /// No storage device is registered, so no exchange can complete.
    NoStorage,
    /// Local failure (reading the payload, for example).
    Local,
}

/// A failed store call: kind, victim, and what was said. Holds no secret.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{operation}{}: {message}", target.as_ref().map(|t| format!(" {t}")).unwrap_or_default())]
pub struct StoreError {
    /// By meaning.
    pub kind: StoreErrorKind,
    /// `put`, `get`, `delete` …
    pub operation: &'static str,
    /// Token or name of the victim.
    pub target: Option<String>,
    /// For a person.
    pub message: String,
    /// Milliseconds that the service asked to wait, if it did.
    pub retry_after_ms: Option<u64>,
    /// Of a `put`: it may have been carried out all the same.
    pub in_doubt: bool,
    /// Of a call that waits for a vote, where the store follows it.
    pub hold: Option<Arc<Hold>>,
}

impl StoreError {
    /// An error without a victim; add one with [`StoreError::on`].
    pub fn new(kind: StoreErrorKind, operation: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            kind,
            operation,
            target: None,
            message,
            retry_after_ms: None,
            in_doubt: false,
            hold: None,
        }
    }

    /// The error of a call that is held: the same call, made again once the hold is settled,
    /// gives its outcome. It may be carried out meanwhile.
    pub fn awaiting(hold: Arc<Hold>) -> Self {
        let message = match hold.pool() {
            Some(pool) => format!("waits for approval in pool {pool}"),
            None => "waits for approval".to_owned(),
        };
        let error = Self::new(StoreErrorKind::AwaitingApproval, hold.operation(), message);
        Self { hold: Some(hold), in_doubt: true, ..error }
    }

    /// Names the victim.
    #[must_use]
    pub fn on(mut self, target: impl fmt::Display) -> Self {
        self.target = Some(target.to_string());
        self
    }

    /// Says that it may have been carried out all the same.
    #[must_use]
    pub fn or_not(mut self) -> Self {
        self.in_doubt = true;
        self
    }

    /// Whether the same call may succeed later with nothing changed here.
    pub fn is_retryable(&self) -> bool {
        use StoreErrorKind as K;
        matches!(
            self.kind,
            K::Unavailable | K::TimedOut | K::RateLimited | K::Protocol | K::NoStorage
        )
    }
}

/// A result of a store call.
pub type StoreResult<T> = Result<T, StoreError>;

/// A token store. See the module's header for the contract.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Stores a sealed payload under file meta and returns its permanent token.
    ///
    /// `mark` is a caller-chosen identifier (UUID form) sent with the reservation; where
    /// the service keeps it, listings return it.
    async fn put(&self, meta: &FileMeta, mark: &str, payload: Payload) -> StoreResult<Token>;

    /// Fetches a payload.
    async fn get(&self, token: &Token) -> StoreResult<Download>;

    /// Deletes a payload; an unknown token is a success.
    async fn delete(&self, token: &Token) -> StoreResult<()>;

    /// Changes file meta without touching the payload; `Unsupported` where the service
    /// has no such call.
    async fn update_meta(&self, token: &Token, meta: &FileMeta) -> StoreResult<()>;

    /// Sets risk meta.
    async fn set_risk(&self, token: &Token, risk: &RiskMeta) -> StoreResult<()>;

    /// One page (from 1) of the profile's tokens.
    async fn list(&self, filter: &ListFilter, page: u32) -> StoreResult<ListPage>;

    /// The service's clock in milliseconds since 1970, as its latest reply said (the `Date`
    /// of HTTP), advanced by the time since; `None` before the first reply that said it.
    ///
    /// It is behind by up to a second, because a `Date` has no fraction of one, and by what
    /// the reply was on its way. So it may go back a little from one reply to the next.
    fn clock(&self) -> Option<u64> {
        None
    }
}

/// Gathers a download of at most `limit` bytes in memory.
pub async fn collect(download: Download, limit: u64) -> StoreResult<Vec<u8>> {
    use futures_util::StreamExt;
    let too_large = || StoreError::new(StoreErrorKind::TooLarge, "get", "larger than expected");
    let expected = download.len.unwrap_or(0);
    if expected > limit {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(expected).unwrap_or(0));
    let mut stream = download.stream;
    while let Some(piece) = stream.next().await {
        bytes.extend_from_slice(&piece?);
        if bytes.len() as u64 > limit {
            return Err(too_large());
        }
    }
    Ok(bytes)
}

/// Lists all pages, filtered again here and without duplicates.
pub async fn list_all(store: &dyn Store, filter: &ListFilter) -> StoreResult<Vec<TokenRecord>> {
    let mut seen = std::collections::HashSet::new();
    let mut records = Vec::new();
    for page in 1.. {
        let got = store.list(filter, page).await?;
        let before = seen.len();
        let fresh = got.records.into_iter().filter(|r| seen.insert(r.token.clone()));
        records.extend(fresh.filter(|r| filter.matches(r)));
        if !got.more || seen.len() == before {
            break;
        }
    }
    Ok(records)
}
