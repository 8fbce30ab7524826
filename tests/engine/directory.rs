//! The engine over the wire: directories (C.10).

use std::time::Duration;

use privicorefs::protocol::directory::{CallMethod, DirectoryCall, DirectoryCalls};
use privicorefs::protocol::governance::{self, TYPE_BALLOT};
use privicorefs::protocol::{self, path};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::house::Server;
use crate::house::wire::{Channel, PASSWORD, USER, WireClient, body, header, with_query};

static CALLS: DirectoryCalls = DirectoryCalls::ENGINE;
/// The engine starts at this time, and the clock hardly moves.
const NOW: &str = "2023-11-14T22:13:20+00:00";
type Pairs<'a> = &'a [(&'a str, &'a str)];

const NOBODY: &str = "019735db-f8f7-7c08-8893-8f3a6f44a244";

async fn call(client: &WireClient, call: &DirectoryCall, fields: &[(&str, &str)]) -> Response {
    match call.method {
        CallMethod::Get => client.get(&with_query(&call.path, fields)).await,
        _ => client.post(&call.path, fields).await,
    }
}

async fn read(client: &WireClient, asked: &DirectoryCall, fields: &[(&str, &str)]) -> Value {
    let reply = call(client, asked, fields).await;
    assert_eq!(reply.status(), StatusCode::OK, "{asked}");
    body(reply).await
}

async fn items(client: &WireClient, asked: &DirectoryCall, fields: &[(&str, &str)]) -> Vec<Value> {
    read(client, asked, fields).await["items"].as_array().unwrap().clone()
}

/// An accepted command that succeeds; its id.
async fn done(
    client: &WireClient,
    channel: &mut Channel,
    asked: &DirectoryCall,
    fields: &[(&str, &str)],
) -> String {
    let id = client.command(&asked.path, fields).await;
    channel.ack(&id).await;
    id
}

async fn refused(
    client: &WireClient,
    asked: &DirectoryCall,
    fields: &[(&str, &str)],
    status: StatusCode,
    key: &str,
) -> Value {
    let reply = call(client, asked, fields).await;
    let (found, said) = (reply.status(), body(reply).await);
    assert_eq!((found, said["error"].as_str().unwrap()), (status, key), "{asked}: {said}");
    said
}

async fn names_the_field(
    client: &WireClient,
    asked: &DirectoryCall,
    fields: &[(&str, &str)],
    field: &str,
) {
    let status = StatusCode::UNPROCESSABLE_ENTITY;
    let said = refused(client, asked, fields, status, "parameter.error").await;
    assert!(said["errors"][field].is_array(), "{asked} {field}: {said}");
}

async fn own_id(client: &WireClient) -> String {
    body(client.get(path::PROFILE_ID).await).await["profileId"].as_str().unwrap().to_owned()
}

/// An owner with a directory.
struct Scene {
    server: Server,
    owner: WireClient,
    channel: Channel,
    directory: String,
}

impl Scene {
    async fn new() -> Self {
        let server = Server::new().await;
        let (owner, mut channel) = server.user().await;
        let directory = done(&owner, &mut channel, &CALLS.register, &[("name", "works")]).await;
        Self { server, owner, channel, directory }
    }

    fn with<'a>(&'a self, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        [&[("directoryId", self.directory.as_str())], more].concat()
    }

    async fn done(&mut self, asked: &DirectoryCall, more: &[(&str, &str)]) -> String {
        // The order of listings is that of milliseconds.
        self.server.clock.advance(Duration::from_millis(1));
        let fields = [&[("directoryId", self.directory.as_str())], more].concat();
        done(&self.owner, &mut self.channel, asked, &fields).await
    }

    /// A user that the directory makes: its id.
    async fn user(&mut self, username: &str) -> String {
        let fields = [("username", username), ("password", PASSWORD)];
        self.done(&CALLS.create_user, &fields).await
    }

    /// A profile of its own that accepts an invitation, and its id.
    async fn guest(&mut self, username: &str) -> (WireClient, String) {
        let guest = self.server.register(username).await;
        let id = own_id(&guest).await;
        let invitation = self.done(&CALLS.invite, &[("profileId", &id)]).await;
        let mut channel = guest.join().await;
        let accept = [("invitationId", invitation.as_str()), ("decision", "accept")];
        done(&guest, &mut channel, &CALLS.process_invitation, &accept).await;
        (guest, id)
    }
}

#[tokio::test]
async fn a_directory_is_registered_listed_and_retrieved() {
    let mut scene = Scene::new().await;
    scene.server.clock.advance(Duration::from_millis(1));
    let second = [("name", "second")];
    let second = done(&scene.owner, &mut scene.channel, &CALLS.register, &second).await;
    let record = |id: &str, name: &str, role: &str| {
        json!({
            "directoryId": id, "id": id, "name": name, "role": role, "createdAt": NOW, "meta": {},
        })
    };
    let (owner, id) = (scene.owner.clone(), scene.directory.clone());
    let both = [record(&id, "works", "owner"), record(&second, "second", "owner")];
    assert_eq!(items(&owner, &CALLS.list_owned, &[]).await, both);
    assert_eq!(items(&owner, &CALLS.list_assigned, &[]).await, [] as [Value; 0]);
    let page = read(&owner, &CALLS.list_owned, &[("page", "2"), ("perPage", "1")]).await;
    assert_eq!(page["items"], json!([both[1]]));
    assert_eq!(page["meta"], json!({ "count": 2, "page": 2, "perPage": 1 }));
    assert_eq!(read(&owner, &CALLS.retrieve, &[("directoryId", &id)]).await, both[0]);
    names_the_field(&owner, &CALLS.register, &[], "name").await;
    names_the_field(&owner, &CALLS.register, &[("name", "")], "name").await;
    names_the_field(&owner, &CALLS.list_owned, &[("perPage", "x")], "perPage").await;

    let (guest, _) = scene.guest("guest").await;
    let seen = record(&id, "works", "member");
    assert_eq!(items(&guest, &CALLS.list_assigned, &[]).await, std::slice::from_ref(&seen));
    assert_eq!(items(&guest, &CALLS.list_owned, &[]).await, [] as [Value; 0]);
    assert_eq!(read(&guest, &CALLS.retrieve, &[("directoryId", &id)]).await, seen);
    guest.control("shape", &json!({ "list": "array" })).await;
    assert_eq!(read(&guest, &CALLS.list_assigned, &[]).await, json!([seen]));
}

#[tokio::test]
async fn a_user_is_made_described_and_given_a_password() {
    let mut scene = Scene::new().await;
    let id = scene.user("worker").await;
    let worker = scene.server.login("worker").await;
    assert_eq!(own_id(&worker).await, id);
    let fields = [("profileId", id.as_str()), ("information[title]", "clerk")];
    scene.done(&CALLS.update_user, &[fields[0], fields[1], ("information[room]", "4")]).await;
    scene.done(&CALLS.update_user, &[fields[0], ("information[room]", "")]).await;
    let brief =
        json!({ "profileId": id, "username": "worker", "role": "member", "createdAt": NOW });
    let mut full = brief.clone();
    full["managed"] = json!(true);
    full["information"] = json!({ "title": "clerk" });
    let of = scene.with(&fields[..1]);
    assert_eq!(read(&worker, &CALLS.retrieve_profile, &of).await, full);
    let users = items(&worker, &CALLS.list_users, &scene.with(&[])).await;
    assert_eq!(users.len(), 2);
    assert_eq!((&users[0]["username"], &users[0]["role"]), (&json!(USER), &json!("owner")));
    assert_eq!(users[1], brief);
    let all = items(&scene.owner, &CALLS.profiles_info, &scene.with(&[])).await;
    assert_eq!((all.len(), &all[1]), (2, &full));
    let some = scene.with(&[("profileIds[]", &id)]);
    assert_eq!(items(&scene.owner, &CALLS.profiles_info, &some).await, [full]);

    let new = "quite another password";
    let fields = [("profileId", id.as_str()), ("newPassword", new), ("newPasswordRepeat", new)];
    scene.done(&CALLS.set_password, &fields).await;
    let form = [("username", "worker"), ("password", PASSWORD)];
    let old = scene.server.anonymous().post(path::AUTHENTICATE, &form).await;
    assert_eq!(old.status(), StatusCode::UNAUTHORIZED);
    scene.server.anonymous().login("worker", new).await;
}

#[tokio::test]
async fn what_makes_no_user_is_told() {
    let mut scene = Scene::new().await;
    let id = scene.user("worker").await;
    let owner = scene.owner.clone();
    let taken = scene.with(&[("username", "worker"), ("password", PASSWORD)]);
    let conflict = StatusCode::CONFLICT;
    refused(&owner, &CALLS.create_user, &taken, conflict, "profile.username_taken").await;
    let profile = ("profileId", id.as_str());
    let table: [(&DirectoryCall, Pairs<'_>, &str); 10] = [
        (&CALLS.create_user, &[("password", PASSWORD)], "username"),
        (&CALLS.create_user, &[("username", "x"), ("password", "weak")], "password"),
        (&CALLS.update_user, &[profile], "information"),
        (&CALLS.update_user, &[profile, ("information[]", "x")], "information"),
        (&CALLS.set_password, &[profile, ("newPassword", "weak")], "newPassword"),
        (
            &CALLS.set_password,
            &[profile, ("newPassword", PASSWORD), ("newPasswordRepeat", "x")],
            "newPasswordRepeat",
        ),
        (&CALLS.invite, &[], "profileId"),
        (&CALLS.create_device, &[profile], "deviceName"),
        (&CALLS.add_storage_device, &[profile], "deviceIdentifier"),
        (&CALLS.store_meta, &[("meta", "x")], "meta"),
    ];
    for (asked, fields, field) in table {
        names_the_field(&owner, asked, &scene.with(fields), field).await;
    }
    // Two at once: the second is rejected when its turn comes.
    let fields = scene.with(&[("username", "twin"), ("password", PASSWORD)]);
    let (one, two) = tokio::join!(
        call(&owner, &CALLS.create_user, &fields),
        call(&owner, &CALLS.create_user, &fields)
    );
    let mut made = 0;
    for reply in [one, two] {
        if reply.status() == StatusCode::ACCEPTED {
            let word = owner.poll(&header(&reply, protocol::COMMAND_ID)).await;
            made += usize::from(word == "succeeded");
        }
    }
    assert_eq!(made, 1);
}

#[tokio::test]
async fn an_invitation_is_accepted_or_declined_by_who_is_invited() {
    let mut scene = Scene::new().await;
    let bob = scene.server.register("bob").await;
    let eve = scene.server.register("eve").await;
    let mut bobs = bob.join().await;
    let id = own_id(&bob).await;
    let first = scene.done(&CALLS.invite, &[("username", "bob")]).await;
    let record = json!({
        "invitationId": first, "id": first, "directoryId": scene.directory,
        "directoryName": "works", "profileId": id, "username": "bob", "createdAt": NOW,
    });
    let owner = scene.owner.clone();
    assert_eq!(items(&bob, &CALLS.list_invites, &[]).await, std::slice::from_ref(&record));
    assert_eq!(items(&owner, &CALLS.list_invites, &scene.with(&[])).await, [record]);
    assert_eq!(items(&owner, &CALLS.list_invites, &[]).await, [] as [Value; 0]);
    let again = scene.with(&[("profileId", &id)]);
    let (invalid, key) = (StatusCode::UNPROCESSABLE_ENTITY, "directory.already_a_member");
    refused(&owner, &CALLS.invite, &again, invalid, key).await;
    for unknown in [("profileId", NOBODY), ("profileId", "x"), ("username", "nobody")] {
        let key = "directory.profile_not_found";
        let fields = scene.with(&[unknown]);
        refused(&owner, &CALLS.invite, &fields, StatusCode::NOT_FOUND, key).await;
    }

    let process = &CALLS.process_invitation;
    let answer = |decision| [("invitationId", first.as_str()), ("decision", decision)];
    for other in [&eve, &owner] {
        let status = StatusCode::FORBIDDEN;
        refused(other, process, &answer("accept"), status, "profile.not_an_owner").await;
    }
    names_the_field(&bob, process, &answer("perhaps"), "decision").await;
    names_the_field(&bob, process, &answer("accept")[..1], "decision").await;
    names_the_field(&bob, process, &answer("accept")[1..], "invitationId").await;
    done(&bob, &mut bobs, process, &answer("decline")).await;
    let gone = (StatusCode::NOT_FOUND, "directory.invitation_not_found");
    refused(&bob, process, &answer("accept"), gone.0, gone.1).await;
    assert_eq!(items(&bob, &CALLS.list_assigned, &[]).await, [] as [Value; 0]);
    let outside = scene.with(&[]);
    let key = "directory.not_a_member";
    refused(&bob, &CALLS.retrieve, &outside, StatusCode::FORBIDDEN, key).await;

    let second = scene.done(&CALLS.invite, &[("profileId", &id)]).await;
    let accept = [("invitationId", second.as_str()), ("decision", "accept")];
    done(&bob, &mut bobs, process, &accept).await;
    assert_eq!(items(&bob, &CALLS.list_invites, &[]).await, [] as [Value; 0]);
    assert_eq!(items(&bob, &CALLS.list_users, &scene.with(&[])).await.len(), 2);
    let fields = scene.with(&[("username", "bob")]);
    let key = "directory.already_a_member";
    refused(&owner, &CALLS.invite, &fields, invalid, key).await;
}

#[tokio::test]
async fn devices_are_made_for_profiles_of_the_directory_and_hold_its_data() {
    let mut scene = Scene::new().await;
    let id = scene.user("worker").await;
    let profile = ("profileId", id.as_str());
    let device = scene.done(&CALLS.create_device, &[profile, ("deviceName", "vault")]).await;
    let identifier = ("deviceIdentifier", device.as_str());
    let worker = scene.server.login("worker").await;
    let count = async || body(worker.get(path::STORAGE_LIST).await).await.as_array().unwrap().len();
    assert_eq!(count().await, 1);
    let found = items(&scene.owner, &CALLS.list_devices, &scene.with(&[])).await;
    let made = found.iter().find(|found| found["deviceIdentifier"] == json!(device)).unwrap();
    let expected = json!({
        "deviceIdentifier": device, "deviceUniqueIdentifier": device, "name": "vault",
        "createdAt": NOW, "storage": false, "profileId": id, "username": "worker",
    });
    assert_eq!((found.len(), made), (3, &expected));
    scene.done(&CALLS.add_storage_device, &[profile, identifier]).await;
    assert_eq!(count().await, 2);
    let unknown = scene.with(&[profile, ("deviceIdentifier", "none")]);
    let asked = &CALLS.add_storage_device;
    refused(&scene.owner, asked, &unknown, StatusCode::NOT_FOUND, "device.not_found").await;
}

#[tokio::test]
async fn everybody_in_a_directory_is_asked_in_its_pools() {
    let mut scene = Scene::new().await;
    let asked = &CALLS.create_voting_pool;
    let lunch = [("title", "Lunch"), ("question", "Now?")];
    let fields = scene.with(&lunch);
    let id = scene.owner.command(&asked.path, &fields).await;
    assert_eq!(scene.channel.settled(&id).await["body"], "policy.no_authenticator");

    scene.user("worker").await;
    let worker = scene.server.login("worker").await;
    let mut workers = worker.join().await;
    let stranger = scene.server.register("stranger").await;
    let foreign = stranger.authenticator(&mut stranger.join().await, "foreign").await;
    let own = scene.owner.authenticator(&mut scene.channel, "own").await;
    let phone = worker.authenticator(&mut workers, "phone").await;

    let pool = scene.done(asked, &lunch).await;
    let devices = |message: &Value| message["deviceIdentifiers"].clone();
    let told = workers.find(TYPE_BALLOT, &pool).await;
    assert_eq!((&told["title"], &told["question"]), (&json!("Lunch"), &json!("Now?")));
    assert_eq!(devices(&told), json!([phone.identifier]), "nobody else's devices");
    let told = scene.channel.find(TYPE_BALLOT, &pool).await;
    assert_eq!(devices(&told), json!([own.identifier]));

    let seen = scene.owner.pool(&pool).await;
    assert_eq!((&seen["strategy"], &seen["timeLimit"]), (&json!("unanimous"), &json!(300)));
    let ballots = seen["ballots"].as_array().unwrap();
    let names: Vec<_> = ballots.iter().map(|ballot| ballot["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["own", "phone"]);
    let path = format!("{}{pool}", governance::path::POOL_STATUS);
    assert_eq!(worker.get(&path).await.status(), StatusCode::FORBIDDEN, "it is the owner's");
    let refused_vote = scene.owner.cast(&foreign, &pool, "approve").await;
    assert_eq!(refused_vote.status(), StatusCode::FORBIDDEN);
    assert_eq!(scene.owner.vote(&own, &pool, "approve").await, "open");
    assert_eq!(worker.vote(&phone, &pool, "approve").await, "approved");

    // A configuration of the owner's, by name; one that is not there.
    scene.owner.configuration(&mut scene.channel, "one", "affirmative", 60).await;
    let one = [lunch[0], lunch[1], ("votingConfigurationId", "one")];
    let pool = scene.done(asked, &one).await;
    assert_eq!(scene.owner.pool(&pool).await["timeLimit"], 60);
    assert_eq!(worker.vote(&phone, &pool, "approve").await, "approved");
    let two = scene.with(&[lunch[0], lunch[1], ("votingConfigurationId", "two")]);
    names_the_field(&scene.owner, asked, &two, "votingConfigurationId").await;
    for missing in ["title", "question"] {
        let fields: Vec<_> =
            scene.with(&lunch).into_iter().filter(|(name, _)| *name != missing).collect();
        names_the_field(&scene.owner, asked, &fields, missing).await;
    }
}

#[tokio::test]
async fn meta_information_is_replaced_member_by_member() {
    let mut scene = Scene::new().await;
    let (guest, _) = scene.guest("guest").await;
    scene.done(&CALLS.store_meta, &[("meta[city]", "Oslo"), ("meta[a b]", "1")]).await;
    scene.done(&CALLS.store_meta, &[("meta[city]", "Bergen"), ("meta[a b]", "")]).await;
    let meta = json!({ "city": "Bergen" });
    let of = scene.with(&[]);
    assert_eq!(read(&guest, &CALLS.retrieve, &of).await["meta"], meta);
    assert_eq!(items(&guest, &CALLS.list_assigned, &[]).await[0]["meta"], meta);
    assert_eq!(items(&scene.owner, &CALLS.list_owned, &[]).await[0]["meta"], meta);
    let names: Vec<String> = (0..100).map(|i| format!("meta[{i}]")).collect();
    let many: Vec<_> = names.iter().map(|name| (name.as_str(), "x")).collect();
    let id = scene.owner.command(&CALLS.store_meta.path, &scene.with(&many)).await;
    assert_eq!(scene.channel.settled(&id).await["body"], "parameter.error");
    assert_eq!(read(&guest, &CALLS.retrieve, &scene.with(&[])).await["meta"], meta);
}

/// Fields that every call takes.
fn all_fields<'a>(directory: &'a str, profile: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("directoryId", directory),
        ("profileId", profile),
        ("invitationId", NOBODY),
        ("decision", "accept"),
        ("username", "somebody"),
        ("password", PASSWORD),
        ("newPassword", PASSWORD),
        ("deviceName", "vault"),
        ("deviceIdentifier", "none"),
        ("information[title]", "clerk"),
        ("meta[city]", "Oslo"),
        ("title", "Lunch"),
        ("question", "Now?"),
    ]
}

static WRITES: [&DirectoryCall; 8] = [
    &CALLS.create_user,
    &CALLS.update_user,
    &CALLS.invite,
    &CALLS.set_password,
    &CALLS.create_device,
    &CALLS.add_storage_device,
    &CALLS.create_voting_pool,
    &CALLS.store_meta,
];
static OWNER_READS: [&DirectoryCall; 2] = [&CALLS.list_invites, &CALLS.list_devices];
static READS: [&DirectoryCall; 4] =
    [&CALLS.retrieve, &CALLS.retrieve_profile, &CALLS.list_users, &CALLS.profiles_info];
static REST: [&DirectoryCall; 4] =
    [&CALLS.register, &CALLS.list_owned, &CALLS.list_assigned, &CALLS.process_invitation];

#[tokio::test]
async fn who_may_do_what() {
    let mut scene = Scene::new().await;
    let (guest, id) = scene.guest("guest").await;
    let stranger = scene.server.register("stranger").await;
    let fields = all_fields(&scene.directory, &id);
    let forbidden = StatusCode::FORBIDDEN;
    for asked in WRITES.into_iter().chain(OWNER_READS) {
        for who in [&guest, &stranger] {
            refused(who, asked, &fields, forbidden, "profile.not_an_owner").await;
        }
    }
    for asked in READS {
        refused(&stranger, asked, &fields, forbidden, "directory.not_a_member").await;
        assert_eq!(call(&guest, asked, &fields).await.status(), StatusCode::OK, "{asked}");
    }
    // Who accepted an invitation keeps its password and devices to itself.
    for asked in [&CALLS.set_password, &CALLS.create_device, &CALLS.add_storage_device] {
        let key = "directory.profile_not_managed";
        refused(&scene.owner, asked, &fields, forbidden, key).await;
    }
}

#[tokio::test]
async fn unknown_ids_are_404_and_missing_ones_422() {
    let scene = Scene::new().await;
    let owner = &scene.owner;
    let missing = StatusCode::NOT_FOUND;
    for asked in WRITES.into_iter().chain(OWNER_READS).chain(READS) {
        for unknown in [NOBODY, "works"] {
            let fields = all_fields(unknown, NOBODY);
            refused(owner, asked, &fields, missing, "directory.not_found").await;
        }
        if asked != &CALLS.list_invites {
            let fields = all_fields(&scene.directory, NOBODY);
            names_the_field(owner, asked, &fields[1..], "directoryId").await;
        }
    }
    let of_profile = [
        &CALLS.update_user,
        &CALLS.set_password,
        &CALLS.create_device,
        &CALLS.add_storage_device,
        &CALLS.retrieve_profile,
    ];
    for asked in of_profile {
        let mut fields = all_fields(&scene.directory, NOBODY);
        refused(owner, asked, &fields, missing, "directory.profile_not_found").await;
        fields.remove(1);
        names_the_field(owner, asked, &fields, "profileId").await;
    }
    let fields = scene.with(&[("profileIds[]", NOBODY)]);
    let key = "directory.profile_not_found";
    refused(owner, &CALLS.profiles_info, &fields, missing, key).await;
    let fields = [("invitationId", NOBODY), ("decision", "accept")];
    let key = "directory.invitation_not_found";
    refused(owner, &CALLS.process_invitation, &fields, missing, key).await;
}

#[tokio::test]
async fn credentials_and_methods_are_checked_on_every_call() {
    let scene = Scene::new().await;
    let nobody = scene.server.anonymous();
    let fields = all_fields(&scene.directory, NOBODY);
    for asked in WRITES.into_iter().chain(OWNER_READS).chain(READS).chain(REST) {
        let reply = call(&nobody, asked, &fields).await;
        assert_eq!(reply.status(), StatusCode::UNAUTHORIZED, "{asked}");
        let other = if asked.method == CallMethod::Get { Method::POST } else { Method::GET };
        let reply = scene.owner.request(other, &asked.path).send().await.unwrap();
        assert_eq!(reply.status(), StatusCode::METHOD_NOT_ALLOWED, "{asked}");
    }
}

#[tokio::test]
async fn directories_survive_a_restart() {
    let mut scene = Scene::new().await;
    let worker = scene.user("worker").await;
    scene.guest("guest").await;
    scene.server.register("bob").await;
    scene.done(&CALLS.invite, &[("username", "bob")]).await;
    scene.done(&CALLS.store_meta, &[("meta[city]", "Oslo")]).await;
    let profile = ("profileId", worker.as_str());
    scene.done(&CALLS.update_user, &[profile, ("information[title]", "clerk")]).await;
    scene.done(&CALLS.create_device, &[profile, ("deviceName", "vault")]).await;
    let calls = [
        &CALLS.list_owned,
        &CALLS.retrieve,
        &CALLS.list_users,
        &CALLS.profiles_info,
        &CALLS.list_invites,
        &CALLS.list_devices,
    ];
    let mut before = Vec::new();
    for asked in calls {
        before.push(read(&scene.owner, asked, &scene.with(&[])).await);
    }
    scene.server.restart().await;
    scene.owner = scene.server.login(USER).await;
    for (asked, before) in calls.into_iter().zip(before) {
        assert_eq!(read(&scene.owner, asked, &scene.with(&[])).await, before, "{asked}");
    }
    let bob = scene.server.login("bob").await;
    assert_eq!(items(&bob, &CALLS.list_invites, &[]).await.len(), 1);
    let guest = scene.server.login("guest").await;
    assert_eq!(items(&guest, &CALLS.list_assigned, &[]).await.len(), 1);
    scene.server.login("worker").await;
}
