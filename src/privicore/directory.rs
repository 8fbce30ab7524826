//! Directories (C.10): organisations with their users. Methods and paths are those of the
//! configuration's table; field names are the embedded engine's, because no source tells
//! the service's. Where a service does not offer a call, the error's kind is `Unsupported`.

use std::collections::BTreeMap;
use std::time::SystemTime;

use bytes::Bytes;
use reqwest::Method;
use serde_json::Value;
use url::Url;

use super::client::Client;
use super::devices::IDENTIFIERS;
use super::http::{Call, CallBody, encode};
use super::optional::{incomplete, map};
use super::reply::{created, field};
use super::secret::Secret;
use crate::protocol::directory::{CallMethod, DirectoryCall};
use crate::store::StoreResult;

/// A directory, as this profile sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// What the other calls take.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `owner` or `member`, where the service says.
    pub role: Option<String>,
    /// When it was registered.
    pub created: Option<SystemTime>,
    /// Its meta information.
    pub meta: BTreeMap<String, String>,
}

/// A profile in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryUser {
    /// The profile's id.
    pub profile: String,
    /// Its name.
    pub username: Option<String>,
    /// `owner` or `member`, where the service says.
    pub role: Option<String>,
    /// Since when it is in the directory.
    pub since: Option<SystemTime>,
    /// What the directory knows of it; a plain list of users does not show it.
    pub information: BTreeMap<String, String>,
}

/// An invitation that waits for an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryInvitation {
    /// What [`Client::process_directory_invitation`] takes.
    pub id: String,
    /// The directory's id.
    pub directory: Option<String>,
    /// The directory's name.
    pub directory_name: Option<String>,
    /// The profile that is invited.
    pub profile: Option<String>,
    /// Its name.
    pub username: Option<String>,
    /// When it was invited.
    pub created: Option<SystemTime>,
}

/// A device of a profile in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryDevice {
    /// What calls on devices take.
    pub identifier: String,
    /// Its name.
    pub name: Option<String>,
    /// Whose it is.
    pub profile: Option<String>,
    /// The name of whose it is.
    pub username: Option<String>,
    /// Whether it stores data, where the service says.
    pub storage: Option<bool>,
}

impl Client {
    /// Registers a directory that this profile owns, and returns its id.
    pub async fn register_directory(&self, name: &str) -> StoreResult<String> {
        let calls = &self.config.directory;
        self.make(&call("register directory", &calls.register, &[("name", name)])).await
    }

    /// The directories that this profile owns.
    pub async fn owned_directories(&self) -> StoreResult<Vec<Directory>> {
        self.directories("list owned directories", &self.config.directory.list_owned).await
    }

    /// The directories that this profile is in without owning them.
    pub async fn assigned_directories(&self) -> StoreResult<Vec<Directory>> {
        self.directories("list assigned directories", &self.config.directory.list_assigned).await
    }

    async fn directories(
        &self,
        operation: &'static str,
        asked: &DirectoryCall,
    ) -> StoreResult<Vec<Directory>> {
        let listed = |page: &[(&str, &str)]| call(operation, asked, page);
        self.all(listed, |item| directory(item).map(|found| (found.id.clone(), found))).await
    }

    /// One directory.
    pub async fn directory(&self, id: &str) -> StoreResult<Directory> {
        const OPERATION: &str = "retrieve directory";
        let asked = &self.config.directory.retrieve;
        let reply = self.ask(&call(OPERATION, asked, &[("directoryId", id)])).await?;
        reply.json().as_ref().and_then(directory).ok_or_else(|| incomplete(OPERATION))
    }

    /// Makes a profile in a directory, and returns its id.
    pub async fn create_directory_user(
        &self,
        directory: &str,
        username: &str,
        password: &Secret,
    ) -> StoreResult<String> {
        let fields =
            [("directoryId", directory), ("username", username), ("password", password.expose())];
        let asked = &self.config.directory.create_user;
        self.make(&call("create directory user", asked, &fields)).await
    }

    /// Changes what a directory knows of a user: members given are replaced, those with
    /// an empty value removed, others stay.
    pub async fn update_directory_user(
        &self,
        directory: &str,
        profile: &str,
        information: &BTreeMap<String, String>,
    ) -> StoreResult<()> {
        let members = members("information", information);
        let mut fields = vec![("directoryId", directory), ("profileId", profile)];
        fields.extend(members.iter().map(|(name, value)| (name.as_str(), *value)));
        let asked = &self.config.directory.update_user;
        self.order(&call("update user information", asked, &fields)).await
    }

    /// Invites a profile by its id, and returns the invitation's id.
    pub async fn invite_profile(&self, directory: &str, profile: &str) -> StoreResult<String> {
        let fields = [("directoryId", directory), ("profileId", profile)];
        self.make(&call("invite profile", &self.config.directory.invite, &fields)).await
    }

    /// The invitations of a directory that this profile owns; of none, those to itself.
    pub async fn directory_invitations(
        &self,
        directory: Option<&str>,
    ) -> StoreResult<Vec<DirectoryInvitation>> {
        let asked = &self.config.directory.list_invites;
        let of: Vec<_> = directory.map(|id| ("directoryId", id)).into_iter().collect();
        let listed =
            |page: &[(&str, &str)]| call("list directory invites", asked, &[&of, page].concat());
        self.all(listed, |item| invitation(item).map(|found| (found.id.clone(), found))).await
    }

    /// Accepts or declines an invitation to this profile.
    pub async fn process_directory_invitation(&self, id: &str, accept: bool) -> StoreResult<()> {
        let decision = if accept { "accept" } else { "decline" };
        let fields = [("invitationId", id), ("decision", decision)];
        let asked = &self.config.directory.process_invitation;
        self.order(&call("process invitation", asked, &fields)).await
    }

    /// The users of a directory.
    pub async fn directory_users(&self, directory: &str) -> StoreResult<Vec<DirectoryUser>> {
        let asked = &self.config.directory.list_users;
        self.users("list directory users", asked, &[("directoryId", directory)]).await
    }

    /// What a directory knows of the given profiles, or of all its users if none is.
    pub async fn directory_profiles(
        &self,
        directory: &str,
        profiles: &[&str],
    ) -> StoreResult<Vec<DirectoryUser>> {
        let mut fields = vec![("directoryId", directory)];
        fields.extend(profiles.iter().map(|profile| ("profileIds[]", *profile)));
        let asked = &self.config.directory.profiles_info;
        self.users("directory profiles info", asked, &fields).await
    }

    async fn users(
        &self,
        operation: &'static str,
        asked: &DirectoryCall,
        fields: &[(&str, &str)],
    ) -> StoreResult<Vec<DirectoryUser>> {
        let listed = |page: &[(&str, &str)]| call(operation, asked, &[fields, page].concat());
        self.all(listed, |item| user(item).map(|found| (found.profile.clone(), found))).await
    }

    /// What a directory knows of one profile.
    pub async fn directory_profile(
        &self,
        directory: &str,
        profile: &str,
    ) -> StoreResult<DirectoryUser> {
        const OPERATION: &str = "retrieve directory profile";
        let fields = [("directoryId", directory), ("profileId", profile)];
        let asked = &self.config.directory.retrieve_profile;
        let reply = self.ask(&call(OPERATION, asked, &fields)).await?;
        reply.json().as_ref().and_then(user).ok_or_else(|| incomplete(OPERATION))
    }

    /// Sets the password of a profile that the directory made.
    pub async fn set_profile_password(
        &self,
        directory: &str,
        profile: &str,
        password: &Secret,
    ) -> StoreResult<()> {
        let fields = [
            ("directoryId", directory),
            ("profileId", profile),
            ("newPassword", password.expose()),
        ];
        let asked = &self.config.directory.set_password;
        self.order(&call("set profile password", asked, &fields)).await
    }

    /// Makes a device for a profile that the directory made, and returns its identifier.
    pub async fn create_profile_device(
        &self,
        directory: &str,
        profile: &str,
        name: &str,
    ) -> StoreResult<String> {
        let fields = [("directoryId", directory), ("profileId", profile), ("deviceName", name)];
        let asked = &self.config.directory.create_device;
        self.make(&call("create profile device", asked, &fields)).await
    }

    /// Gives a profile's device the storage role.
    pub async fn add_profile_storage(
        &self,
        directory: &str,
        profile: &str,
        device: &str,
    ) -> StoreResult<()> {
        let fields =
            [("directoryId", directory), ("profileId", profile), ("deviceIdentifier", device)];
        let asked = &self.config.directory.add_storage_device;
        self.order(&call("add storage device to profile", asked, &fields)).await
    }

    /// The devices of every profile in a directory.
    pub async fn directory_devices(&self, directory: &str) -> StoreResult<Vec<DirectoryDevice>> {
        let asked = &self.config.directory.list_devices;
        let of = [("directoryId", directory)];
        let listed = |page: &[(&str, &str)]| {
            call("list directory devices", asked, &[of.as_slice(), page].concat())
        };
        self.all(listed, |item| device(item).map(|found| (found.identifier.clone(), found))).await
    }

    /// Opens a pool in which the devices of a directory vote, and returns its id. The
    /// embedded engine does not offer it.
    pub async fn create_directory_voting_pool(
        &self,
        directory: &str,
        title: &str,
        question: &str,
    ) -> StoreResult<String> {
        let fields = [("directoryId", directory), ("title", title), ("question", question)];
        let asked = &self.config.directory.create_voting_pool;
        self.make(&call("create directory voting pool", asked, &fields)).await
    }

    /// Changes the meta information of a directory: members given are replaced, those
    /// with an empty value removed, others stay.
    pub async fn store_directory_meta(
        &self,
        directory: &str,
        meta: &BTreeMap<String, String>,
    ) -> StoreResult<()> {
        let members = members("meta", meta);
        let mut fields = vec![("directoryId", directory)];
        fields.extend(members.iter().map(|(name, value)| (name.as_str(), *value)));
        let asked = &self.config.directory.store_meta;
        self.order(&call("store directory meta information", asked, &fields)).await
    }
}

/// The members of a map as fields, `name[member]` (B.2).
fn members<'a>(name: &str, map: &'a BTreeMap<String, String>) -> Vec<(String, &'a str)> {
    map.iter().map(|(member, value)| (format!("{name}[{member}]"), value.as_str())).collect()
}

/// A call of the table: fields that its path names go there, the others into the query
/// of a `GET` and into the form of anything else.
fn call(operation: &'static str, asked: &DirectoryCall, fields: &[(&str, &str)]) -> Call {
    let mut path = asked.path.clone().into_owned();
    let mut rest = Vec::new();
    for (name, value) in fields {
        let slot = format!("{{{name}}}");
        if path.contains(&slot) {
            path = path.replace(&slot, &segment(value));
        } else {
            rest.push((*name, *value));
        }
    }
    let mut call = Call::get(operation, path);
    call.method = match asked.method {
        CallMethod::Get => {
            call.query = (!rest.is_empty()).then(|| encode(&rest));
            return call;
        }
        CallMethod::Post => Method::POST,
        CallMethod::Put => Method::PUT,
        CallMethod::Patch => Method::PATCH,
        CallMethod::Delete => Method::DELETE,
    };
    call.body = CallBody::Form(Bytes::from(encode(&rest)));
    call
}

/// A text as one segment of a path.
fn segment(text: &str) -> String {
    let Ok(mut url) = Url::parse("http://localhost/") else { return String::new() };
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().push(text);
    }
    url.path().trim_start_matches('/').to_owned()
}

fn directory(json: &Value) -> Option<Directory> {
    Some(Directory {
        id: field(json, &["directoryId", "id", "uuid"])?,
        name: field(json, &["name", "title"]).unwrap_or_default(),
        role: field(json, &["role"]),
        created: created(json),
        meta: map(json.get("meta")),
    })
}

fn user(json: &Value) -> Option<DirectoryUser> {
    Some(DirectoryUser {
        profile: field(json, &["profileId", "profile", "id"])?,
        username: field(json, &["username", "name"]),
        role: field(json, &["role"]),
        since: created(json),
        information: map(json.get("information")),
    })
}

fn invitation(json: &Value) -> Option<DirectoryInvitation> {
    Some(DirectoryInvitation {
        id: field(json, &["invitationId", "id"])?,
        directory: field(json, &["directoryId", "directory"]),
        directory_name: field(json, &["directoryName"]),
        profile: field(json, &["profileId", "profile"]),
        username: field(json, &["username"]),
        created: created(json),
    })
}

fn device(json: &Value) -> Option<DirectoryDevice> {
    Some(DirectoryDevice {
        identifier: field(json, &IDENTIFIERS)?,
        name: field(json, &["name", "deviceName"]),
        profile: field(json, &["profileId", "profile"]),
        username: field(json, &["username"]),
        storage: json.get("storage").and_then(Value::as_bool),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_go_where_the_table_says() {
        let fields = [("directoryId", "a/b c"), ("name", "x y")];
        let asked: DirectoryCall = "GET /directories/{directoryId}".parse().unwrap();
        let made = call("test", &asked, &fields);
        assert_eq!(made.path, "/directories/a%2Fb%20c");
        assert_eq!(made.query.as_deref(), Some("name=x+y"));
        let asked: DirectoryCall = "PUT /directory".parse().unwrap();
        let made = call("test", &asked, &fields);
        assert_eq!((made.method, made.query), (Method::PUT, None));
        let CallBody::Form(form) = made.body else { panic!("no form") };
        assert_eq!(form, "directoryId=a%2Fb+c&name=x+y");
    }

    #[test]
    fn records_are_read_by_what_they_have() {
        let read = directory(&json!({"id": 7, "meta": []})).unwrap();
        assert_eq!((read.id.as_str(), read.role, read.meta.len()), ("7", None, 0));
        assert!(directory(&json!({"name": "n"})).is_none());
        assert_eq!(user(&json!({"profile": "p"})).unwrap().profile, "p");
        assert!(invitation(&json!({"directoryId": "d"})).is_none());
        assert_eq!(device(&json!({"deviceId": "d"})).unwrap().storage, None);
    }
}
