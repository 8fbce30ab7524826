//! The client's calls about devices, authenticators, policies and votes, against the
//! engine.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use privicorefs::engine::{CommandBody, Fault, FaultPlan, Rule, Shape, When};
use privicorefs::env::Env;
use privicorefs::privicore::{
    Approval, Client, DeviceConfiguration, NewPolicy, NewVotingConfiguration, NewVotingPool,
    OauthCredentials, Strategy, Vote, VotingConfigurationChange, VotingPool,
};
use privicorefs::protocol::governance::{old_path, path};
use privicorefs::store::{StoreError, StoreErrorKind, StoreResult};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

use crate::house::Connected;

const APPROVED: Option<Approval> = Some(Approval::Approved);

fn fails<T: Debug>(outcome: StoreResult<T>) -> StoreError {
    outcome.unwrap_err()
}

async fn pending(client: &Client, name: &str) -> String {
    let request = client.request_device(Some(name)).await.unwrap();
    client.requested_device(&request).await.unwrap().identifier
}

/// An approved device that votes, with its credentials.
async fn voter(client: &Client, name: &str) -> (String, OauthCredentials) {
    let device = pending(client, name).await;
    client.approve_device(&device).await.unwrap();
    client.register_authenticator(&device).await.unwrap();
    let configuration = client.device_configuration(&device).await.unwrap();
    (device, configuration.credentials.unwrap())
}

fn board(strategy: Strategy, devices: &[&str]) -> NewVotingConfiguration {
    let devices = devices.iter().map(|&device| device.to_owned()).collect();
    NewVotingConfiguration { name: "board".to_owned(), strategy, time_limit: 60, devices }
}

/// A policy on the approval of devices.
fn gate() -> NewPolicy {
    NewPolicy {
        name: "gate".to_owned(),
        template: "tpl-device-registration".to_owned(),
        events: vec!["evt-device-registered".to_owned()],
        configuration: BTreeMap::from([("classification".to_owned(), "*".to_owned())]),
        voting: Some("board".to_owned()),
    }
}

fn question(title: &str) -> NewVotingPool {
    NewVotingPool {
        configuration: "board".to_owned(),
        title: title.to_owned(),
        question: "Shall we?".to_owned(),
        skip: Vec::new(),
        nonce: None,
    }
}

/// The pool that is open, once there is one.
async fn open_pool(client: &Client) -> VotingPool {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let mut found = client.voting_pools(Some("open")).await.unwrap();
        if let Some(pool) = found.pop() {
            return pool;
        }
        assert!(Instant::now() < deadline, "no pool was opened");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_requested_named_decided_about_and_removed() {
    use CommandBody as B;
    for command_body in [B::String, B::Text, B::Array, B::Object, B::HeaderObject, B::Empty] {
        let connected = Connected::with(Shape { command_body, ..Shape::default() }).await;
        let client = &*connected.client;
        let phone = pending(client, "phone").await;
        let other = pending(client, "other").await;
        let named = client.devices().await.unwrap().into_iter().find(|d| d.identifier == phone);
        let named = named.unwrap();
        assert_eq!(named.approval, Some(Approval::Pending));
        assert_eq!((named.name.as_deref(), named.roles.len()), (Some("phone"), 0));
        assert!(named.created.is_some());

        client.rename_device(&phone, "my phone").await.unwrap();
        client.approve_device(&phone).await.unwrap();
        client.reject_device(&other).await.unwrap();
        let found = client.devices().await.unwrap();
        assert_eq!(found[0].roles, ["storage"], "the virtual one");
        assert_eq!((found[1].name.as_deref(), found[1].approval), (Some("my phone"), APPROVED));
        assert_eq!(found[2].approval, Some(Approval::Rejected));
        let again = fails(client.approve_device(&other).await);
        assert_eq!(again.kind, StoreErrorKind::Denied, "{again}");
        assert!(again.message.contains("already_reviewed"), "{again}");

        client.remove_device(&phone).await.unwrap();
        assert_eq!(client.devices().await.unwrap().len(), 2);
        // A service may want no name.
        let request = client.request_device(None).await.unwrap();
        assert!(!client.requested_device(&request).await.unwrap().identifier.is_empty());
        connected.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_is_the_same_in_all_three_forms_and_shows_no_secret() {
    let connected = Connected::new().await;
    let client = &*connected.client;
    let device = pending(client, "phone").await;
    let early = fails(client.device_configuration(&device).await);
    assert_eq!(early.kind, StoreErrorKind::Invalid, "{early}");
    assert!(early.message.contains("not approved"), "{early}");
    client.approve_device(&device).await.unwrap();

    let mut found = Vec::new();
    let with_id = |path: &str| format!("{path}{{id}}");
    let forms = [with_id(path::DEVICE_CONFIGURATION), path::DEVICE_DOWNLOAD.to_owned()];
    for absent in 0..=forms.len() {
        let rule = |op: &String| Rule {
            op: op.clone(),
            kind: Fault::Status { code: 404, retry_after: None },
            when: When::Always,
        };
        let rules = forms[..absent].iter().map(rule).collect();
        connected.engine.set_faults(FaultPlan { seed: 1, rules });
        // What one session has learned, another does not know.
        let fresh = connected.another().await;
        found.push(fresh.device_configuration(&device).await.unwrap());
        fresh.close().await;
    }
    assert_eq!(found[0], found[1]);
    assert_eq!(found[0].credentials, found[2].credentials);
    let read = DeviceConfiguration::parse(found[2].to_file().expose()).unwrap();
    assert_eq!(read, found[0], "the service's file, read back");
    let secret = found[0].credentials.as_ref().unwrap().client_secret.expose().to_owned();
    let pass = found[0].rabbit_pass.as_ref().unwrap().expose().to_owned();
    let shown = format!("{found:?}");
    assert!(!shown.contains(&secret) && !shown.contains(&pass));
    connected.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn older_paths_are_tried_once_and_remembered() {
    for code in [404, 405, 501] {
        let connected = Connected::new().await;
        let client = &*connected.client;
        let newer = [
            path::DEVICE_REQUEST,
            path::DEVICE_IDENTIFIER,
            path::DEVICE_META,
            path::DEVICE_REMOVE,
            path::AUTHENTICATOR_REGISTER,
            path::CONFIGURATION_REGISTER,
            path::POLICY_REGISTER,
            path::POLICY_ACTIVATE,
            path::POLICY_DEACTIVATE,
        ];
        let rule = |path: &&str| Rule {
            op: (*path).to_owned(),
            kind: Fault::Status { code, retry_after: None },
            when: When::Always,
        };
        connected.engine.set_faults(FaultPlan { seed: 1, rules: newer.iter().map(rule).collect() });
        for time in 1..=2_u64 {
            let device = pending(client, "phone").await;
            client.rename_device(&device, "mine").await.unwrap();
            client.approve_device(&device).await.unwrap();
            client.register_authenticator(&device).await.unwrap();
            let strategy = Strategy::MinimumPercentage(40);
            let new = NewVotingConfiguration {
                name: format!("board {time}"),
                ..board(strategy, &[&device])
            };
            let made = client.register_voting_configuration(&new).await.unwrap().unwrap();
            assert_eq!((made.strategy, made.devices), (Some(strategy), vec![device.clone()]));
            let new = NewPolicy { name: format!("gate {time}"), voting: Some(new.name), ..gate() };
            let policy = client.register_policy(&new).await.unwrap().unwrap();
            assert_eq!((policy.configuration, policy.voting), (new.configuration, made.id));
            client.activate_policy(&policy.id).await.unwrap();
            assert_eq!(client.policies(Some(true)).await.unwrap().len(), 1);
            client.deactivate_policy(&policy.id).await.unwrap();
            assert_eq!(client.policies(Some(true)).await.unwrap().len(), 0);
            client.remove_device(&device).await.unwrap();
            for path in newer {
                assert_eq!(
                    connected.requests(&format!("POST {path}")),
                    1,
                    "{path}: asked once only"
                );
            }
            for path in [
                old_path::DEVICE_REQUEST,
                old_path::DEVICE_META,
                old_path::DEVICE_REMOVE,
                old_path::AUTHENTICATOR_REGISTER,
                old_path::CONFIGURATION_REGISTER,
                old_path::POLICY_REGISTER,
                old_path::POLICY_ACTIVATE,
                old_path::POLICY_DEACTIVATE,
            ] {
                assert_eq!(connected.requests(&format!("POST {path}")), time, "{path}");
            }
        }
        let found = connected.requests(&format!("GET {}{{id}}", old_path::DEVICE_IDENTIFIER));
        assert_eq!(found, 2);
        connected.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_are_listed_by_post_where_get_is_not_taken() {
    let connected = Connected::new().await;
    let once = Fault::Status { code: 405, retry_after: None };
    connected.fault(path::DEVICE_LIST, once, When::First(1));
    for _ in 0..2 {
        assert_eq!(connected.client.devices().await.unwrap().len(), 1);
    }
    let asked = |method: &str| connected.requests(&format!("{method} {}", path::DEVICE_LIST));
    assert_eq!((asked("GET"), asked("POST")), (1, 2));
    connected.end().await;
}

/// Every call of this family, with what it names.
async fn everything(client: &Client, id: &str) -> Vec<(&'static str, StoreResult<()>)> {
    fn told<T>(outcome: StoreResult<T>) -> StoreResult<()> {
        outcome.map(drop)
    }
    let change = VotingConfigurationChange { time_limit: Some(5), ..Default::default() };
    vec![
        ("requested", told(client.requested_device(id).await)),
        ("rename", client.rename_device(id, "n").await),
        ("approve", client.approve_device(id).await),
        ("reject", client.reject_device(id).await),
        ("configuration", told(client.device_configuration(id).await)),
        ("remove", client.remove_device(id).await),
        ("authenticator", client.register_authenticator(id).await),
        ("no authenticator", client.remove_authenticator(id).await),
        ("update", client.update_voting_configuration(id, &change).await),
        ("voting configuration", told(client.voting_configuration(id).await)),
        ("delete configuration", client.delete_voting_configuration(id).await),
        ("policy", told(client.policy(id).await)),
        ("activate", client.activate_policy(id).await),
        ("deactivate", client.deactivate_policy(id).await),
        ("delete policy", client.delete_policy(id).await),
        ("pool", told(client.voting_pool(id).await)),
        ("cancel", client.cancel_voting_pool(id).await),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_told_from_a_call_that_is_not_there() {
    let connected = Connected::new().await;
    let client = &*connected.client;
    let nobody = "0190a5d2-0000-7000-8000-000000000000";
    for (call, outcome) in everything(client, nobody).await {
        let error = outcome.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::NotFound, "{call}: {error}");
        assert!(error.to_string().contains(nobody), "{call}: {error}");
    }
    // What is there, in a service that has lost the one call about it.
    let device = pending(client, "phone").await;
    let absent = Fault::Status { code: 404, retry_after: None };
    connected.fault(path::DEVICE_REJECT, absent, When::Always);
    let fresh = connected.another().await;
    let error = fails(fresh.reject_device(&device).await);
    assert_eq!(error.kind, StoreErrorKind::Unsupported, "{error}");
    fresh.close().await;
    connected.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_without_any_of_it_says_so_in_one_line() {
    let connected = Connected::new().await;
    let credentials =
        OauthCredentials { client_id: "d".to_owned(), client_secret: "S-device".into() };
    for code in [404, 405, 501] {
        let client = connected.another().await;
        connected.fault("*", Fault::Status { code, retry_after: None }, When::Always);
        let mut outcomes = everything(&client, "x").await;
        let pool = question("t");
        let new = board(Strategy::Unanimous, &[]);
        outcomes.extend([
            ("request", client.request_device(None).await.map(drop)),
            ("devices", client.devices().await.map(drop)),
            ("authenticators", client.authenticators().await.map(drop)),
            ("rules", client.voting_rules().await.map(drop)),
            ("quorum", client.set_quorum_size(1).await),
            ("strategy", client.set_quorum_strategy(Strategy::Consensus).await),
            ("limit", client.set_voting_time_limit(60).await),
            ("attempts", client.set_voting_attempts(1).await),
            ("register", client.register_voting_configuration(&new).await.map(drop)),
            ("configurations", client.voting_configurations().await.map(drop)),
            ("templates", client.policy_templates().await.map(drop)),
            ("policy", client.register_policy(&gate()).await.map(drop)),
            ("policies", client.policies(None).await.map(drop)),
            ("active", client.policies(Some(true)).await.map(drop)),
            ("inactive", client.policies(Some(false)).await.map(drop)),
            ("create", client.create_voting_pool(&pool).await.map(drop)),
            ("pools", client.voting_pools(None).await.map(drop)),
        ]);
        for (call, outcome) in outcomes {
            let error = outcome.unwrap_err();
            assert_eq!(error.kind, StoreErrorKind::Unsupported, "{call} {code}: {error}");
            assert!(error.message.contains("does not offer this call"), "{call}: {error}");
            assert_eq!(error.to_string().lines().count(), 1);
        }
        let ballot = fails(client.cast_ballot(&credentials, "p", Vote::Approve).await);
        let expected =
            if code == 404 { StoreErrorKind::NotFound } else { StoreErrorKind::Unsupported };
        assert_eq!(ballot.kind, expected, "{ballot}");
        connected.no_faults();
        client.close().await;
    }
    connected.end().await;
}

/// A client whose calls go through `answer`, which is given a call (with its query) and its
/// body; what it does not answer, the engine does.
async fn through(
    connected: &Connected,
    answer: impl Fn(&str, &str) -> Option<Response> + Send + Sync + 'static,
) -> Arc<Client> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (answer, http) = (Arc::new(answer), reqwest::Client::builder().no_proxy().build().unwrap());
    let engine = connected.engine.api_url();
    let router = Router::new().fallback(move |request: Request| {
        let (answer, http, engine) = (Arc::clone(&answer), http.clone(), engine.clone());
        async move {
            let (parts, body) = request.into_parts();
            let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
            let line = format!("{} {}", parts.method, parts.uri);
            if let Some(reply) = answer(&line, &String::from_utf8_lossy(&body)) {
                return reply;
            }
            let url = format!("{engine}{}", parts.uri);
            let mut forward = http.request(parts.method, url).body(body);
            for name in ["content-type", "x-dpt-authorization"] {
                if let Some(value) = parts.headers.get(name) {
                    forward = forward.header(name, value);
                }
            }
            let reply = forward.send().await.unwrap();
            let mut made = Response::builder().status(reply.status());
            if let Some(id) = reply.headers().get("x-dpt-cab-id") {
                made = made.header("x-dpt-cab-id", id);
            }
            let body: Bytes = reply.bytes().await.unwrap();
            made.body(body.into()).unwrap()
        }
    });
    tokio::spawn(async move { axum::serve(listener, router).await });
    let mut config = connected.config.clone();
    config.api_url = format!("http://{address}").parse().unwrap();
    Client::connect(config, Env::system()).await.unwrap()
}

fn said(value: &Value) -> Option<Response> {
    Some(value.to_string().into_response())
}

fn refuses(field: &str) -> Option<Response> {
    let value = json!({ "message": "Parameter Error", "errors": { field: ["extra field"] } });
    Some((StatusCode::UNPROCESSABLE_ENTITY, value.to_string()).into_response())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_with_other_names_and_other_forms_is_understood() {
    let connected = Connected::new().await;
    let device = pending(&connected.client, "phone").await;
    let asked = device.clone();
    let client =
        through(&connected, move |line, body| match line.split_once('?').unwrap_or((line, "")) {
            // Two pages, with the names of the vendor's own client.
            ("GET /device/retrieve-profile-devices", query) => {
                let second = query.contains("page=2");
                let id = if second { "second" } else { asked.as_str() };
                let item =
                    json!({"deviceUniqueIdentifier": id, "name": "n", "approved": 1, "score": 0});
                let items = if query.contains("page=3") { json!([]) } else { json!([item]) };
                said(&json!({"items": items, "meta": {"perPage": 1}}))
            }
            ("POST /device/retrieve-unique-identifier", _) => said(&json!(asked)),
            ("POST /device/approve-device", _) if body.contains("deviceIdentifier") => {
                refuses("deviceIdentifier")
            }
            ("POST /policy/register", _) if body.contains("votingConfigurationId") => {
                refuses("votingConfigurationId")
            }
            // An array that PHP has filtered.
            ("GET /policy/list-active-policies", _) => said(&json!({"1": {"id": 7, "name": "n"}})),
            ("POST /voting/create", _) => said(&json!({"poll_id": "p-1"})),
            ("GET /voting/check-pool-status/p-1", _) => said(&json!("open")),
            ("GET /voting/list-pools", _) => said(&json!({"data": [
                {"pollId": "p-1", "status": "OPEN"}, {"pollId": "p-2", "status": "approved"},
            ]})),
            ("GET /verified-authenticator/list-verified-authenticator", _) => said(&json!(["d-1"])),
            ("GET /verified-authenticator/retrieve-strategy", _) => said(&json!("consensus")),
            _ => None,
        })
        .await;
    let listed = client.devices().await.unwrap();
    let found: Vec<_> =
        listed.iter().map(|found| (found.identifier.as_str(), found.approval)).collect();
    assert_eq!(found, [(device.as_str(), APPROVED), ("second", APPROVED)]);
    assert_eq!(client.requested_device("c-1").await.unwrap().identifier, device);
    client.approve_device(&device).await.unwrap();
    assert_eq!(connected.client.devices().await.unwrap()[1].approval, APPROVED);
    let made = client.register_voting_configuration(&board(Strategy::Unanimous, &[])).await;
    let made = made.unwrap().unwrap();
    let policy = client.register_policy(&gate()).await.unwrap().unwrap();
    assert_eq!(policy.voting, made.id, "under the name of the field that it takes");
    let active = client.policies(Some(true)).await.unwrap();
    assert_eq!((active[0].id.as_str(), active[0].active), ("7", Some(true)));
    assert_eq!(client.create_voting_pool(&question("t")).await.unwrap(), "p-1");
    assert_eq!(client.voting_pool("p-1").await.unwrap().status.as_deref(), Some("open"));
    let open = client.voting_pools(Some("open")).await.unwrap();
    assert_eq!((open.len(), open[0].id.as_str()), (1, "p-1"));
    assert_eq!(client.authenticators().await.unwrap()[0].identifier, "d-1");
    assert_eq!(client.voting_rules().await.unwrap().strategy, Some(Strategy::Consensus));
    client.close().await;
    connected.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn authenticators_and_the_rules_of_their_votes() {
    let connected = Connected::new().await;
    let client = &*connected.client;
    let device = pending(client, "phone").await;
    let early = fails(client.register_authenticator(&device).await);
    assert!(early.message.contains("not_approved"), "{early}");
    client.approve_device(&device).await.unwrap();
    client.register_authenticator(&device).await.unwrap();
    let found = client.authenticators().await.unwrap();
    assert_eq!((found.len(), &found[0].identifier), (1, &device));
    assert_eq!(found[0].roles, ["authenticator"]);

    let before = client.voting_rules().await.unwrap();
    assert_eq!((before.strategy, before.attempts), (Some(Strategy::Unanimous), None));
    for strategy in [Strategy::Affirmative, Strategy::MinimumPercentage(75)] {
        client.set_quorum_strategy(strategy).await.unwrap();
        assert_eq!(client.voting_rules().await.unwrap().strategy, Some(strategy));
    }
    client.set_quorum_size(2).await.unwrap();
    client.set_voting_time_limit(90).await.unwrap();
    client.set_voting_attempts(3).await.unwrap();
    let after = client.voting_rules().await.unwrap();
    assert_eq!((after.quorum_size, after.time_limit, after.attempts), (Some(2), Some(90), Some(3)));
    assert_eq!(fails(client.set_quorum_size(0).await).kind, StoreErrorKind::Invalid);

    client.remove_authenticator(&device).await.unwrap();
    assert_eq!(client.authenticators().await.unwrap(), []);
    connected.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn voting_configurations_are_registered_changed_and_deleted() {
    let connected = Connected::new().await;
    let client = &*connected.client;
    let (device, _) = voter(client, "phone").await;
    let strategy = Strategy::MinimumPercentage(60);
    let made = client.register_voting_configuration(&board(strategy, &[&device])).await;
    let made = made.unwrap().unwrap();
    assert_eq!((made.name.as_str(), made.strategy), ("board", Some(strategy)));
    assert_eq!((made.time_limit, &made.devices), (Some(60), &vec![device]));
    let id = made.id.clone().unwrap();
    for wanted in ["board", &id] {
        assert_eq!(client.voting_configuration(wanted).await.unwrap(), made);
    }
    assert_eq!(client.voting_configurations().await.unwrap(), std::slice::from_ref(&made));
    let taken = fails(client.register_voting_configuration(&board(strategy, &[])).await);
    assert_eq!(taken.kind, StoreErrorKind::Invalid);
    assert!(taken.message.contains("name"), "{taken}");

    let change = VotingConfigurationChange {
        name: Some("council".to_owned()),
        strategy: Some(Strategy::Consensus),
        devices: Some(Vec::new()),
        ..Default::default()
    };
    client.update_voting_configuration("board", &change).await.unwrap();
    let changed = client.voting_configuration(&id).await.unwrap();
    assert_eq!((changed.name.as_str(), changed.strategy), ("council", Some(Strategy::Consensus)));
    assert_eq!(
        (changed.time_limit, changed.devices.len()),
        (Some(60), 0),
        "what was not said stays"
    );
    client.delete_voting_configuration("council").await.unwrap();
    assert_eq!(client.voting_configurations().await.unwrap(), []);
    connected.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_are_registered_put_in_force_and_deleted() {
    let connected = Connected::new().await;
    let client = &*connected.client;
    let templates = client.policy_templates().await.unwrap();
    let template = templates.iter().find(|found| found.id == gate().template).unwrap();
    assert_eq!(template.events.len(), 1);
    assert_eq!(template.events[0].id, gate().events[0]);
    assert_eq!(template.events[0].name.as_deref(), Some("device.registered"));
    assert_eq!(template.configuration, ["classification", "label", "handling"]);

    let early = fails(client.register_policy(&gate()).await);
    assert_eq!(early.kind, StoreErrorKind::Invalid, "there is no board yet: {early}");
    let board = client.register_voting_configuration(&board(Strategy::Unanimous, &[])).await;
    let board = board.unwrap().unwrap();
    let made = client.register_policy(&gate()).await.unwrap().unwrap();
    assert_eq!((made.name.as_deref(), made.active), (Some("gate"), Some(false)));
    assert_eq!((&made.events, &made.voting), (&gate().events, &board.id));
    let states = async || {
        let of = async |active| client.policies(active).await.unwrap().len();
        (of(None).await, of(Some(true)).await, of(Some(false)).await)
    };
    assert_eq!(states().await, (1, 0, 1));
    client.activate_policy("gate").await.unwrap();
    assert_eq!(states().await, (1, 1, 0));
    assert_eq!(client.policy(&made.id).await.unwrap().active, Some(true));
    let used = fails(client.delete_voting_configuration("board").await);
    assert_eq!(used.kind, StoreErrorKind::Invalid, "{used}");
    client.deactivate_policy(&made.id).await.unwrap();
    assert_eq!(states().await, (1, 0, 1));
    client.delete_policy("gate").await.unwrap();
    assert_eq!(states().await, (0, 0, 0));
    client.delete_voting_configuration("board").await.unwrap();
    let own = NewPolicy { voting: None, ..gate() };
    assert_eq!(client.register_policy(&own).await.unwrap().unwrap().voting, None);
    connected.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pools_are_opened_voted_in_and_cancelled() {
    let connected = Connected::new().await;
    let client = &*connected.client;
    let (first, yes) = voter(client, "one").await;
    let (second, _) = voter(client, "two").await;
    client.register_voting_configuration(&board(Strategy::Affirmative, &[])).await.unwrap();
    let new = NewVotingPool { skip: vec![second], ..question("party") };
    let id = client.create_voting_pool(&new).await.unwrap();
    let pool = client.voting_pool(&id).await.unwrap();
    assert_eq!((pool.status.as_deref(), pool.title.as_deref()), (Some("open"), Some("party")));
    assert_eq!(pool.strategy, Some(Strategy::Affirmative));
    let asked: Vec<_> = pool.ballots.iter().map(|ballot| (&ballot.device, ballot.vote)).collect();
    assert_eq!(asked, [(&first, None)]);
    assert!(pool.expires > pool.created);
    assert_eq!(client.voting_pools(Some("open")).await.unwrap(), [pool]);

    let wrong = OauthCredentials { client_secret: "S-wrong".into(), ..yes.clone() };
    let refused = fails(client.cast_ballot(&wrong, &id, Vote::Approve).await);
    assert_eq!(refused.kind, StoreErrorKind::Denied, "{refused}");
    assert!(!format!("{refused:?}").contains("S-wrong"));
    let settled = client.cast_ballot(&yes, &id, Vote::Approve).await.unwrap();
    assert_eq!(settled.status.as_deref(), Some("approved"));
    assert_eq!(settled.ballots[0].vote, Some(Vote::Approve));
    let late = fails(client.cast_ballot(&yes, &id, Vote::Reject).await);
    assert_eq!(late.kind, StoreErrorKind::Invalid, "{late}");
    assert_eq!(client.voting_pools(Some("open")).await.unwrap(), []);

    let id = client.create_voting_pool(&question("again")).await.unwrap();
    client.cancel_voting_pool(&id).await.unwrap();
    let cancelled = client.voting_pool(&id).await.unwrap();
    assert_eq!(cancelled.status.as_deref(), Some("cancelled"));
    assert_eq!(fails(client.cancel_voting_pool(&id).await).kind, StoreErrorKind::Invalid);
    assert_eq!(client.voting_pools(None).await.unwrap().len(), 2);
    let unknown = NewVotingPool { configuration: "nobody".to_owned(), ..question("t") };
    let unknown = fails(client.create_voting_pool(&unknown).await);
    assert!(unknown.message.contains("votingConfigurationId"), "{unknown}");
    connected.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_approval_is_decided_by_ballots() {
    let connected = Connected::new().await;
    let client = &*connected.client;
    let (_, voter) = voter(client, "phone").await;
    client.register_voting_configuration(&board(Strategy::Unanimous, &[])).await.unwrap();
    client.register_policy(&gate()).await.unwrap();
    client.activate_policy("gate").await.unwrap();
    for (vote, expected) in [(Vote::Reject, Approval::Pending), (Vote::Approve, Approval::Approved)]
    {
        let device = pending(client, "new").await;
        let voting = async {
            let pool = open_pool(client).await;
            assert_eq!(pool.device.as_ref(), Some(&device));
            assert_eq!(pool.policy.as_deref(), Some("gate"));
            assert_eq!(pool.event.as_deref(), Some("device.registered"));
            // The device knows nothing but itself and where the engine is.
            let config = &connected.config;
            Client::cast_ballot_alone(config, &voter, &pool.id, vote).await.unwrap();
        };
        let (approved, ()) = tokio::join!(client.approve_device(&device), voting);
        if vote == Vote::Reject {
            let refused = fails(approved);
            assert_eq!(refused.kind, StoreErrorKind::Denied);
            assert!(refused.message.contains("policy.rejected"), "{refused}");
        } else {
            approved.unwrap();
        }
        let found = client.devices().await.unwrap();
        let found = found.into_iter().find(|found| found.identifier == device).unwrap();
        assert_eq!(found.approval, Some(expected));
    }
    connected.end().await;
}
