//! The store's contract, on every implementation and decorator.

#![allow(dead_code, reason = "shared support")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod client_support;
mod conformance;

use std::sync::Arc;

use client_support::Bench;
use conformance::{Offers, suite};
use privicorefs::env::Env;
use privicorefs::store::{Limit, MemoryStore, Op, Retry, RetryConfig, Store, StoreErrorKind};

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
    let retry = Retry::new(Arc::clone(&memory) as Arc<dyn Store>, config, Env::seeded(5));
    suite(Arc::new(retry), Offers::ALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn client_over_the_engine() {
    let bench = Bench::new().await;
    suite(Arc::clone(&bench.client) as Arc<dyn Store>, Offers::ALL).await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_stacked_over_the_engine() {
    let bench = Bench::new().await;
    let limited = Limit::new(bench.retrying(), 8, 8);
    suite(Arc::new(limited), Offers::ALL).await;
    bench.end().await;
}
