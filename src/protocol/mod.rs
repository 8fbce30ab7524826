//! Words of the wire that the client and the engine share: header names, paths, limits.
//!
//! Source: the project's protocol reference, sections B and C. The client reads every
//! variant tolerantly with its own readers; the engine writes the documented shape.

pub mod directory;
pub mod governance;
pub mod oauth;
pub mod public_key;
pub mod time;

/// Header that carries the authorization token (B.2).
pub const AUTHORIZATION: &str = "x-dpt-authorization";
/// Header that carries a command's id on every `202` (B.3).
pub const COMMAND_ID: &str = "x-dpt-cab-id";
/// Header that carries a data request's id (B.3).
pub const REQUEST_ID: &str = "x-dpt-cab-request-id";

/// `data.type` of a command's acknowledgement on the channel (B.5).
pub const TYPE_COMMAND: &str = "X-DPT-CAB-ID";
/// `data.type` of the answer to a data request (B.5).
pub const TYPE_REQUEST: &str = "X-DPT-CAB-REQUEST-ID";
/// `data.type` that says a payload is ready on the downstream server (B.5).
pub const TYPE_STREAM_READY: &str = "STREAM-READY";

/// `command_status`: in flight, may repeat (B.5).
pub const STATUS_PENDING: u8 = 1;
/// `command_status`: done (B.5).
pub const STATUS_SUCCEEDED: u8 = 2;
/// `command_status`: failed or rejected (B.5).
pub const STATUS_REJECTED: u8 = 3;

/// Largest sealed payload, in bytes, that a client sends inline: its base64 form stays
/// under 48,000 characters whichever way the documented "about 50 KB" counts (E.2).
pub const INLINE_CLIENT_LIMIT: usize = 36_000;
/// Largest sealed payload, in bytes, that the engine takes inline (E.2).
pub const INLINE_ENGINE_LIMIT: usize = 51_200;
/// Most tokens on one page of a listing that the engine gives (E.2).
pub const LIST_PAGE_LIMIT: usize = 100;
/// Tokens on one page when the caller does not say (C.4.7).
pub const LIST_PAGE_DEFAULT: usize = 25;
/// Lifetimes that reauthorize takes, in seconds (section A, "TTLs").
pub const AUTHORIZATION_TTLS: [u64; 8] =
    [3_600, 86_400, 604_800, 2_592_000, 7_776_000, 15_552_000, 23_328_000, 31_104_000];
/// Reservation time to live that every source accepts, in minutes (D.1).
pub const RESERVATION_TTL_MINUTES: u32 = 5;

/// Paths of section C, the variant to try first.
pub mod path {
    /// C.1.
    pub const HEALTH: &str = "/health";
    /// B.6; the command id follows.
    pub const REQUEST_STATUS: &str = "/request-status/";
    /// C.2.
    pub const REGISTER_PROFILE: &str = "/profile/register-profile";
    /// C.2.
    pub const AUTHENTICATE: &str = "/profile/authenticate";
    /// C.2.
    pub const PROFILE_ID: &str = "/profile/retrieve-profile-id";
    /// C.2.
    pub const CHANGE_PASSWORD: &str = "/profile/change-password";
    /// C.2.
    pub const QR_TOKEN: &str = "/profile/generate-token-qr";
    /// C.2.
    pub const REAUTHORIZE: &str = "/profile/reauthorize-authorization-token";
    /// C.2.
    pub const REVOKE: &str = "/profile/revoke-authorization-token";
    /// C.2.
    pub const EXPIRY: &str = "/profile/authorization-token/expiry";
    /// C.3.
    pub const REGISTER_KEY: &str = "/public-key/register-public-key";
    /// C.3.
    pub const OWN_KEY: &str = "/public-key/retrieve-public-key";
    /// C.3.
    pub const ENGINE_KEY: &str = "/dptcab/public-key";
    /// C.4.1.
    pub const RESERVE: &str = "/data-token/reserve-token-space";
    /// C.4.2; the command id follows.
    pub const TEMPORARY_TOKEN: &str = "/data-token/retrieve-temporary-data-token/";
    /// C.4.3.
    pub const EXCHANGE: &str = "/data-token/exchange-data-for-token";
    /// C.4.5.
    pub const CONFIGURE_FILE: &str = "/data-token/configure-file-meta";
    /// C.4.6.
    pub const CONFIGURE_RISK: &str = "/data-token/configure-information-security-risk-meta";
    /// C.4.7.
    pub const LIST: &str = "/data-token/list-data-tokens";
    /// C.4.8, the form variant: metadata only.
    pub const UPDATE_META: &str = "/data-token/update-data-token";
    /// C.4.8, the JSON variant: replaces the payload.
    pub const UPDATE_DATA: &str = "/data-token/update-data";
    /// C.4.9.
    pub const REQUEST_DATA: &str = "/data-token/request-data";
    /// C.4.11.
    pub const DELETE: &str = "/data-token/delete-data";
    /// C.6.
    pub const STORAGE_REGISTER: &str = "/storage/register";
    /// C.6.
    pub const STORAGE_LIST: &str = "/storage/list-storage-devices";
    /// C.6.
    pub const STORAGE_SYNC: &str = "/storage/sync-device";
    /// C.6.
    pub const STORAGE_REMOVE: &str = "/storage/remove";
    /// C.2, known from the vendor's own client only.
    pub const SCOPE: &str = "/profile/retrieve-scope";
    /// C.4.12; the path is our choice.
    pub const STATISTICS: &str = "/data-token/transaction-count-statistics";
}

/// Older paths of the same calls (C.12), still answered by the engine.
pub mod old_path {
    /// Now [`super::path::HEALTH`].
    pub const HEALTH: &str = "/utility/check-server-health";
    /// Now [`super::path::REQUEST_STATUS`]; the command id follows.
    pub const REQUEST_STATUS: &str = "/utility/request-command-id-status/";
    /// Now [`super::path::EXPIRY`], and a GET.
    pub const EXPIRY: &str = "/profile/retrieve-token-expiry";
    /// Now [`super::path::QR_TOKEN`].
    pub const QR_TOKEN: &str = "/profile/generate-qr-token-for-authorization";
    /// Now [`super::path::ENGINE_KEY`].
    pub const ENGINE_KEY: &str = "/public-key/retrieve-cab-public-key";
    /// Now [`super::path::STORAGE_REGISTER`].
    pub const STORAGE_REGISTER: &str = "/storage/register-storage-device";
    /// Now [`super::path::STORAGE_REMOVE`].
    pub const STORAGE_REMOVE: &str = "/storage/remove-storage";
}
