//! The engine over the wire: each variant of section D, and how an engine starts.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt;
use privicorefs::engine::{Engine, EngineError};
use privicorefs::protocol::{self, path};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::house::Server;
use crate::house::wire::{body, header};

#[tokio::test]
async fn bodies_of_accepted_commands() {
    let server = Server::new().await;
    let client = server.register("alice").await;
    type Expected = fn(&str) -> String;
    let cases: [(&str, Expected); 6] = [
        ("string", |id| format!("\"{id}\"")),
        ("text", str::to_owned),
        ("array", |id| format!("[\"{id}\"]")),
        ("object", |id| format!("{{\"commandId\":\"{id}\"}}")),
        ("header_object", |id| format!("{{\"X-DPT-CAB-ID\":\"{id}\"}}")),
        ("empty", |_| String::new()),
    ];
    for (shape, expected) in cases {
        client.control("shape", &json!({ "command_body": shape })).await;
        let reply = client.post(path::RESERVE, &[("context", "/")]).await;
        let id = header(&reply, protocol::COMMAND_ID);
        assert_eq!(reply.text().await.unwrap(), expected(&id), "{shape}");
    }
}

#[tokio::test]
async fn downloads_by_bare_token_and_by_websocket() {
    let server = Server::new().await;
    let (client, mut channel) = server.user().await;
    let data: Vec<u8> = (0..1_500_000_u32).map(|i| (i % 253) as u8).collect();
    let token = client.upload(&mut channel, "/", "big", data.clone()).await;

    client.control("shape", &json!({ "download": "token" })).await;
    let answer = client.request_data(&mut channel, &token).await;
    let auth = answer["body"].as_str().unwrap();
    let request = answer["id"].as_str().unwrap();
    let ready = channel.find(protocol::TYPE_STREAM_READY, request).await;
    assert_eq!(ready["streamUrl"], Value::Null);
    let reply = client.get(&format!("/?auth={auth}")).await;
    assert!(reply.bytes().await.unwrap() == data);

    client.control("shape", &json!({ "download": "web_socket" })).await;
    let answer = client.request_data(&mut channel, &token).await;
    let request = answer["id"].as_str().unwrap();
    let ready = channel.find(protocol::TYPE_STREAM_READY, request).await;
    let address = ready["streamUrl"].as_str().unwrap();
    assert!(address.starts_with("ws://"));
    let (mut socket, _) = tokio_tungstenite::connect_async(address).await.unwrap();
    let mut received = Vec::new();
    while let Some(Ok(message)) = socket.next().await {
        match message {
            Message::Binary(piece) => received.extend_from_slice(&piece),
            Message::Close(_) => break,
            other => panic!("unexpected {other:?}"),
        }
    }
    assert!(received == data);
}

#[tokio::test]
async fn small_payloads_streamed_or_after_a_note() {
    let server = Server::new().await;
    let (client, mut channel) = server.user().await;
    let token = client.store(&mut channel, "/", "small", b"sealed").await;
    client.control("shape", &json!({ "inline": "off" })).await;
    let answer = client.request_data(&mut channel, &token).await;
    assert_eq!(answer["output_type"], 1);
    assert_eq!(client.fetch(&mut channel, &token).await, b"sealed");

    client.control("shape", &json!({ "inline": "after_note" })).await;
    let note = client.request_data(&mut channel, &token).await;
    assert!(STANDARD.decode(note["body"].as_str().unwrap()).is_err());
    let answer = channel.find(protocol::TYPE_REQUEST, note["id"].as_str().unwrap()).await;
    assert_eq!(answer["body"], STANDARD.encode(b"sealed"));
}

#[tokio::test]
async fn forms_of_the_stream_field() {
    let server = Server::new().await;
    let (client, mut channel) = server.user().await;
    client.control("shape", &json!({ "stream": "token_and_server" })).await;
    let reserved = client.reserve(&mut channel, "/").await;
    let text = |name: &str| reserved[name].as_str().unwrap();
    let address = format!(
        "{}:{}/?auth={}",
        text("stream_server_id"),
        text("stream_server_port"),
        text("stream")
    );
    let reply = client.http.post(address).body("x").send().await.unwrap();
    assert_eq!(reply.status(), StatusCode::OK);

    client.control("shape", &json!({ "stream": "token" })).await;
    let reserved = client.reserve(&mut channel, "/").await;
    assert_eq!(reserved["stream_server_id"], Value::Null);
    let address = format!(
        "{}/?auth={}",
        server.engine().upstream_url(),
        reserved["stream"].as_str().unwrap()
    );
    let reply = client.http.post(address).body("x").send().await.unwrap();
    assert_eq!(reply.status(), StatusCode::OK);
}

#[tokio::test]
async fn answers_of_configure_and_forms_of_a_listing() {
    let server = Server::new().await;
    let (client, mut channel) = server.user().await;
    let mut filled = async || {
        let reserved = client.reserve(&mut channel, "/").await;
        let temporary = reserved["token"].as_str().unwrap().to_owned();
        client.exchange(&mut channel, &temporary, b"x").await;
        temporary
    };
    let (one, two) = (filled().await, filled().await);

    client.control("shape", &json!({ "configure": "string", "list": "array" })).await;
    let permanent: Value = body(client.configure(&one, "/", "one").await).await;
    assert!(permanent.is_string());
    client.control("shape", &json!({ "configure": "accepted", "list": "array" })).await;
    let reply = client.configure(&two, "/", "two").await;
    assert_eq!(reply.status(), StatusCode::ACCEPTED);
    channel.ack(&header(&reply, protocol::COMMAND_ID)).await;

    let listed = client.list(&[]).await;
    assert_eq!(listed[0]["token"], permanent);
    assert_eq!(listed[1]["token"], json!(two), "the temporary token became permanent");
    server.clock.advance(std::time::Duration::from_secs(600));
    assert_eq!(client.fetch(&mut channel, &two).await, b"x");
    assert_eq!(client.delete(&mut channel, &two).await["command_status"], 2);
}

#[tokio::test]
async fn a_poll_may_be_bound_to_one_method() {
    let server = Server::new().await;
    let client = server.register("alice").await;
    let id = client.command(path::RESERVE, &[("context", "/")]).await;
    client.poll(&id).await;
    let address = format!("{}{id}", path::REQUEST_STATUS);
    for (method, get, post) in [("get", 200, 405), ("post", 405, 200)] {
        client.control("shape", &json!({ "status": method })).await;
        assert_eq!(client.get(&address).await.status().as_u16(), get);
        let posted = client.request(Method::POST, &address).send().await.unwrap();
        assert_eq!(posted.status().as_u16(), post);
    }
}

#[tokio::test]
async fn one_engine_per_directory_and_loopback_only() {
    let mut server = Server::new().await;
    let second = Engine::start(server.config(), server.env.clone()).await;
    assert!(matches!(second, Err(EngineError::InUse(_))));
    let mut open = server.config();
    open.listen = SocketAddr::from(([0, 0, 0, 0], 0));
    let remote = Engine::start(open, server.env.clone()).await;
    assert!(matches!(remote, Err(EngineError::NotLoopback(_))));
    server.restart().await;
    drop(server.engine.take());
}

#[tokio::test]
async fn everything_kept_is_its_owners_only() {
    let mut server = Server::new().await;
    let (client, mut channel) = server.user().await;
    client.upload(&mut channel, "/", "big", vec![1; 200_000]).await;
    client.store(&mut channel, "/", "small", b"x").await;
    server.restart().await;
    let dir = server.dir.path().join("engine");
    // Where threads cannot have their own mask, the directory's mode protects the files.
    let masked = private_masks_are_possible(&dir);
    check_modes(&dir, masked);
}

fn private_masks_are_possible(dir: &Path) -> bool {
    let entries = std::fs::read_dir(dir.join("records")).unwrap();
    entries.map(|e| e.unwrap().metadata().unwrap()).any(|m| m.permissions().mode() & 0o77 == 0)
}

fn check_modes(path: &Path, masked: bool) {
    let mode = path.metadata().unwrap().permissions().mode() & 0o777;
    if path.is_dir() {
        let own = path.parent().is_none_or(|parent| !parent.ends_with("records"));
        if masked || own {
            assert_eq!(mode, 0o700, "{}", path.display());
        }
        for entry in std::fs::read_dir(path).unwrap() {
            check_modes(&entry.unwrap().path(), masked);
        }
    } else if masked {
        assert_eq!(mode, 0o600, "{}", path.display());
    }
}
