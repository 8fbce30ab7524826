//! Every fault that the engine can show, against every flow it can strike.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use privicorefs::engine::{Fault, FaultPlan, Rule, Shape, StatusMethod, When};
use privicorefs::store::{
    FileMeta, ListFilter, Payload, RiskMeta, Store, StoreError, StoreErrorKind, Token, list_all,
};
use tokio::time::{Instant, timeout};

use crate::house::Connected;
use crate::house::conformance::{content, fetch, mark, meta, put};

const RESERVE: &str = "/data-token/reserve-token-space";
const TEMPORARY: &str = "/data-token/retrieve-temporary-data-token/{id}";
const EXCHANGE: &str = "/data-token/exchange-data-for-token";
const CONFIGURE: &str = "/data-token/configure-file-meta";
const RISK: &str = "/data-token/configure-information-security-risk-meta";
const LIST: &str = "/data-token/list-data-tokens";
const UPDATE: &str = "/data-token/update-data-token";
const REQUEST: &str = "/data-token/request-data";
const DELETE: &str = "/data-token/delete-data";
const SMALL: usize = 2_000;
const LARGE: usize = 300_000;

/// Every flow once: two puts (inline, streamed), risk, meta, list, two gets, a delete.
async fn every_flow(store: &dyn Store) {
    let (small, large) = (content(1, SMALL), content(2, LARGE));
    let first = put(store, "flows", "small.bin", &small).await;
    let second = put(store, "flows", "large.bin", &large).await;
    let risk =
        RiskMeta { classification: "internal".into(), label: "l".into(), handling: "none".into() };
    store.set_risk(&first, &risk).await.unwrap();
    store.update_meta(&first, &meta("flows", "renamed.bin", 1)).await.unwrap();
    assert!(fetch(store, &first).await == small);
    assert!(fetch(store, &second).await == large);
    let filter = ListFilter { context: Some("flows".into()), ..ListFilter::default() };
    let mut listed: Vec<_> = list_all(store, &filter).await.unwrap();
    listed.retain(|record| record.token == first || record.token == second);
    assert_eq!(listed.len(), 2);
    store.delete(&first).await.unwrap();
    store.delete(&second).await.unwrap();
}

/// Every flow with `kind` at the chosen events of each of `ops`, the client alone.
async fn transparent(ops: &[&str], kind: Fault, when: When) {
    let connected = Connected::new().await;
    for op in ops {
        connected.fault(op, kind.clone(), when);
        every_flow(&*connected.client).await;
    }
    connected.end().await;
}

/// The same, behind `Retry`.
async fn survivable(ops: &[&str], kind: Fault, when: When) {
    let connected = Connected::new().await;
    for op in ops {
        connected.fault(op, kind.clone(), when);
        every_flow(&*connected.retrying()).await;
    }
    connected.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_acks_are_polled_the_way_the_service_takes() {
    for status in [StatusMethod::Both, StatusMethod::Get, StatusMethod::Post] {
        let connected = Connected::with(Shape { status, ..Shape::default() }).await;
        let polls = |method: &str| connected.requests(&format!("{method} /request-status/{{id}}"));
        let (gets, posts) = (polls("GET"), polls("POST"));
        for op in [RESERVE, EXCHANGE, RISK, UPDATE, DELETE, REQUEST] {
            connected.fault(op, Fault::LoseAck, When::First(1));
            every_flow(&*connected.client).await;
        }
        let (gets, posts) = (polls("GET") - gets, polls("POST") - posts);
        match status {
            StatusMethod::Post => assert!(gets == 1 && posts >= 5, "{gets} GET, {posts} POST"),
            _ => assert!(gets >= 5 && posts == 0, "{gets} GET, {posts} POST"),
        }
        connected.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_ack_lost_is_slow_but_works() {
    let ops = [RESERVE, EXCHANGE, RISK, UPDATE, DELETE];
    transparent(&ops, Fault::LoseAck, When::Always).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn acks_may_be_early_late_doubled_or_announced() {
    transparent(&["ack"], Fault::EarlyAck, When::Always).await;
    transparent(&["ack"], Fault::DuplicateAck, When::Always).await;
    transparent(&["ack"], Fault::PendingAck, When::Always).await;
    transparent(&["ack"], Fault::LateAck { ms: 150 }, When::Always).await;
    transparent(&["ack"], Fault::LateAck { ms: 700 }, When::Every(3)).await;
}

async fn kind_of<T>(call: impl Future<Output = Result<T, StoreError>>) -> StoreErrorKind {
    match call.await {
        Ok(_) => panic!("the call succeeded"),
        Err(error) => {
            let text = format!("{error} {error:?}");
            assert!(!text.contains("auth=") || text.contains("auth=(redacted)"), "{text}");
            error.kind
        }
    }
}

fn payload(len: usize) -> Payload {
    Payload::Bytes(content(9, len))
}

fn file() -> FileMeta {
    meta("faults", "file.bin", 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn rejections_are_final_and_keep_their_meaning() {
    use StoreErrorKind as K;
    let connected = Connected::new().await;
    let client = &*connected.client;
    let token = put(client, "faults", "x.bin", &content(1, SMALL)).await;
    let reject = |op: &str, reason: &str| {
        connected.fault(op, Fault::RejectAck { reason: reason.into() }, When::Always);
    };
    for op in [RESERVE, EXCHANGE] {
        reject(op, "policy.vote_refused");
        assert_eq!(kind_of(client.put(&file(), &mark(1), payload(SMALL))).await, K::Denied, "{op}");
    }
    reject(EXCHANGE, "storage.no_storage_device");
    assert_eq!(kind_of(client.put(&file(), &mark(1), payload(SMALL))).await, K::NoStorage);
    reject(REQUEST, "policy.vote_refused");
    assert_eq!(kind_of(client.get(&token)).await, K::Denied);
    reject(REQUEST, "data_token.not_found");
    assert_eq!(kind_of(client.get(&token)).await, K::NotFound);
    reject(DELETE, "profile.not_an_owner");
    assert_eq!(kind_of(client.delete(&token)).await, K::Denied);
    reject(DELETE, "data_token.not_found");
    client.delete(&token).await.unwrap();
    reject(RISK, "profile.not_an_owner");
    assert_eq!(kind_of(client.set_risk(&token, &RiskMeta::default())).await, K::Denied);
    connected.no_faults();
    assert!(fetch(client, &token).await == content(1, SMALL));
    connected.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_401_brings_one_login_and_one_replay() {
    let connected = Connected::new().await;
    let logins = || connected.requests("POST /profile/authenticate");
    for op in [RESERVE, TEMPORARY, EXCHANGE, CONFIGURE, RISK, UPDATE, LIST, REQUEST, DELETE] {
        let before = logins();
        connected.fault(op, Fault::Unauthorized401, When::First(1));
        every_flow(&*connected.client).await;
        assert_eq!(logins(), before + 1, "{op}");
    }
    connected.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_calls_that_get_401_share_a_login() {
    let connected = Connected::new().await;
    let before = connected.requests("POST /profile/authenticate");
    connected.fault(LIST, Fault::Unauthorized401, When::First(16));
    let calls = (0..16).map(|_| {
        let client = Arc::clone(&connected.client);
        tokio::spawn(async move { client.list(&ListFilter::default(), 1).await.map(drop) })
    });
    let mut failed = 0;
    for call in calls.collect::<Vec<_>>() {
        match call.await.unwrap() {
            Ok(()) => {}
            Err(error) => {
                // A replay that met one of the sixteen refusals itself.
                assert_eq!(error.kind, StoreErrorKind::Unauthenticated);
                failed += 1;
            }
        }
    }
    assert!(failed < 16);
    let logins = connected.requests("POST /profile/authenticate") - before;
    assert!(logins < 16, "{logins} logins for 16 refusals at once");
    connected.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_no_longer_counts_is_unauthenticated_and_heals() {
    let connected = Connected::new().await;
    connected.fault("*", Fault::Unauthorized401, When::Always);
    let error = connected.client.list(&ListFilter::default(), 1).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Unauthenticated);
    assert!(!error.is_retryable());
    connected.no_faults();
    let deadline = Instant::now() + Duration::from_secs(20);
    while let Err(error) = connected.client.list(&ListFilter::default(), 1).await {
        assert!(Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    connected.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn statuses_become_kinds_and_retry_after_is_passed_on() {
    use StoreErrorKind as K;
    let connected = Connected::new().await;
    let table = [
        (403, K::Denied),
        (404, K::NotFound),
        (413, K::TooLarge),
        (422, K::Invalid),
        (429, K::RateLimited),
        (500, K::Unavailable),
        (503, K::Unavailable),
    ];
    for (code, kind) in table {
        connected.fault(REQUEST, Fault::Status { code, retry_after: Some(3) }, When::Always);
        let error = connected.client.get(&Token::new("any")).await.unwrap_err();
        assert_eq!(error.kind, kind, "{code}: {error}");
        assert_eq!(error.retry_after_ms, Some(3_000));
    }
    connected.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_in_trouble_is_survived() {
    for code in [500, 503, 429] {
        let kind = Fault::Status { code, retry_after: None };
        survivable(&["*"], kind, When::Every(4)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_connections_are_survived() {
    let ops = [RESERVE, TEMPORARY, EXCHANGE, CONFIGURE, RISK, UPDATE, LIST, REQUEST, DELETE];
    for after in [false, true] {
        survivable(&ops, Fault::DropConnection { after }, When::First(2)).await;
        let streams = ["upstream", "downstream"];
        survivable(&streams, Fault::DropConnection { after }, When::First(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_reply_of_the_last_step_makes_no_second_token() {
    let connected = Connected::new().await;
    for len in [SMALL, LARGE] {
        // The reply is lost, and so is that of the repetition.
        connected.fault(CONFIGURE, Fault::DropConnection { after: true }, When::First(2));
        let bytes = content(5, len);
        let payload = Payload::Bytes(bytes.clone());
        let meta = meta("once", &format!("{len}.bin"), 1);
        let token = connected.client.put(&meta, &mark(len as u64), payload).await.unwrap();
        assert!(fetch(&*connected.client, &token).await == bytes);
    }
    let filter = ListFilter { context: Some("once".into()), ..ListFilter::default() };
    assert_eq!(list_all(&*connected.client, &filter).await.unwrap().len(), 2);
    connected.end().await;
}

/// The service goes down right after the last step, and does not even answer the question
/// what became of it: the put fails, and the next attempt finds the first one's token.
#[tokio::test(flavor = "multi_thread")]
async fn a_put_that_ended_in_doubt_is_looked_for_before_it_is_tried_again() {
    let connected = Connected::new().await;
    for (number, len) in [SMALL, LARGE].into_iter().enumerate() {
        let rule = |op: &str, kind, when| Rule { op: op.into(), kind, when };
        let silent = Fault::Status { code: 503, retry_after: None };
        let rules = vec![
            rule(CONFIGURE, Fault::DropConnection { after: true }, When::Always),
            rule(LIST, silent, When::Always),
        ];
        connected.engine.set_faults(FaultPlan { seed: 1, rules });
        let bytes = content(6, len);
        let put = || {
            let name = format!("{len}.bin");
            let payload = Payload::Bytes(bytes.clone());
            let client = Arc::clone(&connected.client);
            async move { client.put(&meta("doubt", &name, 1), &mark(len as u64), payload).await }
        };
        let error = put().await.unwrap_err();
        assert!(error.is_retryable() && error.in_doubt, "{error}");
        // As long as nobody answers, nothing is sent again.
        let reserved = connected.requests(&format!("POST {RESERVE}"));
        let error = put().await.unwrap_err();
        assert!(error.is_retryable() && error.in_doubt, "{error}");
        assert_eq!(connected.requests(&format!("POST {RESERVE}")), reserved);
        connected.no_faults();
        let token = put().await.unwrap();
        assert_eq!(connected.requests(&format!("POST {RESERVE}")), reserved);
        assert!(fetch(&*connected.client, &token).await == bytes);
        let filter = ListFilter { context: Some("doubt".into()), ..ListFilter::default() };
        assert_eq!(list_all(&*connected.client, &filter).await.unwrap().len(), number + 1);
    }
    connected.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_channel_is_joined_again_and_nothing_waits_for_its_acks() {
    let connected = Connected::new().await;
    for op in [RESERVE, EXCHANGE, RISK, UPDATE, DELETE, REQUEST, "ack", "ws"] {
        let joins = connected.client.health().joins;
        connected.fault(op, Fault::CutSocket, When::First(1));
        every_flow(&*connected.retrying()).await;
        assert!(connected.client.health().joins > joins, "{op}");
    }
    connected.fault("ack", Fault::CutSocket, When::Every(5));
    every_flow(&*connected.retrying()).await;
    connected.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_upload_is_no_upload() {
    let connected = Connected::new().await;
    connected.fault("upstream", Fault::ShortStream { bytes: 100_000 }, When::Always);
    let error = connected.client.put(&file(), &mark(1), payload(LARGE)).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    connected.fault("upstream", Fault::ShortStream { bytes: 100_000 }, When::First(1));
    every_flow(&*connected.retrying()).await;
    connected.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_download_is_an_error_and_no_content() {
    let connected = Connected::new().await;
    let token = put(&*connected.client, "faults", "x.bin", &content(2, LARGE)).await;
    connected.fault("downstream", Fault::ShortStream { bytes: 100_000 }, When::Always);
    let read = async {
        let download = connected.client.get(&token).await?;
        download.stream.try_collect::<Vec<Bytes>>().await
    };
    let error = read.await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert!(!error.to_string().contains("auth="), "{error}");
    connected.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stalls_end_in_bounded_time() {
    let connected = Connected::new().await;
    let token = put(&*connected.client, "faults", "x.bin", &content(2, LARGE)).await;
    let stall = Fault::Stall { ms: 60_000 };
    let bounded = Duration::from_secs(25);

    for op in [RESERVE, TEMPORARY, EXCHANGE, CONFIGURE, "upstream"] {
        connected.fault(op, stall.clone(), When::Always);
        let len = if op == "upstream" { 8 << 20 } else { SMALL };
        let error = timeout(bounded, connected.client.put(&file(), &mark(1), payload(len))).await;
        let error = error.unwrap().unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::TimedOut, "{op}: {error}");
    }
    connected.fault(LIST, stall.clone(), When::Always);
    let listed = timeout(bounded, connected.client.list(&ListFilter::default(), 1)).await.unwrap();
    assert_eq!(listed.unwrap_err().kind, StoreErrorKind::TimedOut);

    connected.fault("downstream", stall.clone(), When::Always);
    let read = timeout(bounded, async {
        let download = connected.client.get(&token).await?;
        download.stream.try_collect::<Vec<Bytes>>().await
    });
    assert_eq!(read.await.unwrap().unwrap_err().kind, StoreErrorKind::TimedOut);
    connected.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_is_an_unknown_outcome_in_bounded_time() {
    let connected = Connected::new().await;
    let rules = vec![
        Rule { op: "ack".into(), kind: Fault::LoseAck, when: When::Always },
        Rule {
            op: "/request-status/{id}".into(),
            kind: Fault::Status { code: 404, retry_after: None },
            when: When::Always,
        },
    ];
    connected.engine.set_faults(FaultPlan { seed: 1, rules });
    let bounded = Duration::from_secs(30);
    let put = timeout(bounded, connected.client.put(&file(), &mark(1), payload(SMALL))).await;
    assert_eq!(put.unwrap().unwrap_err().kind, StoreErrorKind::TimedOut);
    let delete = timeout(bounded, connected.client.delete(&Token::new("x"))).await;
    assert!(delete.is_ok());
    connected.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_at_once_by_the_dice() {
    let connected = Connected::new().await;
    let rule = |op: &str, kind: Fault| Rule { op: op.into(), kind, when: When::Probability(0.04) };
    let rules = vec![
        rule("ack", Fault::LoseAck),
        rule("ack", Fault::DuplicateAck),
        rule("ack", Fault::EarlyAck),
        rule("ack", Fault::LateAck { ms: 100 }),
        rule("ack", Fault::CutSocket),
        rule("*", Fault::Status { code: 503, retry_after: None }),
        rule("*", Fault::DropConnection { after: true }),
        rule("*", Fault::DropConnection { after: false }),
        rule("upstream", Fault::ShortStream { bytes: 50_000 }),
    ];
    connected.engine.set_faults(FaultPlan { seed: 42, rules });
    let store = connected.retrying();
    let work = (0..12_u64).map(|i| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for j in 0..3 {
                let bytes = content(i * 10 + j, if j == 0 { LARGE } else { SMALL });
                let token = put(&*store, "dice", &format!("{i}-{j}.bin"), &bytes).await;
                assert!(fetch(&*store, &token).await == bytes);
                store.delete(&token).await.unwrap();
            }
        })
    });
    for task in work.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    connected.end().await;
}
