//! The engine over the wire: the WebSocket channel, and every fault of the plan.

use std::time::Duration;

use privicorefs::protocol::{self, path};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::house::Server;
use crate::house::wire::{Channel, PATIENCE, WireClient, body, header};

const RESERVE: &[(&str, &str)] = &[("context", "/")];

#[tokio::test]
async fn joining_wants_a_token_and_leaving_a_channel() {
    let server = Server::new().await;
    let (client, _) = server.user().await;
    let mut channel = client.connect().await;
    let refused = channel.ask("joinChannel", json!({ "authorizationToken": "T-no" })).await;
    assert_eq!(refused["status"], 401);
    assert_eq!(channel.ask("leaveChannel", json!({})).await["status"], 404);
    assert_eq!(channel.ask("dance", json!({})).await["status"], 400);
    let joined = channel.ask("joinChannel", json!({ "authorizationToken": client.token })).await;
    assert_eq!(joined["status"], 200);
    let id = joined["data"]["channelId"].as_str().unwrap();
    assert_eq!(joined["data"]["message"], "Successfully joined profile channel.");
    let left = channel.ask("leaveChannel", json!({ "channelId": id })).await;
    assert_eq!(left["status"], 200);
    let again = channel.ask("joinChannel", json!({ "authorizationToken": client.token })).await;
    assert_eq!(again["status"], 200);
}

#[tokio::test]
async fn the_channel_is_at_the_root_too() {
    let server = Server::new().await;
    let (mut client, _) = server.user().await;
    client.ws_url = server.engine().ws_url().replace("/ws", "/");
    let mut channel = client.join().await;
    let id = client.command(path::RESERVE, RESERVE).await;
    channel.ack(&id).await;
}

#[tokio::test]
async fn every_joined_socket_of_the_profile_hears_and_no_other() {
    let server = Server::new().await;
    let (alice, mut first) = server.user().await;
    let mut second = alice.join().await;
    let bob = server.register("bob").await;
    let mut bobs = bob.join().await;
    let id = alice.command(path::RESERVE, RESERVE).await;
    first.ack(&id).await;
    second.ack(&id).await;
    let own = bob.command(path::RESERVE, RESERVE).await;
    assert_eq!(bobs.next().await.unwrap()["data"]["id"], json!(own));
}

#[tokio::test]
async fn messages_before_the_join_wait_a_moment() {
    let server = Server::new().await;
    let client = server.register("alice").await;
    let id = client.command(path::RESERVE, RESERVE).await;
    assert_eq!(client.poll(&id).await, "succeeded");
    // The poll sees the outcome a moment before the ack is in the buffer, or after.
    let mut channel = client.join().await;
    channel.ack(&id).await;
}

async fn fault(client: &WireClient, op: &str, kind: Value) {
    client.faults(json!([{ "op": op, "kind": kind, "when": { "first": 1 } }])).await;
}

/// A reservation under a fault, and one after it whose ack comes.
async fn then_a_clean_one(client: &WireClient, channel: &mut Channel) -> String {
    let id = client.command(path::RESERVE, RESERVE).await;
    channel.ack(&id).await;
    id
}

#[tokio::test]
async fn a_lost_ack_hides_a_command_that_was_carried_out() {
    let server = Server::new().await;
    let (client, mut channel) = server.user().await;
    for op in [path::RESERVE, "ack", "*"] {
        fault(&client, op, json!("lose_ack")).await;
        let id = client.command(path::RESERVE, RESERVE).await;
        then_a_clean_one(&client, &mut channel).await;
        assert_eq!(client.poll(&id).await, "succeeded");
        assert!(channel.seen.iter().all(|message| message["data"]["id"] != json!(id)));
        assert!(client.temporary(&id).await["token"].is_string());
    }
}

#[tokio::test]
async fn an_early_ack_is_there_before_the_reply() {
    let server = Server::new().await;
    let (client, mut channel) = server.user().await;
    fault(&client, path::RESERVE, json!("early_ack")).await;
    let id = client.command(path::RESERVE, RESERVE).await;
    // Its outcome is settled by the time the reply names it.
    assert!(client.temporary(&id).await["token"].is_string());
    channel.ack(&id).await;
}

#[tokio::test]
async fn late_double_and_pending_acks() {
    let server = Server::new().await;
    let (client, mut channel) = server.user().await;
    fault(&client, "ack", json!({ "late_ack": { "ms": 200 } })).await;
    let late = client.command(path::RESERVE, RESERVE).await;
    then_a_clean_one(&client, &mut channel).await;
    assert!(channel.seen.is_empty(), "the later command overtook");
    channel.ack(&late).await;

    fault(&client, "ack", json!("duplicate_ack")).await;
    let id = client.command(path::RESERVE, RESERVE).await;
    channel.ack(&id).await;
    channel.ack(&id).await;

    fault(&client, "ack", json!("pending_ack")).await;
    let id = client.command(path::RESERVE, RESERVE).await;
    assert_eq!(channel.settled(&id).await["command_status"], 1);
    channel.ack(&id).await;
}

#[tokio::test]
async fn a_rejected_command_is_not_carried_out() {
    let server = Server::new().await;
    let (client, mut channel) = server.user().await;
    let token = client.store(&mut channel, "/", "kept", b"x").await;
    let kind = json!({ "reject_ack": { "reason": "policy.denied" } });
    fault(&client, path::DELETE, kind.clone()).await;
    let ack = client.delete(&mut channel, &token).await;
    assert_eq!((&ack["command_status"], &ack["body"]), (&json!(3), &json!("policy.denied")));
    assert_eq!(client.fetch(&mut channel, &token).await, b"x");

    fault(&client, path::REQUEST_DATA, kind).await;
    let reply = client.post(path::REQUEST_DATA, &[("token", &token)]).await;
    let ack = channel.settled(&header(&reply, protocol::COMMAND_ID)).await;
    assert_eq!(ack["command_status"], 3);
}

#[tokio::test]
async fn statuses_and_dropped_connections() {
    let server = Server::new().await;
    let (client, mut channel) = server.user().await;
    fault(&client, path::RESERVE, json!({ "status": { "code": 503, "retry_after": 2 } })).await;
    let reply = client.post(path::RESERVE, RESERVE).await;
    assert_eq!(reply.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(header(&reply, "retry-after"), "2");
    fault(&client, "*", json!("unauthorized401")).await;
    let reply = client.post(path::RESERVE, RESERVE).await;
    assert_eq!(reply.status(), StatusCode::UNAUTHORIZED);

    let send = || client.request(reqwest::Method::POST, path::RESERVE).form(RESERVE).send();
    fault(&client, path::RESERVE, json!({ "drop_connection": {} })).await;
    assert!(send().await.is_err());
    fault(&client, path::RESERVE, json!({ "drop_connection": { "after": true } })).await;
    assert!(send().await.is_err());
    let executed = channel.next().await.unwrap();
    assert_eq!(executed["data"]["command_status"], 2, "carried out although nobody was told");
    then_a_clean_one(&client, &mut channel).await;
}

#[tokio::test]
async fn a_cut_socket_loses_the_ack_and_a_poll_tells() {
    let server = Server::new().await;
    let (client, mut channel) = server.user().await;
    for op in [path::RESERVE, "ws"] {
        fault(&client, op, json!("cut_socket")).await;
        let id = client.command(path::RESERVE, RESERVE).await;
        assert!(channel.next().await.is_none(), "closed");
        assert_eq!(client.poll(&id).await, "succeeded");
        channel = client.join().await;
    }
    then_a_clean_one(&client, &mut channel).await;
}

#[tokio::test]
async fn downloads_break_off_and_stall() {
    let server = Server::new().await;
    let (client, mut channel) = server.user().await;
    let token = client.upload(&mut channel, "/", "big", vec![4; 2_000_000]).await;
    fault(&client, "downstream", json!({ "short_stream": { "bytes": 1_000_000 } })).await;
    let answer = client.request_data(&mut channel, &token).await;
    let reply = client.http.get(answer["body"].as_str().unwrap()).send().await.unwrap();
    assert_eq!(reply.content_length(), Some(2_000_000));
    assert!(reply.bytes().await.is_err());

    fault(&client, "downstream", json!({ "stall": { "ms": 60_000 } })).await;
    let answer = client.request_data(&mut channel, &token).await;
    let reply = client.http.get(answer["body"].as_str().unwrap()).send().await.unwrap();
    let waited = tokio::time::timeout(Duration::from_millis(100), reply.bytes()).await;
    assert!(waited.is_err(), "nothing moves");
    assert_eq!(client.fetch(&mut channel, &token).await.len(), 2_000_000);
}

#[tokio::test]
async fn controls_are_offered_only_on_request() {
    let server = Server::with(|config| config.test_controls = false).await;
    let client = server.anonymous();
    for path in ["/_engine/faults", "/_engine/shape"] {
        assert_eq!(client.post(path, &[]).await.status(), StatusCode::NOT_FOUND);
    }
    let metrics: Value = body(client.get("/_engine/metrics").await).await;
    assert_eq!(metrics["requests_total"], 0);
}

#[tokio::test]
async fn latency_is_added_to_replies_and_acks() {
    let server = Server::with(|config| config.latency = Duration::from_millis(40)).await;
    let (client, mut channel) = server.user().await;
    let many = (0..50).map(|_| client.command(path::RESERVE, RESERVE));
    let ids = futures_util::future::join_all(many).await;
    let acks = async {
        for id in &ids {
            channel.ack(id).await;
        }
    };
    tokio::time::timeout(PATIENCE, acks).await.unwrap();
    // A sleep is never shorter than asked, so the lower bound holds on any machine.
    let begun = tokio::time::Instant::now();
    let id = client.command(path::RESERVE, RESERVE).await;
    assert!(begun.elapsed() >= server.config().latency);
    channel.ack(&id).await;
}
