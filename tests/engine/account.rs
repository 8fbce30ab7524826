//! The engine over the wire: profiles, logins, keys, storage devices (C.1 to C.3, C.6).

use std::time::Duration;

use privicorefs::protocol::{self, old_path, path, public_key};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::house::Server;
use crate::house::wire;
use crate::house::wire::{PASSWORD, USER, WireClient, body};

async fn login_status(client: &WireClient, username: &str, password: &str) -> StatusCode {
    let form = [("username", username), ("password", password)];
    client.post(path::AUTHENTICATE, &form).await.status()
}

#[tokio::test]
async fn registration_is_polled_and_names_are_unique() {
    let server = Server::new().await;
    let client = server.anonymous();
    client.register(USER).await;
    let form = [("username", USER), ("password", PASSWORD)];
    let taken = client.post(path::REGISTER_PROFILE, &form).await;
    assert_eq!(taken.status(), StatusCode::CONFLICT);
    for bad in [[("username", "bob"), ("password", "weak")], [("username", ""), form[1]]] {
        let reply = client.post(path::REGISTER_PROFILE, &bad).await;
        assert_eq!(reply.status(), StatusCode::UNPROCESSABLE_ENTITY);
    }
    assert_eq!(login_status(&client, USER, "wrong password").await, StatusCode::UNAUTHORIZED);
    assert_eq!(login_status(&client, "nobody", PASSWORD).await, StatusCode::UNAUTHORIZED);
    assert_eq!(login_status(&client, USER, PASSWORD).await, StatusCode::OK);
}

#[tokio::test]
async fn two_registrations_of_one_name_at_once_make_one_profile() {
    let server = Server::new().await;
    let client = server.anonymous();
    let form = [("username", USER), ("password", PASSWORD)];
    let (one, two) = tokio::join!(
        client.post(path::REGISTER_PROFILE, &form),
        client.post(path::REGISTER_PROFILE, &form)
    );
    let mut outcomes = Vec::new();
    for reply in [one, two] {
        outcomes.push(if reply.status() == StatusCode::CONFLICT {
            "rejected".to_owned()
        } else {
            client.poll(&wire::header(&reply, protocol::COMMAND_ID)).await
        });
    }
    outcomes.sort();
    assert_eq!(outcomes, ["rejected", "succeeded"]);
}

#[tokio::test]
async fn every_authenticated_call_wants_a_live_token() {
    let server = Server::new().await;
    let client = server.register(USER).await;
    let gets = [path::PROFILE_ID, path::OWN_KEY, path::ENGINE_KEY, path::LIST, path::STORAGE_LIST];
    let posts = [
        path::CHANGE_PASSWORD,
        path::REAUTHORIZE,
        path::REVOKE,
        path::EXPIRY,
        path::REGISTER_KEY,
        path::RESERVE,
        path::EXCHANGE,
        path::CONFIGURE_FILE,
        path::CONFIGURE_RISK,
        path::UPDATE_META,
        path::UPDATE_DATA,
        path::REQUEST_DATA,
        path::DELETE,
        path::STORAGE_REGISTER,
        path::STORAGE_SYNC,
        path::STORAGE_REMOVE,
    ];
    let stranger = client.clone().with_token(Some("T-stranger".to_owned()));
    for who in [&server.anonymous(), &stranger] {
        for path in gets {
            assert_eq!(who.get(path).await.status(), StatusCode::UNAUTHORIZED, "{path}");
        }
        for path in posts {
            assert_eq!(who.post(path, &[]).await.status(), StatusCode::UNAUTHORIZED, "{path}");
        }
    }
    assert_eq!(client.get(path::PROFILE_ID).await.status(), StatusCode::OK);
    server.clock.advance(Duration::from_secs(24 * 3_600));
    let reply = client.get(path::PROFILE_ID).await;
    assert_eq!(reply.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(body(reply).await["message"], "invalid token");
}

#[tokio::test]
async fn a_password_is_changed_in_both_forms() {
    let server = Server::new().await;
    let (client, mut channel) = server.user().await;
    let change = |old, repeat| {
        [
            ("oldPassword", old),
            ("newPassword", "another long password"),
            ("newPasswordRepeat", repeat),
        ]
    };
    let differ = client.post(path::CHANGE_PASSWORD, &change(PASSWORD, "other")).await;
    assert_eq!(differ.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let wrong = change("wrong", "another long password");
    let id = client.command(path::CHANGE_PASSWORD, &wrong).await;
    let ack = channel.settled(&id).await;
    assert_eq!(ack["command_status"], 3);
    assert_eq!(ack["body"], "profile.wrong_password");
    let right = change(PASSWORD, "another long password");
    let id = client.command(path::CHANGE_PASSWORD, &right).await;
    channel.ack(&id).await;
    assert_eq!(login_status(&client, USER, PASSWORD).await, StatusCode::UNAUTHORIZED);
    let older = [("currentPassword", "another long password"), ("newPassword", PASSWORD)];
    let id = client.command(path::CHANGE_PASSWORD, &older).await;
    channel.ack(&id).await;
    assert_eq!(login_status(&client, USER, PASSWORD).await, StatusCode::OK);
}

#[tokio::test]
async fn an_authorization_is_extended_replaced_and_revoked() {
    let server = Server::new().await;
    let (client, mut channel) = server.user().await;
    let expiry = async |client: &WireClient| {
        let posted: Value = body(client.post(path::EXPIRY, &[]).await).await;
        assert_eq!(posted, body(client.get(old_path::EXPIRY).await).await);
        posted["expiresAt"].as_str().unwrap().to_owned()
    };
    assert_eq!(expiry(&client).await, "2023-11-15T22:13:20+00:00");
    let id = client.command(path::REAUTHORIZE, &[("ttl", "604800")]).await;
    channel.ack(&id).await;
    assert_eq!(expiry(&client).await, "2023-11-21T22:13:20+00:00");
    let bad = client.post(path::REAUTHORIZE, &[("ttl", "1000")]).await;
    assert_eq!(bad.status(), StatusCode::UNPROCESSABLE_ENTITY);

    client.control("shape", &json!({ "reauthorize": "replace" })).await;
    let reply: Value = body(client.post(path::REAUTHORIZE, &[]).await).await;
    let token = reply["authorizationToken"].as_str().unwrap().to_owned();
    assert_eq!(client.get(path::PROFILE_ID).await.status(), StatusCode::UNAUTHORIZED);
    let client = client.with_token(Some(token));
    assert_eq!(client.get(path::PROFILE_ID).await.status(), StatusCode::OK);
    assert_eq!(client.post(path::REVOKE, &[]).await.status(), StatusCode::OK);
    assert_eq!(client.get(path::PROFILE_ID).await.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn data_commands_need_a_registered_key() {
    let server = Server::new().await;
    let mut client = server.anonymous();
    client.register(USER).await;
    client.login(USER, PASSWORD).await;
    let reply = client.post(path::RESERVE, &[("context", "/")]).await;
    assert_eq!(reply.status(), StatusCode::FORBIDDEN);
    assert_eq!(client.get(path::OWN_KEY).await.status(), StatusCode::NOT_FOUND);
    let bad = client.post(path::REGISTER_KEY, &[("publicKey", &"00".repeat(100))]).await;
    assert_eq!(bad.status(), StatusCode::UNPROCESSABLE_ENTITY);

    let key = public_key::encode(&[3; 32]).to_uppercase();
    let id = client.command(path::REGISTER_KEY, &[("public_key", &key)]).await;
    assert_eq!(client.poll(&id).await, "succeeded");
    let own: Value = body(client.get(path::OWN_KEY).await).await;
    assert_eq!(own["publicKey"], json!(key));
    let reply = client.post(path::RESERVE, &[("context", "/")]).await;
    assert_eq!(reply.status(), StatusCode::ACCEPTED);
    let engine: Value = body(client.get(path::ENGINE_KEY).await).await;
    assert!(public_key::parse(engine["publicKey"].as_str().unwrap()).is_ok());
}

#[tokio::test]
async fn profiles_cannot_reach_each_others_tokens() {
    let server = Server::new().await;
    let (alice, mut channel) = server.user().await;
    let token = alice.store(&mut channel, "/", "mine", b"x").await;
    let bob = server.register("bob").await;
    let mut bobs = bob.join().await;
    assert_eq!(bob.list(&[]).await["items"], json!([]));
    assert_eq!(bob.list(&[("filters[token]", &token)]).await["items"], json!([]));
    let reply = bob.post(path::REQUEST_DATA, &[("token", &token)]).await;
    assert_eq!(reply.status(), StatusCode::FORBIDDEN);
    let ack = bob.delete(&mut bobs, &token).await;
    assert_eq!(ack["body"], "profile.not_an_owner");
    let id = alice.command(path::RESERVE, &[("context", "/")]).await;
    channel.ack(&id).await;
    let stolen = bob.get(&format!("{}{id}", path::TEMPORARY_TOKEN)).await;
    assert_eq!(stolen.status(), StatusCode::NOT_FOUND);
    assert_eq!(alice.fetch(&mut channel, &token).await, b"x");
}

#[tokio::test]
async fn without_a_storage_device_nothing_is_exchanged() {
    let server = Server::new().await;
    let (client, mut channel) = server.user().await;
    let devices: Value = body(client.get(path::STORAGE_LIST).await).await;
    let device = devices[0]["deviceIdentifier"].as_str().unwrap();
    let id = client.command(path::STORAGE_REMOVE, &[("deviceIdentifier", device)]).await;
    channel.ack(&id).await;
    assert_eq!(body(client.get(path::STORAGE_LIST).await).await, json!([]));
    let reserved = client.reserve(&mut channel, "/").await;
    let temporary = reserved["token"].as_str().unwrap();
    assert_eq!(client.exchange(&mut channel, temporary, b"x").await, 3);
    let stream = reserved["stream"].as_str().unwrap();
    let reply = client.http.post(stream).body("x").send().await.unwrap();
    assert_eq!(reply.status(), StatusCode::UNPROCESSABLE_ENTITY);

    let id = client.command(path::STORAGE_REGISTER, &[("deviceIdentifier", device)]).await;
    channel.ack(&id).await;
    assert_eq!(client.exchange(&mut channel, temporary, b"x").await, 2);
    let id = client.command(path::STORAGE_SYNC, &[("device_unique_identifier", "no")]).await;
    assert_eq!(channel.settled(&id).await["body"], "device.not_found");
}

#[tokio::test]
async fn health_and_the_forms_of_a_poll() {
    let server = Server::new().await;
    let client = server.register(USER).await;
    for path in [path::HEALTH, old_path::HEALTH] {
        assert_eq!(body(server.anonymous().get(path).await).await["status"], "ok");
    }
    let id = client.command(path::DELETE, &[("token", "dtk-none")]).await;
    assert_eq!(client.poll(&id).await, "rejected");
    let posted = client.request(Method::POST, &format!("{}{id}", path::REQUEST_STATUS));
    let posted = posted.body("{}").send().await.unwrap();
    assert_eq!(posted.status(), StatusCode::NOT_FOUND);
    assert_eq!(body(posted).await, json!(["rejected"]));
    let older: Value = body(client.get(&format!("{}{id}", old_path::REQUEST_STATUS)).await).await;
    let expected = json!({ "commandId": id, "command_status": 3, "body": "data_token.not_found" });
    assert_eq!(older, expected);
    let unknown = client.get(&format!("{}nothing", path::REQUEST_STATUS)).await;
    assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
    assert_eq!(body(unknown).await["error"], "record.not_found");

    server.clock.advance(Duration::from_secs(25 * 3_600));
    let forgotten = async {
        loop {
            let reply = client.get(&format!("{}{id}", path::REQUEST_STATUS)).await;
            if body(reply).await["error"] == "record.not_found" {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(wire::PATIENCE, forgotten).await.unwrap();
}
