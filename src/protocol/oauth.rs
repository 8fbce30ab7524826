//! Paths of the OAuth application chain (C.11), and the vocabulary of scopes (C.2).

/// Registers an application.
pub const REGISTER: &str = "/profile/oauth-application-register";
/// Gives an application's configuration, once.
pub const CONFIGURATION: &str = "/profile/retrieve-oauth-application-configuration";
/// Asks for an authorization code.
pub const REQUEST_CODE: &str = "/profile/oauth-application-request-authorization-code";
/// The caller's applications.
pub const LIST: &str = "/profile/retrieve-oauth-application-list";
/// Gives the application its authorization code.
pub const RETRIEVE_CODE: &str = "/oauth-application/retrieve-authorization-code";
/// Changes an authorization code for an access token.
pub const OBTAIN_TOKEN: &str = "/oauth-application/obtain-access-token";
/// The scopes of an access token.
pub const SCOPE: &str = "/oauth-application/retrieve-oauth-application-scope";
/// Changes a pair of tokens for a new one.
pub const REFRESH_TOKEN: &str = "/oauth-application/refresh-access-token";

/// The scope that covers every call.
pub const SCOPE_ALL: &str = "all";
/// Areas of calls: `<area>.all` covers an area, `<area>.<call>` one call (C.2). The last
/// two are our choice: the vocabulary known is older than their calls.
pub const SCOPE_AREAS: [&str; 10] = [
    "data_token",
    "device",
    "oauth",
    "profile",
    "public_key",
    "storage",
    "verified_authenticator",
    "voting",
    "policy",
    "directory",
];
