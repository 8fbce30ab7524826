//! What a service refuses once is not sent again, and what is not there yet is waited
//! for: the answers of the protocol's section D and E.2, by status.

use bytes::Bytes;
use privicorefs::engine::{Fault, When};
use privicorefs::store::{
    ListFilter, Payload, Store, StoreErrorKind, StoreResult, Token, TokenRecord, list_all,
};

use crate::house::Connected;
use crate::house::conformance;
use crate::house::conformance::{content, fetch, mark, meta, put};

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
    let connected = Connected::new().await;
    let reserves = || connected.requests(&format!("POST {RESERVE}"));
    connected.fault(RESERVE, status(422), When::First(1));
    let first = put_marked(&*connected.client, 1, &content(1, 100)).await.unwrap();
    assert_eq!(reserves(), 2);
    let second = put_marked(&*connected.client, 2, &content(2, 100)).await.unwrap();
    assert_eq!(reserves(), 3);
    for token in [first, second] {
        let mark = record(&*connected.client, &token).await.mark;
        assert!(mark != Some(conformance::mark(1)) && mark != Some(conformance::mark(2)));
    }
    connected.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mark_that_was_taken_is_not_blamed_for_a_later_422() {
    let connected = Connected::new().await;
    put_marked(&*connected.client, 1, &content(1, 100)).await.unwrap();
    connected.fault(RESERVE, status(422), When::First(1));
    let error = put_marked(&*connected.client, 2, &content(1, 100)).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Invalid);
    let third = put_marked(&*connected.client, 3, &content(1, 100)).await.unwrap();
    assert_eq!(record(&*connected.client, &third).await.mark, Some(mark(3)));
    connected.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_long_reservation_falls_back() {
    let connected = Connected::new().await;
    put_marked(&*connected.client, 1, &content(1, 100)).await.unwrap();
    connected.fault(RESERVE, status(422), When::First(1));
    let big = content(3, 9 << 20);
    let token = put_marked(&*connected.client, 2, &big).await.unwrap();
    assert!(fetch(&*connected.client, &token).await == big);
    assert_eq!(record(&*connected.client, &token).await.mark, Some(mark(2)));
    let reserves = connected.requests(&format!("POST {RESERVE}"));
    put_marked(&*connected.client, 3, &big).await.unwrap();
    assert_eq!(connected.requests(&format!("POST {RESERVE}")), reserves + 1);
    connected.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_extension_that_is_refused_becomes_a_placeholder() {
    let connected = Connected::new().await;
    connected.fault(CONFIGURE, status(422), When::First(1));
    for n in 0..2 {
        let token = put_marked(&*connected.client, n, &content(1, 100)).await.unwrap();
        assert_eq!(record(&*connected.client, &token).await.extension.as_deref(), Some("bin"));
    }
    assert_eq!(connected.requests(&format!("POST {CONFIGURE}")), 3);
    connected.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inline_payload_that_is_refused_is_streamed() {
    for code in [413, 422] {
        let connected = Connected::new().await;
        connected.fault(EXCHANGE, status(code), When::Always);
        let bytes = content(1, 20_000);
        let token = put(&*connected.client, "learning", "x.bin", &bytes).await;
        assert_eq!(fetch(&*connected.client, &token).await, bytes);
        assert_eq!(connected.requests("POST /"), 1);
        connected.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn smaller_pages_are_asked_for_where_large_ones_are_refused() {
    let connected = Connected::new().await;
    for n in 0..60 {
        put_marked(&*connected.client, n, &content(n, 40)).await.unwrap();
    }
    connected.fault(LIST, status(422), When::First(1));
    let all = list_all(&*connected.client, &ListFilter::default()).await.unwrap();
    assert_eq!(all.len(), 60);
    assert_eq!(connected.requests(&format!("GET {LIST}")), 4, "a refusal and three pages of 25");
    connected.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_filters_are_applied_here() {
    let connected = Connected::new().await;
    let token = put(&*connected.client, "one", "a", &content(1, 40)).await;
    put(&*connected.client, "two", "a", &content(1, 40)).await;
    connected.fault(LIST, status(422), When::First(2));
    let filter = ListFilter { context: Some("one".into()), ..ListFilter::default() };
    let found = list_all(&*connected.client, &filter).await.unwrap();
    assert_eq!(found.into_iter().map(|record| record.token).collect::<Vec<_>>(), [token]);
    connected.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_update_call_is_remembered() {
    for code in [404, 405] {
        let connected = Connected::new().await;
        let token = put(&*connected.client, "learning", "x.bin", &content(1, 40)).await;
        let updates = || connected.requests(&format!("POST {UPDATE}"));
        connected.fault(UPDATE, status(code), When::First(1));
        for _ in 0..3 {
            let outcome = connected.client.update_meta(&token, &meta("a", "b", 1)).await;
            assert_eq!(outcome.unwrap_err().kind, StoreErrorKind::Unsupported, "{code}");
        }
        assert_eq!(updates(), 1);
        connected.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_yet_is_waited_for() {
    let connected = Connected::new().await;
    let large = content(2, 100_000);
    let temporary = "/data-token/retrieve-temporary-data-token/{id}";
    for (op, code) in [(temporary, 404), (CONFIGURE, 404), (CONFIGURE, 409), (CONFIGURE, 422)] {
        connected.fault(op, status(code), When::First(3));
        let token = put(&*connected.client, "learning", "late.bin", &large).await;
        assert!(fetch(&*connected.client, &token).await == large, "{op} {code}");
    }
    let token = put(&*connected.client, "learning", "down.bin", &large).await;
    for code in [404, 425, 503] {
        connected.fault("downstream", status(code), When::First(2));
        assert!(fetch(&*connected.client, &token).await == large, "downstream {code}");
    }
    connected.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_used_up_link_is_replaced_and_is_no_bad_login() {
    let connected = Connected::new().await;
    let logins = connected.requests("POST /profile/authenticate");
    let large = content(2, 100_000);
    let token = put(&*connected.client, "learning", "x.bin", &large).await;
    connected.fault("downstream", Fault::Unauthorized401, When::First(1));
    assert!(fetch(&*connected.client, &token).await == large);
    connected.fault("upstream", Fault::Unauthorized401, When::First(1));
    let error = put_marked(&*connected.client, 1, &large).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    // Patiently: the refusal may have cost a connection that is still in the pool.
    put_marked(&*connected.retrying(), 1, &large).await.unwrap();
    assert_eq!(connected.requests("POST /profile/authenticate"), logins);
    connected.end().await;
}
