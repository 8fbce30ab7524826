//! The service's clock, as the client knows it by the dates of replies.

use std::sync::Arc;
use std::time::Duration;

use privicorefs::engine::Shape;
use privicorefs::env::Env;
use privicorefs::privicore::Client;
use privicorefs::store::{ListFilter, Store};

use crate::house::Connected;
use crate::house::doubles::FixedClock;

/// What a `Date` lacks of a second, and what a busy machine takes for a reply.
const BEHIND: u64 = 10_000;

async fn call(client: &Client) {
    client.list(&ListFilter::default(), 1).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_tells_the_services_clock() {
    let connected = Connected::new().await;
    call(&connected.client).await;
    let (clock, now) = (connected.client.clock().unwrap(), Env::system().millis());
    assert!(clock <= now && now - clock < BEHIND, "{clock} at {now}");
    assert!(connected.retrying().clock().is_some());
    connected.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clock_is_the_services_and_the_latest_reply_counts() {
    let clock = Arc::new(FixedClock::default());
    let env = Env { clock: Arc::clone(&clock) as Arc<_>, ..Env::system() };
    let connected = Connected::custom(Shape::default(), env.clone(), |_| {}).await;
    for _ in 0..2 {
        call(&connected.client).await;
        let (shown, now) = (connected.client.clock().unwrap(), env.millis());
        // The service's clock stands still, and the time since the reply is added.
        assert!(shown.abs_diff(now) < BEHIND, "{shown} at {now}");
        clock.advance(Duration::from_secs(100));
    }
    connected.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_is_no_clock() {
    let connected = Connected::new().await;
    let config = connected.config.clone();
    connected.end().await;
    let client = Client::new_offline(config, Env::system());
    client.list(&ListFilter::default(), 1).await.unwrap_err();
    assert_eq!(client.clock(), None);
    client.close().await;
}
