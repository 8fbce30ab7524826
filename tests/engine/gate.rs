//! The engine over the wire: operations that wait for a vote (C.8, C.9).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use privicorefs::engine::{Engine, EngineError};
use privicorefs::protocol::governance::{TYPE_BALLOT, path as gov};
use privicorefs::protocol::{self, path};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::house::Server;
use crate::house::wire::governance::Voter;
use crate::house::wire::{Channel, PATIENCE, USER, WireClient, body, header};

const EXCHANGED: &str = "data_token.data_exchanged";
const REQUESTED: &str = "data_token.data_requested";
const DELETED: &str = "data_token.data_deleted";

/// A profile with `N` authenticators and a voting configuration `board`.
async fn board<const N: usize>(
    server: &Server,
    strategy: &str,
    time_limit: u64,
) -> (WireClient, Channel, [Voter; N]) {
    let (client, mut channel) = server.user().await;
    let voters = client.authenticators(&mut channel).await;
    client.configuration(&mut channel, "board", strategy, time_limit).await;
    (client, channel, voters)
}

/// A policy on an event, whatever the risk meta.
async fn gate(client: &WireClient, channel: &mut Channel, event: &str) {
    client.policy(channel, "gate", "board", event, json!({ "classification": "*" })).await;
}

/// An exchange; its command.
async fn exchange(client: &WireClient, temporary: &str) -> String {
    let data = STANDARD.encode(b"sealed");
    let form = [("temporaryTokenSpace", temporary), ("data", data.as_str())];
    client.command(path::EXCHANGE, &form).await
}

async fn reserved(client: &WireClient, channel: &mut Channel) -> String {
    client.reserve(channel, "/").await["token"].as_str().unwrap().to_owned()
}

async fn outcome(channel: &mut Channel, command: &str) -> (u64, Value) {
    let ack = channel.settled(command).await;
    (ack["command_status"].as_u64().unwrap(), ack["body"].clone())
}

/// That a command is rejected, for this reason.
async fn refused(client: &WireClient, channel: &mut Channel, command: &str, reason: &str) {
    assert_eq!(outcome(channel, command).await, (3, json!(reason)));
    assert_eq!(client.poll(command).await, "rejected");
}

#[tokio::test]
async fn an_exchange_waits_for_approval_and_says_so() {
    let server = Server::new().await;
    let (client, mut channel, [voter]) = board(&server, "unanimous", 60).await;
    gate(&client, &mut channel, EXCHANGED).await;
    let temporary = reserved(&client, &mut channel).await;
    let id = exchange(&client, &temporary).await;
    let pool = channel.held(&id).await;
    let ballot = channel.find(TYPE_BALLOT, &pool).await;
    assert_eq!(ballot["deviceIdentifiers"], json!([voter.identifier]));
    assert_eq!((&ballot["token"], &ballot["event"]), (&json!(temporary), &json!(EXCHANGED)));
    let seen = client.pool(&pool).await;
    assert_eq!((&seen["policy"], &seen["token"]), (&json!("gate"), &json!(temporary)));

    let status = client.get(&format!("{}{id}", path::REQUEST_STATUS)).await;
    assert_eq!(status.status(), StatusCode::ACCEPTED);
    assert_eq!(body(status).await, json!(["started"]));
    assert_eq!(channel.held(&id).await, pool, "a poll brings the pending ack again");

    assert_eq!(client.vote(&voter, &pool, "approve").await, "approved");
    channel.ack(&id).await;
    let reply = client.configure(&temporary, "/", "a").await;
    let token = body(reply).await["token"].as_str().unwrap().to_owned();
    assert_eq!(client.fetch(&mut channel, &token).await, b"sealed");
}

#[tokio::test]
async fn a_rejection_a_time_out_and_a_cancellation_refuse() {
    let server = Server::new().await;
    let (client, mut channel, [voter]) = board(&server, "unanimous", 60).await;
    gate(&client, &mut channel, EXCHANGED).await;
    let temporary = reserved(&client, &mut channel).await;

    let id = exchange(&client, &temporary).await;
    let pool = channel.held(&id).await;
    assert_eq!(client.vote(&voter, &pool, "reject").await, "rejected");
    refused(&client, &mut channel, &id, "policy.rejected").await;

    let id = exchange(&client, &temporary).await;
    let pool = channel.held(&id).await;
    server.clock.advance(Duration::from_secs(60));
    refused(&client, &mut channel, &id, "policy.timed_out").await;
    assert_eq!(client.pool(&pool).await["status"], "timed_out");
    assert_eq!(client.cast(&voter, &pool, "approve").await.status().as_u16(), 422);

    let id = exchange(&client, &temporary).await;
    let pool = channel.held(&id).await;
    client.done(&mut channel, gov::POOL_CANCEL, &[("poolId", &pool)]).await;
    refused(&client, &mut channel, &id, "policy.cancelled").await;

    // Nothing was stored meanwhile.
    let id = exchange(&client, &temporary).await;
    let pool = channel.held(&id).await;
    client.vote(&voter, &pool, "approve").await;
    channel.ack(&id).await;
}

#[tokio::test]
async fn time_runs_without_a_sweep() {
    // The machine's own clock, and sweeps too rare to help.
    let mut server = Server::with(|config| config.sweep_every = Duration::from_secs(3_600)).await;
    server.stop().await;
    server.env = privicorefs::env::Env::system();
    server.start().await;
    let (client, mut channel, [_]) = board(&server, "unanimous", 1).await;
    gate(&client, &mut channel, EXCHANGED).await;
    let temporary = reserved(&client, &mut channel).await;
    let id = exchange(&client, &temporary).await;
    channel.held(&id).await;
    refused(&client, &mut channel, &id, "policy.timed_out").await;
}

#[tokio::test]
async fn each_strategy_decides_as_soon_as_it_can() {
    const YES: &str = "approve";
    const NO: &str = "reject";
    let cases: [(&str, &[&str], &str); 8] = [
        ("unanimous", &[YES, YES, YES, YES], "approved"),
        ("unanimous", &[YES, NO], "rejected"),
        ("consensus", &[NO, YES, YES, YES], "approved"),
        ("consensus", &[YES, NO, NO], "rejected"),
        ("affirmative", &[NO, YES], "approved"),
        ("affirmative", &[NO, NO, NO, NO], "rejected"),
        ("minimum_percentage", &[YES, NO, YES], "approved"),
        ("minimum_percentage", &[NO, YES, NO, NO], "rejected"),
    ];
    let server = Server::new().await;
    let (client, mut channel) = server.user().await;
    let voters: [Voter; 4] = client.authenticators(&mut channel).await;
    let temporary = reserved(&client, &mut channel).await;
    for (n, (strategy, votes, expected)) in cases.into_iter().enumerate() {
        let name = format!("{n}");
        client.configuration(&mut channel, &name, strategy, 60).await;
        let any = json!({ "label": "" });
        client.policy(&mut channel, &name, &name, EXCHANGED, any).await;
        let own = if expected == "approved" {
            reserved(&client, &mut channel).await
        } else {
            temporary.clone()
        };
        let id = exchange(&client, &own).await;
        let pool = channel.held(&id).await;
        let (last, before) = votes.split_last().unwrap();
        for (vote, voter) in before.iter().zip(&voters) {
            assert_eq!(client.vote(voter, &pool, vote).await, "open", "{strategy} {votes:?}");
        }
        let status = client.vote(&voters[before.len()], &pool, last).await;
        assert_eq!(status, expected, "{strategy} {votes:?}");
        if expected == "approved" {
            channel.ack(&id).await;
        } else {
            refused(&client, &mut channel, &id, "policy.rejected").await;
        }
        client.done(&mut channel, gov::POLICY_DEACTIVATE, &[("name", &name)]).await;
    }
}

#[tokio::test]
async fn a_quorum_counts_besides_the_strategy() {
    let server = Server::new().await;
    let (client, mut channel, [one, two]) = board(&server, "affirmative", 60).await;
    gate(&client, &mut channel, EXCHANGED).await;
    client.done(&mut channel, gov::SET_QUORUM_SIZE, &[("size", "2")]).await;
    let temporary = reserved(&client, &mut channel).await;
    let id = exchange(&client, &temporary).await;
    let pool = channel.held(&id).await;
    assert_eq!(client.vote(&one, &pool, "approve").await, "open");
    assert_eq!(client.vote(&two, &pool, "approve").await, "approved");
    channel.ack(&id).await;
    client.done(&mut channel, gov::SET_QUORUM_SIZE, &[("size", "3")]).await;
    let temporary = reserved(&client, &mut channel).await;
    let id = exchange(&client, &temporary).await;
    refused(&client, &mut channel, &id, "policy.rejected").await;
}

#[tokio::test]
async fn without_an_authenticator_nothing_passes() {
    let server = Server::new().await;
    let (client, mut channel, []) = board(&server, "affirmative", 60).await;
    gate(&client, &mut channel, EXCHANGED).await;
    let temporary = reserved(&client, &mut channel).await;
    let id = exchange(&client, &temporary).await;
    refused(&client, &mut channel, &id, "policy.no_authenticator").await;
    assert_eq!(client.read(gov::POOL_LIST).await, json!([]));
}

#[tokio::test]
async fn a_policy_without_a_configuration_goes_by_the_profiles_defaults() {
    let server = Server::new().await;
    let (client, mut channel) = server.user().await;
    let [one, _two] = client.authenticators(&mut channel).await;
    client.done(&mut channel, gov::SET_QUORUM_STRATEGY, &[("strategy", "affirmative")]).await;
    client.done(&mut channel, gov::SET_TIME_LIMIT, &[("time_limit", "30")]).await;
    client.policy(&mut channel, "gate", "", EXCHANGED, json!({ "label": "*" })).await;
    let temporary = reserved(&client, &mut channel).await;
    let id = exchange(&client, &temporary).await;
    let pool = channel.held(&id).await;
    assert_eq!(client.pool(&pool).await["timeLimit"], 30);
    assert_eq!(client.vote(&one, &pool, "approve").await, "approved");
    channel.ack(&id).await;
}

/// A request for data; its command and its request.
async fn ask(client: &WireClient, token: &str) -> (String, String) {
    let reply = client.post(path::REQUEST_DATA, &[("token", token)]).await;
    assert_eq!(reply.status(), StatusCode::ACCEPTED);
    (header(&reply, protocol::COMMAND_ID), header(&reply, protocol::REQUEST_ID))
}

#[tokio::test]
async fn readers_join_one_pool_and_its_approval_is_good_for_a_while() {
    let server = Server::new().await;
    let (client, mut channel, [voter]) = board(&server, "unanimous", 60).await;
    let token = client.store(&mut channel, "/", "a", b"sealed").await;
    let other = client.store(&mut channel, "/", "b", b"other").await;
    gate(&client, &mut channel, REQUESTED).await;

    let (first, first_request) = ask(&client, &token).await;
    let pool = channel.held(&first).await;
    let (second, second_request) = ask(&client, &token).await;
    assert_eq!(channel.held(&second).await, pool);
    let (third, _) = ask(&client, &other).await;
    let others = channel.held(&third).await;
    assert_ne!(others, pool, "another token is another question");
    assert_eq!(client.pools("open").await.len(), 2);
    let status = client.get(&format!("{}{first}", path::REQUEST_STATUS)).await;
    assert_eq!(body(status).await, json!(["started"]));
    assert_eq!(channel.held(&first).await, pool, "a poll says again why it waits");

    client.vote(&voter, &pool, "approve").await;
    for (command, request) in [(&first, &first_request), (&second, &second_request)] {
        assert_eq!(outcome(&mut channel, command).await.0, 2);
        let answer = channel.find(protocol::TYPE_REQUEST, request).await;
        assert_eq!(answer["body"], STANDARD.encode(b"sealed"));
    }
    client.vote(&voter, &others, "reject").await;
    refused(&client, &mut channel, &third, "policy.rejected").await;

    // Good for the time limit, and not a moment longer.
    server.clock.advance(Duration::from_millis(59_999));
    assert_eq!(client.fetch(&mut channel, &token).await, b"sealed");
    server.clock.advance(Duration::from_millis(1));
    let (late, _) = ask(&client, &token).await;
    let next = channel.held(&late).await;
    assert_ne!(next, pool);
    // A rejection is not remembered: who asks again is voted on again.
    let (again, _) = ask(&client, &other).await;
    assert_ne!(channel.held(&again).await, others);
}

#[tokio::test]
async fn a_token_deleted_while_its_reader_waits_is_gone() {
    let server = Server::new().await;
    let (client, mut channel, [voter]) = board(&server, "unanimous", 60).await;
    let token = client.store(&mut channel, "/", "a", b"sealed").await;
    gate(&client, &mut channel, REQUESTED).await;
    let (command, _) = ask(&client, &token).await;
    let pool = channel.held(&command).await;
    assert_eq!(client.delete(&mut channel, &token).await["command_status"], 2);
    client.vote(&voter, &pool, "approve").await;
    refused(&client, &mut channel, &command, "data_token.not_found").await;
}

#[tokio::test]
async fn every_kind_of_operation_can_be_held() {
    let server = Server::new().await;
    let (client, mut channel, [voter]) = board(&server, "unanimous", 60).await;
    let token = client.store(&mut channel, "/", "a", b"sealed").await;
    let events =
        [EXCHANGED, DELETED, "data_token.file_meta_configured", "data_token.risk_meta_configured"];
    for (n, event) in events.into_iter().enumerate() {
        let any = json!({ "handling": "*" });
        client.policy(&mut channel, &format!("gate {n}"), "board", event, any).await;
    }
    let approve = async |channel: &mut Channel, id: &str, event: &str| {
        let pool = channel.held(id).await;
        assert_eq!(client.pool(&pool).await["event"], event);
        client.vote(&voter, &pool, "approve").await;
        channel.ack(id).await;
    };

    // An upload has been received, and is then a command.
    let reserved = client.reserve(&mut channel, "/").await;
    let temporary = reserved["token"].as_str().unwrap();
    let stream = reserved["stream"].as_str().unwrap();
    let reply = client.http.post(stream).body(vec![7; 200_000]).send().await.unwrap();
    assert_eq!(reply.status(), StatusCode::ACCEPTED);
    let id = header(&reply, protocol::COMMAND_ID);
    assert_eq!(body(reply).await, json!([id]));
    let used = client.http.post(stream).body("x").send().await.unwrap();
    assert_eq!(used.status(), StatusCode::UNAUTHORIZED);
    approve(&mut channel, &id, EXCHANGED).await;

    // File meta: a command too, and the temporary token becomes permanent.
    let reply = client.configure(temporary, "/", "big").await;
    assert_eq!(reply.status(), StatusCode::ACCEPTED);
    let id = header(&reply, protocol::COMMAND_ID);
    approve(&mut channel, &id, events[2]).await;
    assert_eq!(client.fetch(&mut channel, temporary).await.len(), 200_000);
    assert_eq!(client.names(&[("filters[token]", temporary)]).await, ["big"]);
    // Approved just now: at once, and in the ordinary way.
    let reply = client.configure(temporary, "/", "bigger").await;
    assert_eq!(reply.status(), StatusCode::OK);
    let form = [("token", temporary), ("fileName", "biggest")];
    client.done(&mut channel, path::UPDATE_META, &form).await;

    let update = json!({ "dataToken": token, "data": STANDARD.encode(b"new") });
    let reply = client.json(path::UPDATE_DATA, &update).await;
    approve(&mut channel, &header(&reply, protocol::COMMAND_ID), EXCHANGED).await;
    assert_eq!(client.fetch(&mut channel, &token).await, b"new");

    let risk =
        [("token", token.as_str()), ("classification", "s"), ("label", ""), ("handling", "")];
    let id = client.command(path::CONFIGURE_RISK, &risk).await;
    approve(&mut channel, &id, events[3]).await;
    let id = client.command(path::DELETE, &[("token", &token)]).await;
    approve(&mut channel, &id, DELETED).await;
    let gone = client.post(path::REQUEST_DATA, &[("token", &token)]).await;
    assert_eq!(gone.status(), StatusCode::NOT_FOUND);

    // What is refused anyway asks nobody.
    let before = client.read(gov::POOL_LIST).await;
    let ack = client.delete(&mut channel, &token).await;
    assert_eq!(ack["body"], "data_token.not_found");
    let id = exchange(&client, temporary).await;
    assert_eq!(outcome(&mut channel, &id).await.1, "data_token.already_exchanged");
    assert_eq!(client.read(gov::POOL_LIST).await, before);
}

#[tokio::test]
async fn the_approval_of_a_device_can_be_held() {
    let server = Server::new().await;
    let (client, mut channel, [voter]) = board(&server, "unanimous", 60).await;
    gate(&client, &mut channel, "device.registered").await;
    let device = client.device(&mut channel, "tablet").await;
    let id = client.command(gov::DEVICE_APPROVE, &[("deviceIdentifier", &device)]).await;
    let pool = channel.held(&id).await;
    let seen = client.pool(&pool).await;
    assert_eq!((&seen["deviceIdentifier"], &seen["token"]), (&json!(device), &Value::Null));
    client.vote(&voter, &pool, "approve").await;
    channel.ack(&id).await;
}

#[tokio::test]
async fn a_policy_goes_by_the_risk_meta() {
    let server = Server::new().await;
    let (client, mut channel, [_]) = board(&server, "unanimous", 60).await;
    let secret = client.store(&mut channel, "/", "a", b"a").await;
    let public = client.store(&mut channel, "/", "b", b"b").await;
    let plain = client.store(&mut channel, "/", "c", b"c").await;
    for (token, classification) in [(&secret, "secret"), (&public, "public")] {
        let form = [
            ("token", token.as_str()),
            ("classification", classification),
            ("label", "blue"),
            ("handling", ""),
        ];
        client.done(&mut channel, path::CONFIGURE_RISK, &form).await;
    }
    let configuration = json!({ "classification": "secret", "label": "*", "handling": "" });
    client.policy(&mut channel, "gate", "board", REQUESTED, configuration).await;
    assert_eq!(client.fetch(&mut channel, &public).await, b"b");
    assert_eq!(client.fetch(&mut channel, &plain).await, b"c");
    let (command, _) = ask(&client, &secret).await;
    channel.held(&command).await;
    // Another event of the same token is free, and so is all of it without the policy.
    client.done(&mut channel, gov::POLICY_DEACTIVATE, &[("name", "gate")]).await;
    assert_eq!(client.fetch(&mut channel, &secret).await, b"a");
}

#[tokio::test]
async fn each_policy_wants_a_vote_of_its_own() {
    let server = Server::new().await;
    let (client, mut channel, [voter]) = board(&server, "unanimous", 60).await;
    let token = client.store(&mut channel, "/", "a", b"a").await;
    for name in ["one", "two"] {
        client.policy(&mut channel, name, "board", DELETED, json!({ "label": "*" })).await;
    }
    let id = client.command(path::DELETE, &[("token", &token)]).await;
    let first = channel.held(&id).await;
    client.vote(&voter, &first, "approve").await;
    let second = channel.held(&id).await;
    assert_eq!(client.pool(&second).await["policy"], "two");
    client.vote(&voter, &second, "approve").await;
    channel.ack(&id).await;
}

#[tokio::test]
async fn a_reservation_waits_with_its_exchange() {
    let server = Server::new().await;
    let (client, mut channel, [voter]) = board(&server, "unanimous", 3_600).await;
    gate(&client, &mut channel, EXCHANGED).await;
    let temporary = reserved(&client, &mut channel).await;
    let id = exchange(&client, &temporary).await;
    let pool = channel.held(&id).await;
    // Ten times its own life; sweeps run all the while.
    server.clock.advance(Duration::from_secs(3_000));
    let other = client.command(path::RESERVE, &[("context", "/")]).await;
    channel.ack(&other).await;
    client.vote(&voter, &pool, "approve").await;
    channel.ack(&id).await;
    assert_eq!(client.configure(&temporary, "/", "a").await.status(), StatusCode::OK);
}

/// Starts an engine as soon as the one that was dropped has let go of the directory.
async fn start_after_a_crash(server: &mut Server) {
    let starting = async {
        loop {
            match Engine::start(server.config(), server.env.clone()).await {
                Ok(engine) => return engine,
                Err(EngineError::InUse(_)) => tokio::time::sleep(Duration::from_millis(5)).await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    let engine = tokio::time::timeout(PATIENCE, starting).await.unwrap();
    server.engine = Some(engine);
}

#[tokio::test]
async fn a_pool_and_its_approval_outlive_the_engine() {
    let mut server = Server::new().await;
    let (client, mut channel, [voter]) = board(&server, "unanimous", 60).await;
    let token = client.store(&mut channel, "/", "a", b"sealed").await;
    gate(&client, &mut channel, REQUESTED).await;
    let (command, _) = ask(&client, &token).await;
    let pool = channel.held(&command).await;
    // As after a crash: dropped without a word, while the command is held.
    drop(server.engine.take());
    start_after_a_crash(&mut server).await;

    let client = server.login(USER).await;
    let mut channel = client.join().await;
    let status = client.get(&format!("{}{command}", path::REQUEST_STATUS)).await;
    assert_eq!(status.status(), StatusCode::NOT_FOUND, "the held command is gone");
    assert_eq!(client.pools("open").await[0]["poolId"], pool);
    let (again, _) = ask(&client, &token).await;
    assert_eq!(channel.held(&again).await, pool, "who asks again joins it");
    server.restart().await;
    let client = server.login(USER).await;
    let mut channel = client.join().await;
    assert_eq!(client.vote(&voter, &pool, "approve").await, "approved");
    assert_eq!(client.fetch(&mut channel, &token).await, b"sealed");
    server.restart().await;
    let client = server.login(USER).await;
    let mut channel = client.join().await;
    assert_eq!(client.fetch(&mut channel, &token).await, b"sealed");
}

#[tokio::test]
async fn faults_strike_held_commands_as_others() {
    let server = Server::new().await;
    let (client, mut channel, [voter]) = board(&server, "unanimous", 60).await;
    gate(&client, &mut channel, EXCHANGED).await;
    let first = |op: &str, kind: Value| json!([{ "op": op, "kind": kind, "when": { "first": 1 } }]);

    // Rejected by the plan: nobody is asked.
    let temporary = reserved(&client, &mut channel).await;
    client.faults(first(path::EXCHANGE, json!({ "reject_ack": { "reason": "no" } }))).await;
    let id = exchange(&client, &temporary).await;
    refused(&client, &mut channel, &id, "no").await;
    assert_eq!(client.read(gov::POOL_LIST).await, json!([]));

    // Early: the reply waits for the first sign of life, not for the vote.
    client.faults(first(path::EXCHANGE, json!("early_ack"))).await;
    let id = exchange(&client, &temporary).await;
    let pool = channel.held(&id).await;
    client.faults(json!([])).await;
    client.vote(&voter, &pool, "approve").await;
    channel.ack(&id).await;

    // Lost: it was carried out, and the poll knows.
    let temporary = reserved(&client, &mut channel).await;
    client.faults(first(path::EXCHANGE, json!("lose_ack"))).await;
    let id = exchange(&client, &temporary).await;
    let pool = channel.held(&id).await;
    client.vote(&voter, &pool, "approve").await;
    assert_eq!(client.poll(&id).await, "succeeded");
    assert_eq!(client.configure(&temporary, "/", "a").await.status(), StatusCode::OK);
}
