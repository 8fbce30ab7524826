//! The engine over the wire: OAuth applications and what their tokens may do (C.11, C.2).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use privicorefs::protocol::{self, oauth, old_path, path};
use reqwest::header::AUTHORIZATION;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::house::Server;
use crate::house::wire::{Channel, PASSWORD, USER, WireClient, body, header, with_query};

const HOOK: &str = "https://app.example.com/hook";
const NONCE: &str = "n-1";

/// A registered application with its secret.
struct Application {
    id: String,
    client_id: String,
    secret: String,
}

impl Application {
    fn basic(&self) -> String {
        STANDARD.encode(format!("{}:{}", self.client_id, self.secret))
    }
}

async fn register(client: &WireClient, channel: &mut Channel, scopes: &str) -> String {
    let form = [("name", "reader"), ("redirectUri", HOOK), ("scopes", scopes)];
    let id = client.command(oauth::REGISTER, &form).await;
    channel.ack(&id).await;
    id
}

async fn application(client: &WireClient, channel: &mut Channel, scopes: &str) -> Application {
    let id = register(client, channel, scopes).await;
    let reply = client.post(oauth::CONFIGURATION, &[("applicationId", &id)]).await;
    assert_eq!(reply.status(), StatusCode::OK);
    let found = body(reply).await;
    let text = |name: &str| found[name].as_str().unwrap().to_owned();
    Application { id, client_id: text("clientId"), secret: text("clientSecret") }
}

async fn ask(client: &WireClient, application: &Application, scopes: &[&str]) -> Response {
    let mut query = vec![("client_id", application.client_id.as_str()), ("nonce", NONCE)];
    query.extend(scopes.iter().map(|scope| ("scope[]", *scope)));
    client.get(&with_query(oauth::REQUEST_CODE, &query)).await
}

async fn consent(
    client: &WireClient,
    channel: &mut Channel,
    application: &Application,
    scopes: &[&str],
) -> String {
    let reply = ask(client, application, scopes).await;
    assert_eq!(reply.status(), StatusCode::ACCEPTED);
    let id = header(&reply, protocol::COMMAND_ID);
    channel.ack(&id).await;
    id
}

/// A call whose only credential is what follows `Basic`.
async fn basic(server: &Server, path: &str, credential: &str, form: &[(&str, &str)]) -> Response {
    let method = if path == oauth::SCOPE { Method::GET } else { Method::POST };
    let request = server.anonymous().request(method, path);
    request.header(AUTHORIZATION, format!("Basic {credential}")).form(form).send().await.unwrap()
}

async fn code(server: &Server, application: &Application, request: &str) -> Response {
    let form = [("id", request), ("nonce", NONCE)];
    basic(server, oauth::RETRIEVE_CODE, &application.basic(), &form).await
}

async fn expect(reply: Response, status: StatusCode, key: &str) -> Value {
    let (found, said) = (reply.status(), body(reply).await);
    assert_eq!((found, said["error"].as_str().unwrap()), (status, key), "{said}");
    said
}

async fn names_the_field(reply: Response, field: &str) {
    let said = expect(reply, StatusCode::UNPROCESSABLE_ENTITY, "parameter.error").await;
    assert!(said["errors"][field].is_array(), "{field}: {said}");
}

/// A pair of tokens for `scopes`, by way of every step.
async fn pair(
    server: &Server,
    client: &WireClient,
    channel: &mut Channel,
    application: &Application,
    scopes: &[&str],
) -> Value {
    let request = consent(client, channel, application, scopes).await;
    let retrieved = body(code(server, application, &request).await).await;
    let code = retrieved["authorizationCode"].as_str().unwrap();
    let form = [("authorization_code", code)];
    let reply = basic(server, oauth::OBTAIN_TOKEN, &application.basic(), &form).await;
    assert_eq!(reply.status(), StatusCode::OK);
    body(reply).await
}

fn acting(client: &WireClient, pair: &Value) -> WireClient {
    client.clone().with_token(Some(pair["token"].as_str().unwrap().to_owned()))
}

#[tokio::test]
async fn the_chain_from_registration_to_a_token_that_works() {
    let server = Server::new().await;
    let (client, mut channel) = server.user().await;
    let id = register(&client, &mut channel, "data_token.all, profile.all").await;
    let reply = client.post(oauth::CONFIGURATION, &[("applicationId", &id)]).await;
    let found = body(reply).await;
    let text = |name: &str| found[name].as_str().unwrap().to_owned();
    let application =
        Application { id: id.clone(), client_id: text("clientId"), secret: text("clientSecret") };
    let profile = body(client.get(path::PROFILE_ID).await).await["profileId"].clone();
    let expected = json!({
        "applicationId": id, "id": id, "name": "reader", "title": "reader",
        "clientId": application.client_id, "client_id": application.client_id,
        "clientSecret": application.secret, "client_secret": application.secret,
        "redirectUri": HOOK, "redirect_uri": HOOK, "profile_id": profile,
        "scopes": ["data_token.all", "profile.all"],
        "createdAt": "2023-11-14T22:13:20+00:00", "created_at": "2023-11-14T22:13:20+00:00",
    });
    assert_eq!(found, expected);

    let request = consent(&client, &mut channel, &application, &["data_token.all"]).await;
    let retrieved = body(code(&server, &application, &request).await).await;
    assert_eq!(retrieved["clientId"], json!(application.client_id));
    assert_eq!(retrieved["nonce"], NONCE);
    assert_eq!(retrieved["expiresAt"], "2023-11-14T22:23:20+00:00");
    let form = [("authorization_code", retrieved["authorizationCode"].as_str().unwrap())];
    let obtained = basic(&server, oauth::OBTAIN_TOKEN, &application.basic(), &form).await;
    let obtained = body(obtained).await;
    assert_eq!(obtained["clientId"], json!(application.client_id));
    assert_eq!(
        (&obtained["type"], &obtained["scope"]),
        (&json!("bearer"), &json!("data_token.all"))
    );
    assert_eq!(obtained["expiresAt"], "2023-11-14T23:13:20+00:00");
    assert_eq!(obtained["refreshTokenExpiresAt"], "2023-12-14T22:13:20+00:00");

    let token = obtained["token"].as_str().unwrap();
    let scope = basic(&server, oauth::SCOPE, token, &[]).await;
    assert_eq!(body(scope).await, json!(["data_token.all"]));
    let acting = acting(&client, &obtained);
    let mut own = acting.join().await;
    let stored = acting.store(&mut own, "/", "by-token", b"x").await;
    assert_eq!(client.fetch(&mut channel, &stored).await, b"x");
}

#[tokio::test]
async fn registration_takes_both_sets_of_names_and_checks_them() {
    let server = Server::new().await;
    let (client, mut channel) = server.user().await;
    let older = [("title", "older"), ("redirect_uri", HOOK)];
    let id = client.command(oauth::REGISTER, &older).await;
    channel.ack(&id).await;
    let found = body(client.post(oauth::CONFIGURATION, &[("id", &id)]).await).await;
    assert_eq!((&found["title"], &found["scopes"]), (&json!("older"), &json!(["all"])));

    let table: [(&[(&str, &str)], &str); 7] = [
        (&[("redirectUri", HOOK)], "name"),
        (&[("name", ""), ("redirectUri", HOOK)], "name"),
        (&[("title", ""), ("redirect_uri", HOOK)], "title"),
        (&[("name", "n")], "redirectUri"),
        (&[("name", "n"), ("redirectUri", "/hook")], "redirectUri"),
        (&[("name", "n"), ("redirectUri", "https://a.b/#part")], "redirectUri"),
        (&[("name", "n"), ("redirectUri", HOOK), ("scopes", "all,files.read")], "scopes"),
    ];
    for (form, field) in table {
        names_the_field(client.post(oauth::REGISTER, form).await, field).await;
    }
}

#[tokio::test]
async fn a_configuration_is_given_once_and_to_its_owner() {
    let server = Server::new().await;
    let (client, mut channel) = server.user().await;
    let id = register(&client, &mut channel, "all").await;
    let bob = server.register("bob").await;
    let form = [("applicationId", id.as_str())];
    let foreign = bob.post(oauth::CONFIGURATION, &form).await;
    expect(foreign, StatusCode::FORBIDDEN, "profile.not_an_owner").await;
    assert_eq!(client.post(oauth::CONFIGURATION, &form).await.status(), StatusCode::OK);
    for form in [form, [("id", id.as_str())]] {
        let again = client.post(oauth::CONFIGURATION, &form).await;
        let key = "oauth.already_retrieved";
        let said = expect(again, StatusCode::UNPROCESSABLE_ENTITY, key).await;
        assert!(said["errors"]["applicationId"].is_array());
    }
    for unknown in ["nothing", "019735db-f8f7-7c08-8893-8f3a6f44a244"] {
        let reply = client.post(oauth::CONFIGURATION, &[("applicationId", unknown)]).await;
        expect(reply, StatusCode::NOT_FOUND, "oauth.application_not_found").await;
    }
    names_the_field(client.post(oauth::CONFIGURATION, &[]).await, "applicationId").await;
}

#[tokio::test]
async fn a_code_is_bound_to_nonce_and_application_and_good_once() {
    let server = Server::new().await;
    let (client, mut channel) = server.user().await;
    let one = application(&client, &mut channel, "all").await;
    let two = application(&client, &mut channel, "all").await;
    let request = consent(&client, &mut channel, &one, &[]).await;

    let retrieve = oauth::RETRIEVE_CODE;
    let wrong = STANDARD.encode(format!("{}:{}", one.client_id, two.secret));
    for credential in [wrong.as_str(), "", "nonsense", &STANDARD.encode("no colon")] {
        let form = [("id", request.as_str()), ("nonce", NONCE)];
        let reply = basic(&server, retrieve, credential, &form).await;
        expect(reply, StatusCode::UNAUTHORIZED, "profile.invalid_credentials").await;
    }
    let foreign = code(&server, &two, &request).await;
    expect(foreign, StatusCode::FORBIDDEN, "profile.not_an_owner").await;
    let form = [("id", request.as_str()), ("nonce", "n-2")];
    names_the_field(basic(&server, retrieve, &one.basic(), &form).await, "nonce").await;
    names_the_field(basic(&server, retrieve, &one.basic(), &form[..1]).await, "nonce").await;
    names_the_field(basic(&server, retrieve, &one.basic(), &form[1..]).await, "id").await;
    let unknown = code(&server, &one, &one.id).await;
    expect(unknown, StatusCode::NOT_FOUND, "oauth.code_not_found").await;

    let retrieved = body(code(&server, &one, &request).await).await;
    let again = code(&server, &one, &request).await;
    let key = "oauth.already_retrieved";
    expect(again, StatusCode::UNPROCESSABLE_ENTITY, key).await;

    let form = [("authorization_code", retrieved["authorizationCode"].as_str().unwrap())];
    let obtain = oauth::OBTAIN_TOKEN;
    let foreign = basic(&server, obtain, &two.basic(), &form).await;
    expect(foreign, StatusCode::FORBIDDEN, "profile.not_an_owner").await;
    let nobody = basic(&server, obtain, "C-guess", &form).await;
    expect(nobody, StatusCode::UNAUTHORIZED, "profile.invalid_credentials").await;
    let missing = basic(&server, obtain, &one.basic(), &[]).await;
    names_the_field(missing, "authorization_code").await;
    let reply = basic(&server, obtain, &one.basic(), &form).await;
    assert_eq!(reply.status(), StatusCode::OK);
    let used = basic(&server, obtain, &one.basic(), &form).await;
    expect(used, StatusCode::NOT_FOUND, "oauth.code_not_found").await;
    let used = basic(&server, obtain, form[0].1, &form).await;
    expect(used, StatusCode::NOT_FOUND, "oauth.code_not_found").await;
}

#[tokio::test]
async fn the_code_itself_is_a_credential_too_and_codes_expire() {
    let server = Server::new().await;
    let (client, mut channel) = server.user().await;
    let one = application(&client, &mut channel, "all").await;
    let retrieved = async |request: &str| {
        let found = body(code(&server, &one, request).await).await;
        found["authorizationCode"].as_str().unwrap().to_owned()
    };
    let request = consent(&client, &mut channel, &one, &["all"]).await;
    let kept = retrieved(&request).await;
    let form = [("authorization_code", kept.as_str())];
    let reply = basic(&server, oauth::OBTAIN_TOKEN, &kept, &form).await;
    assert_eq!(body(reply).await["scope"], "all");

    let early = consent(&client, &mut channel, &one, &[]).await;
    let late = consent(&client, &mut channel, &one, &[]).await;
    let kept = retrieved(&early).await;
    server.clock.advance(Duration::from_secs(601));
    let gone = code(&server, &one, &late).await;
    expect(gone, StatusCode::NOT_FOUND, "oauth.code_not_found").await;
    let form = [("authorization_code", kept.as_str())];
    let gone = basic(&server, oauth::OBTAIN_TOKEN, &one.basic(), &form).await;
    expect(gone, StatusCode::NOT_FOUND, "oauth.code_not_found").await;
}

#[tokio::test]
async fn any_profile_may_let_an_application_act_but_for_no_more_than_was_registered() {
    let server = Server::new().await;
    let (client, mut channel) = server.user().await;
    let one = application(&client, &mut channel, "data_token.all,storage.register").await;
    let bob = server.register("bob").await;
    let mut bobs = bob.join().await;
    let pair = pair(&server, &bob, &mut bobs, &one, &["data_token.list_data_tokens"]).await;
    bob.store(&mut bobs, "/", "bobs", b"x").await;
    assert_eq!(acting(&bob, &pair).names(&[]).await, ["bobs"]);

    let unknown = Application { client_id: "none".to_owned(), ..one };
    let reply = ask(&bob, &unknown, &[]).await;
    expect(reply, StatusCode::NOT_FOUND, "oauth.application_not_found").await;
    let listed = body(client.get(oauth::LIST).await).await;
    let client_id = listed["items"][0]["clientId"].as_str().unwrap();
    let known = Application { client_id: client_id.to_owned(), ..unknown };
    for scope in ["all", "storage.all", "device.all", "nonsense"] {
        names_the_field(ask(&bob, &known, &[scope]).await, "scope").await;
    }
    for field in ["client_id", "nonce"] {
        let query = [("client_id", client_id), ("nonce", NONCE)];
        let query: Vec<_> = query.into_iter().filter(|(name, _)| *name != field).collect();
        names_the_field(bob.get(&with_query(oauth::REQUEST_CODE, &query)).await, field).await;
    }
}

#[tokio::test]
async fn a_token_does_what_its_scopes_cover_and_nothing_else() {
    let server = Server::new().await;
    let (client, mut channel) = server.user().await;
    let one = application(&client, &mut channel, "all").await;
    let scopes = ["storage.all", "data_token.list_data_tokens", "oauth.all"];
    let narrow = pair(&server, &client, &mut channel, &one, &scopes).await;
    let narrow = acting(&client, &narrow);
    for allowed in [path::STORAGE_LIST, path::LIST, path::SCOPE, old_path::EXPIRY, oauth::LIST] {
        assert_eq!(narrow.get(allowed).await.status(), StatusCode::OK, "{allowed}");
    }
    assert_eq!(body(narrow.get(path::SCOPE).await).await, json!(scopes));
    for refused in [path::PROFILE_ID, path::OWN_KEY, path::ENGINE_KEY] {
        let reply = narrow.get(refused).await;
        expect(reply, StatusCode::FORBIDDEN, "oauth.insufficient_scope").await;
    }
    for refused in [path::RESERVE, path::REQUEST_DATA, path::DELETE, path::CHANGE_PASSWORD] {
        let reply = narrow.post(refused, &[]).await;
        expect(reply, StatusCode::FORBIDDEN, "oauth.insufficient_scope").await;
    }
    // It cannot give itself more, nor listen to answers that are not for it.
    expect(ask(&narrow, &one, &["all"]).await, StatusCode::FORBIDDEN, "oauth.insufficient_scope")
        .await;
    let mut socket = narrow.connect().await;
    let joining = json!({ "authorizationToken": narrow.token });
    assert_eq!(socket.ask("joinChannel", joining).await["status"], 403);

    let all = pair(&server, &client, &mut channel, &one, &["all"]).await;
    let acting = acting(&client, &all);
    assert_eq!(acting.get(path::PROFILE_ID).await.status(), StatusCode::OK);
    let reply = acting.post(path::REAUTHORIZE, &[]).await;
    expect(reply, StatusCode::FORBIDDEN, "oauth.insufficient_scope").await;
    assert_eq!(acting.post(path::REVOKE, &[]).await.status(), StatusCode::OK);
    assert_eq!(acting.get(path::PROFILE_ID).await.status(), StatusCode::UNAUTHORIZED);
    let refresh = [("refresh_token", all["refreshToken"].as_str().unwrap())];
    let token = all["token"].as_str().unwrap();
    let reply = basic(&server, oauth::REFRESH_TOKEN, token, &refresh).await;
    expect(reply, StatusCode::UNAUTHORIZED, "authorization.invalid_token").await;
}

#[tokio::test]
async fn a_pair_is_refreshed_and_the_old_one_is_dead() {
    let server = Server::new().await;
    let (client, mut channel) = server.user().await;
    let one = application(&client, &mut channel, "all").await;
    let old = pair(&server, &client, &mut channel, &one, &["profile.all"]).await;
    let token = |pair: &Value| pair["token"].as_str().unwrap().to_owned();
    let refresh = async |pair: &Value, refresh: &Value| {
        let form = [("refresh_token", refresh.as_str().unwrap())];
        basic(&server, oauth::REFRESH_TOKEN, &token(pair), &form).await
    };
    let other = pair(&server, &client, &mut channel, &one, &[]).await;
    names_the_field(refresh(&old, &other["refreshToken"]).await, "refresh_token").await;
    let missing = basic(&server, oauth::REFRESH_TOKEN, &token(&old), &[]).await;
    names_the_field(missing, "refresh_token").await;

    // The access token has expired, and is refreshed all the same.
    server.clock.advance(Duration::from_secs(3_600));
    let reply = acting(&client, &old).get(path::PROFILE_ID).await;
    assert_eq!(reply.status(), StatusCode::UNAUTHORIZED);
    let scope = basic(&server, oauth::SCOPE, &token(&old), &[]).await;
    assert_eq!(scope.status(), StatusCode::UNAUTHORIZED);
    let new = refresh(&old, &old["refreshToken"]).await;
    assert_eq!(new.status(), StatusCode::OK);
    let new = body(new).await;
    assert_eq!((&new["scope"], &new["type"]), (&json!("profile.all"), &json!("bearer")));
    assert_eq!(acting(&client, &new).get(path::PROFILE_ID).await.status(), StatusCode::OK);
    for refresh_token in [&old["refreshToken"], &new["refreshToken"]] {
        let reply = refresh(&old, refresh_token).await;
        expect(reply, StatusCode::UNAUTHORIZED, "authorization.invalid_token").await;
    }
    let again = body(refresh(&new, &new["refreshToken"]).await).await;
    assert_eq!(acting(&client, &new).get(path::PROFILE_ID).await.status(), 401);
    server.clock.advance(Duration::from_secs(30 * 86_400));
    assert_eq!(refresh(&again, &again["refreshToken"]).await.status(), 401);
}

#[tokio::test]
async fn applications_are_listed_to_their_owner_in_both_forms() {
    let server = Server::new().await;
    let (client, mut channel) = server.user().await;
    let empty = json!({ "items": [], "meta": { "count": 0, "page": 1, "perPage": 25 } });
    assert_eq!(body(client.get(oauth::LIST).await).await, empty);
    let mut ids = Vec::new();
    for _ in 0..3 {
        // The order is that of their milliseconds.
        server.clock.advance(Duration::from_millis(1));
        ids.push(register(&client, &mut channel, "all").await);
    }
    let page = [("page", "2"), ("perPage", "2")];
    let listed = body(client.get(&with_query(oauth::LIST, &page)).await).await;
    assert_eq!(listed["items"][0]["applicationId"], json!(ids[2]));
    assert_eq!(listed["meta"], json!({ "count": 3, "page": 2, "perPage": 2 }));
    assert!(listed["items"][0].get("clientSecret").is_none());
    client.control("shape", &json!({ "list": "array" })).await;
    let listed = body(client.get(oauth::LIST).await).await;
    let found: Vec<_> =
        listed.as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap()).collect();
    assert_eq!(found, ids);
    names_the_field(client.get(&with_query(oauth::LIST, &[("page", "0")])).await, "page").await;
    let bob = server.register("bob").await;
    assert_eq!(body(bob.get(oauth::LIST).await).await, json!([]));
}

#[tokio::test]
async fn credentials_and_methods_are_checked_on_every_call() {
    let server = Server::new().await;
    let client = server.register(USER).await;
    let posts = [
        oauth::REGISTER,
        oauth::CONFIGURATION,
        oauth::RETRIEVE_CODE,
        oauth::OBTAIN_TOKEN,
        oauth::REFRESH_TOKEN,
    ];
    let gets = [oauth::REQUEST_CODE, oauth::LIST, oauth::SCOPE];
    let nobody = server.anonymous();
    for path in posts {
        assert_eq!(nobody.post(path, &[]).await.status(), StatusCode::UNAUTHORIZED, "{path}");
        assert_eq!(client.get(path).await.status(), StatusCode::METHOD_NOT_ALLOWED, "{path}");
    }
    for path in gets {
        assert_eq!(nobody.get(path).await.status(), StatusCode::UNAUTHORIZED, "{path}");
        let reply = client.post(path, &[]).await;
        assert_eq!(reply.status(), StatusCode::METHOD_NOT_ALLOWED, "{path}");
    }
    // A login's token is no access token, and a password no client secret.
    let login = client.token.clone().unwrap();
    for path in [oauth::SCOPE, oauth::REFRESH_TOKEN] {
        assert_eq!(basic(&server, path, &login, &[]).await.status(), StatusCode::UNAUTHORIZED);
    }
    let credential = STANDARD.encode(format!("{USER}:{PASSWORD}"));
    let reply = basic(&server, oauth::RETRIEVE_CODE, &credential, &[]).await;
    assert_eq!(reply.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn everything_survives_a_restart_and_no_secret_is_on_disk() {
    let mut server = Server::new().await;
    let (client, mut channel) = server.user().await;
    let one = application(&client, &mut channel, "all").await;
    let waiting = consent(&client, &mut channel, &one, &["profile.all"]).await;
    let obtained = pair(&server, &client, &mut channel, &one, &["all"]).await;
    let request = consent(&client, &mut channel, &one, &[]).await;
    let kept = body(code(&server, &one, &request).await).await;
    let kept = kept["authorizationCode"].as_str().unwrap().to_owned();
    let of_pair = ["token", "refreshToken"].map(|name| obtained[name].as_str().unwrap());
    server.stop().await;
    let secrets = [one.secret.as_str(), kept.as_str(), of_pair[0], of_pair[1]];
    no_file_has(&server.dir.path().join("engine"), &secrets);
    server.start().await;

    let client = server.login(USER).await;
    let again = client.post(oauth::CONFIGURATION, &[("applicationId", &one.id)]).await;
    let key = "oauth.already_retrieved";
    expect(again, StatusCode::UNPROCESSABLE_ENTITY, key).await;
    assert_eq!(acting(&client, &obtained).get(path::PROFILE_ID).await.status(), StatusCode::OK);
    assert_eq!(code(&server, &one, &waiting).await.status(), StatusCode::OK);
    let again = code(&server, &one, &request).await;
    expect(again, StatusCode::UNPROCESSABLE_ENTITY, key).await;
    let form = [("authorization_code", kept.as_str())];
    let reply = basic(&server, oauth::OBTAIN_TOKEN, &one.basic(), &form).await;
    assert_eq!(reply.status(), StatusCode::OK);
    let listed = body(client.get(oauth::LIST).await).await;
    assert_eq!(listed["items"][0]["applicationId"], json!(one.id));
}

fn no_file_has(folder: &std::path::Path, secrets: &[&str]) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            no_file_has(&path, secrets);
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        for secret in secrets {
            assert!(!text.contains(secret), "a secret is in {}", path.display());
        }
    }
}
