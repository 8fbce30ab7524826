//! Directories (C.10): organisations with their users. Methods, paths and names of fields are
//! those of the configuration's table, because no source tells the service's. Where a service
//! does not offer a call, the error's kind is `Unsupported`.

use std::collections::BTreeMap;
use std::time::SystemTime;

use bytes::Bytes;
use serde_json::Value;
use url::Url;

use super::client::Client;
use super::devices::IDENTIFIERS;
use super::optional::{incomplete, map};
use super::reply::{created, field};
use super::secret::Secret;
use super::transport::{Call, CallBody, Method, encode};
use crate::protocol::directory::{
    CallMethod, DirectoryCall, DirectoryCalls, DirectoryFields, DirectoryName,
};
use crate::store::{StoreError, StoreResult};

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
    fn table(&self) -> (&DirectoryCalls, &DirectoryFields) {
        (&self.config.directory.calls, &self.config.directory.fields)
    }

    /// Registers a directory that this profile owns, and returns its id.
    pub async fn register_directory(&self, name: &str) -> StoreResult<String> {
        let (calls, names) = self.table();
        self.make(&call("register directory", &calls.register, &[(&names.name, name)])).await
    }

    /// The directories that this profile owns.
    pub async fn owned_directories(&self) -> StoreResult<Vec<Directory>> {
        self.directories("list owned directories", &self.table().0.list_owned).await
    }

    /// The directories that this profile is in without owning them.
    pub async fn assigned_directories(&self) -> StoreResult<Vec<Directory>> {
        self.directories("list assigned directories", &self.table().0.list_assigned).await
    }

    async fn directories(
        &self,
        operation: &'static str,
        asked: &DirectoryCall,
    ) -> StoreResult<Vec<Directory>> {
        let names = self.table().1;
        let listed = |page: &[(&str, &str)]| listing(operation, asked, names, &[], page);
        let read = |item: &Value| directory(names, item).map(|found| (found.id.clone(), found));
        self.all(listed, read).await
    }

    /// One directory.
    pub async fn directory(&self, id: &str) -> StoreResult<Directory> {
        const OPERATION: &str = "retrieve directory";
        let (calls, names) = self.table();
        let reply =
            self.ask(&call(OPERATION, &calls.retrieve, &[(&names.directory_id, id)])).await?;
        let json = reply.json().unwrap_or_default();
        directory(names, &json).ok_or_else(|| incomplete(OPERATION))
    }

    /// Makes a profile in a directory, and returns its id.
    pub async fn create_directory_user(
        &self,
        directory: &str,
        username: &str,
        password: &Secret,
    ) -> StoreResult<String> {
        let (calls, names) = self.table();
        let fields = [
            (&*names.directory_id, directory),
            (&names.username, username),
            (&names.password, password.expose()),
        ];
        let outcome = self.make(&call("create directory user", &calls.create_user, &fields)).await;
        outcome.map_err(|error| without(password, error))
    }

    /// Changes what a directory knows of a user: members given are replaced, those with
    /// an empty value removed, others stay.
    pub async fn update_directory_user(
        &self,
        directory: &str,
        profile: &str,
        information: &BTreeMap<String, String>,
    ) -> StoreResult<()> {
        let (calls, names) = self.table();
        let members = members(&names.information, information);
        let mut fields = vec![(&*names.directory_id, directory), (&*names.profile_id, profile)];
        fields.extend(members.iter().map(|(name, value)| (name.as_str(), *value)));
        self.order(&call("update user information", &calls.update_user, &fields)).await
    }

    /// Invites a profile by its id, and returns the invitation's id.
    pub async fn invite_profile(&self, directory: &str, profile: &str) -> StoreResult<String> {
        let (calls, names) = self.table();
        let fields = [(&*names.directory_id, directory), (&names.profile_id, profile)];
        self.make(&call("invite profile", &calls.invite, &fields)).await
    }

    /// The invitations of a directory that this profile owns; of none, those to itself.
    pub async fn directory_invitations(
        &self,
        directory: Option<&str>,
    ) -> StoreResult<Vec<DirectoryInvitation>> {
        let (calls, names) = self.table();
        let of: Vec<_> = directory.map(|id| (&*names.directory_id, id)).into_iter().collect();
        let listed = |page: &[(&str, &str)]| {
            listing("list directory invites", &calls.list_invites, names, &of, page)
        };
        let read = |item: &Value| invitation(names, item).map(|found| (found.id.clone(), found));
        self.all(listed, read).await
    }

    /// Accepts or declines an invitation to this profile.
    pub async fn process_directory_invitation(&self, id: &str, accept: bool) -> StoreResult<()> {
        let (calls, names) = self.table();
        let values = &self.config.directory.values;
        let decision: &str = if accept { &values.accept } else { &values.decline };
        let fields = [(&*names.invitation_id, id), (&names.decision, decision)];
        self.order(&call("process invitation", &calls.process_invitation, &fields)).await
    }

    /// The users of a directory.
    pub async fn directory_users(&self, directory: &str) -> StoreResult<Vec<DirectoryUser>> {
        let (calls, names) = self.table();
        let fields = [(&*names.directory_id, directory)];
        self.users("list directory users", &calls.list_users, &fields).await
    }

    /// What a directory knows of the given profiles, or of all its users if none is.
    pub async fn directory_profiles(
        &self,
        directory: &str,
        profiles: &[&str],
    ) -> StoreResult<Vec<DirectoryUser>> {
        let (calls, names) = self.table();
        let list = format!("{}[]", &*names.profile_ids);
        let mut fields = vec![(&*names.directory_id, directory)];
        fields.extend(profiles.iter().map(|profile| (list.as_str(), *profile)));
        self.users("directory profiles info", &calls.profiles_info, &fields).await
    }

    async fn users(
        &self,
        operation: &'static str,
        asked: &DirectoryCall,
        fields: &[(&str, &str)],
    ) -> StoreResult<Vec<DirectoryUser>> {
        let names = self.table().1;
        let listed = |page: &[(&str, &str)]| listing(operation, asked, names, fields, page);
        let read = |item: &Value| user(names, item).map(|found| (found.profile.clone(), found));
        self.all(listed, read).await
    }

    /// What a directory knows of one profile.
    pub async fn directory_profile(
        &self,
        directory: &str,
        profile: &str,
    ) -> StoreResult<DirectoryUser> {
        const OPERATION: &str = "retrieve directory profile";
        let (calls, names) = self.table();
        let fields = [(&*names.directory_id, directory), (&names.profile_id, profile)];
        let reply = self.ask(&call(OPERATION, &calls.retrieve_profile, &fields)).await?;
        let json = reply.json().unwrap_or_default();
        user(names, &json).ok_or_else(|| incomplete(OPERATION))
    }

    /// Sets the password of a profile that the directory made.
    pub async fn set_profile_password(
        &self,
        directory: &str,
        profile: &str,
        password: &Secret,
    ) -> StoreResult<()> {
        let (calls, names) = self.table();
        let fields = [
            (&*names.directory_id, directory),
            (&names.profile_id, profile),
            (&names.new_password, password.expose()),
        ];
        let outcome = self.order(&call("set profile password", &calls.set_password, &fields)).await;
        outcome.map_err(|error| without(password, error))
    }

    /// Makes a device for a profile that the directory made, and returns its identifier.
    pub async fn create_profile_device(
        &self,
        directory: &str,
        profile: &str,
        name: &str,
    ) -> StoreResult<String> {
        let (calls, names) = self.table();
        let fields = [
            (&*names.directory_id, directory),
            (&names.profile_id, profile),
            (&names.device_name, name),
        ];
        self.make(&call("create profile device", &calls.create_device, &fields)).await
    }

    /// Gives a profile's device the storage role.
    pub async fn add_profile_storage(
        &self,
        directory: &str,
        profile: &str,
        device: &str,
    ) -> StoreResult<()> {
        let (calls, names) = self.table();
        let fields = [
            (&*names.directory_id, directory),
            (&names.profile_id, profile),
            (&names.device_identifier, device),
        ];
        self.order(&call("add storage device to profile", &calls.add_storage_device, &fields)).await
    }

    /// The devices of every profile in a directory.
    pub async fn directory_devices(&self, directory: &str) -> StoreResult<Vec<DirectoryDevice>> {
        let (calls, names) = self.table();
        let of = [(&*names.directory_id, directory)];
        let listed = |page: &[(&str, &str)]| {
            listing("list directory devices", &calls.list_devices, names, &of, page)
        };
        let read =
            |item: &Value| device(names, item).map(|found| (found.identifier.clone(), found));
        self.all(listed, read).await
    }

    /// Opens a pool in which the authenticators of everybody in a directory vote, and returns
    /// its id. `configuration` is a voting configuration of this profile, by id or name; without
    /// one its defaults count.
    pub async fn create_directory_voting_pool(
        &self,
        directory: &str,
        title: &str,
        question: &str,
        configuration: Option<&str>,
    ) -> StoreResult<String> {
        let (calls, names) = self.table();
        let mut fields = vec![
            (&*names.directory_id, directory),
            (&*names.title, title),
            (&*names.question, question),
        ];
        fields.extend(configuration.map(|wanted| (&*names.voting_configuration_id, wanted)));
        self.make(&call("create directory voting pool", &calls.create_voting_pool, &fields)).await
    }

    /// Changes the meta information of a directory: members given are replaced, those
    /// with an empty value removed, others stay.
    pub async fn store_directory_meta(
        &self,
        directory: &str,
        meta: &BTreeMap<String, String>,
    ) -> StoreResult<()> {
        let (calls, names) = self.table();
        let members = members(&names.meta, meta);
        let mut fields = vec![(&*names.directory_id, directory)];
        fields.extend(members.iter().map(|(name, value)| (name.as_str(), *value)));
        self.order(&call("store directory meta information", &calls.store_meta, &fields)).await
    }
}

/// An error that does not repeat a password.
fn without(password: &Secret, error: StoreError) -> StoreError {
    StoreError { message: password.redacted_from(error.message), ..error }
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
        CallMethod::Post => Method::Post,
        CallMethod::Put => Method::Put,
        CallMethod::Patch => Method::Patch,
        CallMethod::Delete => Method::Delete,
    };
    call.body = CallBody::Form(Bytes::from(encode(&rest)));
    call
}

/// A call for a page of a list: `page` holds its number and its size.
fn listing(
    operation: &'static str,
    asked: &DirectoryCall,
    names: &DirectoryFields,
    fields: &[(&str, &str)],
    page: &[(&str, &str)],
) -> Call {
    let named = [&*names.page, &*names.per_page];
    let page = named.into_iter().zip(page).map(|(name, (_, value))| (name, *value));
    let fields: Vec<_> = fields.iter().copied().chain(page).collect();
    call(operation, asked, &fields)
}

/// A text as one segment of a path.
fn segment(text: &str) -> String {
    let Ok(mut url) = Url::parse("http://localhost/") else { return String::new() };
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().push(text);
    }
    url.path().trim_start_matches('/').to_owned()
}

/// The text of the field of this name, or else of one that the sources use.
fn named(json: &Value, name: &DirectoryName, others: &[&str]) -> Option<String> {
    field(json, &[name]).or_else(|| field(json, others))
}

fn directory(names: &DirectoryFields, json: &Value) -> Option<Directory> {
    Some(Directory {
        id: named(json, &names.directory_id, &["directoryId", "id", "uuid"])?,
        name: named(json, &names.name, &["name", "title"]).unwrap_or_default(),
        role: named(json, &names.role, &["role"]),
        created: created(json),
        meta: map(json.get(&*names.meta).or_else(|| json.get("meta"))),
    })
}

fn user(names: &DirectoryFields, json: &Value) -> Option<DirectoryUser> {
    Some(DirectoryUser {
        profile: named(json, &names.profile_id, &["profileId", "profile", "id"])?,
        username: named(json, &names.username, &["username", "name"]),
        role: named(json, &names.role, &["role"]),
        since: created(json),
        information: map(json.get(&*names.information).or_else(|| json.get("information"))),
    })
}

fn invitation(names: &DirectoryFields, json: &Value) -> Option<DirectoryInvitation> {
    Some(DirectoryInvitation {
        id: named(json, &names.invitation_id, &["invitationId", "id"])?,
        directory: named(json, &names.directory_id, &["directoryId", "directory"]),
        directory_name: named(json, &names.directory_name, &["directoryName"]),
        profile: named(json, &names.profile_id, &["profileId", "profile"]),
        username: named(json, &names.username, &["username"]),
        created: created(json),
    })
}

fn device(names: &DirectoryFields, json: &Value) -> Option<DirectoryDevice> {
    let storage = json.get(&*names.storage).or_else(|| json.get("storage"));
    Some(DirectoryDevice {
        identifier: named(json, &names.device_identifier, &IDENTIFIERS)?,
        name: named(json, &names.device_name, &["name", "deviceName"]),
        profile: named(json, &names.profile_id, &["profileId", "profile"]),
        username: named(json, &names.username, &["username"]),
        storage: storage.and_then(Value::as_bool),
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
        assert_eq!((made.method, made.query), (Method::Put, None));
        let CallBody::Form(form) = made.body else { panic!("no form") };
        assert_eq!(form, "directoryId=a%2Fb+c&name=x+y");
    }

    #[test]
    fn records_are_read_by_what_they_have() {
        let names = DirectoryFields::default();
        let read = directory(&names, &json!({"id": 7, "meta": []})).unwrap();
        assert_eq!((read.id.as_str(), read.role, read.meta.len()), ("7", None, 0));
        assert!(directory(&names, &json!({"name": "n"})).is_none());
        assert_eq!(user(&names, &json!({"profile": "p"})).unwrap().profile, "p");
        assert!(invitation(&names, &json!({"directoryId": "d"})).is_none());
        assert_eq!(device(&names, &json!({"deviceId": "d"})).unwrap().storage, None);
    }
}
