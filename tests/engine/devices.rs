//! The engine over the wire: devices and who may store (C.5, C.6).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use privicorefs::engine::{Engine, EngineError};
use privicorefs::protocol;
use privicorefs::protocol::governance::{old_path, path};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::house::Server;
use crate::house::wire;
use crate::house::wire::{WireClient, body};

/// Calls that name a device in a form.
const NAMING: [&str; 9] = [
    path::DEVICE_META,
    old_path::DEVICE_META,
    path::DEVICE_APPROVE,
    path::DEVICE_REJECT,
    path::DEVICE_DOWNLOAD,
    path::DEVICE_REMOVE,
    old_path::DEVICE_REMOVE,
    path::AUTHENTICATOR_REGISTER,
    path::AUTHENTICATOR_REMOVE,
];

async fn devices(client: &WireClient) -> Vec<Value> {
    client.read(path::DEVICE_LIST).await.as_array().unwrap().clone()
}

#[tokio::test]
async fn a_device_is_requested_found_named_and_approved() {
    let server = Server::new().await;
    let (client, mut channel) = server.user().await;
    let id = client.command(path::DEVICE_REQUEST, &[("deviceName", "phone")]).await;
    channel.ack(&id).await;
    let found: Value = body(client.post(path::DEVICE_IDENTIFIER, &[("id", &id)]).await).await;
    let device = found["deviceIdentifier"].as_str().unwrap();
    assert_eq!(found["deviceUniqueIdentifier"], device);
    assert_eq!((&found["approved"], &found["approvalState"]), (&json!(0), &json!("pending")));
    let older = client.read(&format!("{}{id}", old_path::DEVICE_IDENTIFIER)).await;
    assert_eq!(older, found);

    let listed = devices(&client).await;
    assert_eq!(listed.len(), 2, "the virtual one and this");
    assert_eq!((&listed[0]["type"], &listed[0]["approved"]), (&json!("storage"), &json!(1)));
    assert_eq!(listed[1], found);
    let posted: Value = body(client.post(path::DEVICE_LIST, &[]).await).await;
    assert_eq!(posted, json!(listed));

    let form = [("deviceIdentifier", device), ("name", "my phone")];
    client.done(&mut channel, path::DEVICE_META, &form).await;
    let form = [("deviceId", device), ("displayName", "our phone"), ("tags", "a,b")];
    client.done(&mut channel, old_path::DEVICE_META, &form).await;
    client.done(&mut channel, path::DEVICE_APPROVE, &[("device_unique_identifier", device)]).await;
    let approved = &devices(&client).await[1];
    assert_eq!(approved["name"], "our phone");
    assert_eq!(approved["tags"], "a,b");
    assert_eq!(
        (&approved["approved"], &approved["approvalState"]),
        (&json!(1), &json!("approved"))
    );

    client.done(&mut channel, old_path::DEVICE_REQUEST, &[]).await;
    assert_eq!(
        devices(&client).await[2]["name"],
        "device",
        "no source agrees that names are needed"
    );
    client.done(&mut channel, old_path::DEVICE_REMOVE, &[("deviceId", device)]).await;
    assert_eq!(devices(&client).await.len(), 2);
}

#[tokio::test]
async fn a_review_is_final() {
    let server = Server::new().await;
    let (client, mut channel) = server.user().await;
    let good = client.approved_device(&mut channel, "good").await;
    let bad = client.device(&mut channel, "bad").await;
    client.done(&mut channel, path::DEVICE_REJECT, &[("deviceIdentifier", &bad)]).await;
    assert_eq!(devices(&client).await[2]["approvalState"], "rejected");
    for device in [&good, &bad] {
        for path in [path::DEVICE_APPROVE, path::DEVICE_REJECT] {
            let reason = client.rejected(&mut channel, path, &[("deviceIdentifier", device)]).await;
            assert_eq!(reason, "device.already_reviewed");
        }
    }
}

#[tokio::test]
async fn roles_are_for_approved_devices() {
    let server = Server::new().await;
    let (client, mut channel) = server.user().await;
    let device = client.device(&mut channel, "disk").await;
    let form = [("deviceIdentifier", device.as_str())];
    let registers = [
        protocol::path::STORAGE_REGISTER,
        path::AUTHENTICATOR_REGISTER,
        old_path::AUTHENTICATOR_REGISTER,
    ];
    for path in registers {
        assert_eq!(client.rejected(&mut channel, path, &form).await, "device.not_approved");
    }
    client.done(&mut channel, path::DEVICE_APPROVE, &form).await;
    for path in registers {
        client.done(&mut channel, path, &form).await;
    }
    client.done(&mut channel, protocol::path::STORAGE_SYNC, &form).await;
    let record = &devices(&client).await[1];
    assert_eq!(record["roles"], json!(["storage", "authenticator"]));
    let storage = client.read(protocol::path::STORAGE_LIST).await;
    assert_eq!(storage[1], *record);
    assert_eq!(client.read(path::AUTHENTICATOR_LIST).await, json!([record]));

    client.done(&mut channel, path::AUTHENTICATOR_REMOVE, &form).await;
    client.done(&mut channel, protocol::path::STORAGE_REMOVE, &form).await;
    assert_eq!(devices(&client).await[1]["roles"], json!([]));
    assert_eq!(client.read(path::AUTHENTICATOR_LIST).await, json!([]));
    assert_eq!(client.read(protocol::path::STORAGE_LIST).await.as_array().unwrap().len(), 1);
    let bob = server.register("bob").await;
    let mut bobs = bob.join().await;
    let reason = bob.rejected(&mut bobs, protocol::path::STORAGE_REGISTER, &form).await;
    assert_eq!(reason, "profile.not_an_owner");
}

#[tokio::test]
async fn a_configuration_is_shown_in_three_forms_and_survives() {
    let mut server = Server::new().await;
    let (client, mut channel) = server.user().await;
    let device = client.device(&mut channel, "phone").await;
    let address = format!("{}{device}", path::DEVICE_CONFIGURATION);
    let pending = client.get(&address).await;
    assert_eq!(pending.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(body(pending).await["error"], "device.not_approved");
    client.done(&mut channel, path::DEVICE_APPROVE, &[("deviceIdentifier", &device)]).await;

    let shown = client.read(&address).await;
    let keys = ["client-id", "client-secret", "device-identifier", "rabbit-host", "rabbit-pass"];
    let keys = keys.iter().chain(&["rabbit-port", "rabbit-user"]);
    assert!(shown.as_object().unwrap().keys().eq(keys));
    let form = [("deviceIdentifier", device.as_str())];
    assert_eq!(body(client.post(path::DEVICE_DOWNLOAD, &form).await).await, shown);
    let file = client.read(&format!("{}{device}", path::DEVICE_FILE)).await;
    assert_eq!(file["name"], format!("{device}.yaml"));
    let yaml = STANDARD.decode(file["file"].as_str().unwrap()).unwrap();
    let yaml = String::from_utf8(yaml).unwrap();
    for (key, value) in shown.as_object().unwrap() {
        assert!(yaml.contains(&format!("{key}: '{}'\n", value.as_str().unwrap())), "{key}");
    }

    server.restart().await;
    let client = server.login(wire::USER).await;
    assert_eq!(client.read(&address).await, shown);
    assert_eq!(devices(&client).await[1]["approvalState"], "approved");
    let other = client.approved_device(&mut client.join().await, "other").await;
    let other = client.read(&format!("{}{other}", path::DEVICE_CONFIGURATION)).await;
    assert_ne!(other["client-secret"], shown["client-secret"]);
}

#[tokio::test]
async fn nothing_of_the_credentials_is_on_the_disk() {
    let mut server = Server::new().await;
    let (client, mut channel) = server.user().await;
    let voter = client.authenticator(&mut channel, "phone").await;
    server.stop().await;
    let mut folders = vec![server.dir.path().to_owned()];
    let mut read = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = std::fs::read(&path).unwrap();
            read += bytes.len();
            let found = bytes.windows(voter.secret.len()).any(|w| w == voter.secret.as_bytes());
            assert!(!found, "{}", path.display());
        }
    }
    assert!(read > 0);
}

#[tokio::test]
async fn unknown_and_foreign_devices() {
    let server = Server::new().await;
    let (alice, mut channel) = server.user().await;
    let id = alice.command(path::DEVICE_REQUEST, &[("deviceName", "phone")]).await;
    channel.ack(&id).await;
    let device = alice.device(&mut channel, "phone").await;
    let bob = server.register("bob").await;
    let stolen = bob.post(path::DEVICE_IDENTIFIER, &[("id", &id)]).await;
    assert_eq!(stolen.status(), StatusCode::NOT_FOUND);
    for unknown in ["nothing", "0190a5d2-0000-7000-8000-000000000000"] {
        let reply = alice.post(path::DEVICE_IDENTIFIER, &[("id", unknown)]).await;
        assert_eq!(reply.status(), StatusCode::NOT_FOUND);
        let older = alice.get(&format!("{}{unknown}", old_path::DEVICE_IDENTIFIER)).await;
        assert_eq!(older.status(), StatusCode::NOT_FOUND);
    }
    for path in NAMING {
        let foreign = bob.post(path, &[("deviceIdentifier", &device)]).await;
        assert_eq!(foreign.status(), StatusCode::FORBIDDEN, "{path}");
        assert_eq!(body(foreign).await["error"], "profile.not_an_owner");
        let unknown = bob.post(path, &[("deviceIdentifier", "nothing")]).await;
        assert_eq!(unknown.status(), StatusCode::NOT_FOUND, "{path}");
        assert_eq!(body(unknown).await["error"], "device.not_found");
        let unnamed = bob.post(path, &[]).await;
        assert_eq!(unnamed.status(), StatusCode::UNPROCESSABLE_ENTITY, "{path}");
        assert!(body(unnamed).await["errors"]["deviceIdentifier"].is_array());
    }
    for path in [path::DEVICE_CONFIGURATION, path::DEVICE_FILE] {
        let foreign = bob.get(&format!("{path}{device}")).await;
        assert_eq!(foreign.status(), StatusCode::FORBIDDEN);
        let unknown = bob.get(&format!("{path}nothing")).await;
        assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
    }
    // Removed while another command was on its way: the ack tells.
    alice.done(&mut channel, path::DEVICE_REMOVE, &[("deviceIdentifier", &device)]).await;
    let gone = alice.post(path::DEVICE_APPROVE, &[("deviceIdentifier", &device)]).await;
    assert_eq!(gone.status(), StatusCode::NOT_FOUND);
    assert_eq!(devices(&alice).await.len(), 2);
}

/// A call, its form, and the field that is wrong.
type Wrong<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);

#[tokio::test]
async fn parameters_are_checked() {
    let server = Server::new().await;
    let (client, mut channel) = server.user().await;
    let device = client.device(&mut channel, "phone").await;
    let long = "x".repeat(1_025);
    let cases: [Wrong<'_>; 5] = [
        (path::DEVICE_REQUEST, &[("deviceName", &long)], "deviceName"),
        (path::DEVICE_IDENTIFIER, &[], "id"),
        (path::DEVICE_META, &[("deviceIdentifier", &device), ("name", "")], "name"),
        (path::DEVICE_META, &[("deviceIdentifier", &device), ("tags", &long)], "tags"),
        (path::DEVICE_APPROVE, &[("deviceIdentifier", &long)], "deviceIdentifier"),
    ];
    for (path, form, field) in cases {
        let reply = client.post(path, form).await;
        assert_eq!(reply.status(), StatusCode::UNPROCESSABLE_ENTITY, "{path}");
        assert!(body(reply).await["errors"][field].is_array(), "{path} {field}");
    }
}

#[tokio::test]
async fn every_call_wants_a_token_and_its_method() {
    let server = Server::new().await;
    let client = server.register("alice").await;
    let posts = NAMING.iter().copied().chain([
        path::DEVICE_REQUEST,
        old_path::DEVICE_REQUEST,
        path::DEVICE_IDENTIFIER,
        old_path::AUTHENTICATOR_REGISTER,
    ]);
    let configuration = format!("{}x", path::DEVICE_CONFIGURATION);
    let file = format!("{}x", path::DEVICE_FILE);
    let older = format!("{}x", old_path::DEVICE_IDENTIFIER);
    let gets = [&configuration, &file, &older].map(String::as_str);
    let calls = posts.map(|path| (Method::POST, Method::GET, path));
    let calls = calls.chain(gets.map(|path| (Method::GET, Method::POST, path)));
    for (right, wrong, path) in calls {
        let reply = server.anonymous().request(right, path).send().await.unwrap();
        assert_eq!(reply.status(), StatusCode::UNAUTHORIZED, "{path}");
        let reply = client.request(wrong, path).send().await.unwrap();
        assert_eq!(reply.status(), StatusCode::METHOD_NOT_ALLOWED, "{path}");
    }
    for method in [Method::GET, Method::POST] {
        let reply = server.anonymous().request(method, path::DEVICE_LIST).send().await.unwrap();
        assert_eq!(reply.status(), StatusCode::UNAUTHORIZED);
    }
    let reply = client.request(Method::PUT, path::DEVICE_LIST).send().await.unwrap();
    assert_eq!(reply.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn records_of_an_older_format_are_refused_by_name() {
    let mut server = Server::new().await;
    server.stop().await;
    let records = server.dir.path().join("engine").join("records");
    {
        let database = fjall::Database::builder(&records).open().unwrap();
        let keyspace = database.keyspace("records", fjall::KeyspaceCreateOptions::default).unwrap();
        // Space 0, then a record of version 1 with the number 1.
        keyspace.insert(b"\0format", [1, 1]).unwrap();
        database.persist(fjall::PersistMode::SyncAll).unwrap();
    }
    let refused = Engine::start(server.config(), server.env.clone()).await;
    let Err(error @ EngineError::Storage(_)) = refused else { panic!("it started") };
    assert!(error.to_string().contains("format 1"), "{error}");
}
