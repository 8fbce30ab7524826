//! The life of a session and of the channel: start without a service, restart of the
//! service, expiry, other clients.

use std::sync::Arc;
use std::time::Duration;

use privicorefs::engine::{Engine, Reauthorize, Shape};
use privicorefs::env::Env;
use privicorefs::privicore::{Client, ClientConfig};
use privicorefs::store::{ListFilter, Payload, Store, StoreErrorKind};
use tokio::time::{Instant, timeout};

use crate::house::conformance::{content, fetch, mark, meta, put};
use crate::house::connected::{Connected, client_config, engine_config, eventually};
use crate::house::doubles::FixedClock;

const LOGIN: &str = "POST /profile/authenticate";
const REAUTHORIZE: &str = "POST /profile/reauthorize-authorization-token";

/// A machine whose clock moves only when told.
fn still() -> (Arc<FixedClock>, Env) {
    let clock = Arc::new(FixedClock::default());
    let env = Env { clock: Arc::clone(&clock) as Arc<_>, ..Env::system() };
    (clock, env)
}

#[tokio::test(flavor = "multi_thread")]
async fn registering_twice_changes_nothing() {
    let connected = Connected::new().await;
    let keys = connected.requests("POST /public-key/register-public-key");
    Client::register(connected.config.clone(), Env::system()).await.unwrap();
    assert_eq!(connected.requests("POST /public-key/register-public-key"), keys);
    connected.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_told_apart_and_not_shown() {
    let connected = Connected::new().await;
    let mut config = connected.config.clone();
    config.password = "wrong password 1".into();
    let error = Client::connect(config.clone(), Env::system()).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Unauthenticated);
    let shown = format!("{error} {error:?} {config:?} {:?}", connected.client);
    assert!(!shown.contains("wrong password 1") && !shown.contains("battery"), "{shown}");
    let error = Client::register(config, Env::system()).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Unauthenticated, "{error}");
    connected.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_is_unavailable_in_bounded_time() {
    // A listener that accepts and never answers; and a port that nobody has.
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mute_at = mute.local_addr().unwrap();
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let free_at = free.local_addr().unwrap();
    drop(free);
    for (address, kind) in
        [(free_at, StoreErrorKind::Unavailable), (mute_at, StoreErrorKind::TimedOut)]
    {
        let url = |scheme: &str| format!("{scheme}://{address}").parse().unwrap();
        let mut config = ClientConfig::new(url("http"), url("ws"), "u", "p");
        config.reply_timeout = Duration::from_secs(1);
        config.connect_timeout = Duration::from_secs(1);
        let connected = Client::connect(config.clone(), Env::system());
        let error = timeout(Duration::from_secs(20), connected).await.unwrap().unwrap_err();
        assert_eq!(error.kind, kind, "{error}");

        let client = Client::new_offline(config, Env::system());
        let (meta, mark) = (meta("c", "n", 1), mark(1));
        let put = client.put(&meta, &mark, Payload::Bytes(content(1, 100)));
        let error = timeout(Duration::from_secs(20), put).await.unwrap().unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Unavailable, "{error}");
        assert!(error.is_retryable());
        assert!(!client.health().connected);
        eventually("a failed attempt", || client.health().error.is_some()).await;
        client.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offline_start_and_a_restart_heal_without_a_new_client() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::start(engine_config(&dir), Env::system()).await.unwrap();
    let config = client_config(&engine);
    let address = engine.addr();
    Client::register(config.clone(), Env::system()).await.unwrap();
    engine.shutdown().await;

    let client = Client::new_offline(config, Env::system());
    let error = client.list(&ListFilter::default(), 1).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Unavailable, "{error}");

    let mut engine_config = engine_config(&dir);
    engine_config.listen = address;
    for round in 0..2 {
        let engine = Engine::start(engine_config.clone(), Env::system()).await.unwrap();
        let bytes = content(round, 50_000);
        let deadline = Instant::now() + Duration::from_secs(30);
        let token = loop {
            let payload = Payload::Bytes(bytes.clone());
            match client.put(&meta("offline", "x.bin", 1), &mark(round), payload).await {
                Ok(token) => break token,
                Err(error) => {
                    assert!(error.is_retryable() && Instant::now() < deadline, "{error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        };
        assert!(fetch(&*client, &token).await == bytes);
        assert!(client.health().connected);
        engine.shutdown().await;
        eventually("the loss of the channel", || !client.health().connected).await;
    }
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_renewed_before_it_expires() {
    for reauthorize in [Reauthorize::Extend, Reauthorize::Replace] {
        let (clock, env) = still();
        let shape = Shape { reauthorize, ..Shape::default() };
        let connected = Connected::custom(shape, env, |config| {
            config.session_ttl = Duration::from_secs(600);
        })
        .await;
        let logins = connected.requests(LOGIN);
        let first = connected.client.authorized_until();
        assert!(first.is_some());
        clock.advance(Duration::from_secs(560));
        put(&*connected.client, "session", "a.bin", &content(1, 100)).await;
        eventually("a renewal", || connected.client.authorized_until() > first).await;
        assert_eq!(connected.requests(REAUTHORIZE), 1);
        eventually("a channel", || connected.client.health().connected).await;
        // Past the first expiry the extended token, or its successor, still counts.
        clock.advance(Duration::from_secs(60));
        let token = put(&*connected.client, "session", "b.bin", &content(2, 100_000)).await;
        assert!(fetch(&*connected.client, &token).await == content(2, 100_000));
        assert_eq!(connected.requests(LOGIN), logins, "{reauthorize:?}");
        connected.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_token_brings_a_login() {
    let (clock, env) = still();
    let connected = Connected::custom(Shape::default(), env, |config| {
        config.session_ttl = Duration::from_secs(600);
    })
    .await;
    let logins = connected.requests(LOGIN);
    clock.advance(Duration::from_secs(10_000));
    let token = put(&*connected.client, "session", "a.bin", &content(1, 100)).await;
    assert_eq!(fetch(&*connected.client, &token).await, content(1, 100));
    assert_eq!(connected.requests(LOGIN), logins + 1);
    connected.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_years_ahead_brings_no_login_per_call() {
    let connected = Connected::new().await;
    let (clock, env) = still();
    clock.advance(Duration::from_secs(50 * 365 * 86_400));
    let client = Client::connect(connected.config.clone(), env).await.unwrap();
    let logins = connected.requests(LOGIN);
    for i in 0..5 {
        put(&*client, "ahead", &format!("{i}"), &content(i, 100)).await;
    }
    assert_eq!(connected.requests(LOGIN), logins);
    client.close().await;
    connected.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_client_does_is_hinted_at_and_our_own_is_not() {
    let connected = Connected::new().await;
    let mut hints = connected.client.subscribe_foreign();
    for i in 0..5 {
        let token = put(&*connected.client, "mine", &format!("{i}"), &content(i, 100)).await;
        fetch(&*connected.client, &token).await;
    }
    let other = connected.another().await;
    assert!(!hints.has_changed().unwrap(), "our own commands are no hint");
    put(&*other, "theirs", "x", &content(9, 100)).await;
    timeout(Duration::from_secs(20), hints.changed()).await.unwrap().unwrap();
    other.close().await;
    connected.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_client_fails_at_once() {
    let connected = Connected::new().await;
    connected.client.close().await;
    let meta = meta("c", "n", 1);
    let put = connected.client.put(&meta, "", Payload::Bytes(content(1, 100)));
    let error = timeout(Duration::from_secs(20), put).await.unwrap().unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Unavailable);
    connected.end().await;
}

/// What a person pays per small file is round trips: three acknowledged steps and two
/// plain ones for a put, two requests for a get.
#[tokio::test(flavor = "multi_thread")]
async fn flows_make_no_needless_request() {
    let connected = Connected::new().await;
    let total = || connected.engine.metrics().requests_total;
    let before = total();
    let token = put(&*connected.client, "count", "a.txt", &content(1, 1_000)).await;
    assert_eq!(total() - before, 4, "reserve, temporary token, exchange, configure");
    fetch(&*connected.client, &token).await;
    assert_eq!(total() - before, 5, "one request, answered inline");
    let large = put(&*connected.client, "count", "b.txt", &content(1, 100_000)).await;
    assert_eq!(total() - before, 9);
    fetch(&*connected.client, &large).await;
    assert_eq!(total() - before, 11, "request and download");
    connected.client.delete(&token).await.unwrap();
    assert_eq!(total() - before, 12);
    connected.end().await;
}
