//! The client's calls of the directory family, against the engine.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::HeaderName;
use axum::response::IntoResponse;
use privicorefs::engine::{Fault, ListForm, Shape, When};
use privicorefs::env::Env;
use privicorefs::privicore::{Client, ClientConfig, Secret};
use privicorefs::protocol::directory::{
    CallMethod, DirectoryCalls, DirectoryFields, DirectoryTable,
};
use privicorefs::protocol::governance::path;
use privicorefs::protocol::{self, AUTHORIZATION, COMMAND_ID};
use privicorefs::store::{StoreErrorKind, StoreResult};
use serde_json::Value;
use url::{Url, form_urlencoded};

use crate::house::Connected;

const PASSWORD: &str = "correct horse battery staple 8";
static CALLS: DirectoryCalls = DirectoryCalls::ENGINE;
static FIELDS: DirectoryFields = DirectoryFields::ENGINE;

fn kind<T: std::fmt::Debug>(outcome: StoreResult<T>) -> StoreErrorKind {
    outcome.unwrap_err().kind
}

fn as_user(config: &ClientConfig, username: &str, password: &str) -> ClientConfig {
    let (username, password) = (username.to_owned(), password.into());
    ClientConfig { username, password, ..config.clone() }
}

async fn client_of(connected: &Connected, username: &str) -> Arc<Client> {
    let config = as_user(&connected.config, username, PASSWORD);
    Client::register(config.clone(), Env::system()).await.unwrap();
    Client::connect(config, Env::system()).await.unwrap()
}

fn map(members: &[(&str, &str)]) -> BTreeMap<String, String> {
    members.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_and_its_users() {
    for list in [ListForm::Items, ListForm::Array] {
        let connected = Connected::with(Shape { list, ..Shape::default() }).await;
        every_call(&connected.client, &connected.config).await;
        connected.end().await;
    }
}

/// Every call of the family but those of invitations and votes.
async fn every_call(owner: &Client, config: &ClientConfig) {
    let id = owner.register_directory("works").await.unwrap();
    owner.store_directory_meta(&id, &map(&[("city", "Oslo"), ("a", "1")])).await.unwrap();
    owner.store_directory_meta(&id, &map(&[("a", "")])).await.unwrap();
    let found = owner.directory(&id).await.unwrap();
    assert_eq!((found.name.as_str(), found.role.as_deref()), ("works", Some("owner")));
    assert_eq!(found.meta, map(&[("city", "Oslo")]));
    assert_eq!(owner.owned_directories().await.unwrap(), [found]);
    assert_eq!(owner.assigned_directories().await.unwrap(), []);

    let password = Secret::new(PASSWORD);
    let worker = owner.create_directory_user(&id, "worker", &password).await.unwrap();
    let known = map(&[("title", "clerk")]);
    owner.update_directory_user(&id, &worker, &known).await.unwrap();
    let profile = owner.directory_profile(&id, &worker).await.unwrap();
    assert_eq!(profile.username.as_deref(), Some("worker"));
    assert_eq!((profile.role.as_deref(), &profile.information), (Some("member"), &known));
    let infos = owner.directory_profiles(&id, &[&worker]).await.unwrap();
    assert_eq!(infos, [profile]);
    assert_eq!(owner.directory_users(&id).await.unwrap().len(), 2);

    let new = Secret::new("another good password 9");
    owner.set_profile_password(&id, &worker, &new).await.unwrap();
    let config = as_user(config, "worker", new.expose());
    let login = Client::connect(config, Env::system()).await.unwrap();
    assert_eq!(login.assigned_directories().await.unwrap().len(), 1);
    login.close().await;

    let device = owner.create_profile_device(&id, &worker, "vault").await.unwrap();
    owner.add_profile_storage(&id, &worker, &device).await.unwrap();
    let devices = owner.directory_devices(&id).await.unwrap();
    let made = devices.iter().find(|found| found.identifier == device).unwrap();
    assert_eq!((made.name.as_deref(), made.storage), (Some("vault"), Some(true)));
    assert_eq!(made.profile.as_ref(), Some(&worker));
}

fn http() -> reqwest::Client {
    // Another test of the same process may have chosen it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}

/// An authenticator of a client's profile, with calls that the client does not have.
async fn authenticator(connected: &Connected, client: &Client, name: &str) {
    let token = client.authorize().await.unwrap().token;
    let http = http();
    let api_url = connected.config.api_url.as_str().trim_end_matches('/').to_owned();
    let post = async |path: &str, form: &[(&str, &str)]| {
        let request = http.post(format!("{api_url}{path}")).form(form);
        let reply = request.header(AUTHORIZATION, token.expose()).send().await.unwrap();
        assert!(reply.status().is_success(), "{path}: {}", reply.status());
        let id = reply.headers().get(COMMAND_ID).map(|id| id.to_str().unwrap().to_owned());
        (id, reply.text().await.unwrap())
    };
    let (asked, _) = post(path::DEVICE_REQUEST, &[("deviceName", name)]).await;
    let found = loop {
        let form = [("id", asked.as_deref().unwrap())];
        let request = http.post(format!("{api_url}{}", path::DEVICE_IDENTIFIER)).form(&form);
        let reply = request.header(AUTHORIZATION, token.expose()).send().await.unwrap();
        if reply.status().is_success() {
            break serde_json::from_str::<Value>(&reply.text().await.unwrap()).unwrap();
        }
    };
    let device = [("deviceIdentifier", found["deviceIdentifier"].as_str().unwrap())];
    for path in [path::DEVICE_APPROVE, path::AUTHENTICATOR_REGISTER] {
        let (id, _) = post(path, &device).await;
        let status = format!("{}{}", protocol::path::REQUEST_STATUS, id.unwrap());
        loop {
            let request = http.get(format!("{api_url}{status}"));
            let reply = request.header(AUTHORIZATION, token.expose()).send().await.unwrap();
            let text = reply.text().await.unwrap();
            assert!(!text.contains("failed"), "{text}");
            if text.contains("succeeded") {
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_is_opened_for_everybody_in_a_directory() {
    let connected = Connected::new().await;
    let owner = &*connected.client;
    let id = owner.register_directory("works").await.unwrap();
    let opened = |configuration| owner.create_directory_voting_pool(&id, "t", "q?", configuration);
    let refused = opened(None).await.unwrap_err();
    assert!(refused.message.contains("no_authenticator"), "{refused}");
    authenticator(&connected, owner, "phone").await;
    assert!(!opened(None).await.unwrap().is_empty());
    let unknown = opened(Some("none")).await.unwrap_err();
    assert_eq!(unknown.kind, StoreErrorKind::Invalid);
    assert!(unknown.message.contains("votingConfigurationId"), "{unknown}");
    connected.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_is_answered() {
    let connected = Connected::new().await;
    let owner = &*connected.client;
    let guest = client_of(&connected, "guest").await;
    let mine = guest.register_directory("mine").await.unwrap();
    let guest_id = guest.directory_users(&mine).await.unwrap()[0].profile.clone();
    let id = owner.register_directory("works").await.unwrap();
    let first = owner.invite_profile(&id, &guest_id).await.unwrap();
    let waiting = owner.directory_invitations(Some(&id)).await.unwrap();
    assert_eq!(guest.directory_invitations(None).await.unwrap(), waiting);
    assert_eq!((&waiting[0].id, waiting[0].profile.as_ref()), (&first, Some(&guest_id)));
    assert_eq!(waiting[0].directory_name.as_deref(), Some("works"));
    guest.process_directory_invitation(&first, false).await.unwrap();
    assert_eq!(kind(guest.directory(&id).await), StoreErrorKind::Denied);
    let second = owner.invite_profile(&id, &guest_id).await.unwrap();
    assert_eq!(
        kind(owner.process_directory_invitation(&second, true).await),
        StoreErrorKind::Denied
    );
    guest.process_directory_invitation(&second, true).await.unwrap();
    assert_eq!(guest.directory(&id).await.unwrap().role.as_deref(), Some("member"));
    assert_eq!(kind(owner.invite_profile(&id, &guest_id).await), StoreErrorKind::Invalid);
    let password = Secret::new(PASSWORD);
    let refused = owner.set_profile_password(&id, &guest_id, &password).await;
    assert_eq!(kind(refused), StoreErrorKind::Denied);
    assert_eq!(kind(guest.directory_devices(&id).await), StoreErrorKind::Denied);
    guest.close().await;
    connected.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_call_is_told_from_a_missing_record() {
    let connected = Connected::new().await;
    let client = &*connected.client;
    let id = client.register_directory("works").await.unwrap();
    assert_eq!(kind(client.directory("none").await), StoreErrorKind::NotFound);
    assert_eq!(kind(client.directory_profile(&id, "none").await), StoreErrorKind::NotFound);
    let none = client.process_directory_invitation("none", true).await;
    assert_eq!(kind(none), StoreErrorKind::NotFound);
    assert_eq!(kind(client.register_directory("").await), StoreErrorKind::Invalid);
    for code in [404, 405, 501] {
        let absent = Fault::Status { code, retry_after: None };
        for call in [&CALLS.retrieve, &CALLS.list_owned] {
            connected.fault(&call.path, absent.clone(), When::Always);
            let asked = match call == &CALLS.retrieve {
                true => client.directory(&id).await.map(drop),
                false => client.owned_directories().await.map(drop),
            };
            let error = asked.unwrap_err();
            assert_eq!(error.kind, StoreErrorKind::Unsupported, "{code} {call}");
            assert!(error.message.contains("does not offer this call"), "{error}");
        }
    }
    connected.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_of_a_configuration_is_followed() {
    let connected = Connected::new().await;
    let mut config = connected.config.clone();
    let text = "[calls]\nregister = \"PUT /elsewhere\"\n\
                list_owned = \"GET /of/{page}/by/{perPage}\"";
    config.directory = toml::from_str(text).unwrap();
    let client = Client::connect(config, Env::system()).await.unwrap();
    assert_eq!(kind(client.register_directory("works").await), StoreErrorKind::Unsupported);
    assert_eq!(kind(client.owned_directories().await), StoreErrorKind::Unsupported);
    assert_eq!(client.assigned_directories().await.unwrap(), []);
    // The engine has neither route, and counts them as unknown.
    let unknown = |method: &str| connected.requests(&format!("{method} (unknown)"));
    assert_eq!((unknown("PUT"), unknown("GET")), (1, 1));
    client.close().await;
    connected.end().await;
}

/// Another service's table: other methods, paths, fields and words.
fn other_table() -> DirectoryTable {
    let mut text = "[calls]\n".to_owned();
    for (key, call) in CALLS.each() {
        let method = if call.method == CallMethod::Get { "GET" } else { "PUT" };
        let slot = if key == "retrieve" { "/{x-directory_id}" } else { "" };
        text += &format!("{key} = \"{method} /v2/{key}{slot}\"\n");
    }
    text += "[fields]\n";
    for (key, _) in FIELDS.each() {
        text += &format!("{key} = \"x-{key}\"\n");
    }
    text += "[values]\naccept = \"yes\"\ndecline = \"no\"\n";
    toml::from_str(&text).unwrap()
}

/// The engine's name of a field of [`other_table`]; `None` for one of its own names.
fn engine_name(name: &str) -> Option<String> {
    let (name, rest) = name.split_at(name.find('[').unwrap_or(name.len()));
    let key = name.strip_prefix("x-")?;
    let found = FIELDS.each().into_iter().find(|(known, _)| *known == key);
    found.map(|(_, name)| format!("{}{rest}", &**name))
}

/// Form or query of [`other_table`] in the engine's names. Nothing else may be in it.
fn in_engine_names(pairs: &str) -> String {
    let mut made = form_urlencoded::Serializer::new(String::new());
    for (name, value) in form_urlencoded::parse(pairs.as_bytes()) {
        let name = engine_name(&name).unwrap_or_else(|| panic!("{name} is not in the table"));
        let value = match (name.as_str(), &*value) {
            ("decision", "yes") => "accept",
            ("decision", "no") => "decline",
            ("decision", other) => panic!("{other}"),
            _ => &value,
        };
        made.append_pair(&name, value);
    }
    made.finish()
}

/// The members of a reply, renamed; those of `meta` and `information` are not fields.
fn in_other_names(json: Value, listed: &str) -> Value {
    let other = |name: String| {
        let known = FIELDS.each().into_iter().find(|(_, found)| ***found == name);
        match known {
            Some(("name", _)) if listed == "list_devices" => "x-device_name".to_owned(),
            Some((key, _)) => format!("x-{key}"),
            None => name,
        }
    };
    match json {
        Value::Array(items) => items.into_iter().map(|item| in_other_names(item, listed)).collect(),
        Value::Object(members) => {
            let renamed =
                members.into_iter().filter(|(name, _)| name != "id").map(|(name, value)| {
                    let deeper = name == "items";
                    (other(name), if deeper { in_other_names(value, listed) } else { value })
                });
            Value::Object(renamed.collect())
        }
        other => other,
    }
}

/// A service of [`other_table`]: the engine, spoken to in its own names.
async fn other_service(engine: Url) -> Url {
    let http = http();
    let router = Router::new().fallback(move |request: Request| {
        let (http, engine) = (http.clone(), engine.clone());
        async move {
            let (parts, body) = request.into_parts();
            let mut body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
            let (mut method, mut path) = (parts.method, parts.uri.path().to_owned());
            let mut query = parts.uri.query().map(str::to_owned);
            assert!(!path.starts_with("/directory/"), "{path}");
            let key = path.strip_prefix("/v2/").map(str::to_owned);
            if let Some(key) = &key {
                let (key, slot) = key.split_once('/').unwrap_or((key, ""));
                let call = CALLS.each().into_iter().find(|(known, _)| *known == key);
                let call = call.unwrap().1.clone();
                query = query.map(|query| in_engine_names(&query));
                if !slot.is_empty() {
                    query = Some(format!("directoryId={slot}"));
                }
                body = in_engine_names(std::str::from_utf8(&body).unwrap()).into();
                assert_eq!(method == "GET", call.method == CallMethod::Get, "{key}");
                method = call.method.as_str().parse().unwrap();
                path = call.path.into_owned();
            }
            let mut url = engine.join(&path).unwrap();
            url.set_query(query.as_deref());
            let mut asked = http.request(method, url).body(body);
            for name in ["content-type", AUTHORIZATION] {
                if let Some(value) = parts.headers.get(name) {
                    asked = asked.header(name, value);
                }
            }
            let reply = asked.send().await.unwrap();
            let (status, headers) = (reply.status(), reply.headers().clone());
            let mut bytes = reply.bytes().await.unwrap();
            if let (Some(key), Ok(json)) = (&key, serde_json::from_slice(&bytes)) {
                bytes = in_other_names(json, key).to_string().into();
            }
            let mut response = (status, bytes).into_response();
            for name in ["content-type", COMMAND_ID] {
                if let Some(value) = headers.get(name) {
                    response.headers_mut().insert(HeaderName::from_static(name), value.clone());
                }
            }
            response
        }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_follows_the_table_of_another_service() {
    let connected = Connected::new().await;
    let mut config = connected.config.clone();
    config.directory = other_table();
    config.api_url = other_service(config.api_url).await;
    let owner = Client::connect(config.clone(), Env::system()).await.unwrap();
    every_call(&owner, &config).await;

    let guest = client_of(&connected, "guest").await;
    let guest_id = guest.whoami().await.unwrap().profile;
    let config = as_user(&config, "guest", PASSWORD);
    let guest = Client::connect(config, Env::system()).await.unwrap();
    let id = owner.register_directory("second").await.unwrap();
    for accept in [false, true] {
        let invitation = owner.invite_profile(&id, &guest_id).await.unwrap();
        let waiting = guest.directory_invitations(None).await.unwrap();
        assert_eq!(owner.directory_invitations(Some(&id)).await.unwrap(), waiting);
        assert_eq!(waiting[0].directory_name.as_deref(), Some("second"));
        guest.process_directory_invitation(&invitation, accept).await.unwrap();
    }
    assert_eq!(guest.directory(&id).await.unwrap().role.as_deref(), Some("member"));
    let pool = owner.create_directory_voting_pool(&id, "t", "q?", None).await.unwrap_err();
    assert!(pool.message.contains("no_authenticator"), "{pool}");
    for client in [owner, guest] {
        client.close().await;
    }
    connected.end().await;
}
