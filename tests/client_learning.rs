//! What a service refuses once is not sent again, and what is not there yet is waited
//! for: the answers of the protocol's section D and E.2, by status.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "shared support")]

mod client_support;
mod conformance;

use bytes::Bytes;
use client_support::Bench;
use conformance::{content, fetch, mark, meta, put};
use privicorefs::engine::{Fault, When};
use privicorefs::store::{
    ListFilter, Payload, Store, StoreErrorKind, StoreResult, Token, TokenRecord, list_all,
};

const RESERVE: &str = "/data-token/reserve-token-space";
const EXCHANGE: &str = "/data-token/exchange-data-for-token";
const CONFIGURE: &str = "/data-token/configure-file-meta";
const LIST: &str = "/data-token/list-data-tokens";
const UPDATE: &str = "/data-token/update-data-token";

fn status(code: u16) -> Fault {
    Fault::Status { code, retry_after: None }
}

async fn record(store: &dyn Store, token: &Token) -> TokenRecord {
    let filter = ListFilter { token: Some(token.clone()), ..ListFilter::default() };
    list_all(store, &filter).await.unwrap().pop().unwrap()
}

async fn put_marked(store: &dyn Store, n: u64, bytes: &Bytes) -> StoreResult<Token> {
    let meta = meta("learning", &format!("{n}"), 1);
    store.put(&meta, &mark(n), Payload::Bytes(bytes.clone())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_mark_is_left_out_for_the_session() {
    let bench = Bench::new().await;
    let reserves = || bench.requests(&format!("POST {RESERVE}"));
    bench.fault(RESERVE, status(422), When::First(1));
    let first = put_marked(&*bench.client, 1, &content(1, 100)).await.unwrap();
    assert_eq!(reserves(), 2);
    let second = put_marked(&*bench.client, 2, &content(2, 100)).await.unwrap();
    assert_eq!(reserves(), 3);
    for token in [first, second] {
        let mark = record(&*bench.client, &token).await.mark;
        assert!(mark != Some(conformance::mark(1)) && mark != Some(conformance::mark(2)));
    }
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mark_that_was_taken_is_not_blamed_for_a_later_422() {
    let bench = Bench::new().await;
    put_marked(&*bench.client, 1, &content(1, 100)).await.unwrap();
    bench.fault(RESERVE, status(422), When::First(1));
    let error = put_marked(&*bench.client, 2, &content(1, 100)).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Invalid);
    let third = put_marked(&*bench.client, 3, &content(1, 100)).await.unwrap();
    assert_eq!(record(&*bench.client, &third).await.mark, Some(mark(3)));
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_long_reservation_falls_back() {
    let bench = Bench::new().await;
    put_marked(&*bench.client, 1, &content(1, 100)).await.unwrap();
    bench.fault(RESERVE, status(422), When::First(1));
    let big = content(3, 9 << 20);
    let token = put_marked(&*bench.client, 2, &big).await.unwrap();
    assert!(fetch(&*bench.client, &token).await == big);
    assert_eq!(record(&*bench.client, &token).await.mark, Some(mark(2)));
    let reserves = bench.requests(&format!("POST {RESERVE}"));
    put_marked(&*bench.client, 3, &big).await.unwrap();
    assert_eq!(bench.requests(&format!("POST {RESERVE}")), reserves + 1);
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_extension_that_is_refused_becomes_a_placeholder() {
    let bench = Bench::new().await;
    bench.fault(CONFIGURE, status(422), When::First(1));
    for n in 0..2 {
        let token = put_marked(&*bench.client, n, &content(1, 100)).await.unwrap();
        assert_eq!(record(&*bench.client, &token).await.extension.as_deref(), Some("bin"));
    }
    assert_eq!(bench.requests(&format!("POST {CONFIGURE}")), 3);
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inline_payload_that_is_refused_is_streamed() {
    for code in [413, 422] {
        let bench = Bench::new().await;
        bench.fault(EXCHANGE, status(code), When::Always);
        let bytes = content(1, 20_000);
        let token = put(&*bench.client, "learning", "x.bin", &bytes).await;
        assert_eq!(fetch(&*bench.client, &token).await, bytes);
        assert_eq!(bench.requests("POST /"), 1);
        bench.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn smaller_pages_are_asked_for_where_large_ones_are_refused() {
    let bench = Bench::new().await;
    for n in 0..60 {
        put_marked(&*bench.client, n, &content(n, 40)).await.unwrap();
    }
    bench.fault(LIST, status(422), When::First(1));
    let all = list_all(&*bench.client, &ListFilter::default()).await.unwrap();
    assert_eq!(all.len(), 60);
    assert_eq!(bench.requests(&format!("GET {LIST}")), 4, "a refusal and three pages of 25");
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_filters_are_applied_here() {
    let bench = Bench::new().await;
    let token = put(&*bench.client, "one", "a", &content(1, 40)).await;
    put(&*bench.client, "two", "a", &content(1, 40)).await;
    bench.fault(LIST, status(422), When::First(2));
    let filter = ListFilter { context: Some("one".into()), ..ListFilter::default() };
    let found = list_all(&*bench.client, &filter).await.unwrap();
    assert_eq!(found.into_iter().map(|record| record.token).collect::<Vec<_>>(), [token]);
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_update_call_is_remembered() {
    for code in [404, 405] {
        let bench = Bench::new().await;
        let token = put(&*bench.client, "learning", "x.bin", &content(1, 40)).await;
        let updates = || bench.requests(&format!("POST {UPDATE}"));
        bench.fault(UPDATE, status(code), When::First(1));
        for _ in 0..3 {
            let outcome = bench.client.update_meta(&token, &meta("a", "b", 1)).await;
            assert_eq!(outcome.unwrap_err().kind, StoreErrorKind::Unsupported, "{code}");
        }
        assert_eq!(updates(), 1);
        bench.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_yet_is_waited_for() {
    let bench = Bench::new().await;
    let large = content(2, 100_000);
    let temporary = "/data-token/retrieve-temporary-data-token/{id}";
    for (op, code) in [(temporary, 404), (CONFIGURE, 404), (CONFIGURE, 409), (CONFIGURE, 422)] {
        bench.fault(op, status(code), When::First(3));
        let token = put(&*bench.client, "learning", "late.bin", &large).await;
        assert!(fetch(&*bench.client, &token).await == large, "{op} {code}");
    }
    let token = put(&*bench.client, "learning", "down.bin", &large).await;
    for code in [404, 425, 503] {
        bench.fault("downstream", status(code), When::First(2));
        assert!(fetch(&*bench.client, &token).await == large, "downstream {code}");
    }
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_used_up_link_is_replaced_and_is_no_bad_login() {
    let bench = Bench::new().await;
    let logins = bench.requests("POST /profile/authenticate");
    let large = content(2, 100_000);
    let token = put(&*bench.client, "learning", "x.bin", &large).await;
    bench.fault("downstream", Fault::Unauthorized401, When::First(1));
    assert!(fetch(&*bench.client, &token).await == large);
    bench.fault("upstream", Fault::Unauthorized401, When::First(1));
    let error = put_marked(&*bench.client, 1, &large).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    // Patiently: the refusal may have cost a connection that is still in the pool.
    put_marked(&*bench.retrying(), 1, &large).await.unwrap();
    assert_eq!(bench.requests("POST /profile/authenticate"), logins);
    bench.end().await;
}
