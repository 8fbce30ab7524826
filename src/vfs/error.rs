//! Errors of operations: a variant per POSIX meaning, each naming its victim.

use std::sync::Arc;

use super::approval;
use crate::catalog::{CatalogError, RemoteError};
use crate::content::blob::BlobError;
use crate::content::fetch::FetchError;
use crate::content::staging::StagingError;
use crate::db::DbError;
use crate::store::{Hold, StoreError, StoreErrorKind};
use crate::telemetry;

/// Why an operation failed. `fuse::errno` maps each variant to one errno, exhaustively.
#[derive(Debug, Clone, thiserror::Error)]
#[allow(missing_docs, reason = "each variant's message is its meaning; the fields are the victim")]
pub enum VfsError {
    #[error("{what}: no such file or directory")]
    NotFound { what: String },
    #[error("{what}: already exists")]
    Exists { what: String },
    #[error("{what}: not a directory")]
    NotDir { what: String },
    #[error("{what}: is a directory")]
    IsDir { what: String },
    #[error("{what}: directory not empty")]
    NotEmpty { what: String },
    #[error("{what}: invalid argument: {why}")]
    Invalid { what: String, why: &'static str },
    #[error("{what}: name longer than 255 bytes")]
    NameTooLong { what: String },
    #[error("handle {fh}: not open for that")]
    BadHandle { fh: u64 },
    #[error("{what}: the drive is mounted read-only")]
    ReadOnly { what: String },
    #[error("{what}: operation not permitted")]
    NotPermitted { what: String },
    #[error("{what}: permission denied: {why}")]
    Denied { what: String, why: String },
    #[error("{what}: {}", waits_for(hold))]
    AwaitingApproval { what: String, hold: Arc<Hold> },
    #[error("{what}: the service refuses the login: {why}")]
    Unauthenticated { what: String, why: String },
    #[error("{what}: changed on the server while it was used; open it again")]
    Stale { what: String },
    #[error("{what}: larger than the service takes")]
    TooLarge { what: String },
    #[error("{what}: the staging area is full: {why}")]
    StagingFull { what: String, why: String },
    #[error("{what}: no room for more attributes: their names would exceed 64 KiB")]
    AttributesFull { what: String },
    #[error("{what}: too many links")]
    TooManyLinks { what: String },
    #[error("{what}: no such attribute")]
    NoAttr { what: String },
    #[error("{what}: attribute larger than the caller's buffer")]
    Range { what: String },
    #[error("{what}: not supported")]
    Unsupported { what: String },
    #[error("{what}: the service did not answer in time: {why}")]
    TimedOut { what: String, why: String },
    #[error("{what}: the service cannot be reached: {why}")]
    Unavailable { what: String, why: String },
    #[error("{what}: content failed authentication: {why}")]
    Corrupt { what: String, why: String },
    #[error("{what}: local disk: {why}")]
    Local { what: String, why: String },
    #[error("handle {fh}: no data or hole beyond that offset")]
    NoData { fh: u64 },
    #[error("{what}: interrupted by unmount")]
    Closing { what: String },
}

/// A result of an operation.
pub type VfsResult<T> = Result<T, VfsError>;

impl VfsError {
    /// The victim: a path or a name, or what else was refused; empty for a handle.
    fn victim(&self) -> &str {
        match self {
            Self::NotFound { what }
            | Self::Exists { what }
            | Self::NotDir { what }
            | Self::IsDir { what }
            | Self::NotEmpty { what }
            | Self::Invalid { what, .. }
            | Self::NameTooLong { what }
            | Self::ReadOnly { what }
            | Self::NotPermitted { what }
            | Self::Denied { what, .. }
            | Self::AwaitingApproval { what, .. }
            | Self::Unauthenticated { what, .. }
            | Self::Stale { what }
            | Self::TooLarge { what }
            | Self::StagingFull { what, .. }
            | Self::AttributesFull { what }
            | Self::TooManyLinks { what }
            | Self::NoAttr { what }
            | Self::Range { what }
            | Self::Unsupported { what }
            | Self::TimedOut { what, .. }
            | Self::Unavailable { what, .. }
            | Self::Corrupt { what, .. }
            | Self::Local { what, .. }
            | Self::Closing { what } => what,
            Self::BadHandle { fh: _ } | Self::NoData { fh: _ } => "",
        }
    }

    /// The error as a log may hold it: without the victim, unless the log may hold names.
    /// Every log line about an operation goes through this.
    pub fn logged(&self) -> String {
        let text = self.to_string();
        if telemetry::shows_names() || self.victim().is_empty() {
            return text;
        }
        let rest = text.strip_prefix(self.victim()).and_then(|rest| rest.strip_prefix(": "));
        rest.unwrap_or("(withheld)").to_owned()
    }

    /// Turns a store's error into the operation's, for the file `what`.
    pub fn from_store(what: impl Into<String>, error: &StoreError) -> Self {
        use StoreErrorKind as K;
        let what = what.into();
        // not its target: that is `what`, or a name that a log must be able to leave out
        let why = format!("{}: {}", error.operation, error.message);
        if let Some(hold) = approval::hold_of(error) {
            return Self::AwaitingApproval { what, hold: Arc::clone(hold) };
        }
        match error.kind {
            K::NotFound => Self::Stale { what },
            K::Unauthenticated => Self::Unauthenticated { what, why },
            K::Denied | K::AwaitingApproval => Self::Denied { what, why },
            K::Invalid => Self::Invalid { what, why: "the service refused the parameters" },
            K::TooLarge => Self::TooLarge { what },
            K::Unsupported => Self::Unsupported { what },
            K::TimedOut => Self::TimedOut { what, why },
            K::Unavailable | K::RateLimited | K::NoStorage | K::Protocol => {
                Self::Unavailable { what, why }
            }
            K::Local => Self::Local { what, why },
        }
    }
}

impl From<CatalogError> for VfsError {
    fn from(error: CatalogError) -> Self {
        use CatalogError as C;
        match error {
            C::NotFound { what } => Self::NotFound { what },
            C::Exists { what } => Self::Exists { what },
            C::NotDir { what } => Self::NotDir { what },
            C::IsDir { what } => Self::IsDir { what },
            C::NotEmpty { what } => Self::NotEmpty { what },
            C::Invalid { what, why } => Self::Invalid { what, why },
            C::NameTooLong { what } => Self::NameTooLong { what },
            C::TooManyLinks { what } => Self::TooManyLinks { what },
            C::NotPermitted { what } => Self::NotPermitted { what },
            C::Db(error) => Self::from(error),
        }
    }
}

impl From<DbError> for VfsError {
    fn from(error: DbError) -> Self {
        let what = "state directory".to_owned();
        match error {
            DbError::Engine(error) => Self::Local { what, why: error.to_string() },
            DbError::Format { .. } => {
                let hint = "unmount with the version that made it, then delete the state directory";
                Self::Local { what, why: format!("{error}: {hint}") }
            }
            DbError::Corrupt(why) => Self::Corrupt { what, why },
        }
    }
}

impl From<RemoteError> for VfsError {
    fn from(error: RemoteError) -> Self {
        match error {
            RemoteError::Catalog(error) => error.into(),
            RemoteError::Store(error) => Self::from_store("catalog", &error),
            RemoteError::Unopened { token, source } => {
                Self::Corrupt { what: format!("catalog payload {token}"), why: source.to_string() }
            }
            RemoteError::Replaced { token } => Self::Corrupt {
                what: format!("catalog payload {token}"),
                why: FetchError::Replaced.to_string(),
            },
            RemoteError::Refused(why) => Self::Denied { what: "catalog".into(), why },
        }
    }
}

impl VfsError {
    /// Turns a failed fetch into the operation's error, for the file `what`.
    pub fn from_fetch(what: impl Into<String>, error: FetchError) -> Self {
        match &error {
            FetchError::Store(error) => Self::from_store(what, error),
            FetchError::Sealed(_) | FetchError::Replaced => {
                Self::Corrupt { what: what.into(), why: error.to_string() }
            }
        }
    }

    /// Turns a failure of the staging area into the operation's error, for the file `what`.
    pub fn from_staging(what: impl Into<String>, error: StagingError) -> Self {
        let what = what.into();
        match error {
            StagingError::Full { .. } | StagingError::Disk { .. } => {
                Self::StagingFull { what, why: error.to_string() }
            }
            StagingError::Blob(error) => Self::from_blob(what, error),
            StagingError::Dir { .. } => Self::Local { what, why: error.to_string() },
        }
    }

    /// Turns a failure of a staged blob into the operation's error, for the file `what`.
    pub fn from_blob(what: impl Into<String>, error: BlobError) -> Self {
        let (what, why) = (what.into(), error.to_string());
        match error {
            BlobError::Corrupt { .. } | BlobError::NotABlob { .. } => Self::Corrupt { what, why },
            BlobError::Io { source, .. } if is_full(&source) => Self::StagingFull { what, why },
            BlobError::Io { .. } | BlobError::Misaligned { .. } => Self::Local { what, why },
        }
    }
}

/// What a person has to do: somebody must vote.
fn waits_for(hold: &Hold) -> String {
    match hold.pool() {
        Some(pool) => format!("waits for approval in pool {pool}"),
        None => "waits for approval".to_owned(),
    }
}

fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}
