//! Paths of the calls that govern a profile's data: devices (C.5), verified authenticators
//! and voting configurations (C.7), policies (C.8), voting pools (C.9).
//!
//! Where no source shows a path it is **our choice**, and so marked: the title of the menu
//! in the manner of its neighbours.

/// `data.type` of the message that asks a profile's authenticators to vote. Our choice.
pub const TYPE_BALLOT: &str = "X-DPT-CAB-BALLOT";

/// The current paths.
pub mod path {
    /// C.5.
    pub const DEVICE_REQUEST: &str = "/device/request-unique-identifier";
    /// C.5.
    pub const DEVICE_IDENTIFIER: &str = "/device/retrieve-unique-identifier";
    /// C.5.
    pub const DEVICE_LIST: &str = "/device/retrieve-profile-devices";
    /// C.5.
    pub const DEVICE_META: &str = "/device/configure-meta";
    /// C.5.
    pub const DEVICE_APPROVE: &str = "/device/approve-device";
    /// C.5.
    pub const DEVICE_REJECT: &str = "/device/reject-device";
    /// C.5; the device identifier follows.
    pub const DEVICE_CONFIGURATION: &str = "/device/retrieve-device-configuration/";
    /// C.5, the variant that is a form.
    pub const DEVICE_DOWNLOAD: &str = "/device/download-device-configuration";
    /// C.5, the variant that answers with a file; the device identifier follows.
    pub const DEVICE_FILE: &str = "/device/download-device-configuration/";
    /// C.5.
    pub const DEVICE_REMOVE: &str = "/device/remove";

    /// C.7.
    pub const AUTHENTICATOR_REGISTER: &str = "/verified-authenticator/register";
    /// C.7.
    pub const AUTHENTICATOR_LIST: &str = "/verified-authenticator/list-verified-authenticator";
    /// C.7.
    pub const AUTHENTICATOR_REMOVE: &str = "/verified-authenticator/remove";
    /// C.7.
    pub const STRATEGY: &str = "/verified-authenticator/retrieve-strategy";
    /// C.7.
    pub const SET_QUORUM_SIZE: &str = "/verified-authenticator/set-quorum-size";
    /// C.7.
    pub const SET_QUORUM_STRATEGY: &str = "/verified-authenticator/set-quorum-strategy";
    /// C.7.
    pub const SET_TIME_LIMIT: &str = "/verified-authenticator/set-voting-time-limit";
    /// C.7.
    pub const SET_ATTEMPTS: &str = "/verified-authenticator/set-maximum-voting-attempts";
    /// C.7.
    pub const CONFIGURATION_REGISTER: &str =
        "/verified-authenticator/voting-configuration/register";
    /// C.7; our choice.
    pub const CONFIGURATION_UPDATE: &str = "/verified-authenticator/voting-configuration/update";
    /// C.7; our choice.
    pub const CONFIGURATION_LIST: &str = "/verified-authenticator/voting-configuration/list";
    /// C.7; our choice. The configuration's name or id follows.
    pub const CONFIGURATION_RETRIEVE: &str =
        "/verified-authenticator/voting-configuration/retrieve/";
    /// C.7.
    pub const CONFIGURATION_DELETE: &str = "/verified-authenticator/voting-configuration/delete";

    /// C.8.
    pub const POLICY_TEMPLATES: &str = "/policy/list-policy-templates";
    /// C.8.
    pub const POLICY_REGISTER: &str = "/policy/register";
    /// C.8; the policy's name or id follows.
    pub const POLICY_RETRIEVE: &str = "/policy/retrieve-policy/";
    /// C.8.
    pub const POLICY_ACTIVATE: &str = "/policy/activate";
    /// C.8.
    pub const POLICY_DEACTIVATE: &str = "/policy/deactivate";
    /// C.8; our choice.
    pub const POLICY_ACTIVE: &str = "/policy/list-active-policies";
    /// C.8; our choice.
    pub const POLICY_INACTIVE: &str = "/policy/list-inactive-policies";
    /// C.8; our choice.
    pub const POLICY_LIST: &str = "/policy/list-policies";
    /// C.8; our choice.
    pub const POLICY_DELETE: &str = "/policy/delete";

    /// C.9.
    pub const POOL_CREATE: &str = "/voting/create";
    /// C.9; the pool's id follows.
    pub const POOL_STATUS: &str = "/voting/check-pool-status/";
    /// C.9.
    pub const POOL_CANCEL: &str = "/voting/cancel-pool";
    /// Our choice: the real service's devices vote over a queue that no source describes.
    pub const POOL_BALLOT: &str = "/voting/cast-ballot";
    /// Our choice.
    pub const POOL_LIST: &str = "/voting/list-pools";
}

/// Older paths of the same calls (C.12).
pub mod old_path {
    /// Now [`super::path::DEVICE_REQUEST`].
    pub const DEVICE_REQUEST: &str = "/device/request-device-id";
    /// Now [`super::path::DEVICE_IDENTIFIER`], once a GET; the command id follows.
    pub const DEVICE_IDENTIFIER: &str = "/device/retrieve-device-id/";
    /// Now [`super::path::DEVICE_META`].
    pub const DEVICE_META: &str = "/device/configure-device-meta";
    /// Now [`super::path::DEVICE_REMOVE`].
    pub const DEVICE_REMOVE: &str = "/device/remove-device";
    /// Now [`super::path::AUTHENTICATOR_REGISTER`].
    pub const AUTHENTICATOR_REGISTER: &str = "/verified-authenticator/register-authenticator";
    /// Now [`super::path::CONFIGURATION_REGISTER`], once a form.
    pub const CONFIGURATION_REGISTER: &str = "/verified-authenticator/voting-configuration/create";
    /// Now [`super::path::POLICY_REGISTER`], once a form.
    pub const POLICY_REGISTER: &str = "/policy/register-policy";
    /// Now [`super::path::POLICY_ACTIVATE`].
    pub const POLICY_ACTIVATE: &str = "/policy/activate-policy";
    /// Now [`super::path::POLICY_DEACTIVATE`].
    pub const POLICY_DEACTIVATE: &str = "/policy/deactivate-policy";
}
