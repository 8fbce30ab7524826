//! The calls of C.10, directories: organisations with their users, not folders.
//!
//! Of this family only the titles are known. Methods, paths and the names of fields are our
//! choice, kept in one table: the embedded engine offers it as it stands here, and for
//! another service a client's configuration replaces its entries one by one.
//!
//! ```toml
//! [directory.calls]
//! register = "PUT /v2/directories"
//! retrieve = "GET /v2/directories/{directory}"
//!
//! [directory.fields]
//! directory_id = "directory"
//!
//! [directory.values]
//! accept = "yes"
//! ```
//!
//! A `{name}` in a path stands for the value of the field of that name, which is then not
//! sent otherwise.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, MapAccess, Visitor};
use thiserror::Error;

/// The whole table.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "Parts")]
pub struct DirectoryTable {
    /// Methods and paths.
    pub calls: DirectoryCalls,
    /// Names of fields, in requests and replies.
    pub fields: DirectoryFields,
    /// Values that are words.
    pub values: DirectoryValues,
}

/// A [`DirectoryTable`] whose parts need not fit each other.
#[derive(Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Parts {
    calls: DirectoryCalls,
    fields: DirectoryFields,
    values: DirectoryValues,
}

/// Why the parts of a table do not fit each other.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
enum PartsError {
    /// A path names a field that there is not.
    #[error("directory.calls.{call}: no field is called {{{field}}}")]
    Slot {
        /// The call.
        call: &'static str,
        /// What its path names.
        field: String,
    },
    /// A field that goes with others is called like another one.
    #[error("directory.fields.{field}: directory.fields.{other} has the same name")]
    Twice {
        /// The field.
        field: &'static str,
        /// The other.
        other: &'static str,
    },
}

impl TryFrom<Parts> for DirectoryTable {
    type Error = PartsError;

    fn try_from(parts: Parts) -> Result<Self, PartsError> {
        /// Fields that go with any others.
        const KEYS: [&str; 4] = ["directory_id", "profile_id", "page", "per_page"];
        let Parts { calls, fields, values } = parts;
        for (call, entry) in calls.each() {
            for slot in slots(&entry.path).unwrap_or_default() {
                if fields.each().iter().all(|(_, name)| &***name != slot) {
                    return Err(PartsError::Slot { call, field: slot.to_owned() });
                }
            }
        }
        for (field, name) in fields.each().into_iter().filter(|(field, _)| KEYS.contains(field)) {
            let same = |(other, found): &(&str, &DirectoryName)| *other != field && *found == name;
            if let Some((other, _)) = fields.each().into_iter().find(same) {
                return Err(PartsError::Twice { field, other });
            }
        }
        Ok(Self { calls, fields, values })
    }
}

/// A part of the table: entries with the engine's values, each of which a configuration may
/// replace. An error names the entry's key.
macro_rules! part {
    ($(#[$about:meta])* $name:ident, $kind:ty, $section:literal:
     $($(#[$entry_about:meta])* $entry:ident = $value:expr;)*) => {
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name {
            $($(#[$entry_about])* pub $entry: $kind,)*
        }

        impl $name {
            /// The embedded engine's.
            pub const ENGINE: Self = Self { $($entry: $value,)* };

            /// Every entry with its key.
            pub fn each(&self) -> Vec<(&'static str, &$kind)> {
                vec![$((stringify!($entry), &self.$entry),)*]
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::ENGINE
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Entries;
                impl<'de> Visitor<'de> for Entries {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str(concat!("a table directory.", $section))
                    }

                    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<$name, A::Error> {
                        let mut part = $name::ENGINE;
                        while let Some(key) = map.next_key::<String>()? {
                            match key.as_str() {
                                $(stringify!($entry) => {
                                    let key = concat!("directory.", $section, ".", stringify!($entry));
                                    part.$entry = map.next_value_seed(Entry::new(key))?;
                                })*
                                other => {
                                    let known = [$(stringify!($entry)),*].join(", ");
                                    return Err(de::Error::custom(format_args!(
                                        "directory.{}.{other}: there is only {known}", $section,
                                    )));
                                }
                            }
                        }
                        Ok(part)
                    }
                }
                deserializer.deserialize_map(Entries)
            }
        }
    };
}

/// Reads one entry, and names it in the error.
struct Entry<T> {
    key: &'static str,
    kind: std::marker::PhantomData<T>,
}

impl<T> Entry<T> {
    fn new(key: &'static str) -> Self {
        Self { key, kind: std::marker::PhantomData }
    }
}

impl<'de, T: FromStr<Err: fmt::Display>> DeserializeSeed<'de> for Entry<T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        let named = |why: &dyn fmt::Display| de::Error::custom(format_args!("{}: {why}", self.key));
        let text = String::deserialize(deserializer).map_err(|error| named(&error))?;
        text.parse().map_err(|error| named(&error))
    }
}

part! {
    /// Method and path of every call, in the order of the menu.
    DirectoryCalls, DirectoryCall, "calls":
    /// "Register Directory".
    register = DirectoryCall::post("/directory/register");
    /// "Retrieve owned Directories".
    list_owned = DirectoryCall::get("/directory/retrieve-owned-directories");
    /// "Retrieve assigned directories".
    list_assigned = DirectoryCall::get("/directory/retrieve-assigned-directories");
    /// "Retrieve Directory".
    retrieve = DirectoryCall::get("/directory/retrieve-directory");
    /// "Create Directory User".
    create_user = DirectoryCall::post("/directory/create-user");
    /// "Update user information".
    update_user = DirectoryCall::post("/directory/update-user-information");
    /// "Invite Profile".
    invite = DirectoryCall::post("/directory/invite-profile");
    /// "Set profile password".
    set_password = DirectoryCall::post("/directory/set-profile-password");
    /// "List Directory Invites".
    list_invites = DirectoryCall::get("/directory/list-invites");
    /// "Process Invitation".
    process_invitation = DirectoryCall::post("/directory/process-invitation");
    /// "Retrieve directory profile".
    retrieve_profile = DirectoryCall::get("/directory/retrieve-profile");
    /// "List directory users".
    list_users = DirectoryCall::get("/directory/list-users");
    /// "Directory profiles info".
    profiles_info = DirectoryCall::get("/directory/profiles-info");
    /// "Create profile device".
    create_device = DirectoryCall::post("/directory/create-profile-device");
    /// "Add storage device to profile".
    add_storage_device = DirectoryCall::post("/directory/add-storage-device-to-profile");
    /// "List directory devices".
    list_devices = DirectoryCall::get("/directory/list-devices");
    /// "Create directory voting pool".
    create_voting_pool = DirectoryCall::post("/directory/create-voting-pool");
    /// "Store directory meta information".
    store_meta = DirectoryCall::post("/directory/store-meta-information");
}

part! {
    /// Names of the fields, in the style of the documented calls. In a reply, this name is
    /// looked for first, and then those that the sources use for such a thing.
    DirectoryFields, DirectoryName, "fields":
    /// A directory's id.
    directory_id = DirectoryName::new("directoryId");
    /// A profile's id.
    profile_id = DirectoryName::new("profileId");
    /// Ids of profiles, sent as a list (B.2).
    profile_ids = DirectoryName::new("profileIds");
    /// An invitation's id.
    invitation_id = DirectoryName::new("invitationId");
    /// What is answered to an invitation: one of [`DirectoryValues`].
    decision = DirectoryName::new("decision");
    /// A directory's name.
    name = DirectoryName::new("name");
    /// A profile's name.
    username = DirectoryName::new("username");
    /// The password of a new profile.
    password = DirectoryName::new("password");
    /// The password that replaces one.
    new_password = DirectoryName::new("newPassword");
    /// What is known of a user: a map (B.2).
    information = DirectoryName::new("information");
    /// A directory's meta information: a map (B.2).
    meta = DirectoryName::new("meta");
    /// A device's name.
    device_name = DirectoryName::new("deviceName");
    /// A device's identifier.
    device_identifier = DirectoryName::new("deviceIdentifier");
    /// What a vote is called.
    title = DirectoryName::new("title");
    /// What is voted on.
    question = DirectoryName::new("question");
    /// How is voted.
    voting_configuration_id = DirectoryName::new("votingConfigurationId");
    /// The page of a list, from 1.
    page = DirectoryName::new("page");
    /// Items of a page.
    per_page = DirectoryName::new("perPage");
    /// In replies: a profile's part in a directory.
    role = DirectoryName::new("role");
    /// In replies: the name of the directory that an invitation is to.
    directory_name = DirectoryName::new("directoryName");
    /// In replies: whether a device stores data.
    storage = DirectoryName::new("storage");
}

part! {
    /// Words that a field may have as its value.
    DirectoryValues, DirectoryName, "values":
    /// An invitation is accepted.
    accept = DirectoryName::new("accept");
    /// An invitation is declined.
    decline = DirectoryName::new("decline");
}

/// The name of a field, or a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryName(Cow<'static, str>);

/// Why a text is no [`DirectoryName`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a name is one word, without brackets or braces")]
pub struct NameError;

impl DirectoryName {
    const fn new(name: &'static str) -> Self {
        Self(Cow::Borrowed(name))
    }
}

impl Deref for DirectoryName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl FromStr for DirectoryName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let odd = |c: char| c.is_whitespace() || c.is_control() || "[]{}".contains(c);
        if text.is_empty() || text.contains(odd) {
            return Err(NameError);
        }
        Ok(Self(Cow::Owned(text.to_owned())))
    }
}

/// The names in braces of a path.
fn slots(path: &str) -> Result<Vec<&str>, CallError> {
    let (mut found, mut rest) = (Vec::new(), path);
    while let Some((before, after)) = rest.split_once('{') {
        let (name, behind) = after.split_once('}').ok_or(CallError::Brace)?;
        if before.contains('}') || name.contains('{') {
            return Err(CallError::Brace);
        }
        found.push(name);
        rest = behind;
    }
    if rest.contains('}') { Err(CallError::Brace) } else { Ok(found) }
}

/// Method and path of one call. Its text, as in a configuration, is `GET /path`.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// A brace without its companion.
    #[error("a call's path names fields as {{field}}, each brace with its companion")]
    Brace,
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
        slots(path)?;
        Ok(Self { method, path: Cow::Owned(path.to_owned()) })
    }
}

impl fmt::Display for DirectoryCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method.as_str(), self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Result<DirectoryTable, String> {
        toml::from_str(text).map_err(|error: toml::de::Error| error.message().to_owned())
    }

    #[test]
    fn a_configuration_replaces_single_entries() {
        let text = "[calls]\nregister = \"put /v2/{title}\"\nlist_users = \"GET  /of/{dir}\"\n\
                    [fields]\ndirectory_id = \"dir\"\nname = \"title\"\n\
                    [values]\naccept = \"yes\"";
        let DirectoryTable { calls, fields, values } = table(text).unwrap();
        assert_eq!(calls.register.to_string(), "PUT /v2/{title}");
        assert_eq!(calls.list_users.to_string(), "GET /of/{dir}");
        assert_eq!(calls.invite, DirectoryCalls::default().invite);
        assert_eq!((&*fields.directory_id, &*fields.profile_id), ("dir", "profileId"));
        assert_eq!((&*values.accept, &*values.decline), ("yes", "decline"));
        assert_eq!(table("").unwrap(), DirectoryTable::default());
    }

    #[test]
    fn what_cannot_be_is_named_by_its_key() {
        for (text, said) in [
            ("[calls]\nregister = \"/path\"", "directory.calls.register: a call is written"),
            ("[calls]\nregister = \"FETCH /\"", "directory.calls.register: a call is written"),
            ("[calls]\ninvite = \"GET path\"", "directory.calls.invite: a call's path begins"),
            ("[calls]\ninvite = \"GET /a?b\"", "directory.calls.invite: a call's path begins"),
            ("[calls]\ninvite = \"GET /{a\"", "directory.calls.invite: a call's path names"),
            ("[calls]\ninvite = \"GET /a}\"", "directory.calls.invite: a call's path names"),
            ("[calls]\ninvite = 7", "directory.calls.invite: invalid type"),
            ("[calls]\nnothing = \"GET /\"", "directory.calls.nothing: there is only register,"),
            (
                "[calls]\nretrieve = \"GET /{id}\"",
                "directory.calls.retrieve: no field is called {id}",
            ),
            ("[fields]\nname = \"a b\"", "directory.fields.name: a name is one word"),
            ("[fields]\nmeta = \"meta[]\"", "directory.fields.meta: a name is one word"),
            ("[fields]\nid = \"id\"", "directory.fields.id: there is only directory_id,"),
            (
                "[fields]\nprofile_id = \"username\"",
                "directory.fields.profile_id: directory.fields.username has the same name",
            ),
            ("[values]\naccept = \"\"", "directory.values.accept: a name is one word"),
            ("[paths]\n", "unknown field `paths`"),
        ] {
            let error = table(text).unwrap_err();
            assert!(error.starts_with(said), "{text}: {error}");
        }
    }
}
