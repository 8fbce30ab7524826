//! The store's contract, on every implementation and decorator.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use privicorefs::store::{
    FileMeta, Limit, ListFilter, Payload, Retry, RetryConfig, Store, StoreErrorKind,
};

use crate::house::Connected;
use crate::house::conformance::{Offers, suite};
use crate::house::doubles::seeded_env;
use crate::house::memory_store::{MemoryStore, Op};

#[tokio::test(start_paused = true)]
async fn memory() {
    suite(Arc::new(MemoryStore::new()), Offers::ALL).await;
}

#[tokio::test(start_paused = true)]
async fn memory_with_small_pages() {
    suite(Arc::new(MemoryStore::with_page_size(7)), Offers::ALL).await;
}

#[tokio::test(start_paused = true)]
async fn limit_over_memory() {
    let memory = Arc::new(MemoryStore::new());
    suite(Arc::new(Limit::new(Arc::clone(&memory) as Arc<dyn Store>, 2, 1)), Offers::ALL).await;
    assert!(memory.most_at_once(Op::Put) <= 2);
}

#[tokio::test(start_paused = true)]
async fn retry_over_a_memory_that_fails_first() {
    let memory = Arc::new(MemoryStore::new());
    for op in [Op::Put, Op::Get, Op::Delete, Op::UpdateMeta, Op::SetRisk, Op::List] {
        memory.fail_next(op, 3, StoreErrorKind::Unavailable);
    }
    let config = RetryConfig::default();
    let retry = Retry::new(Arc::clone(&memory) as Arc<dyn Store>, config, seeded_env(5));
    suite(Arc::new(retry), Offers::ALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn client_over_the_engine() {
    let connected = Connected::new().await;
    suite(Arc::clone(&connected.client) as Arc<dyn Store>, Offers::ALL).await;
    connected.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_stacked_over_the_engine() {
    let connected = Connected::new().await;
    let limited = Limit::new(connected.retrying(), 8, 8);
    suite(Arc::new(limited), Offers::ALL).await;
    connected.end().await;
}

#[tokio::test]
async fn the_services_clock_is_seen_through_every_decorator() {
    let memory = Arc::new(MemoryStore::new());
    let below = Arc::clone(&memory) as Arc<dyn Store>;
    let retry = Retry::new(below, RetryConfig::default(), seeded_env(5));
    let store = Limit::new(Arc::new(retry), 1, 1);
    assert_eq!(store.clock(), None);
    memory.set_clock(1_234);
    assert_eq!(store.clock(), Some(1_234));
}

// What the store in memory itself does as it is told.

#[tokio::test(start_paused = true)]
async fn faults_come_before_or_after_the_effect() {
    let store = MemoryStore::new();
    let meta = FileMeta::default();
    let put = || store.put(&meta, "m", Payload::Bytes(Bytes::new()));
    store.fail_next(Op::Put, 1, StoreErrorKind::Unavailable);
    assert!(put().await.is_err());
    assert!(store.records().is_empty());
    store.fail_next_after_effect(Op::Put, 1, StoreErrorKind::TimedOut);
    assert!(put().await.is_err());
    assert_eq!(store.records().len(), 1);
    put().await.unwrap();
    assert_eq!((store.records().len(), store.count(Op::Put)), (2, 3));
}

#[tokio::test(start_paused = true)]
async fn held_calls_go_on_when_released() {
    let store = Arc::new(MemoryStore::new());
    store.hold(Op::List);
    let other = Arc::clone(&store);
    let mut listing = tokio::spawn(async move { other.list(&ListFilter::default(), 1).await });
    let still = tokio::time::timeout(Duration::from_secs(60), &mut listing).await;
    assert!(still.is_err());
    store.release(Op::List);
    listing.await.unwrap().unwrap();
}
