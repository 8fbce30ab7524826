//! Why the engine does not do what it is asked: one reason, as an HTTP answer or as the
//! body of a rejecting ack.

use axum::http::StatusCode;
use thiserror::Error;

use super::db::StorageError;

/// A refusal. The texts are ours; the sources document only two of the keys (B.4).
#[derive(Debug, Error)]
pub(super) enum Refusal {
    #[error("invalid token")]
    Unauthorized,
    #[error("invalid credentials")]
    Credentials,
    #[error("no public key is registered for this profile")]
    NoKey,
    #[error("record not found")]
    NotFound,
    #[error("this belongs to another profile")]
    NotOwner,
    #[error("data token not found")]
    NoToken,
    #[error("the token already holds data")]
    AlreadyExchanged,
    #[error("the token holds no data yet")]
    NoData,
    #[error("a temporary token cannot be updated")]
    Temporary,
    #[error("no storage device is registered")]
    NoStorage,
    #[error("no storage device has the payload")]
    NoCopy,
    #[error("no other storage device has all that this one has: synchronize another first")]
    LastHolder,
    #[error("the storage devices have changed meanwhile: try again")]
    HoldersChanged,
    #[error("the device does not have the storage role")]
    NotStorage,
    #[error("device not found")]
    NoDevice,
    #[error("the username is already taken")]
    UsernameTaken,
    #[error("the old password is wrong")]
    WrongPassword,
    #[error("the payload is too large")]
    TooLarge,
    #[error("the device is not approved")]
    NotApproved,
    #[error("the device has been approved or rejected already")]
    Reviewed,
    #[error("invalid device credentials")]
    DeviceCredentials,
    #[error("the voting configuration is used by a policy")]
    InUse,
    #[error("there is no authenticator to vote")]
    NoAuthenticator,
    #[error("the device is not asked in this pool")]
    NotAsked,
    #[error("the pool is settled")]
    Settled,
    #[error("the device may not vote again in this pool")]
    Attempts,
    #[error("{0}: {1}")]
    Parameter(&'static str, String),
    #[error("{0}")]
    Rejected(String),
    #[error("the engine could not store this")]
    Storage(#[from] StorageError),
    #[error("the access token's scopes do not cover this call")]
    Scope,
    #[error("{0}: it was retrieved already, and is shown once only")]
    AlreadyRetrieved(&'static str),
    #[error("application not found")]
    NoApplication,
    #[error("authorization code not found")]
    NoCode,
    #[error("directory not found")]
    NoDirectory,
    #[error("profile not found")]
    NoProfile,
    #[error("invitation not found")]
    NoInvitation,
    #[error("this profile is not in the directory")]
    NotMember,
    #[error("only the directory's owner may do this")]
    NotDirectoryOwner,
    #[error("the profile was invited, not made by the directory: it stays its own")]
    NotManaged,
    #[error("the profile is in the directory already, or invited")]
    AlreadyInvited,
}

impl Refusal {
    /// A parameter that is missing or wrong.
    pub(super) fn parameter(field: &'static str, reason: impl Into<String>) -> Self {
        Self::Parameter(field, reason.into())
    }

    /// The status of a synchronous answer.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Unauthorized | Self::Credentials | Self::DeviceCredentials => {
                StatusCode::UNAUTHORIZED
            }
            Self::NoKey
            | Self::NotOwner
            | Self::NotAsked
            | Self::Scope
            | Self::NotMember
            | Self::NotDirectoryOwner
            | Self::NotManaged => StatusCode::FORBIDDEN,
            Self::NotFound
            | Self::NoToken
            | Self::NoDevice
            | Self::NoApplication
            | Self::NoCode
            | Self::NoDirectory
            | Self::NoProfile
            | Self::NoInvitation => StatusCode::NOT_FOUND,
            Self::UsernameTaken => StatusCode::CONFLICT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NoCopy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Storage(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::AlreadyExchanged
            | Self::NoData
            | Self::Temporary
            | Self::NoStorage
            | Self::LastHolder
            | Self::HoldersChanged
            | Self::NotStorage
            | Self::WrongPassword
            | Self::NotApproved
            | Self::Reviewed
            | Self::InUse
            | Self::NoAuthenticator
            | Self::Settled
            | Self::Attempts
            | Self::Parameter(..)
            | Self::AlreadyRetrieved(_)
            | Self::AlreadyInvited
            | Self::Rejected(_) => StatusCode::UNPROCESSABLE_ENTITY,
        }
    }

    /// The field that a 422 names, if it has no better one.
    pub(super) fn field(&self) -> &'static str {
        match self {
            Self::Parameter(field, _) | Self::AlreadyRetrieved(field) => field,
            Self::AlreadyInvited => "profileId",
            Self::NotApproved
            | Self::Reviewed
            | Self::LastHolder
            | Self::HoldersChanged
            | Self::NotStorage => "deviceIdentifier",
            Self::InUse | Self::NoAuthenticator => "votingConfigurationId",
            Self::Settled | Self::Attempts => "poolId",
            _ => "token",
        }
    }

    /// The machine key: `error` of an answer, `body` of an ack.
    pub(super) fn key(&self) -> &str {
        match self {
            Self::Unauthorized => "authorization.invalid_token",
            Self::Credentials => "profile.invalid_credentials",
            Self::NoKey => "public_key.not_registered",
            Self::NotFound => "record.not_found",
            Self::NotOwner => "profile.not_an_owner",
            Self::NoToken => "data_token.not_found",
            Self::AlreadyExchanged => "data_token.already_exchanged",
            Self::NoData => "data_token.no_data",
            Self::Temporary => "data_token.temporary",
            Self::NoStorage => "storage.no_device",
            Self::NoCopy => "storage.no_device_has_the_payload",
            Self::LastHolder => "storage.last_holder",
            Self::HoldersChanged => "storage.devices_changed",
            Self::NotStorage => "storage.not_registered",
            Self::NoDevice => "device.not_found",
            Self::UsernameTaken => "profile.username_taken",
            Self::WrongPassword => "profile.wrong_password",
            Self::TooLarge => "data_token.too_large",
            Self::NotApproved => "device.not_approved",
            Self::Reviewed => "device.already_reviewed",
            Self::DeviceCredentials => "device.invalid_credentials",
            Self::InUse => "voting_configuration.in_use",
            Self::NoAuthenticator => "policy.no_authenticator",
            Self::NotAsked => "voting.not_asked",
            Self::Settled => "voting.settled",
            Self::Attempts => "voting.too_many_attempts",
            Self::Parameter(..) => "parameter.error",
            Self::Rejected(reason) => reason,
            Self::Storage(_) => "engine.storage",
            Self::Scope => "oauth.insufficient_scope",
            Self::AlreadyRetrieved(_) => "oauth.already_retrieved",
            Self::NoApplication => "oauth.application_not_found",
            Self::NoCode => "oauth.code_not_found",
            Self::NoDirectory => "directory.not_found",
            Self::NoProfile => "directory.profile_not_found",
            Self::NoInvitation => "directory.invitation_not_found",
            Self::NotMember => "directory.not_a_member",
            Self::NotDirectoryOwner => "profile.not_an_owner",
            Self::NotManaged => "directory.profile_not_managed",
            Self::AlreadyInvited => "directory.already_a_member",
        }
    }
}
