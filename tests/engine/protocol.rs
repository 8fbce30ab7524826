//! The engine over the wire: every flow of the protocol reference, spoken raw.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use privicorefs::protocol::{self, path};
use reqwest::multipart::Form;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::house::Server;
use crate::house::wire::{PASSWORD, PATIENCE, USER, WireClient, body, header, with_query};

#[tokio::test]
async fn a_small_payload_is_stored_inline_and_fetched_inline() {
    let server = Server::new().await;
    let (client, mut channel) = server.user().await;
    let token = client.store(&mut channel, "docs/a", "hello.txt", b"sealed bytes").await;
    let answer = client.request_data(&mut channel, &token).await;
    assert_eq!(answer["output_type"], 0);
    assert_eq!(answer["data_context"], "docs/a");
    assert_eq!(answer["body"], STANDARD.encode(b"sealed bytes"));
    assert_eq!(server.engine().metrics().tokens, 1);
}

#[tokio::test]
async fn a_large_payload_streams_both_ways() {
    let server = Server::new().await;
    let (client, mut channel) = server.user().await;
    for len in [0, 28, 51_200, 51_201, 65_536, 65_537, 3_000_001] {
        let data: Vec<u8> = (0..len).map(|i| (i * 31 % 251) as u8).collect();
        let name = len.to_string();
        let token = client.upload(&mut channel, "/", &name, data.clone()).await;
        assert!(client.fetch(&mut channel, &token).await == data, "{len} bytes");
    }
    let metrics = server.engine().metrics();
    assert_eq!(metrics.tokens, 7);
    assert_eq!(metrics.bytes_up, metrics.bytes_down);
    assert_eq!(metrics.requests["POST /"], 7);
    assert_eq!(metrics.requests["GET /"], 4);
    assert_eq!(metrics.requests["GET /ws"], 2);
    let counted: Value = body(client.get("/_engine/metrics").await).await;
    assert_eq!(counted, json!(metrics));
}

#[tokio::test]
async fn the_answer_of_a_streamed_payload_is_an_address_and_a_ready_message() {
    let server = Server::new().await;
    let (client, mut channel) = server.user().await;
    let token = client.upload(&mut channel, "/", "big", vec![7; 100_000]).await;
    let answer = client.request_data(&mut channel, &token).await;
    assert_eq!(answer["output_type"], 1);
    let request = answer["id"].as_str().unwrap();
    let ready = channel.find(protocol::TYPE_STREAM_READY, request).await;
    assert_eq!(ready["streamUrl"], answer["body"]);
    assert_eq!(ready["requestId"], answer["id"]);
    // A client that takes the address for a token appends it to its own base (D.6).
    let auth = answer["body"].as_str().unwrap();
    let odd = client.get(&with_query("/", &[("auth", auth)])).await;
    assert_eq!(odd.bytes().await.unwrap().len(), 100_000);
}

#[tokio::test]
async fn every_reply_has_the_date_of_the_engines_clock() {
    let server = Server::new().await;
    let (client, _channel) = server.user().await;
    let date = async |path: &str| header(&client.get(path).await, "date");
    for path in [path::LIST, path::HEALTH, "/nowhere", "/?auth=nonsense"] {
        assert_eq!(date(path).await, "Tue, 14 Nov 2023 22:13:20 GMT", "{path}");
    }
    server.clock.advance(Duration::from_millis(86_401_999));
    assert_eq!(date(path::LIST).await, "Wed, 15 Nov 2023 22:13:21 GMT");
}

#[tokio::test]
async fn stream_tokens_are_good_once() {
    let server = Server::new().await;
    let (client, mut channel) = server.user().await;
    let reserved = client.reserve(&mut channel, "/").await;
    let stream = reserved["stream"].as_str().unwrap();
    let put = async |n: usize| client.http.post(stream).body(vec![1; n]).send().await.unwrap();
    assert_eq!(put(100).await.status(), StatusCode::OK);
    assert_eq!(put(100).await.status(), StatusCode::UNAUTHORIZED);
    let temporary = reserved["token"].as_str().unwrap();
    assert_eq!(client.exchange(&mut channel, temporary, b"again").await, 3);

    let token = client.upload(&mut channel, "/", "big", vec![7; 100_000]).await;
    let answer = client.request_data(&mut channel, &token).await;
    let address = answer["body"].as_str().unwrap();
    let get = async || client.http.get(address).send().await.unwrap().status();
    assert_eq!(get().await, StatusCode::OK);
    assert_eq!(get().await, StatusCode::UNAUTHORIZED);
    assert_eq!(client.get("/?auth=nonsense").await.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(client.get("/").await.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn promotion_gives_a_new_token_and_keeps_the_old_one_until_its_time() {
    let server = Server::new().await;
    let (client, mut channel) = server.user().await;
    let reserved = client.reserve(&mut channel, "/").await;
    let temporary = reserved["token"].as_str().unwrap();
    let early = client.configure(temporary, "/", "a").await;
    assert_eq!(early.status(), StatusCode::UNPROCESSABLE_ENTITY);
    client.exchange(&mut channel, temporary, b"data").await;
    assert_eq!(client.list(&[]).await["items"], json!([]));

    let first: Value = body(client.configure(temporary, "/", "a").await).await;
    let again: Value = body(client.configure(temporary, "/", "b").await).await;
    assert_eq!(first, again, "a repeated call finds the same token");
    assert_ne!(first["token"], reserved["token"]);
    assert_eq!(client.names(&[]).await, ["b"]);
    assert_eq!(client.fetch(&mut channel, temporary).await, b"data");

    server.clock.advance(Duration::from_secs(301));
    let gone = client.post(path::REQUEST_DATA, &[("token", temporary)]).await;
    assert_eq!(gone.status(), StatusCode::NOT_FOUND);
    let permanent = first["token"].as_str().unwrap();
    assert_eq!(client.fetch(&mut channel, permanent).await, b"data");
}

#[tokio::test]
async fn reservations_expire_with_their_data() {
    let server = Server::new().await;
    let (client, mut channel) = server.user().await;
    let id = client.command(path::RESERVE, &[("context", "/"), ("ttl", "1")]).await;
    channel.ack(&id).await;
    let reserved = client.temporary(&id).await;
    assert_eq!(reserved["ttl"], 1);
    let stream = reserved["stream"].as_str().unwrap().to_owned();
    let filled = client.reserve(&mut channel, "/").await;
    let address = filled["stream"].as_str().unwrap();
    client.http.post(address).body(vec![3; 200_000]).send().await.unwrap();
    let payloads = server.dir.path().join("engine/payloads");
    assert_eq!(files_below(&payloads), 1);

    server.clock.advance(Duration::from_secs(61));
    let path = format!("{}{id}", path::TEMPORARY_TOKEN);
    assert_eq!(client.get(&path).await.status(), StatusCode::NOT_FOUND);
    let late = client.http.post(stream).body("late").send().await.unwrap();
    assert_eq!(late.status(), StatusCode::UNAUTHORIZED);
    let data = [("temporaryTokenSpace", reserved["token"].as_str().unwrap()), ("data", "")];
    let id = client.command(path::EXCHANGE, &data).await;
    assert_eq!(channel.settled(&id).await["body"], "data_token.not_found");

    server.clock.advance(Duration::from_secs(300));
    let swept = async {
        while files_below(&payloads) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, swept).await.expect("the sweep removes the payload");
}

fn files_below(dir: &std::path::Path) -> usize {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries.map(|e| if e.path().is_dir() { files_below(&e.path()) } else { 1 }).sum()
}

#[tokio::test]
async fn deletes_remove_the_payload_and_a_second_one_is_rejected() {
    let server = Server::new().await;
    let (client, mut channel) = server.user().await;
    let small = client.store(&mut channel, "a", "small", b"x").await;
    let large = client.upload(&mut channel, "a", "large", vec![9; 70_000]).await;
    for token in [&small, &large] {
        assert_eq!(client.delete(&mut channel, token).await["command_status"], 2);
        let again = client.delete(&mut channel, token).await;
        assert_eq!(again["command_status"], 3);
        assert_eq!(again["body"], "data_token.not_found");
        let gone = client.post(path::REQUEST_DATA, &[("token", token)]).await;
        assert_eq!(gone.status(), StatusCode::NOT_FOUND);
    }
    assert_eq!(client.list(&[]).await["meta"]["count"], 0);
    assert_eq!(client.list(&[("filters[context]", "a")]).await["meta"]["count"], 0);
    assert_eq!(server.engine().metrics().tokens, 0);
}

#[tokio::test]
async fn pages_and_filters_of_a_listing() {
    let server = Server::new().await;
    let (client, mut channel) = server.user().await;
    let mut tokens = Vec::new();
    for i in 0..30 {
        let context = if i % 3 == 0 { "third" } else { "other" };
        tokens.push(client.store(&mut channel, context, &format!("f{i}"), b"x").await);
    }
    let first = client.list(&[]).await;
    assert_eq!(first["meta"], json!({ "count": 30, "page": 1, "perPage": 25 }));
    assert_eq!(first["items"].as_array().unwrap().len(), 25);
    assert_eq!(client.names(&[("page", "2")]).await, ["f25", "f26", "f27", "f28", "f29"]);
    assert_eq!(client.names(&[("page", "3")]).await, [""; 0]);
    assert_eq!(client.names(&[("page", "4"), ("perPage", "9")]).await, ["f27", "f28", "f29"]);
    assert_eq!(client.list(&[("perPage", "5000")]).await["meta"]["perPage"], 100);

    let third = [("filters[context]", "third"), ("perPage", "4"), ("page", "2")];
    assert_eq!(client.names(&third).await, ["f12", "f15", "f18", "f21"]);
    assert_eq!(client.list(&third).await["meta"]["count"], 10);
    let both = [("filters[context]", "third"), ("filters[meta.file.fileName]", "f9")];
    assert_eq!(client.names(&both).await, ["f9"]);
    let neither = [("filters[context]", "other"), ("filters[meta.file.fileName]", "f9")];
    assert_eq!(client.names(&neither).await, [""; 0]);
    assert_eq!(client.names(&[("filters[token]", &tokens[7])]).await, ["f7"]);
    assert_eq!(client.names(&[("filters[meta.file.extension]", "txt")]).await.len(), 25);
    assert_eq!(client.names(&[("filters[meta.data.type]", "x")]).await, [""; 0]);

    client.delete(&mut channel, &tokens[0]).await;
    client.delete(&mut channel, &tokens[12]).await;
    assert_eq!(client.names(&[("perPage", "3")]).await, ["f1", "f2", "f3"]);
    assert_eq!(client.names(&[("perPage", "13"), ("page", "2")]).await[..2], ["f15", "f16"]);
    for bad in ["page=0", "perPage=0", "page=x"] {
        let reply = client.get(&format!("{}?{bad}", path::LIST)).await;
        assert_eq!(reply.status(), StatusCode::UNPROCESSABLE_ENTITY);
    }
}

#[tokio::test]
async fn a_listed_token_carries_everything_known_about_it() {
    let server = Server::new().await;
    let (client, mut channel) = server.user().await;
    let form = [("context", "x"), ("uuid", "chosen-by-me")];
    let id = client.command(path::RESERVE, &form).await;
    channel.ack(&id).await;
    let reserved = client.temporary(&id).await;
    assert_eq!(reserved["uuid"], "chosen-by-me");
    assert_eq!(reserved["ttl"], 5);
    let temporary = reserved["token"].as_str().unwrap();
    client.exchange(&mut channel, temporary, b"x").await;
    let reply: Value = body(client.configure(temporary, "docs/ä b", "n.txt").await).await;
    let token = reply["token"].as_str().unwrap();
    let risk =
        [("token", token), ("classification", "internal"), ("label", "l"), ("handling", "h")];
    let id = client.command(path::CONFIGURE_RISK, &risk).await;
    channel.ack(&id).await;

    let profile: Value = body(client.get(path::PROFILE_ID).await).await;
    let item = client.list(&[("filters[context]", "docs/ä b")]).await["items"][0].clone();
    let expected = json!({
        "uuid": "chosen-by-me", "createdAt": "2023-11-14T22:13:20+00:00",
        "profile": profile["profileId"], "context": "docs/ä b", "token": token,
        "meta": {
            "file": { "fileName": "n.txt", "extension": "txt", "size": 11, "path": "/" },
            "information_security_risk":
                { "classification": "internal", "label": "l", "handling": "h" },
        },
        "fileName": "n.txt", "extension": "txt", "size": 11,
    });
    assert_eq!(item, expected);
}

#[tokio::test]
async fn both_updates() {
    let server = Server::new().await;
    let (client, mut channel) = server.user().await;
    let token = client.upload(&mut channel, "old", "old.txt", vec![1; 100_000]).await;
    let form = [("token", token.as_str()), ("fileName", "new.txt"), ("context", "new")];
    let id = client.command(path::UPDATE_META, &form).await;
    channel.ack(&id).await;
    assert_eq!(client.names(&[("filters[context]", "new")]).await, ["new.txt"]);
    assert_eq!(client.names(&[("filters[context]", "old")]).await, [""; 0]);

    let update = json!({
        "dataToken": token, "data": STANDARD.encode(b"replaced"),
        "meta": { "file": { "fileName": "third.txt" }, "data": { "type": "note" } },
    });
    let request = client.request(Method::POST, path::UPDATE_DATA).body(update.to_string());
    let reply = request.send().await.unwrap();
    assert_eq!(reply.status(), StatusCode::ACCEPTED);
    channel.ack(&header(&reply, protocol::COMMAND_ID)).await;
    assert_eq!(client.fetch(&mut channel, &token).await, b"replaced");
    assert_eq!(client.names(&[("filters[meta.data.type]", "note")]).await, ["third.txt"]);
    assert_eq!(server.engine().metrics().tokens, 1);
}

#[tokio::test]
async fn forms_may_be_multipart_and_parameters_are_checked() {
    let server = Server::new().await;
    let (client, mut channel) = server.user().await;
    let form = Form::new().text("context", "multi").text("ttl", "60");
    let reply = client.request(Method::POST, path::RESERVE).multipart(form).send().await.unwrap();
    assert_eq!(reply.status(), StatusCode::ACCEPTED);
    let id = header(&reply, protocol::COMMAND_ID);
    channel.ack(&id).await;
    assert_eq!(client.temporary(&id).await["context"], "multi");

    for ttl in ["0", "61", "300", "3600", "x"] {
        let reply = client.post(path::RESERVE, &[("context", "/"), ("ttl", ttl)]).await;
        assert_eq!(reply.status(), StatusCode::UNPROCESSABLE_ENTITY, "ttl {ttl}");
        assert!(body(reply).await["errors"]["ttl"].is_array());
    }
    let long = "x".repeat(1_025);
    for context in ["", long.as_str()] {
        let reply = client.post(path::RESERVE, &[("context", context)]).await;
        assert_eq!(reply.status(), StatusCode::UNPROCESSABLE_ENTITY);
    }
    let large = STANDARD.encode(vec![0; 51_201]);
    let form = [("temporaryTokenSpace", "tmp-x"), ("data", large.as_str())];
    let reply = client.post(path::EXCHANGE, &form).await;
    assert_eq!(reply.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let reply = client.get(path::RESERVE).await;
    assert_eq!(reply.status(), StatusCode::METHOD_NOT_ALLOWED);
    let reply = client.get("/no/such/route").await;
    assert_eq!(reply.status(), StatusCode::NOT_FOUND);
    assert!(body(reply).await["message"].is_string());
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_restart() {
    let mut server = Server::new().await;
    let (client, mut channel) = server.user().await;
    let small = client.store(&mut channel, "a", "small", b"small").await;
    let large = client.upload(&mut channel, "a", "large", vec![5; 300_000]).await;
    let reserved = client.reserve(&mut channel, "a").await;
    let id = client.command(path::DELETE, &[("token", "dtk-none")]).await;
    assert_eq!(channel.settled(&id).await["command_status"], 3);

    server.restart().await;
    let mut client = server.anonymous().with_token(client.token);
    let mut channel = client.join().await;
    assert_eq!(client.poll(&id).await, "rejected");
    assert_eq!(client.fetch(&mut channel, &small).await, b"small");
    assert_eq!(client.fetch(&mut channel, &large).await, vec![5; 300_000]);
    let temporary = reserved["token"].as_str().unwrap();
    assert_eq!(client.exchange(&mut channel, temporary, b"later").await, 2);
    body(client.configure(temporary, "a", "later").await).await;
    assert_eq!(client.names(&[]).await, ["small", "large", "later"]);
    assert_eq!(server.engine().metrics().tokens, 3);
    client.login(USER, PASSWORD).await;
}

/// A copy of the directory while the engine runs is what a crash would leave.
#[tokio::test]
async fn what_was_acknowledged_is_in_an_image_of_the_running_engines_directory() {
    let mut server = Server::new().await;
    let (client, mut channel) = server.user().await;
    let mut stored = Vec::new();
    for i in 0..20_u8 {
        let data = vec![i; if i % 2 == 0 { 100 } else { 100_000 }];
        let name = format!("f{i}");
        stored.push((client.upload(&mut channel, "/", &name, data.clone()).await, data));
    }
    let image = tempfile::tempdir().unwrap();
    let from = server.dir.path().join("engine");
    copy_tree(&from, &image.path().join("engine"));
    server.stop().await;

    server.dir = image;
    server.start().await;
    let client = server.login(USER).await;
    let mut channel = client.join().await;
    for (token, data) in stored {
        assert!(client.fetch(&mut channel, &token).await == data);
    }
    assert_eq!(client.list(&[]).await["meta"]["count"], 20);
}

fn copy_tree(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test]
async fn half_written_and_unnamed_payload_files_go_at_the_next_start() {
    let mut server = Server::new().await;
    let (client, mut channel) = server.user().await;
    let large = client.upload(&mut channel, "a", "large", vec![5; 300_000]).await;
    server.stop().await;
    let payloads = server.dir.path().join("engine/payloads");
    std::fs::write(payloads.join("tmp/half"), b"half").unwrap();
    std::fs::write(payloads.join("00/018bcfe5-6800-7000-8000-000000000000"), b"x").unwrap();
    assert_eq!(files_below(&payloads), 3);
    server.start().await;
    let swept = async {
        while files_below(&payloads) > 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, swept).await.expect("only the named file is left");
    let client = server.login(USER).await;
    let mut channel = client.join().await;
    assert_eq!(client.fetch(&mut channel, &large).await.len(), 300_000);
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_nothing() {
    let server = Server::new().await;
    let (client, mut channel) = server.user().await;
    let plan = json!({ "rules": [
        { "op": "upstream", "kind": { "short_stream": { "bytes": 1_500_000 } } } ] });
    client.control("faults", &plan).await;
    let reserved = client.reserve(&mut channel, "/").await;
    let stream = reserved["stream"].as_str().unwrap();
    assert!(client.http.post(stream).body(vec![1; 4_000_000]).send().await.is_err());
    let cleaned = async {
        while files_below(&server.dir.path().join("engine/payloads")) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, cleaned).await.unwrap();
    client.faults(json!([])).await;
    let again = client.http.post(stream).body(vec![1; 10]).send().await.unwrap();
    assert_eq!(again.status(), StatusCode::UNAUTHORIZED, "the token was used");
}

#[tokio::test]
async fn transactions_are_counted_in_all_and_by_day() {
    let mut server = Server::new().await;
    let (client, mut channel) = server.user().await;
    let counts = async |client: &WireClient| {
        let reply = client.get(path::STATISTICS).await;
        assert_eq!(reply.status(), StatusCode::OK);
        body(reply).await
    };
    let of = |stores: u64, retrievals: u64, deletions: u64| json!({ "stores": stores, "retrievals": retrievals, "deletions": deletions });
    assert_eq!(counts(&client).await, json!({ "total": of(0, 0, 0), "days": [] }));
    let one = client.store(&mut channel, "/", "one", b"1").await;
    client.upload(&mut channel, "/", "two", vec![2; 100_000]).await;
    client.fetch(&mut channel, &one).await;
    client.fetch(&mut channel, &one).await;
    server.clock.advance(Duration::from_secs(86_400));
    let client = server.login(USER).await;
    let mut channel = client.join().await;
    client.delete(&mut channel, &one).await;
    // Neither is one of these: a token that is not there, and a call that is refused.
    assert_eq!(client.delete(&mut channel, &one).await["command_status"], 3);
    assert_eq!(client.post(path::REQUEST_DATA, &[("token", &one)]).await.status(), 404);
    let mut first = of(2, 2, 0);
    first["date"] = json!("2023-11-14");
    let mut second = of(0, 0, 1);
    second["date"] = json!("2023-11-15");
    let expected = json!({ "total": of(2, 2, 1), "days": [first, second] });
    assert_eq!(counts(&client).await, expected);
    server.restart().await;
    let client = server.login(USER).await;
    assert_eq!(counts(&client).await, expected);
    let bob = server.register("bob").await;
    assert_eq!(counts(&bob).await["total"], of(0, 0, 0));
    assert_eq!(server.anonymous().get(path::STATISTICS).await.status(), StatusCode::UNAUTHORIZED);
    let posted = client.post(path::STATISTICS, &[]).await;
    assert_eq!(posted.status(), StatusCode::METHOD_NOT_ALLOWED);
}
