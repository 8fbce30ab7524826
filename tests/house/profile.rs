//! A profile's directories, spoken to an engine process without the client.

use serde_json::Value;

use super::engine_process::{EngineProcess, Login};

/// A profile that is logged in.
pub(crate) struct Profile<'a> {
    engine: &'a EngineProcess,
    session: String,
}

impl<'a> Profile<'a> {
    pub(crate) fn new(engine: &'a EngineProcess, login: &Login) -> Self {
        Self { engine, session: engine.authenticate(login) }
    }

    /// Another profile than the one of the test's machines.
    pub(crate) fn other(engine: &'a EngineProcess, username: &str) -> Self {
        let password = "another-Horse-another-Battery-90".to_owned();
        let login = Login { username: username.to_owned(), password };
        engine.register(&login);
        Self::new(engine, &login)
    }

    fn get(&self, path: &str) -> Value {
        self.engine.get(path, &self.session)
    }

    fn command(&self, path: &str, fields: &[(&str, &str)]) -> String {
        self.engine.command(path, Some(&self.session), fields)
    }

    /// Registers a directory; its id.
    pub(crate) fn register(&self, name: &str) -> String {
        self.command("/directory/register", &[("name", name)])
    }

    /// The names of the directories that it owns.
    pub(crate) fn owned(&self) -> Vec<String> {
        let found = self.get("/directory/retrieve-owned-directories?page=1&perPage=100");
        let items = found["items"].as_array().unwrap().iter();
        items.map(|item| item["name"].as_str().unwrap().to_owned()).collect()
    }

    /// The meta of a directory that it is in.
    pub(crate) fn meta(&self, id: &str) -> Value {
        self.get(&format!("/directory/retrieve-directory?directoryId={id}"))["meta"].clone()
    }

    /// Sets one member of a directory's meta.
    pub(crate) fn set_meta(&self, id: &str, member: &str, value: &str) {
        let fields = [("directoryId", id), (&format!("meta[{member}]"), value)];
        self.command("/directory/store-meta-information", &fields);
    }

    /// Takes another profile into a directory of its own: invites it, and accepts for it.
    pub(crate) fn take_in(&self, id: &str, guest: &Profile<'_>) {
        let profile = guest.get("/profile/retrieve-profile-id");
        let profile = profile["profileId"].as_str().unwrap();
        let fields = [("directoryId", id), ("profileId", profile)];
        let invitation = self.command("/directory/invite-profile", &fields);
        let fields = [("invitationId", invitation.as_str()), ("decision", "accept")];
        guest.command("/directory/process-invitation", &fields);
    }
}
