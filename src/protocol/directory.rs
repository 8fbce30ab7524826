//! The calls of C.10, directories: organisations with their users, not folders.
//!
//! Of this family only the titles are known. Methods and paths here are our choice, and
//! the embedded engine's; for another service a client's configuration replaces them one
//! by one, each written as `POST /directory/register`. A `{field}` in a path stands for
//! the value of that field, which is then not sent otherwise.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Method and path of every call, in the order of the menu.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DirectoryCalls {
    /// "Register Directory".
    pub register: DirectoryCall,
    /// "Retrieve owned Directories".
    pub list_owned: DirectoryCall,
    /// "Retrieve assigned directories".
    pub list_assigned: DirectoryCall,
    /// "Retrieve Directory".
    pub retrieve: DirectoryCall,
    /// "Create Directory User".
    pub create_user: DirectoryCall,
    /// "Update user information".
    pub update_user: DirectoryCall,
    /// "Invite Profile".
    pub invite: DirectoryCall,
    /// "Set profile password".
    pub set_password: DirectoryCall,
    /// "List Directory Invites".
    pub list_invites: DirectoryCall,
    /// "Process Invitation".
    pub process_invitation: DirectoryCall,
    /// "Retrieve directory profile".
    pub retrieve_profile: DirectoryCall,
    /// "List directory users".
    pub list_users: DirectoryCall,
    /// "Directory profiles info".
    pub profiles_info: DirectoryCall,
    /// "Create profile device".
    pub create_device: DirectoryCall,
    /// "Add storage device to profile".
    pub add_storage_device: DirectoryCall,
    /// "List directory devices".
    pub list_devices: DirectoryCall,
    /// "Create directory voting pool".
    pub create_voting_pool: DirectoryCall,
    /// "Store directory meta information".
    pub store_meta: DirectoryCall,
}

impl DirectoryCalls {
    /// The embedded engine's.
    pub const ENGINE: Self = Self {
        register: DirectoryCall::post("/directory/register"),
        list_owned: DirectoryCall::get("/directory/retrieve-owned-directories"),
        list_assigned: DirectoryCall::get("/directory/retrieve-assigned-directories"),
        retrieve: DirectoryCall::get("/directory/retrieve-directory"),
        create_user: DirectoryCall::post("/directory/create-user"),
        update_user: DirectoryCall::post("/directory/update-user-information"),
        invite: DirectoryCall::post("/directory/invite-profile"),
        set_password: DirectoryCall::post("/directory/set-profile-password"),
        list_invites: DirectoryCall::get("/directory/list-invites"),
        process_invitation: DirectoryCall::post("/directory/process-invitation"),
        retrieve_profile: DirectoryCall::get("/directory/retrieve-profile"),
        list_users: DirectoryCall::get("/directory/list-users"),
        profiles_info: DirectoryCall::get("/directory/profiles-info"),
        create_device: DirectoryCall::post("/directory/create-profile-device"),
        add_storage_device: DirectoryCall::post("/directory/add-storage-device-to-profile"),
        list_devices: DirectoryCall::get("/directory/list-devices"),
        create_voting_pool: DirectoryCall::post("/directory/create-voting-pool"),
        store_meta: DirectoryCall::post("/directory/store-meta-information"),
    };
}

impl Default for DirectoryCalls {
    fn default() -> Self {
        Self::ENGINE
    }
}

/// Method and path of one call. Its text, as in a configuration, is `GET /path`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DirectoryCall {
    /// How it is made.
    pub method: CallMethod,
    /// Begins with a slash; follows the address of the API.
    pub path: Cow<'static, str>,
}

/// Methods that a call can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallMethod {
    /// Fields go into the query.
    Get,
    /// Fields go into a form, as for the rest.
    Post,
    /// See [`CallMethod::Post`].
    Put,
    /// See [`CallMethod::Post`].
    Patch,
    /// See [`CallMethod::Post`].
    Delete,
}

impl CallMethod {
    /// As HTTP writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// Why a text is no [`DirectoryCall`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CallError {
    /// It does not begin with a method.
    #[error("a call is written as GET, POST, PUT, PATCH or DELETE, a space, and a path")]
    Method,
    /// What follows is no path.
    #[error("a call's path begins with a slash, and has no blank, query or fragment")]
    Path,
}

impl DirectoryCall {
    const fn get(path: &'static str) -> Self {
        Self { method: CallMethod::Get, path: Cow::Borrowed(path) }
    }

    const fn post(path: &'static str) -> Self {
        Self { method: CallMethod::Post, path: Cow::Borrowed(path) }
    }
}

impl FromStr for DirectoryCall {
    type Err = CallError;

    fn from_str(text: &str) -> Result<Self, CallError> {
        use CallMethod as M;
        let (method, path) = text.trim().split_once(' ').ok_or(CallError::Method)?;
        let known = [M::Get, M::Post, M::Put, M::Patch, M::Delete];
        let method = known.into_iter().find(|known| known.as_str().eq_ignore_ascii_case(method));
        let method = method.ok_or(CallError::Method)?;
        let path = path.trim_start();
        let odd = |c: char| c.is_whitespace() || c.is_control() || c == '?' || c == '#';
        if !path.starts_with('/') || path.contains(odd) {
            return Err(CallError::Path);
        }
        Ok(Self { method, path: Cow::Owned(path.to_owned()) })
    }
}

impl fmt::Display for DirectoryCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method.as_str(), self.path)
    }
}

impl TryFrom<String> for DirectoryCall {
    type Error = CallError;

    fn try_from(text: String) -> Result<Self, CallError> {
        text.parse()
    }
}

impl From<DirectoryCall> for String {
    fn from(call: DirectoryCall) -> Self {
        call.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_replaces_single_calls() {
        let text = "register = \"put /v2/{name}\"\nlist_users = \"GET  /users\"";
        let calls: DirectoryCalls = toml::from_str(text).unwrap();
        assert_eq!(calls.register.to_string(), "PUT /v2/{name}");
        assert_eq!(calls.list_users.to_string(), "GET /users");
        assert_eq!(calls.invite, DirectoryCalls::default().invite);
        for bad in ["register = \"/path\"", "register = \"GET path\"", "nothing = \"GET /\""] {
            assert!(toml::from_str::<DirectoryCalls>(bad).is_err(), "{bad}");
        }
        let written = toml::to_string(&calls).unwrap();
        assert_eq!(toml::from_str::<DirectoryCalls>(&written).unwrap(), calls);
        assert_eq!("FETCH /".parse::<DirectoryCall>(), Err(CallError::Method));
        assert_eq!("GET /a?b".parse::<DirectoryCall>(), Err(CallError::Path));
    }
}
