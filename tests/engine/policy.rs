//! The engine over the wire: authenticators, voting configurations, policies, and pools
//! made by hand (C.7 to C.9).

use std::time::Duration;

use privicorefs::protocol;
use privicorefs::protocol::governance::{TYPE_BALLOT, old_path, path};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::house::Server;
use crate::house::wire;
use crate::house::wire::governance::Voter;
use crate::house::wire::{Channel, USER, WireClient, body, header};

const NOBODY: &str = "0190a5d2-0000-7000-8000-000000000000";

/// That a JSON body is refused because of one field.
async fn wrong(client: &WireClient, path: &str, value: Value, field: &str) {
    let reply = client.json(path, &value).await;
    assert_eq!(reply.status(), StatusCode::UNPROCESSABLE_ENTITY, "{path} {value}");
    let reply = body(reply).await;
    assert!(reply["errors"][field].is_array(), "{field}: {reply}");
}

/// A call, its form, and the field that is wrong.
type Wrong<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);

#[tokio::test]
async fn defaults_are_set_checked_and_kept() {
    let mut server = Server::new().await;
    let (client, mut channel) = server.user().await;
    let profile: Value = body(client.get(protocol::path::PROFILE_ID).await).await;
    let id = profile["profileId"].as_str().unwrap();
    assert_eq!(
        client.read(path::STRATEGY).await,
        json!({
            "id": id, "strategy": "unanimous", "strategyParams": { "percentageRequired": null },
            "quorumSize": 1, "timeLimit": 300, "maximumVotingAttempts": null,
        })
    );
    client.done(&mut channel, path::SET_QUORUM_SIZE, &[("id", id), ("size", "2")]).await;
    let form = [("strategy", "minimum_percentage"), ("strategy_params", "60")];
    client.done(&mut channel, path::SET_QUORUM_STRATEGY, &form).await;
    client.done(&mut channel, path::SET_TIME_LIMIT, &[("time_limit", "60")]).await;
    client.done(&mut channel, path::SET_ATTEMPTS, &[("number_of_attempts", "3")]).await;

    let forms: [Wrong<'_>; 8] = [
        (path::SET_QUORUM_SIZE, &[("size", "0")], "size"),
        (path::SET_QUORUM_SIZE, &[], "size"),
        (path::SET_QUORUM_STRATEGY, &[("strategy", "loud")], "strategy"),
        (path::SET_QUORUM_STRATEGY, &[("strategy", "minimum_percentage")], "percentageRequired"),
        (
            path::SET_QUORUM_STRATEGY,
            &[("strategy", "consensus"), ("strategy_params", "x")],
            "strategy_params",
        ),
        (path::SET_TIME_LIMIT, &[("time_limit", "0")], "time_limit"),
        (path::SET_TIME_LIMIT, &[("time_limit", "soon")], "time_limit"),
        (path::SET_ATTEMPTS, &[("number_of_attempts", "1001")], "number_of_attempts"),
    ];
    for (path, form, field) in forms {
        let reply = client.post(path, form).await;
        assert_eq!(reply.status(), StatusCode::UNPROCESSABLE_ENTITY, "{path} {form:?}");
        assert!(body(reply).await["errors"][field].is_array(), "{path} {form:?}");
    }
    let foreign = client.post(path::SET_QUORUM_SIZE, &[("id", NOBODY), ("size", "1")]).await;
    assert_eq!(foreign.status(), StatusCode::FORBIDDEN);

    server.restart().await;
    let client = server.login(USER).await;
    assert_eq!(
        client.read(path::STRATEGY).await,
        json!({
            "id": id, "strategy": "minimum_percentage",
            "strategyParams": { "percentageRequired": 60 },
            "quorumSize": 2, "timeLimit": 60, "maximumVotingAttempts": 3,
        })
    );
}

#[tokio::test]
async fn voting_configurations_are_registered_changed_and_deleted() {
    let mut server = Server::new().await;
    let (client, mut channel) = server.user().await;
    let [one, two] = client.authenticators(&mut channel).await;
    let value = json!({
        "name": "board", "timeLimit": 60, "strategy": "minimum_percentage",
        "percentageRequired": 50, "deviceIdentifiers": [one.identifier],
    });
    client.json_done(&mut channel, path::CONFIGURATION_REGISTER, &value).await;
    let form = [
        ("name", "all"),
        ("timeLimit", "30"),
        ("strategy", "unanimous"),
        ("deviceIdentifiers[]", two.identifier.as_str()),
    ];
    client.done(&mut channel, old_path::CONFIGURATION_REGISTER, &form).await;

    let list = client.read(path::CONFIGURATION_LIST).await;
    assert_eq!(list.as_array().unwrap().len(), 2);
    assert_eq!(list[1]["deviceIdentifiers"], json!([two.identifier]));
    let id = list[0]["id"].as_str().unwrap();
    for wanted in ["board", id] {
        let found = client.read(&format!("{}{wanted}", path::CONFIGURATION_RETRIEVE)).await;
        assert_eq!(found, list[0]);
    }
    assert_eq!(list[0]["percentageRequired"], 50);

    let value = json!({ "votingConfigurationId": id, "strategy": "affirmative", "name": "any" });
    client.json_done(&mut channel, path::CONFIGURATION_UPDATE, &value).await;
    let value = json!({ "name": "any", "timeLimit": 90 });
    client.json_done(&mut channel, path::CONFIGURATION_UPDATE, &value).await;
    let changed = client.read(&format!("{}any", path::CONFIGURATION_RETRIEVE)).await;
    assert_eq!(changed["id"], id);
    assert_eq!(changed["strategy"], "affirmative");
    assert_eq!(changed["percentageRequired"], Value::Null);
    assert_eq!(changed["timeLimit"], 90);
    assert_eq!(changed["deviceIdentifiers"], json!([one.identifier]));

    client.done(&mut channel, path::CONFIGURATION_DELETE, &[("name", "all")]).await;
    server.restart().await;
    let client = server.login(USER).await;
    assert_eq!(client.read(path::CONFIGURATION_LIST).await, json!([changed]));
    // Another profile has its own names and sees nothing of these.
    let bob = server.register("bob").await;
    assert_eq!(bob.read(path::CONFIGURATION_LIST).await, json!([]));
    for unknown in ["any", id] {
        let address = format!("{}{unknown}", path::CONFIGURATION_RETRIEVE);
        assert_eq!(bob.get(&address).await.status(), StatusCode::NOT_FOUND);
        for path in [path::CONFIGURATION_UPDATE, path::CONFIGURATION_DELETE] {
            let reply = bob.json(path, &json!({ "votingConfigurationId": unknown })).await;
            assert_eq!(reply.status(), StatusCode::NOT_FOUND, "{path}");
        }
    }
    let foreign = json!({
        "name": "x", "timeLimit": 1, "strategy": "unanimous",
        "deviceIdentifiers": [one.identifier],
    });
    wrong(&bob, path::CONFIGURATION_REGISTER, foreign, "deviceIdentifiers").await;
}

#[tokio::test]
async fn voting_configurations_are_checked() {
    let server = Server::new().await;
    let (client, mut channel) = server.user().await;
    let idle = client.approved_device(&mut channel, "idle").await;
    client.configuration(&mut channel, "taken", "unanimous", 60).await;
    let good = json!({
        "name": "n", "timeLimit": 60, "strategy": "consensus", "deviceIdentifiers": [],
    });
    let cases = [
        ("name", json!(null)),
        ("name", json!("")),
        ("name", json!(7)),
        ("name", json!("taken")),
        ("timeLimit", json!(null)),
        ("timeLimit", json!(0)),
        ("timeLimit", json!(604_801)),
        ("timeLimit", json!("soon")),
        ("strategy", json!(null)),
        ("strategy", json!("loud")),
        ("percentageRequired", json!(50)),
        ("deviceIdentifiers", json!(null)),
        ("deviceIdentifiers", json!("all")),
        ("deviceIdentifiers", json!(["nothing"])),
        ("deviceIdentifiers", json!([idle])),
    ];
    for (field, value) in cases {
        let mut body = good.clone();
        body[field] = value;
        wrong(&client, path::CONFIGURATION_REGISTER, body, field).await;
    }
    for percentage in [json!(null), json!(101), json!(-1), json!("half")] {
        let mut body = good.clone();
        body["strategy"] = json!("minimum_percentage");
        body["percentageRequired"] = percentage;
        wrong(&client, path::CONFIGURATION_REGISTER, body, "percentageRequired").await;
    }
    client.json_done(&mut channel, path::CONFIGURATION_REGISTER, &good).await;
    let rename = json!({ "votingConfigurationId": "n", "name": "taken" });
    wrong(&client, path::CONFIGURATION_UPDATE, rename, "name").await;
    wrong(&client, path::CONFIGURATION_UPDATE, json!({}), "name").await;
    wrong(&client, path::CONFIGURATION_DELETE, json!({}), "name").await;
    wrong(&client, path::CONFIGURATION_REGISTER, json!([1]), "body").await;

    // Two of one name at once: the one that commits second is rejected.
    let twin = json!({
        "name": "twin", "timeLimit": 60, "strategy": "consensus", "deviceIdentifiers": [],
    });
    let (one, two) = tokio::join!(
        client.json(path::CONFIGURATION_REGISTER, &twin),
        client.json(path::CONFIGURATION_REGISTER, &twin)
    );
    let mut succeeded = 0;
    for reply in [one, two] {
        if reply.status() == StatusCode::ACCEPTED {
            let ack = channel.settled(&header(&reply, protocol::COMMAND_ID)).await;
            succeeded += u32::from(ack["command_status"] == 2);
        }
    }
    assert_eq!(succeeded, 1);
}

#[tokio::test]
async fn templates_are_an_object_by_id() {
    let server = Server::new().await;
    let client = server.register(USER).await;
    let templates = client.read(path::POLICY_TEMPLATES).await;
    let mut events = Vec::new();
    for template in templates.as_object().unwrap().values() {
        assert!(template["name"].is_string() && template["description"].is_string());
        assert!(template["configuration"].is_array() && template["votingAttributes"].is_array());
        for event in template["events"].as_object().unwrap().values() {
            events.extend(event.as_object().unwrap().keys().cloned());
        }
    }
    events.sort();
    events.dedup();
    let expected = [
        "data_token.data_deleted",
        "data_token.data_exchanged",
        "data_token.data_requested",
        "data_token.file_meta_configured",
        "data_token.risk_meta_configured",
        "device.registered",
    ];
    assert_eq!(events, expected);
}

#[tokio::test]
async fn policies_are_registered_activated_and_deleted() {
    let mut server = Server::new().await;
    let (client, mut channel) = server.user().await;
    client.configuration(&mut channel, "board", "unanimous", 60).await;
    let board = client.read(&format!("{}board", path::CONFIGURATION_RETRIEVE)).await["id"].clone();
    let configuration = json!({ "classification": "internal", "label": "probe" });
    let value = json!({
        "policyTemplateId": "tpl-data-exchange", "applyingEventIds": ["evt-data-exchanged"],
        "name": "careful", "configuration": configuration, "votingConfigurationId": "board",
    });
    client.json_done(&mut channel, path::POLICY_REGISTER, &value).await;
    let value = json!({
        "policyTemplateId": "tpl-data-token",
        "applyingEventIds": ["data_token.data_deleted", "evt-risk-meta", "evt-risk-meta"],
        "configuration": { "handling": "*" }, "configurationId": board,
    });
    client.json_done(&mut channel, old_path::POLICY_REGISTER, &value).await;

    let list = client.read(path::POLICY_LIST).await;
    assert_eq!(list[0]["name"], "careful");
    assert_eq!(list[0]["configuration"], configuration);
    assert_eq!((&list[0]["active"], &list[1]["active"]), (&json!(false), &json!(false)));
    assert_eq!(list[1]["applyingEventIds"], json!(["evt-data-deleted", "evt-risk-meta"]));
    assert_eq!(list[1]["name"], list[1]["id"], "a policy without a name is named by its id");
    assert_eq!((&list[0]["votingConfigurationId"], &list[1]["configurationId"]), (&board, &board));
    let id = list[0]["id"].as_str().unwrap();
    for wanted in ["careful", id] {
        assert_eq!(client.read(&format!("{}{wanted}", path::POLICY_RETRIEVE)).await, list[0]);
    }

    client.done(&mut channel, path::POLICY_ACTIVATE, &[("policyId", id)]).await;
    client.done(&mut channel, old_path::POLICY_ACTIVATE, &[("name", "careful")]).await;
    assert_eq!(client.read(path::POLICY_ACTIVE).await[0]["id"], id);
    assert_eq!(client.read(path::POLICY_INACTIVE).await, json!([list[1]]));
    server.restart().await;
    let (client, mut channel) = joined(&server).await;
    assert_eq!(client.read(path::POLICY_ACTIVE).await[0]["id"], id);
    client.done(&mut channel, path::POLICY_DEACTIVATE, &[("policyId", id)]).await;
    client.done(&mut channel, old_path::POLICY_DEACTIVATE, &[("name", "careful")]).await;
    assert_eq!(client.read(path::POLICY_ACTIVE).await, json!([]));

    let used = client.post(path::CONFIGURATION_DELETE, &[("name", "board")]).await;
    assert_eq!(used.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(body(used).await["error"], "voting_configuration.in_use");
    for policy in list.as_array().unwrap() {
        let id = policy["id"].as_str().unwrap();
        client.done(&mut channel, path::POLICY_DELETE, &[("policyId", id)]).await;
    }
    assert_eq!(client.read(path::POLICY_LIST).await, json!([]));
    client.done(&mut channel, path::CONFIGURATION_DELETE, &[("name", "board")]).await;
}

async fn joined(server: &Server) -> (WireClient, Channel) {
    let client = server.login(USER).await;
    let channel = client.join().await;
    (client, channel)
}

#[tokio::test]
async fn policies_are_checked() {
    let server = Server::new().await;
    let (client, mut channel) = server.user().await;
    client.configuration(&mut channel, "board", "unanimous", 60).await;
    let good = json!({
        "policyTemplateId": "tpl-data-exchange", "applyingEventIds": ["evt-data-exchanged"],
        "name": "careful", "configuration": { "label": "*" }, "votingConfigurationId": "board",
    });
    client.json_done(&mut channel, path::POLICY_REGISTER, &good).await;
    let cases = [
        ("policyTemplateId", json!(null)),
        ("policyTemplateId", json!("tpl-none")),
        ("applyingEventIds", json!(null)),
        ("applyingEventIds", json!([])),
        ("applyingEventIds", json!(["evt-data-deleted"])),
        ("name", json!("careful")),
        ("configuration", json!(null)),
        ("configuration", json!({})),
        ("configuration", json!({ "colour": "red" })),
        ("configuration", json!({ "label": 1 })),
        ("votingConfigurationId", json!("none")),
    ];
    for (field, value) in cases {
        let mut body = good.clone();
        body["name"] = json!("other");
        body[field] = value;
        wrong(&client, path::POLICY_REGISTER, body, field).await;
    }
    let bob = server.register("bob").await;
    let changes = [path::POLICY_ACTIVATE, path::POLICY_DEACTIVATE, path::POLICY_DELETE];
    for path in changes {
        for (who, wanted) in [(&client, "none"), (&bob, "careful")] {
            let reply = who.post(path, &[("policyId", wanted)]).await;
            assert_eq!(reply.status(), StatusCode::NOT_FOUND, "{path}");
        }
        let reply = client.post(path, &[]).await;
        assert_eq!(reply.status(), StatusCode::UNPROCESSABLE_ENTITY, "{path}");
        assert!(body(reply).await["errors"]["policyId"].is_array());
    }
    let foreign = bob.get(&format!("{}careful", path::POLICY_RETRIEVE)).await;
    assert_eq!(foreign.status(), StatusCode::NOT_FOUND);
}

/// A pool made by hand.
async fn create(client: &WireClient, channel: &mut Channel, extra: Value) -> String {
    let mut value =
        json!({ "votingConfigurationId": "board", "title": "Lunch", "question": "Now?" });
    value.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    let reply = client.json(path::POOL_CREATE, &value).await;
    assert_eq!(reply.status(), StatusCode::ACCEPTED);
    let id = header(&reply, protocol::COMMAND_ID);
    let reply = body(reply).await;
    assert_eq!(reply["commandId"], id);
    assert_eq!(reply["pollId"], reply["poolId"]);
    channel.ack(&id).await;
    reply["poolId"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_pool_made_by_hand_is_voted_on_and_listed() {
    let mut server = Server::new().await;
    let (client, mut channel) = server.user().await;
    let [one, two] = client.authenticators(&mut channel).await;
    client.configuration(&mut channel, "board", "minimum_percentage", 60).await;
    let pool = create(&client, &mut channel, json!({ "nonce": "n-1" })).await;
    let asked = channel.find(TYPE_BALLOT, &pool).await;
    assert_eq!(asked["poolId"], pool);
    assert_eq!(asked["deviceIdentifiers"], json!([one.identifier, two.identifier]));

    let seen = client.pool(&pool).await;
    let ballot = |voter: &Voter, name: &str, vote: Option<&str>| json!({ "deviceIdentifier": voter.identifier, "name": name, "vote": vote });
    let expected = json!({
        "poolId": pool, "status": "open", "title": "Lunch", "question": "Now?", "nonce": "n-1",
        "event": null, "token": null, "deviceIdentifier": null, "policy": null, "policyId": null,
        "strategy": "minimum_percentage", "percentageRequired": 50, "timeLimit": 60,
        "createdAt": "2023-11-14T22:13:20+00:00", "expiresAt": "2023-11-14T22:14:20+00:00",
        "settledAt": null,
        "ballots": [ballot(&one, "phone 0", None), ballot(&two, "phone 1", None)],
    });
    assert_eq!(seen, expected);
    assert_eq!(client.pools("open").await, [seen]);

    server.restart().await;
    let (client, mut channel) = joined(&server).await;
    assert_eq!(client.vote(&one, &pool, "approve").await, "approved");
    let seen = client.pool(&pool).await;
    assert_eq!(seen["ballots"][0], ballot(&one, "phone 0", Some("approve")));
    assert_eq!(client.pools("open").await, [] as [Value; 0]);
    // Ids are in the order of milliseconds.
    server.clock.advance(Duration::from_secs(1));
    let skip = json!({ "skipAuthenticatorDevices": [one.identifier] });
    let second = create(&client, &mut channel, skip).await;
    assert_eq!(client.pool(&second).await["ballots"], json!([ballot(&two, "phone 1", None)]));
    assert_eq!(client.cast(&one, &second, "approve").await.status(), StatusCode::FORBIDDEN);
    let all = client.read(path::POOL_LIST).await;
    assert_eq!(all[0]["poolId"], pool);
    assert_eq!(all[1]["poolId"], second);

    // A settled pool can be looked at for a day.
    server.clock.advance(Duration::from_secs(60));
    assert_eq!(client.pool(&second).await["status"], "timed_out");
    server.clock.advance(Duration::from_secs(23 * 3_600));
    assert_eq!(client.pool(&pool).await["status"], "approved");
    server.clock.advance(Duration::from_secs(2 * 3_600));
    let client = server.login(USER).await;
    let forgotten = async {
        while client.read(path::POOL_LIST).await != json!([]) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(wire::PATIENCE, forgotten).await.unwrap();
    let gone = client.get(&format!("{}{pool}", path::POOL_STATUS)).await;
    assert_eq!(gone.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn pools_are_checked() {
    let server = Server::new().await;
    let (client, mut channel) = server.user().await;
    client.configuration(&mut channel, "board", "unanimous", 60).await;
    let good = json!({ "votingConfigurationId": "board", "title": "t", "question": "q" });
    let nobody = client.json(path::POOL_CREATE, &good).await;
    let ack = channel.settled(&header(&nobody, protocol::COMMAND_ID)).await;
    assert_eq!(
        (&ack["command_status"], &ack["body"]),
        (&json!(3), &json!("policy.no_authenticator"))
    );

    let [one] = client.authenticators(&mut channel).await;
    let cases = [
        ("votingConfigurationId", json!(null)),
        ("votingConfigurationId", json!("none")),
        ("title", json!(null)),
        ("question", json!("")),
        ("skipAuthenticatorDevices", json!(["none"])),
        ("nonce", json!(1)),
    ];
    for (field, value) in cases {
        let mut body = good.clone();
        body[field] = value;
        wrong(&client, path::POOL_CREATE, body, field).await;
    }
    let pool = create(&client, &mut channel, json!({})).await;
    let bob = server.register("bob").await;
    let cancel = |who: &WireClient, pool: &str| {
        let (who, pool) = (who.clone(), pool.to_owned());
        async move { who.post(path::POOL_CANCEL, &[("poolId", &pool)]).await.status().as_u16() }
    };
    assert_eq!(bob.get(&format!("{}{pool}", path::POOL_STATUS)).await.status().as_u16(), 403);
    assert_eq!(cancel(&bob, &pool).await, 403);
    for unknown in ["x", NOBODY] {
        let status = client.get(&format!("{}{unknown}", path::POOL_STATUS)).await;
        assert_eq!(status.status().as_u16(), 404);
        assert_eq!(cancel(&client, unknown).await, 404);
    }
    assert_eq!(bob.pools("open").await, [] as [Value; 0]);
    let bad = client.get(&format!("{}?status=odd", path::POOL_LIST)).await;
    assert_eq!(bad.status(), StatusCode::UNPROCESSABLE_ENTITY);
    client.done(&mut channel, path::POOL_CANCEL, &[("poolId", &pool)]).await;
    assert_eq!(client.pool(&pool).await["status"], "cancelled");
    assert_eq!(cancel(&client, &pool).await, 422);
    assert_eq!(client.cast(&one, &pool, "approve").await.status().as_u16(), 422);
}

#[tokio::test]
async fn ballots_are_checked_replaced_and_counted() {
    let server = Server::new().await;
    let (client, mut channel) = server.user().await;
    let [one, two] = client.authenticators(&mut channel).await;
    client.configuration(&mut channel, "board", "consensus", 60).await;
    client.done(&mut channel, path::SET_ATTEMPTS, &[("number_of_attempts", "2")]).await;
    let pool = create(&client, &mut channel, json!({})).await;

    let status = async |voter: &Voter, pool: &str, vote: &str| {
        client.cast(voter, pool, vote).await.status().as_u16()
    };
    let liar = Voter { secret: two.secret.clone(), ..one.clone() };
    let nobody = Voter { identifier: "nobody".into(), ..one.clone() };
    let pending = client.device(&mut channel, "pending").await;
    let pending = Voter { identifier: pending, ..one.clone() };
    for voter in [&liar, &nobody, &pending] {
        assert_eq!(status(voter, &pool, "approve").await, 401);
    }
    let bare = client.post(path::POOL_BALLOT, &[("poolId", &pool), ("vote", "approve")]).await;
    assert_eq!(bare.status().as_u16(), 401);
    let odd = client.request(Method::POST, path::POOL_BALLOT).header("authorization", "Basic ?");
    assert_eq!(odd.send().await.unwrap().status().as_u16(), 401);
    assert_eq!(status(&one, NOBODY, "approve").await, 404);
    assert_eq!(status(&one, "x", "approve").await, 404);
    assert_eq!(status(&one, &pool, "maybe").await, 422);
    assert_eq!(status(&one, "", "approve").await, 422);
    let late = client.authenticator(&mut channel, "late").await;
    assert_eq!(status(&late, &pool, "approve").await, 403);
    let bob = server.register("bob").await;
    let foreign = bob.authenticator(&mut bob.join().await, "foreign").await;
    assert_eq!(status(&foreign, &pool, "approve").await, 403);

    assert_eq!(client.vote(&one, &pool, "approve").await, "open");
    // Two ballots of one device are one vote, and there is no third.
    assert_eq!(client.vote(&one, &pool, "approve").await, "open");
    let third = client.cast(&one, &pool, "reject").await;
    assert_eq!(body(third).await["error"], "voting.too_many_attempts");
    let form = [("deviceIdentifier", two.identifier.as_str())];
    client.done(&mut channel, path::AUTHENTICATOR_REMOVE, &form).await;
    assert_eq!(status(&two, &pool, "approve").await, 403);
    client.done(&mut channel, path::AUTHENTICATOR_REGISTER, &form).await;
    assert_eq!(client.vote(&two, &pool, "approve").await, "approved");
    let settled = client.cast(&two, &pool, "reject").await;
    assert_eq!(settled.status().as_u16(), 422);
    assert_eq!(body(settled).await["error"], "voting.settled");
    client.done(&mut channel, path::DEVICE_REMOVE, &form).await;
    assert_eq!(status(&two, &pool, "approve").await, 401);

    let pool = create(&client, &mut channel, json!({})).await;
    assert_eq!(client.vote(&one, &pool, "approve").await, "open");
    assert_eq!(
        client.vote(&one, &pool, "reject").await,
        "rejected",
        "one of two cannot be more than half"
    );
}

#[tokio::test]
async fn every_call_wants_a_token_and_its_method() {
    let server = Server::new().await;
    let client = server.register(USER).await;
    let posts = [
        path::SET_QUORUM_SIZE,
        path::SET_QUORUM_STRATEGY,
        path::SET_TIME_LIMIT,
        path::SET_ATTEMPTS,
        path::CONFIGURATION_REGISTER,
        old_path::CONFIGURATION_REGISTER,
        path::CONFIGURATION_UPDATE,
        path::CONFIGURATION_DELETE,
        path::POLICY_REGISTER,
        old_path::POLICY_REGISTER,
        path::POLICY_ACTIVATE,
        old_path::POLICY_ACTIVATE,
        path::POLICY_DEACTIVATE,
        old_path::POLICY_DEACTIVATE,
        path::POLICY_DELETE,
        path::POOL_CREATE,
        path::POOL_CANCEL,
        path::POOL_BALLOT,
    ];
    let with_ids = [path::CONFIGURATION_RETRIEVE, path::POLICY_RETRIEVE, path::POOL_STATUS]
        .map(|p| format!("{p}x"));
    let gets = [
        path::AUTHENTICATOR_LIST,
        path::STRATEGY,
        path::CONFIGURATION_LIST,
        path::POLICY_TEMPLATES,
        path::POLICY_ACTIVE,
        path::POLICY_INACTIVE,
        path::POLICY_LIST,
        path::POOL_LIST,
    ];
    let gets = gets.into_iter().chain(with_ids.iter().map(String::as_str));
    let calls = posts.map(|path| (Method::POST, Method::GET, path)).into_iter();
    for (right, wrong, path) in calls.chain(gets.map(|path| (Method::GET, Method::POST, path))) {
        let reply = server.anonymous().request(right, path).send().await.unwrap();
        assert_eq!(reply.status(), StatusCode::UNAUTHORIZED, "{path}");
        let reply = client.request(wrong, path).send().await.unwrap();
        assert_eq!(reply.status(), StatusCode::METHOD_NOT_ALLOWED, "{path}");
    }
}
